//! credgate: an egress proxy that runs programs without credentials and adds them on the way out.

pub mod policy;
