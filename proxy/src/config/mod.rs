//! Configuration: one TOML file, compiled to settings and a policy, or refused with every error at its place.

mod compile;
mod credentials;
mod diagnostic;
mod hosts;
mod load;
mod raw;
pub mod settings;
mod values;

pub use compile::Compiled;
pub use load::{LoadError, Request};
