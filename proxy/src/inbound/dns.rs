//! The stub resolver inside the sandbox: permitted names get synthetic addresses, no query ever leaves.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::opt::EdnsOption;
use hickory_proto::rr::rdata::{A, AAAA, HINFO, PTR};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

use super::synthetic::SyntheticNames;

/// Whether the policy of the moment permits some port of a name.
pub type Permits = Arc<dyn Fn(&str) -> bool + Send + Sync>;

/// Seconds that an answer may be kept: short, so that a reload shows; the addresses themselves never change.
const TTL: u32 = 30;
/// Largest answer over UDP without EDNS (RFC 1035 §4.2.1).
const PLAIN_UDP: usize = 512;
/// What we offer to receive and the most we send with EDNS (RFC 9715 §3.2: 1400 octets avoids fragments).
const EDNS_UDP: u16 = 1400;
/// Option code of Extended DNS Errors, and "Blocked" (RFC 8914 §2, §4.16).
const EXTENDED_ERROR: u16 = 15;
const BLOCKED: u16 = 15;
/// TCP connections served at once; stub resolvers use one for one query.
const TCP_CONNECTIONS: usize = 64;
/// How long a TCP connection may be without a query (RFC 7766 §6.2.3: a few seconds).
const TCP_IDLE: Duration = Duration::from_secs(10);
/// Pause after an error of the socket that another try would meet at once.
const PAUSE: Duration = Duration::from_millis(100);

/// How a query came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// In a datagram: the answer has a size limit.
    Udp,
    /// On a stream.
    Tcp,
}

/// Answers one query, or nothing to what is none.
pub fn answer(
    query: &[u8],
    transport: Transport,
    permits: &dyn Fn(&str) -> bool,
    names: &SyntheticNames,
) -> Option<Vec<u8>> {
    let query = match Message::from_vec(query) {
        Ok(query) => query,
        Err(_) => return malformed(query),
    };
    if query.metadata.message_type != MessageType::Query {
        return None;
    }
    let mut response = Message::response(query.metadata.id, query.metadata.op_code);
    response.metadata.recursion_desired = query.metadata.recursion_desired;
    response.metadata.recursion_available = true;
    let mut limit = PLAIN_UDP;
    if let Some(asked) = &query.edns {
        let mut edns = Edns::new();
        edns.set_max_payload(EDNS_UDP);
        limit = usize::from(asked.max_payload().clamp(512, EDNS_UDP));
        response.set_edns(edns);
    }
    response.add_queries(query.queries.iter().cloned());
    let code = match &query.queries[..] {
        _ if query.metadata.op_code != OpCode::Query => ResponseCode::NotImp,
        [question] if question.query_class() != DNSClass::IN => ResponseCode::Refused,
        [question] => resolve(question, permits, names, &mut response),
        _ => ResponseCode::FormErr,
    };
    response.metadata.response_code = code;
    let octets = response.to_vec().ok()?;
    if transport == Transport::Udp && octets.len() > limit {
        return response.truncate().to_vec().ok();
    }
    Some(octets)
}

/// FORMERR to whoever sent a header that can be read (RFC 1035 §4.1.1).
fn malformed(query: &[u8]) -> Option<Vec<u8>> {
    let [high, low, flags, ..] = *query else { return None };
    if query.len() < 12 || flags & 0x80 != 0 {
        return None;
    }
    let id = u16::from_be_bytes([high, low]);
    Message::error_msg(id, OpCode::Query, ResponseCode::FormErr).to_vec().ok()
}

