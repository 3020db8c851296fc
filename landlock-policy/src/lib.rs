//! What a sandboxed program may touch.
//!
//! Three layers, in the order in which they are put on by process 1 of new namespaces:
//! * a [`view`] of the filesystem: private `/tmp`, `/run`, `/dev/pts` and home, with the working directory kept;
//! * no [`privileges`]: empty capability sets, an empty bounding set, no new ones ever;
//! * a Landlock [`ruleset`] over that view, by the [`baseline`].
//!
//! [`Confinement::apply`] does all of it.

pub mod baseline;
mod confinement;
mod mounts;
pub mod privileges;
pub mod ruleset;
pub mod view;

pub use confinement::{
    Access, ConfineError, Confinement, Enforcement, Home, HomeMode, PlacedFile, Report, effective_home,
};
