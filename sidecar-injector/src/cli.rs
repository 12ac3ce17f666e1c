//! The command line: parse, call, exit code.

mod check;
mod inject;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use kube::CustomResourceExt;
use sidelight_runtime::exit;
use sidelight_runtime::logging::{self, LogFormat};
use sidelight_runtime::terminal::{complain, print, say};

use crate::config::Config;
use crate::profile::SidecarProfile;
use crate::serve;

/// Adds Sidelight's sidecar to pods that ask for it.
#[derive(Parser)]
#[command(name = "sidelight-injector", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Answers the API server's admission reviews.
    Serve {
        /// The configuration.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        /// How the log is written.
        #[arg(long, value_name = "FORMAT", default_value = "text")]
        log_format: LogFormat,
    },
    /// Adds sidecars to the pods of manifests that ask for one; everything else stays as it is written.
    Inject(inject::Inject),
    /// Removes sidecars from manifests.
    Uninject(inject::Uninject),
    /// Looks whether the cluster's injector works, and what became of the pods that ask for a sidecar.
    Check(check::Check),
    /// Prints the CustomResourceDefinition of SidecarProfile.
    Crd,
}

/// Runs the program; the exit codes are those of the contract.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { exit::USAGE } else { exit::SUCCESS });
        }
    };
    ExitCode::from(match arguments.command {
        Command::Serve { config, log_format } => serve(&config, log_format),
        Command::Inject(inject) => inject.run(),
        Command::Uninject(uninject) => uninject.run(),
        Command::Check(check) => check.run(),
        Command::Crd => print(&yaml_serde::to_string(&SidecarProfile::crd()).unwrap_or_default()),
    })
}

fn serve(file: &Path, log_format: LogFormat) -> u8 {
    logging::init(log_format);
    exit::install_panic_hook();
    match load(file) {
        Ok(config) => serve::run(config).unwrap_or_else(|error| {
            say(&format!("{error:#}"));
            exit::NEGATIVE
        }),
        Err(code) => code,
    }
}

/// The configuration; else the exit code, and what is wrong has been said.
fn load(file: &Path) -> Result<Config, u8> {
    Config::load(file, &|name| std::env::var(name).ok()).map_err(|mistakes| complain(&mistakes))
}
