//! Arrivals: whatever comes in becomes a destination, a decision, and one of four outcomes.

pub mod accept;
pub mod captured;
pub mod dispatch;
pub mod dns;
pub mod explicit;
pub mod rewind;
pub mod sniff;
pub mod synthetic;
