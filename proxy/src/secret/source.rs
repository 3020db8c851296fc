//! Where a secret comes from, and what is refused as one.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use thiserror::Error;
use zeroize::Zeroizing;

use super::{Environment, Secret};

/// Largest secret, octets: what fits into a head of 64 KiB with room for the rest.
const MAX_SECRET: u64 = 32 * 1024;

/// A place that a secret is read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretSource {
    /// A variable of credgate's own environment.
    Env(String),
    /// A file.
    File(PathBuf),
}

/// Why there is no secret. Names the source, never the value.
#[derive(Debug, Error)]
pub enum SecretError {
    /// The variable is not set.
    #[error("the environment variable {0} is not set; set it before starting credgate")]
    NotSet(String),
    /// The file cannot be read.
    #[error("{}: {error}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        error: io::Error,
    },
    /// A directory, a socket, a device.
    #[error("{}: it is not a regular file", .0.display())]
    NotRegular(PathBuf),
    /// Nothing but a newline.
    #[error("{0} is empty")]
    Empty(String),
    /// CR, LF or NUL would end the header field and begin another.
    #[error("{0} holds a line break or a control character, which cannot stand in a header field")]
    ControlCharacter(String),
    /// Over 32 KiB.
    #[error("{0} is larger than 32 KiB")]
    TooLarge(String),
    /// Cannot become a field value.
    #[error("{0} cannot stand in a header field")]
    NotAFieldValue(String),
}

impl SecretSource {
    /// Reads the secret. Newlines around the contents of a file are not part of it: editors and `echo` add one.
    pub fn load(&self, environment: &Environment<'_>) -> Result<Secret, SecretError> {
        let octets = match self {
            Self::Env(name) => {
                let value = environment(name).ok_or_else(|| SecretError::NotSet(name.clone()))?;
                Zeroizing::new(value.into_vec())
            }
            Self::File(path) => read(path)?,
        };
        let trimmed = match self {
            Self::Env(_) => &octets[..],
            Self::File(_) => trim_newlines(&octets),
        };
        if trimmed.is_empty() {
            return Err(SecretError::Empty(self.name()));
        }
        if trimmed.len() as u64 > MAX_SECRET {
            return Err(SecretError::TooLarge(self.name()));
        }
        if trimmed.iter().any(|octet| octet.is_ascii_control()) {
            return Err(SecretError::ControlCharacter(self.name()));
        }
        Ok(Secret::new(trimmed.to_vec()))
    }

    /// What to call it in an error.
    pub(super) fn name(&self) -> String {
        match self {
            Self::Env(name) => format!("the environment variable {name}"),
            Self::File(path) => path.display().to_string(),
        }
    }
}

fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, SecretError> {
    let failed = |error| SecretError::File { path: path.to_owned(), error };
    let mut file = File::open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    if !metadata.is_file() {
        return Err(SecretError::NotRegular(path.to_owned()));
    }
    if metadata.mode() & 0o004 != 0 {
        tracing::warn!(path = %path.display(), "everyone on this machine can read this secret; chmod 600 it");
    }
    // One allocation of the right size: growing would leave copies behind that are not wiped.
    let mut octets = Zeroizing::new(Vec::with_capacity(usize::try_from(MAX_SECRET).unwrap_or_default() + 64));
    file.by_ref().take(MAX_SECRET + 32).read_to_end(&mut octets).map_err(failed)?;
    Ok(octets)
}

fn trim_newlines(octets: &[u8]) -> &[u8] {
    let newline = |octet: &u8| matches!(octet, b'\r' | b'\n');
    let start = octets.iter().position(|octet| !newline(octet)).unwrap_or(octets.len());
    let end = octets.iter().rposition(|octet| !newline(octet)).map_or(start, |last| last + 1);
    &octets[start..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load_file(contents: &[u8]) -> Result<Vec<u8>, String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), contents).unwrap();
        let secret = SecretSource::File(file.path().to_owned()).load(&|_| None);
        let name = file.path().display().to_string();
        secret.map(|s| s.expose().to_vec()).map_err(|error| error.to_string().replace(&name, "FILE"))
    }

    #[test]
    fn files_are_trimmed_of_newlines_and_nothing_else() {
        assert_eq!(load_file(b"token\n").as_deref(), Ok(&b"token"[..]));
        assert_eq!(load_file(b"\r\n to ken \r\n").as_deref(), Ok(&b" to ken "[..]));
    }

    #[test]
    fn what_would_break_a_header_is_refused() {
        for (contents, error) in [
            (&b""[..], "FILE is empty"),
            (b"\n\n", "FILE is empty"),
            (
                b"a\r\nX-Injected: 1",
                "FILE holds a line break or a control character, which cannot stand in a header field",
            ),
            (b"a\0b", "FILE holds a line break or a control character, which cannot stand in a header field"),
            (&[b'a'; 40_000], "FILE is larger than 32 KiB"),
        ] {
            assert_eq!(load_file(contents), Err(error.to_owned()));
        }
    }

    #[test]
    fn a_missing_source_is_named() {
        let error = SecretSource::Env("TOKEN".into()).load(&|_| None).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the environment variable TOKEN is not set; set it before starting credgate"
        );
        let error = SecretSource::File("/".into()).load(&|_| None).unwrap_err();
        assert_eq!(error.to_string(), "/: it is not a regular file");
    }

    #[test]
    fn a_secret_does_not_print() {
        let secret = SecretSource::Env("TOKEN".into()).load(&|_| Some("hunter2".into())).unwrap();
        assert_eq!(format!("{secret:?}"), "Secret(…)");
    }
}
