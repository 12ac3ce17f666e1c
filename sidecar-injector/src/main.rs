//! The `sidelight-injector` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    sidelight_injector::cli::run(std::env::args_os())
}
