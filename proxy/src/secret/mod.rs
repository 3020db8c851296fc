//! Secrets: values that are wiped when dropped and never printed, and the places they come from.

mod credential;
mod source;
mod stamp;

use std::ffi::OsString;
use std::fmt;

use zeroize::Zeroizing;

pub use credential::{CredentialKind, CredentialSpec, LoadedCredential};
pub use source::{SecretError, SecretSource};
pub use stamp::FileStamp;

/// Answers with environment variables: the process's own, or a test's.
pub type Environment<'e> = dyn Fn(&str) -> Option<OsString> + 'e;

/// The process's own environment.
pub fn process_environment(name: &str) -> Option<OsString> {
    std::env::var_os(name)
}

/// Octets that are wiped when dropped. Has neither `Display`, `Clone` nor `Serialize`, and prints nothing in `Debug`.
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// Takes octets over.
    pub fn new(octets: Vec<u8>) -> Self {
        Self(Zeroizing::new(octets))
    }

    /// The octets. Whoever asks writes them into a header and nowhere else.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}
