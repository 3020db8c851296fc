//! The proxy in operation: listeners in, connections served, a graceful end.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::watch;
use tokio::time::timeout;

use crate::app::App;
use crate::inbound::accept::{Door, Full};
use crate::inbound::dns::{self, Permits};
use crate::inbound::synthetic::SyntheticNames;
use crate::inbound::{captured, explicit};
use crate::policy::Host;

/// What the proxy listens on.
#[derive(Debug, Default)]
pub struct Listeners {
    /// For clients that know of the proxy.
    pub explicit: Vec<TcpListener>,
    /// For connections that were captured.
    pub captured: Vec<TcpListener>,
    /// For queries over UDP.
    pub dns_udp: Vec<UdpSocket>,
    /// For queries over TCP.
    pub dns_tcp: Vec<TcpListener>,
}

/// A proxy that serves.
pub struct Server {
    door: Door,
    drain: watch::Sender<bool>,
}

impl Server {
    /// Begins to serve. Within a tokio runtime.
    pub fn start(app: &Arc<App>, listeners: Listeners) -> Self {
        let (drain, draining) = watch::channel(false);
        let door = Door::new(app.clone(), draining);
        for listener in listeners.explicit {
            tokio::spawn(door.clone().accept(listener, Full::Answer, explicit::serve));
        }
        let names = Arc::new(SyntheticNames::new());
        for listener in listeners.captured {
            let names = names.clone();
            let serve = move |session, client| {
                let names = names.clone();
                async move { captured::serve(session, client, &names).await }
            };
            tokio::spawn(door.clone().accept(listener, Full::Close, serve));
        }
        let permits = permits(app);
        for socket in listeners.dns_udp {
            tokio::spawn(dns::serve_udp(socket, permits.clone(), names.clone()));
        }
        for listener in listeners.dns_tcp {
            tokio::spawn(dns::serve_tcp(listener, permits.clone(), names.clone()));
        }
        Self { door, drain }
    }

    /// Stops accepting, lets what is being served finish, and returns when all of it has or `limit` is over.
    /// Returns whether everything finished.
    pub async fn drain(self, limit: Duration) -> bool {
        let _ = self.drain.send(true);
        timeout(limit, self.door.empty()).await.is_ok()
    }
}

/// Names that the stub resolver answers: those that the policy of the moment permits on some port.
fn permits(app: &Arc<App>) -> Permits {
    let app = app.clone();
    Arc::new(move |name: &str| {
        Host::parse(name).is_ok_and(|host| app.generation().policy.permits_host(&host))
    })
}
