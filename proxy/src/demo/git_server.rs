//! A private git server: TLS, Basic auth, and the real `git http-backend` behind it as CGI (RFC 3875).

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{Bytes, BytesMut};
use futures_util::stream;
use http::header::{AUTHORIZATION, CONTENT_TYPE, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustls::ServerConfig;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio_rustls::TlsAcceptor;

/// Largest CGI head that is accepted from `git http-backend`.
const MAX_CGI_HEAD: usize = 16 * 1024;
/// Octets that are read from it at once.
const CHUNK: usize = 64 * 1024;

type Answer = Response<UnsyncBoxBody<Bytes, io::Error>>;

/// What the server saw of one request.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Method.
    pub method: String,
    /// Path and query.
    pub target: String,
    /// Every `Authorization` value, in order.
    pub authorization: Vec<String>,
    /// All fields.
    pub headers: HeaderMap,
    /// Octets of the body, as far as they came.
    pub body: u64,
    /// Status of the answer.
    pub status: u16,
}

/// Repositories behind a user name and a password.
pub struct GitServer {
    address: SocketAddr,
    root: PathBuf,
    shared: Arc<Shared>,
    accepting: tokio::task::JoinHandle<()>,
}

struct Shared {
    root: PathBuf,
    username: String,
    authorization: String,
    seen: Mutex<Vec<Seen>>,
}

impl Drop for GitServer {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl GitServer {
    /// Serves the bare repositories below `root` on a port of loopback. Within a tokio runtime.
    pub async fn start(
        root: &Path,
        tls: Arc<ServerConfig>,
        username: &str,
        password: &str,
    ) -> io::Result<Self> {
        let listener = TcpListener::bind((IpAddr::V4(Ipv4Addr::LOCALHOST), 0)).await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            root: root.to_owned(),
            username: username.to_owned(),
            authorization: format!("Basic {}", STANDARD.encode(format!("{username}:{password}"))),
            seen: Mutex::new(Vec::new()),
        });
        let accepting = tokio::spawn(accept(listener, TlsAcceptor::from(tls), shared.clone()));
        Ok(Self { address, root: root.to_owned(), shared, accepting })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The requests so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.shared.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Makes a bare repository with one commit, to which pushes are permitted.
    pub fn create(&self, name: &str) -> io::Result<PathBuf> {
        let path = self.root.join(name);
        let text = path.to_string_lossy().into_owned();
        git(&["init", "--quiet", "--bare", "--initial-branch=main", &text])?;
        git(&["-C", &text, "config", "http.receivepack", "true"])?;
        let tree = "4b825dc642cb6eb9a060e54bf8d69288fbee4904";
        git(&["-C", &text, "hash-object", "-t", "tree", "-w", "/dev/null"])?;
        let commit = git(&["-C", &text, "commit-tree", tree, "-m", "A private beginning"])?;
        git(&["-C", &text, "update-ref", "refs/heads/main", commit.trim()])?;
        Ok(path)
    }
}