fn resolve(
    question: &Query,
    permits: &dyn Fn(&str) -> bool,
    names: &SyntheticNames,
    response: &mut Message,
) -> ResponseCode {
    let asked = question.name();
    let name = asked.to_ascii().to_ascii_lowercase();
    let name = name.strip_suffix('.').unwrap_or(&name);
    if question.query_type() == RecordType::PTR {
        return reverse(asked, names, response);
    }
    let is_localhost = name == "localhost" || name.ends_with(".localhost");
    if !is_localhost && !permits(name) {
        block(response);
        return ResponseCode::NXDomain;
    }
    let record = |data| Record::from_rdata(asked.clone(), TTL, data);
    let wanted = question.query_type();
    match wanted {
        RecordType::A | RecordType::AAAA => {
            let (v4, v6) = if is_localhost {
                // RFC 6761 §6.3.
                (std::net::Ipv4Addr::LOCALHOST, std::net::Ipv6Addr::LOCALHOST)
            } else {
                let Some(addresses) = names.addresses_of(name) else { return ResponseCode::ServFail };
                (addresses.v4, addresses.v6)
            };
            let data = if wanted == RecordType::A { RData::A(A(v4)) } else { RData::AAAA(AAAA(v6)) };
            response.add_answer(record(data));
        }
        // RFC 8482 §4.2: one record that says nothing.
        RecordType::ANY => {
            response.add_answer(record(RData::HINFO(HINFO::new("RFC8482".into(), String::new()))));
        }
        // The name exists, this type of it does not. Service bindings above all: their address hints would lead
        // past the stub, and their ECH keys would hide the name from the proxy.
        _ => {}
    }
    ResponseCode::NoError
}

fn reverse(asked: &Name, names: &SyntheticNames, response: &mut Message) -> ResponseCode {
    let address: Option<IpAddr> = asked.parse_arpa_name().ok().map(|net| net.addr());
    let name = address.and_then(|address| names.name_of(address));
    match name.and_then(|name| Name::from_ascii(format!("{name}.")).ok()) {
        Some(name) => {
            response.add_answer(Record::from_rdata(asked.clone(), TTL, RData::PTR(PTR(name))));
            ResponseCode::NoError
        }
        None => ResponseCode::NXDomain,
    }
}

/// Says that it is a policy, to clients that speak EDNS.
fn block(response: &mut Message) {
    if let Some(edns) = &mut response.edns {
        edns.options_mut().insert(EdnsOption::Unknown(EXTENDED_ERROR, BLOCKED.to_be_bytes().to_vec()));
    }
}

/// Answers datagrams for as long as the sandbox lives.
///
/// The socket is bound to the wildcard address in a namespace where every address is local. A reply to a client whose
/// own address is the one that it asked leaves from that address, as the client expects.
pub async fn serve_udp(socket: UdpSocket, permits: Permits, names: Arc<SyntheticNames>) {
    let mut buffer = vec![0; usize::from(u16::MAX)];
    loop {
        match socket.recv_from(&mut buffer).await {
            Ok((length, client)) => {
                if let Some(response) = answer(&buffer[..length], Transport::Udp, &*permits, &names) {
                    let _ = socket.send_to(&response, client).await;
                }
            }
            // ICMP errors of clients that did not wait come back as errors of this socket.
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => {}
            Err(error) => {
                tracing::warn!(%error, "the stub resolver cannot receive");
                sleep(PAUSE).await;
            }
        }
    }
}

/// Answers over TCP (RFC 7766).
pub async fn serve_tcp(listener: TcpListener, permits: Permits, names: Arc<SyntheticNames>) {
    let places = Arc::new(Semaphore::new(TCP_CONNECTIONS));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let (permits, names) = (permits.clone(), names.clone());
                tokio::spawn(async move {
                    if let Err(error) = serve_stream(stream, &permits, &names).await {
                        tracing::debug!(%error, "a DNS connection ended");
                    }
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "the stub resolver cannot accept");
                sleep(PAUSE).await;
            }
        }
    }
}

