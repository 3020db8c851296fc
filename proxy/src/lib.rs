//! credgate: an egress proxy that runs programs without credentials and adds them on the way out.

pub mod account;
pub mod app;
pub mod audit;
pub mod cli;
pub mod command;
pub mod config;
pub mod demo;
pub mod environment;
pub mod hardening;
pub mod http;
pub mod inbound;
pub mod policy;
pub mod reload;
pub mod secret;
pub mod serve;
pub mod session;
pub mod tls;
pub mod tunnel;
pub mod upstream;
pub mod watch;
