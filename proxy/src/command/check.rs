//! `credgate check`: validates the configuration, resolves nothing secret.

use super::{DONE, Failure, complain, say};
use crate::cli::ConfigFlag;
use crate::secret::process_environment;

pub(super) fn run(arguments: &ConfigFlag) -> Result<u8, Failure> {
    let compiled = arguments.request().load(&process_environment)?;
    for warning in &compiled.warnings {
        complain(warning.trim_end());
    }
    let path = compiled.files.first().map(|path| path.display().to_string()).unwrap_or_default();
    let (hosts, credentials) = (compiled.policy.rules().len(), compiled.credentials.len());
    say(&format!("{path}: valid, {hosts} hosts, {credentials} credentials\n"))?;
    Ok(DONE)
}
