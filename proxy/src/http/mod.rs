//! HTTP: the target of a request, what is removed, one exchange with the origin, and refusals.

pub mod body;
pub mod exchange;
pub mod head_timer;
pub mod hop_by_hop;
pub mod refuse;
pub mod server;
pub mod target;
