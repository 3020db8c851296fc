//! The way out: one resolver, one dialler, TLS to the origin, and the connections of a session.
//!
//! [`resolve::Resolver`] alone makes a [`resolve::Vetted`], [`dial::dial`] alone takes one: what was checked is what is
//! dialled.

pub mod connections;
pub mod dial;
pub mod resolve;
pub mod secure;
