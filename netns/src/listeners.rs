//! The sockets inside: bound there, served from outside.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};

use socket2::{Domain, Protocol, Socket, Type};
use thiserror::Error;

use crate::plan::Plan;

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 1024;

/// The sockets of one sandbox. All are non-blocking.
#[derive(Debug, Default)]
pub struct Listeners {
    /// For clients that know of the proxy.
    pub explicit: Vec<TcpListener>,
    /// For connections to any address on one port. `getsockname(2)` of an accepted socket is what was dialled.
    pub captured: Vec<TcpListener>,
    /// For queries in datagrams. IPv4 alone: the reply to a client leaves from the address that the client chose for
    /// itself, which under a local default route is the address it asked.
    pub dns_udp: Vec<UdpSocket>,
    /// For queries on streams.
    pub dns_tcp: Vec<TcpListener>,
}

/// A socket that could not be bound.
#[derive(Debug, Error)]
#[error("{address} cannot be listened on inside the sandbox: {error}")]
pub struct BindError {
    address: SocketAddr,
    error: io::Error,
}

impl Listeners {
    /// Binds what the plan says. To be called inside the namespace, with the capability to bind low ports.
    pub fn bind(plan: &Plan) -> Result<Self, BindError> {
        let explicit = plan
            .explicit
            .iter()
            .filter_map(|address| absent_family(listen(*address)))
            .collect::<Result<_, _>>()?;
        let captured =
            plan.captured_ports.iter().map(|port| listen_anywhere(*port)).collect::<Result<_, _>>()?;
        let (mut dns_udp, mut dns_tcp) = (Vec::new(), Vec::new());
        if let Some(port) = plan.dns_port() {
            dns_udp.push(receive(SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port))?);
            let loopback = SocketAddr::new(IpAddr::V6(Ipv6Addr::LOCALHOST), port);
            dns_udp.extend(absent_family(receive(loopback)).transpose()?);
            dns_tcp.push(listen_anywhere(port)?);
        }
        Ok(Self { explicit, captured, dns_udp, dns_tcp })
    }
}

/// Leaves a socket out whose address family the kernel does not have.
fn absent_family<T>(outcome: Result<T, BindError>) -> Option<Result<T, BindError>> {
    match outcome {
        Err(error) if error.address.is_ipv6() && is_family_missing(&error.error) => None,
        outcome => Some(outcome),
    }
}

fn is_family_missing(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::AddrNotAvailable
        || error.raw_os_error() == Some(rustix::io::Errno::AFNOSUPPORT.raw_os_error())
}

/// Both families on one socket; IPv4 alone where the kernel has no IPv6.
fn listen_anywhere(port: u16) -> Result<TcpListener, BindError> {
    let both = listen(SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), port));
    match absent_family(both) {
        Some(outcome) => outcome,
        None => listen(SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port)),
    }
}

fn listen(address: SocketAddr) -> Result<TcpListener, BindError> {
    let bind = || {
        let socket = socket(address, Type::STREAM, Protocol::TCP)?;
        socket.set_reuse_address(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        Ok(socket.into())
    };
    bind().map_err(|error| BindError { address, error })
}

fn receive(address: SocketAddr) -> Result<UdpSocket, BindError> {
    let bind = || {
        let socket = socket(address, Type::DGRAM, Protocol::UDP)?;
        socket.bind(&address.into())?;
        Ok(socket.into())
    };
    bind().map_err(|error| BindError { address, error })
}

fn socket(address: SocketAddr, kind: Type, protocol: Protocol) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), kind, Some(protocol))?;
    socket.set_nonblocking(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    Ok(socket)
}
