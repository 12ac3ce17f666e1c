//! `inject` and `uninject`.

use std::io::Read;
use std::path::{Path, PathBuf};

use clap::Args;
use sidelight_runtime::exit;
use sidelight_runtime::terminal::{print, say};

use super::load;
use crate::config::Config;
use crate::offline::{self, Outcome, Settings};

/// What is said where nothing else is: every version that is supported has native sidecars.
const KUBERNETES: &str = "1.34";

/// Arguments of `inject`.
#[derive(Args)]
pub(super) struct Inject {
    /// The manifests, YAML or JSON; `-` is standard input.
    #[arg(short = 'f', long = "filename", value_name = "FILE")]
    file: PathBuf,
    /// The injector's configuration, as the cluster's injector has it.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The namespace of manifests that say none.
    #[arg(long, value_name = "NAMESPACE", default_value = "default")]
    namespace: String,
    /// The API server's version: whether sidecars are native follows from it.
    #[arg(long, value_name = "VERSION", default_value = KUBERNETES, value_parser = minor)]
    kubernetes_version: u32,
}

/// Arguments of `uninject`.
#[derive(Args)]
pub(super) struct Uninject {
    /// The manifests, YAML or JSON; `-` is standard input.
    #[arg(short = 'f', long = "filename", value_name = "FILE")]
    file: PathBuf,
}

// === impl Inject ===

impl Inject {
    pub(super) fn run(&self) -> u8 {
        let config = match self.config.as_deref().map(load).transpose() {
            Ok(config) => config.unwrap_or_else(Config::default),
            Err(code) => return code,
        };
        let settings =
            Settings { config: &config, kubernetes: self.kubernetes_version, namespace: &self.namespace };
        change(&self.file, |text| offline::inject(text, settings))
    }
}

// === impl Uninject ===

impl Uninject {
    pub(super) fn run(&self) -> u8 {
        change(&self.file, offline::uninject)
    }
}

/// Nothing is printed unless all of it can be.
fn change(file: &Path, change: impl FnOnce(&str) -> Outcome) -> u8 {
    let text = match read(file) {
        Ok(text) => text,
        Err(error) => {
            say(&format!("cannot read {}: {error}", file.display()));
            return exit::USAGE;
        }
    };
    let outcome = change(&text);
    outcome.lines.iter().for_each(|line| say(line));
    outcome.text.map_or(exit::NEGATIVE, |text| print(&text))
}

fn read(file: &Path) -> std::io::Result<String> {
    if file != Path::new("-") {
        return std::fs::read_to_string(file);
    }
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text)?;
    Ok(text)
}

/// The minor version of `1.34`, `v1.34.2` or `1.34+`.
fn minor(text: &str) -> Result<u32, String> {
    let digits = text.strip_prefix('v').unwrap_or(text).strip_prefix("1.").unwrap_or_default();
    let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
    digits[..end].parse().map_err(|_| "expected a version such as 1.34".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_read_as_vendors_write_it() {
        for text in ["1.34", "v1.34.2", "1.34+", "v1.34.1-gke.7"] {
            assert_eq!(minor(text), Ok(34), "{text}");
        }
        for text in ["", "1", "2.0", "1.x", "34"] {
            assert!(minor(text).is_err(), "{text}");
        }
    }
}
