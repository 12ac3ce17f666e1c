//! Log lines to standard error, filtered by `RUST_LOG` (without it: `info`).

use std::fmt;
use std::io::IsTerminal;
use std::str::FromStr;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people; coloured on a terminal.
    #[default]
    Text,
    /// One JSON object a line, the event's fields at its top level.
    Json,
}

/// Starts logging, for the whole process. Only the first call counts.
pub fn init(format: LogFormat) {
    let filter = EnvFilter::builder().with_default_directive(LevelFilter::INFO.into()).from_env_lossy();
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let lines = match format {
        LogFormat::Text => lines.with_ansi(std::io::stderr().is_terminal()).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    // It fails only where logging has been started already.
    let _ = tracing_subscriber::registry().with(lines.with_filter(filter)).try_init();
}

// === impl LogFormat ===

impl fmt::Display for LogFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            LogFormat::Text => "text",
            LogFormat::Json => "json",
        })
    }
}

impl FromStr for LogFormat {
    type Err = String;

    fn from_str(value: &str) -> Result<Self, String> {
        match value {
            "text" => Ok(LogFormat::Text),
            "json" => Ok(LogFormat::Json),
            _ => Err(format!("{value:?} is not allowed; it must be text or json")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::tests::{is_alone, run_alone};

    #[test]
    #[ignore = "the process that other tests start"]
    fn log_in_text() {
        if !is_alone() {
            return;
        }
        init(LogFormat::Text);
        init(LogFormat::Json);
        tracing::debug!("quiet");
        tracing::info!(answer = 42, "heard");
    }

    #[test]
    #[ignore = "the process that other tests start"]
    fn log_in_json() {
        if !is_alone() {
            return;
        }
        init(LogFormat::Json);
        tracing::info!(answer = 42, "heard");
    }

    #[test]
    fn text_has_no_colours_where_there_is_no_terminal() {
        let stderr = run_alone("logging::tests::log_in_text", None).stderr;
        assert!(stderr.contains("INFO") && stderr.contains("heard answer=42"), "{stderr}");
        assert!(!stderr.contains('\x1b'), "{stderr:?}");
    }

    #[test]
    fn the_default_level_is_info_and_the_environment_changes_it() {
        assert!(!run_alone("logging::tests::log_in_text", None).stderr.contains("quiet"));
        assert!(run_alone("logging::tests::log_in_text", Some("debug")).stderr.contains("quiet"));
        assert!(!run_alone("logging::tests::log_in_text", Some("error")).stderr.contains("heard"));
    }

    #[test]
    fn json_is_an_object_a_line() {
        let stderr = run_alone("logging::tests::log_in_json", None).stderr;
        let line = stderr.lines().find(|line| line.contains("heard")).unwrap();
        assert!(line.starts_with('{') && line.ends_with('}'), "{line}");
        assert!(line.contains(r#""answer":42"#) && !line.contains(r#""fields""#), "{line}");
    }

    #[test]
    fn formats_are_written_as_they_are_read() {
        for format in [LogFormat::Text, LogFormat::Json] {
            assert_eq!(format.to_string().parse(), Ok(format));
        }
        assert!("xml".parse::<LogFormat>().is_err());
    }
}
