//! The one interface: `lo` up, and a local default route that makes every address its own.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use futures_util::future::{Either, select};
use netlink_sys::SmolSocket;
use rtnetlink::packet_route::route::{RouteScope, RouteType};
use rtnetlink::{Handle, LinkUnspec, RouteMessageBuilder, new_connection_with_socket};
use thiserror::Error;

/// `lo` is the first interface of every network namespace.
const LOOPBACK_INDEX: u32 = 1;
/// The table of local routes (ip-route(8)): looked at before all others.
const TABLE_LOCAL: u32 = 255;

/// Why the interface is not as it should be.
#[derive(Debug, Error)]
pub enum LoError {
    /// No netlink socket.
    #[error("netlink: {0}")]
    Socket(#[from] io::Error),
    /// The interface did not come up.
    #[error("lo cannot be brought up: {0}")]
    Up(#[source] rtnetlink::Error),
    /// The route was refused.
    #[error("the local default route ({0}) cannot be added: {1}")]
    Route(&'static str, #[source] rtnetlink::Error),
    /// The kernel closed the socket.
    #[error("netlink ended before it answered")]
    Ended,
}

/// Brings `lo` up and routes everything to it. To be called inside the namespace.
pub fn bring_up() -> Result<(), LoError> {
    async_io::block_on(async {
        let (connection, handle, _messages) = new_connection_with_socket::<SmolSocket>()?;
        match select(Box::pin(configure(handle)), connection).await {
            Either::Left((outcome, _)) => outcome,
            Either::Right(((), _)) => Err(LoError::Ended),
        }
    })
}

async fn configure(handle: Handle) -> Result<(), LoError> {
    let up = LinkUnspec::new_with_index(LOOPBACK_INDEX).up().build();
    handle.link().set(up).execute().await.map_err(LoError::Up)?;
    route(&handle, IpAddr::V4(Ipv4Addr::UNSPECIFIED)).await.map_err(|error| LoError::Route("IPv4", error))?;
    // A kernel without IPv6 has nothing that could be dialled over it.
    if std::path::Path::new("/proc/net/if_inet6").exists() {
        route(&handle, IpAddr::V6(Ipv6Addr::UNSPECIFIED))
            .await
            .map_err(|error| LoError::Route("IPv6", error))?;
    }
    Ok(())
}

/// What `ip route add local default dev lo` does: type local, scope host, table local.
async fn route(handle: &Handle, default: IpAddr) -> Result<(), rtnetlink::Error> {
    let message = match default {
        IpAddr::V4(any) => RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(any, 0)
            .output_interface(LOOPBACK_INDEX)
            .table_id(TABLE_LOCAL)
            .scope(RouteScope::Host)
            .kind(RouteType::Local)
            .build(),
        IpAddr::V6(any) => RouteMessageBuilder::<Ipv6Addr>::new()
            .destination_prefix(any, 0)
            .output_interface(LOOPBACK_INDEX)
            .table_id(TABLE_LOCAL)
            .kind(RouteType::Local)
            .build(),
    };
    handle.route().add(message).execute().await
}
