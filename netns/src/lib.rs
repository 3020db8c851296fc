//! The namespaces around a sandboxed program.
//!
//! A network namespace with nothing but `lo` has no way out. A local default route makes every address that the
//! program dials an address of `lo`, and listeners that are bound there, and whose descriptors are handed out of the
//! namespace, serve the connections: nothing has to be blocked, because nothing is left to go through.
//!
//! The order of events: [`enter()`] in a fresh process, [`lo::bring_up`], [`Listeners::bind`],
//! [`handoff::Channel`] to hand them out, then [`supervise`] the program from process 1 of the PID namespace.

pub mod enter;
pub mod handoff;
pub mod listeners;
pub mod lo;
pub mod plan;
pub mod supervise;

pub use enter::{EnterError, enter};
pub use listeners::Listeners;
pub use plan::{Plan, PlanError};
