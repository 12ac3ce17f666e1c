//! The command line: parse, call, exit code.

mod ask;
mod table;

use std::ffi::OsString;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};
use sidelight_contract::sidecar::{Environment, POD_INFO_PATH, SECRET_PREFIX};
use sidelight_runtime::exit;
use sidelight_runtime::logging::{self, LogFormat};
use sidelight_runtime::terminal::{complain, print, say};

use crate::app::{self, Origin, Start};
use crate::config::section::{format_size, parse_duration};
use crate::config::{Config, text_of};
use crate::demo;
use crate::metrics::exposition::{self, Dialect};

/// Observability agent for Rust services on Kubernetes.
#[derive(Parser)]
#[command(name = "sidelight", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Shows the main job on an embedded node: no cluster, no configuration, no root.
    Demo {
        /// End after this time; without it, at Ctrl-C.
        #[arg(long = "for", value_name = "DURATION", value_parser = parse_duration)]
        duration: Option<Duration>,
    },
    /// Runs on a node: reads its container logs and forwards them.
    Agent {
        /// The configuration.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        /// From SIGTERM to SIGKILL, as the pod's terminationGracePeriodSeconds says.
        #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = parse_duration)]
        grace_period: Duration,
        /// How the agent's own log is written.
        #[arg(long, value_name = "FORMAT", default_value = "text")]
        log_format: LogFormat,
    },
    /// Runs in a pod, configured by the environment that the injector sets: reads log files of the app, and scrapes it.
    Sidecar {
        /// From SIGTERM to SIGKILL, as the pod's terminationGracePeriodSeconds says.
        #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = parse_duration)]
        grace_period: Duration,
        /// How the sidecar's own log is written.
        #[arg(long, value_name = "FORMAT", default_value = "text")]
        log_format: LogFormat,
        /// Where the Downward API writes the pod's labels and annotations.
        #[arg(long, value_name = "DIRECTORY", default_value = POD_INFO_PATH)]
        pod_info: PathBuf,
    },
    /// Validates a configuration: prints every mistake, or what is in force and the memory that it needs.
    Check {
        /// The configuration.
        file: PathBuf,
        /// It is a sidecar's, as the injector writes it: files that it names need not be here, nor secrets.
        #[arg(long)]
        sidecar: bool,
    },
    /// Lists the log files and how far each output is in them.
    Files(Ask),
    /// Lists what is scraped, and what is not and why.
    Targets(Ask),
    /// Lists the outputs and what became of the bytes they read.
    Outputs(Ask),
    /// Reads a page of metrics from standard input, strictly: says nothing if it is right, else where it is not.
    ParseMetrics {
        /// How the page is written; without it, a page that ends with `# EOF` is OpenMetrics.
        #[arg(long, value_name = "FORMAT")]
        format: Option<MetricsFormat>,
    },
    /// Says why a pod's logs and metrics arrive, or do not.
    Explain {
        /// NAMESPACE/NAME
        pod: String,
        #[command(flatten)]
        ask: Ask,
    },
}

#[derive(clap::Args)]
struct Ask {
    /// The agent's API listener.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:9615")]
    admin: String,
    /// The form of the answer.
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    output: Form,
}

#[derive(Clone, Copy, ValueEnum)]
enum MetricsFormat {
    /// Prometheus's text format 0.0.4.
    Text,
    /// OpenMetrics 1.0.
    Openmetrics,
}

#[derive(Clone, Copy, ValueEnum)]
enum Form {
    /// For people.
    Table,
    /// For scripts.
    Json,
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
    let code = match arguments.command {
        Command::Demo { duration } => demo::run(duration).unwrap_or_else(|error| failed(&error)),
        Command::Agent { config, grace_period, log_format } => agent(config, grace_period, log_format),
        Command::Sidecar { grace_period, log_format, pod_info } => {
            sidecar(grace_period, log_format, pod_info)
        }
        Command::Check { file, sidecar } => check(&file, sidecar),
        Command::ParseMetrics { format } => parse_metrics(format),
        Command::Files(ask) => ask::files(&ask.admin, ask.output),
        Command::Targets(ask) => ask::targets(&ask.admin, ask.output),
        Command::Outputs(ask) => ask::outputs(&ask.admin, ask.output),
        Command::Explain { pod, ask } => ask::explain(&ask.admin, &pod, ask.output),
    };
    ExitCode::from(code)
}