/// Runs git apart from the user's configuration.
fn git(arguments: &[&str]) -> io::Result<String> {
    let mut command = std::process::Command::new("git");
    command.args(["-c", "user.name=Demo", "-c", "user.email=demo@example.test"]).args(arguments);
    command.env("GIT_CONFIG_NOSYSTEM", "1").env("GIT_CONFIG_GLOBAL", "/dev/null");
    let output = command.stdin(Stdio::null()).output()?;
    if !output.status.success() {
        let words = String::from_utf8_lossy(&output.stderr);
        return Err(io::Error::other(format!("git {}: {}", arguments.join(" "), words.trim())));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

async fn accept(listener: TcpListener, tls: TlsAcceptor, shared: Arc<Shared>) {
    while let Ok((stream, _)) = listener.accept().await {
        let _ = stream.set_nodelay(true);
        tokio::spawn(serve(stream, tls.clone(), shared.clone()));
    }
}

async fn serve(stream: TcpStream, tls: TlsAcceptor, shared: Arc<Shared>) {
    let Ok(stream) = tls.accept(stream).await else { return };
    let service = service_fn(|request| {
        let shared = shared.clone();
        async move { Ok::<_, Infallible>(answer(request, &shared).await) }
    });
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

async fn answer(request: Request<Incoming>, shared: &Arc<Shared>) -> Answer {
    let number = {
        let mut seen = shared.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let values = request.headers().get_all(AUTHORIZATION).iter();
        seen.push(Seen {
            method: request.method().to_string(),
            target: request.uri().to_string(),
            authorization: values
                .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
                .collect(),
            headers: request.headers().clone(),
            body: 0,
            status: 0,
        });
        seen.len() - 1
    };
    let values: Vec<_> = request.headers().get_all(AUTHORIZATION).iter().collect();
    let permitted = matches!(values[..], [value] if value == shared.authorization.as_str());
    let answer = if permitted {
        backend(request, shared, number).await.unwrap_or_else(|error| {
            text(StatusCode::INTERNAL_SERVER_ERROR, &format!("git http-backend: {error}\n"))
        })
    } else {
        let mut refusal = text(StatusCode::UNAUTHORIZED, "a user name and a password, please\n");
        refusal.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"private\""));
        refusal
    };
    let mut seen = shared.seen.lock().unwrap_or_else(PoisonError::into_inner);
    seen[number].status = answer.status().as_u16();
    answer
}

fn text(status: StatusCode, words: &str) -> Answer {
    let body = Full::new(Bytes::from(words.to_owned())).map_err(|never: Infallible| match never {});
    let mut response = Response::new(body.boxed_unsync());
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    response
}

/// Runs the CGI program with the request's body on its stdin, and streams what it answers.
async fn backend(request: Request<Incoming>, shared: &Arc<Shared>, number: usize) -> io::Result<Answer> {
    let (parts, body) = request.into_parts();
    let mut child = cgi(&parts, shared).spawn()?;
    let (Some(stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
        return Err(io::Error::other("it has no pipes"));
    };
    let octets = Arc::new(AtomicU64::new(0));
    let (counted, account) = (octets.clone(), shared.clone());
    tokio::spawn(async move {
        let _ = feed(body, stdin, &counted).await;
        let mut seen = account.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen[number].body = counted.load(Ordering::Relaxed);
    });
    respond(stdout, child).await
}

fn cgi(request: &http::request::Parts, shared: &Shared) -> Command {
    let mut command = Command::new("git");
    command.arg("http-backend").env_clear().kill_on_drop(true);
    for name in ["PATH", "LD_LIBRARY_PATH"] {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    command
        .env("GIT_PROJECT_ROOT", &shared.root)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        // The repositories may belong to another user than the server's (git-config(1), safe.directory).
        .env("GIT_CONFIG_COUNT", "1")
        .env("GIT_CONFIG_KEY_0", "safe.directory")
        .env("GIT_CONFIG_VALUE_0", "*")
        .env("REMOTE_USER", &shared.username)
        .env("REMOTE_ADDR", "127.0.0.1")
        .env("REQUEST_METHOD", request.method.as_str())
        .env("PATH_INFO", request.uri.path())
        .env("QUERY_STRING", request.uri.query().unwrap_or_default());
    let fields = [
        ("content-type", "CONTENT_TYPE"),
        ("content-length", "CONTENT_LENGTH"),
        ("content-encoding", "HTTP_CONTENT_ENCODING"),
        ("git-protocol", "GIT_PROTOCOL"),
    ];
    for (field, variable) in fields {
        if let Some(value) = request.headers.get(field).and_then(|value| value.to_str().ok()) {
            command.env(variable, value);
        }
    }
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    command
}

async fn feed(mut body: Incoming, mut stdin: ChildStdin, octets: &AtomicU64) -> io::Result<()> {
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(io::Error::other)?;
        if let Ok(data) = frame.into_data() {
            octets.fetch_add(data.len() as u64, Ordering::Relaxed);
            stdin.write_all(&data).await?;
        }
    }
    stdin.shutdown().await
}

/// Reads the CGI head (RFC 3875 §6) and passes the rest on as it comes.
async fn respond(mut stdout: ChildStdout, child: Child) -> io::Result<Answer> {
    let mut read = BytesMut::with_capacity(CHUNK);
    let end = loop {
        if let Some(position) = read.windows(4).position(|window| window == b"\r\n\r\n") {
            break position;
        }
        if read.len() > MAX_CGI_HEAD || stdout.read_buf(&mut read).await? == 0 {
            return Err(io::Error::other("its answer has no head"));
        }
    };
    let head = read.split_to(end + 4);
    let head = std::str::from_utf8(&head).map_err(io::Error::other)?;
    let mut response = Response::builder();
    for line in head.lines() {
        match line.split_once(':') {
            Some((name, value)) if name.eq_ignore_ascii_case("status") => {
                let code = value.split_whitespace().next().and_then(|code| code.parse::<u16>().ok());
                response = response.status(code.unwrap_or(500));
            }
            Some((name, value)) => {
                let name = HeaderName::try_from(name).map_err(io::Error::other)?;
                response = response.header(name, value.trim());
            }
            None => {}
        }
    }
    let rest = stream::try_unfold((read.freeze(), stdout, child), |(early, mut stdout, child)| async move {
        if !early.is_empty() {
            return Ok(Some((Frame::data(early), (Bytes::new(), stdout, child))));
        }
        let mut chunk = BytesMut::with_capacity(CHUNK);
        if stdout.read_buf(&mut chunk).await? == 0 {
            return Ok(None);
        }
        Ok(Some((Frame::data(chunk.freeze()), (Bytes::new(), stdout, child))))
    });
    response.body(StreamBody::new(rest).boxed_unsync()).map_err(io::Error::other)
}
