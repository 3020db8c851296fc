//! A private git server and its certificates: what `credgate demo` and the tests talk to.

pub mod git_server;
pub mod pki;
