//! The `sidelight` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    sidelight_agent::cli::run(std::env::args_os())
}