fn agent(file: PathBuf, grace_period: Duration, log_format: LogFormat) -> u8 {
    logging::init(log_format);
    exit::install_panic_hook();
    let config = match Config::load(&file, &variable) {
        Ok(config) => config,
        Err(mistakes) => return complain(&mistakes),
    };
    app::run(Start { origin: Origin::File(file), config, grace_period })
        .unwrap_or_else(|error| failed(&error))
}

fn sidecar(grace_period: Duration, log_format: LogFormat, pod_info: PathBuf) -> u8 {
    logging::init(log_format);
    exit::install_panic_hook();
    let text =
        |(name, value): (OsString, OsString)| Some((name.into_string().ok()?, value.into_string().ok()?));
    let environment = match Environment::read(std::env::vars_os().filter_map(text)) {
        Ok(environment) => environment,
        Err(missing) => return complain(&missing),
    };
    for name in &environment.unknown {
        tracing::warn!(name, "a variable of another version's injector is ignored");
    }
    let (config, warnings) = match Config::load_sidecar(&environment.config, &variable) {
        Ok(read) => read,
        Err(mistakes) => return complain(&mistakes),
    };
    for warning in warnings {
        tracing::warn!(warning, "a part of SIDELIGHT_CONFIG is ignored");
    }
    let origin = Origin::Injector { environment, pod_info };
    app::run(Start { origin, config, grace_period }).unwrap_or_else(|error| failed(&error))
}

fn check(file: &Path, sidecar: bool) -> u8 {
    let read = if sidecar { check_sidecar(file) } else { Config::load(file, &variable) };
    let config = match read {
        Ok(config) => config,
        Err(mistakes) => return complain(&mistakes),
    };
    let text = yaml_serde::to_string(&config).unwrap_or_default();
    let mut report = format!("# in force; secrets are not shown\n{text}\n# memory\n");
    let needs = config.memory_needs();
    for (part, bytes) in &needs {
        report.push_str(&format!("{:>10}  {part}\n", format_size(*bytes)));
    }
    report.push_str(&format!("{:>10}  sum\n", format_size(needs.iter().map(|(_, bytes)| bytes).sum())));
    print(&report)
}

fn check_sidecar(file: &Path) -> Result<Config, Vec<String>> {
    // Only the pod has them.
    let stand_in = |name: &str| name.starts_with(SECRET_PREFIX).then(|| "secret".to_owned());
    let environment = |name: &str| variable(name).or_else(|| stand_in(name));
    let (config, warnings) = Config::parse_sidecar(&text_of(file)?, &environment)?;
    warnings.iter().for_each(|warning| say(&format!("warning: {warning}")));
    Ok(config)
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

fn parse_metrics(format: Option<MetricsFormat>) -> u8 {
    let mut page = Vec::new();
    if let Err(error) = std::io::stdin().lock().read_to_end(&mut page) {
        say(&format!("cannot read standard input: {error}"));
        return exit::NEGATIVE;
    }
    let dialect = match format {
        Some(MetricsFormat::Text) => Dialect::Text,
        Some(MetricsFormat::Openmetrics) => Dialect::OpenMetrics,
        None => Dialect::of_page(&page),
    };
    match exposition::check(&page, dialect) {
        Ok(()) => exit::SUCCESS,
        Err(fault) => {
            say(&fault.to_string());
            exit::NEGATIVE
        }
    }
}

fn failed(error: &anyhow::Error) -> u8 {
    say(&format!("{error:#}"));
    exit::NEGATIVE
}
