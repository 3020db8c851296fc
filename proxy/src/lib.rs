//! credgate: an egress proxy that runs programs without credentials and adds them on the way out.

pub mod config;
pub mod policy;
pub mod secret;
pub mod tls;
pub mod upstream;
