//! What the policy knows of a credential: its name and when it applies, never its value.

use std::sync::Arc;

/// Index of a credential in its generation's list of loaded secrets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CredentialId(pub usize);

/// When a credential is put into a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Whatever the client sent in the field is replaced.
    Always,
    /// Only where the client sent no such field.
    IfAbsent,
}

/// A credential as rules name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CredentialRef {
    /// Where the loaded secret stands.
    pub id: CredentialId,
    /// The name in `[credentials.NAME]`: what audit lines and `explain` show.
    pub name: Arc<str>,
    /// When it applies.
    pub mode: Mode,
}
