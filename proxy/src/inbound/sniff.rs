//! What a client speaks, told from its first bytes, and the TLS server name that it asks for.

use bytes::{Bytes, BytesMut};
use rustls::server::Acceptor;
use tokio::io::{AsyncRead, AsyncReadExt};

/// Most octets that are looked at: a ClientHello with post-quantum key shares takes about 2 KiB, and RFC 8446 §4
/// would permit 16 MiB that nobody sends.
const MAX_SNIFFED: usize = 32 * 1024;
/// Content type of a TLS handshake record (RFC 8446 §5.1).
const HANDSHAKE: u8 = 22;
/// Longest method that is taken for HTTP; the longest registered one has 17 letters.
const MAX_METHOD: usize = 20;

/// What the first bytes say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Spoken {
    /// TLS, asking for this name or for none.
    Tls(Option<String>),
    /// A request line.
    Http,
    /// Something else, or nothing before the end.
    Other,
}

/// What [`look`] needs to go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Look {
    /// It is this.
    Known(Spoken),
    /// Too little to tell.
    More,
}

/// Looks at the bytes that have come so far.
pub fn look(bytes: &[u8]) -> Look {
    match bytes.first() {
        None => Look::More,
        Some(&HANDSHAKE) => look_tls(bytes),
        Some(_) => look_http(bytes),
    }
}

fn look_tls(bytes: &[u8]) -> Look {
    let mut acceptor = Acceptor::default();
    let mut rest = bytes;
    while !rest.is_empty() {
        if acceptor.read_tls(&mut rest).is_err() {
            return Look::Known(Spoken::Other);
        }
        match acceptor.accept() {
            Ok(Some(accepted)) => {
                let name = accepted.client_hello().server_name().map(str::to_owned);
                return Look::Known(Spoken::Tls(name));
            }
            Ok(None) => {}
            Err(_) => return Look::Known(Spoken::Other),
        }
    }
    if bytes.len() >= MAX_SNIFFED { Look::Known(Spoken::Other) } else { Look::More }
}

/// A method and a space (RFC 9112 §3); methods are upper case in practice, which tells them from other protocols.
fn look_http(bytes: &[u8]) -> Look {
    let letters = bytes.iter().take_while(|b| b.is_ascii_uppercase() || **b == b'-').count();
    match bytes.get(letters) {
        Some(b' ') if (3..=MAX_METHOD).contains(&letters) => Look::Known(Spoken::Http),
        None if letters <= MAX_METHOD => Look::More,
        Some(_) | None => Look::Known(Spoken::Other),
    }
}

/// Reads until it is known what the client speaks. Returns what was read: it is still to be served.
pub async fn sniff<IO: AsyncRead + Unpin>(stream: &mut IO, early: Bytes) -> std::io::Result<(Spoken, Bytes)> {
    let mut read = BytesMut::from(early);
    loop {
        if let Look::Known(spoken) = look(&read) {
            return Ok((spoken, read.freeze()));
        }
        if stream.read_buf(&mut read).await? == 0 {
            return Ok((Spoken::Other, read.freeze()));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rustls::{ClientConfig, ClientConnection, RootCertStore};
    use rustls_pki_types::ServerName;

    use super::*;

    fn client_hello(name: &str) -> Vec<u8> {
        let config = ClientConfig::builder_with_provider(crate::tls::authority::provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(RootCertStore::empty())
            .with_no_client_auth();
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let mut connection = ClientConnection::new(Arc::new(config), name).unwrap();
        let mut bytes = Vec::new();
        connection.write_tls(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn a_client_hello_is_understood_wherever_it_is_split() {
        for (name, expected) in
            [("git.example.test", Some("git.example.test".to_owned())), ("192.0.2.1", None)]
        {
            let hello = client_hello(name);
            for length in 0..hello.len() {
                assert_eq!(look(&hello[..length]), Look::More, "{name}: {length} octets");
            }
            assert_eq!(look(&hello), Look::Known(Spoken::Tls(expected)));
        }
    }

    #[test]
    fn other_protocols_are_told_apart() {
        for (bytes, expected) in [
            (&b""[..], Look::More),
            (b"GE", Look::More),
            (b"GET / HTTP/1.1\r\n", Look::Known(Spoken::Http)),
            (b"VERSION-CONTROL /", Look::Known(Spoken::Http)),
            (b"SSH-2.0-OpenSSH\r\n", Look::Known(Spoken::Other)),
            (b"get / HTTP/1.1", Look::Known(Spoken::Other)),
            (b"EHLO\r\n", Look::Known(Spoken::Other)),
            (b"\x16\x03\x01\xff\xff\xff", Look::Known(Spoken::Other)),
            (b"\x16SSH", Look::Known(Spoken::Other)),
            (b"\0", Look::Known(Spoken::Other)),
        ] {
            assert_eq!(look(bytes), expected, "{:?}", String::from_utf8_lossy(bytes));
        }
    }
}
