//! The command line.
use std::process::ExitCode;
/// Runs.
pub fn run(_args: std::env::ArgsOs) -> ExitCode { ExitCode::SUCCESS }
