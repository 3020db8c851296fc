//! From a credential's configuration to the header field that leaves.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::AUTHORIZATION;
use http::{HeaderName, HeaderValue};
use zeroize::Zeroizing;

use super::source::{SecretError, SecretSource};
use super::stamp::FileStamp;
use super::{Environment, Secret};

/// A credential as configured.
#[derive(Clone, Debug)]
pub struct CredentialSpec {
    /// The name in `[credentials.NAME]`.
    pub name: Arc<str>,
    /// How it goes into a request.
    pub kind: CredentialKind,
}

/// How a credential goes into a request.
#[derive(Clone, Debug)]
pub enum CredentialKind {
    /// `Authorization: Basic base64(username:password)` (RFC 7617).
    Basic {
        /// User name, without a colon.
        username: String,
        /// Where the password comes from.
        password: SecretSource,
    },
    /// `Authorization: Bearer token` (RFC 6750 §2.1).
    Bearer {
        /// Where the token comes from.
        token: SecretSource,
    },
    /// Any field.
    Header {
        /// Its name.
        field: HeaderName,
        /// Where the secret comes from.
        value: SecretSource,
        /// What stands before the secret, and behind it.
        around: (String, String),
    },
}

/// A header field that holds a secret.
pub struct LoadedCredential {
    /// The name in `[credentials.NAME]`.
    pub name: Arc<str>,
    /// The field.
    pub field: HeaderName,
    /// Its value; marked sensitive, wiped when dropped.
    pub value: HeaderValue,
    stamp: Option<(PathBuf, FileStamp)>,
}

impl CredentialSpec {
    /// Reads the secret and builds the field.
    pub fn load(&self, environment: &Environment<'_>) -> Result<LoadedCredential, SecretError> {
        // Before the file is read: what changes in between is noticed later, not missed.
        let stamp = match self.source() {
            SecretSource::File(path) => FileStamp::of(path).ok().map(|stamp| (path.clone(), stamp)),
            SecretSource::Env(_) => None,
        };
        let secret = self.source().load(environment)?;
        let (field, value) = match &self.kind {
            CredentialKind::Basic { username, .. } => (AUTHORIZATION, basic(username, &secret)),
            CredentialKind::Bearer { .. } => (AUTHORIZATION, concatenate(&[b"Bearer ", secret.expose()])),
            CredentialKind::Header { field, around: (before, behind), .. } => {
                (field.clone(), concatenate(&[before.as_bytes(), secret.expose(), behind.as_bytes()]))
            }
        };
        let mut value = HeaderValue::from_maybe_shared(Bytes::from_owner(value))
            .map_err(|_| SecretError::NotAFieldValue(self.source().name()))?;
        value.set_sensitive(true);
        Ok(LoadedCredential { name: self.name.clone(), field, value, stamp })
    }

    /// Where its secret comes from.
    pub fn source(&self) -> &SecretSource {
        match &self.kind {
            CredentialKind::Basic { password: source, .. }
            | CredentialKind::Bearer { token: source }
            | CredentialKind::Header { value: source, .. } => source,
        }
    }

    /// The variable that the program must not inherit.
    pub fn env_variable(&self) -> Option<&str> {
        match self.source() {
            SecretSource::Env(name) => Some(name),
            SecretSource::File(_) => None,
        }
    }
}

impl LoadedCredential {
    /// Whether the file that it was read from is another by now.
    pub fn is_stale(&self) -> bool {
        self.stamp.as_ref().is_some_and(|(path, stamp)| FileStamp::of(path).ok() != Some(*stamp))
    }
}

impl fmt::Debug for LoadedCredential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoadedCredential").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Joins without growing, so that no copy is left behind.
fn concatenate(parts: &[&[u8]]) -> Zeroizing<Vec<u8>> {
    let mut joined = Zeroizing::new(Vec::with_capacity(parts.iter().map(|part| part.len()).sum()));
    for part in parts {
        joined.extend_from_slice(part);
    }
    joined
}

fn basic(username: &str, password: &Secret) -> Zeroizing<Vec<u8>> {
    let plain = concatenate(&[username.as_bytes(), b":", password.expose()]);
    let encoded = Zeroizing::new(STANDARD.encode(&*plain));
    concatenate(&[b"Basic ", encoded.as_bytes()])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source() -> SecretSource {
        SecretSource::Env("S".into())
    }

    #[test]
    fn fields_are_built_as_their_standards_say() {
        let header = |before: &str, behind: &str| CredentialKind::Header {
            field: HeaderName::from_static("x-api-key"),
            value: source(),
            around: (before.into(), behind.into()),
        };
        for (kind, field, value) in [
            (
                CredentialKind::Basic { username: "Aladdin".into(), password: source() },
                "authorization",
                "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==",
            ),
            (CredentialKind::Bearer { token: source() }, "authorization", "Bearer open sesame"),
            (header("", ""), "x-api-key", "open sesame"),
            (header("Key ", "!"), "x-api-key", "Key open sesame!"),
        ] {
            let spec = CredentialSpec { name: "c".into(), kind };
            let loaded = spec.load(&|_| Some("open sesame".into())).unwrap();
            assert_eq!(loaded.field, field);
            assert_eq!(loaded.value, value);
            assert!(loaded.value.is_sensitive());
            assert!(!format!("{loaded:?} {:?}", loaded.value).contains("sesame"));
        }
    }

    #[test]
    fn a_rewritten_file_is_stale() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        std::fs::write(&path, "one").unwrap();
        let kind = CredentialKind::Bearer { token: SecretSource::File(path.clone()) };
        let loaded = CredentialSpec { name: "c".into(), kind }.load(&|_| None).unwrap();
        assert!(!loaded.is_stale());
        std::fs::write(&path, "three").unwrap();
        assert!(loaded.is_stale());
        std::fs::remove_file(&path).unwrap();
        assert!(loaded.is_stale());
    }
}
