//! The policy: pure data and pure functions that decide what may leave.
//!
//! Nothing here reads a clock, a file or a socket. A [`Destination`] is made once, at the door; [`Policy::decide`]
//! says what becomes of the connection; [`HostRule::check`] says what becomes of each request on it.

mod address;
mod credential;
mod host;
mod lookup;
mod path;
mod refusal;
mod rule;

pub use address::{AddressPolicy, special_purpose};
pub use credential::{CredentialId, CredentialRef, Mode};
pub use host::{Destination, Host, HostError, HostPattern};
pub use lookup::{Decision, DefaultAction, Policy, PolicyBuilder};
pub use path::{PathError, PathPattern, PathPatternError, normal_path};
pub use refusal::{MalformedRequest, Refusal, UpstreamFailure};
pub use rule::{Action, HostRule, Injection, RequestFacts, Route, RuleOrigin, Verdict};