async fn serve_stream(
    mut stream: TcpStream,
    permits: &Permits,
    names: &SyntheticNames,
) -> std::io::Result<()> {
    loop {
        let length = timeout(TCP_IDLE, stream.read_u16()).await??;
        let mut query = vec![0; usize::from(length)];
        timeout(TCP_IDLE, stream.read_exact(&mut query)).await??;
        let Some(response) = answer(&query, Transport::Tcp, &**permits, names) else { return Ok(()) };
        let length = u16::try_from(response.len()).unwrap_or(u16::MAX);
        let mut framed = length.to_be_bytes().to_vec();
        framed.extend_from_slice(&response[..usize::from(length)]);
        timeout(TCP_IDLE, stream.write_all(&framed)).await??;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(name: &str, kind: RecordType, edns: bool) -> (Message, SyntheticNames) {
        let mut query = Message::query();
        query.metadata.id = 4711;
        query.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
        if edns {
            query.set_edns(Edns::new());
        }
        let names = SyntheticNames::new();
        names.addresses_of("first.test").unwrap();
        let permits = |name: &str| name.ends_with("first.test");
        let octets = answer(&query.to_vec().unwrap(), Transport::Udp, &permits, &names).unwrap();
        (Message::from_vec(&octets).unwrap(), names)
    }

    /// Response code and the data of the answers.
    fn words(response: &Message) -> String {
        let answers: Vec<String> = response.answers.iter().map(|record| record.data.to_string()).collect();
        format!("{:?} {}", response.metadata.response_code, answers.join(" ")).trim().to_owned()
    }

    #[test]
    fn permitted_names_get_synthetic_addresses() {
        for (name, kind, expected) in [
            ("first.test.", RecordType::A, "NoError 198.18.0.1"),
            ("FIRST.Test.", RecordType::A, "NoError 198.18.0.1"),
            ("first.test.", RecordType::AAAA, "NoError fdc4:ed6a:7e00::1"),
            ("other.first.test.", RecordType::A, "NoError 198.18.0.2"),
            ("first.test.", RecordType::HTTPS, "NoError"),
            ("first.test.", RecordType::TXT, "NoError"),
            ("evil.test.", RecordType::A, "NXDomain"),
            ("evil.test.", RecordType::TXT, "NXDomain"),
            ("localhost.", RecordType::A, "NoError 127.0.0.1"),
            ("x.localhost.", RecordType::AAAA, "NoError ::1"),
            ("1.0.18.198.in-addr.arpa.", RecordType::PTR, "NoError first.test."),
            ("9.0.18.198.in-addr.arpa.", RecordType::PTR, "NXDomain"),
            ("8.8.8.8.in-addr.arpa.", RecordType::PTR, "NXDomain"),
        ] {
            let (response, _) = ask(name, kind, false);
            assert_eq!(words(&response), expected, "{name} {kind}");
            assert_eq!(response.metadata.id, 4711);
            assert_eq!(
                response.queries[0].name().to_ascii(),
                name,
                "the question comes back as it was asked"
            );
        }
    }

    #[test]
    fn a_refused_name_says_so_in_an_extended_error() {
        let (response, _) = ask("evil.test.", RecordType::A, true);
        let option = response.edns.unwrap().option(EXTENDED_ERROR.into()).cloned();
        assert_eq!(option, Some(EdnsOption::Unknown(EXTENDED_ERROR, vec![0, 15])));
    }

    #[test]
    fn what_is_not_one_question_is_refused() {
        let names = SyntheticNames::new();
        let respond = |query: &[u8]| answer(query, Transport::Tcp, &|_| true, &names);
        let code = |query: &Message| {
            let octets = respond(&query.to_vec().unwrap()).unwrap();
            Message::from_vec(&octets).unwrap().metadata.response_code
        };
        let question = Query::query(Name::from_ascii("a.test.").unwrap(), RecordType::A);
        let mut query = Message::query();
        assert_eq!(code(&query), ResponseCode::FormErr);
        query.add_query(question.clone());
        query.add_query(question.clone());
        assert_eq!(code(&query), ResponseCode::FormErr);
        let mut query = Message::new(1, MessageType::Query, OpCode::Update);
        query.add_query(question.clone());
        assert_eq!(code(&query), ResponseCode::NotImp);
        let mut query = Message::query();
        let mut chaos = question;
        chaos.set_query_class(DNSClass::CH);
        query.add_query(chaos);
        assert_eq!(code(&query), ResponseCode::Refused);
        let mut response = query.to_vec().unwrap();
        response[2] |= 0x80;
        assert_eq!(respond(&response), None, "a response is not answered");
        assert_eq!(respond(b"short"), None);
        let garbage = [&[0x12, 0x34, 1, 0, 0, 1][..], &[0xff; 20]].concat();
        let answered = Message::from_vec(&respond(&garbage).unwrap()).unwrap();
        assert_eq!(answered.metadata.id, 0x1234);
        assert_eq!(answered.metadata.response_code, ResponseCode::FormErr);
    }

    proptest::proptest! {
        #[test]
        fn no_octets_make_it_panic(octets in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            let names = SyntheticNames::new();
            answer(&octets, Transport::Udp, &|_| true, &names);
        }
    }
}
