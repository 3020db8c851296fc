//! `credgate demo`.

use super::Failure;

pub(super) fn run() -> Result<u8, Failure> {
    Err(Failure::new("x"))
}
