//! Configuration.

pub mod settings;
