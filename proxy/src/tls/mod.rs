//! TLS: the interception CA, its leaves, the handshake with the client, and what is trusted upstream.

pub mod authority;
pub mod intercept;
pub mod leaf_cache;
pub mod trust;
