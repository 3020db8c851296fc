//! The `credgate` binary: parses the command line and runs one command.

use std::process::ExitCode;

fn main() -> ExitCode {
    credgate::command::main(std::env::args_os())
}
