//! The annotations that a pod may carry, their values and their limits. Whether a value is *used* is for the caller to say; here nothing is
//! compiled, opened or fetched.
//!
//! A new annotation begins in [`KEYS`], gets its value in `logs.rs`, `metrics.rs` or `inject.rs`, and is checked in `problems.rs`.

mod allow;
mod inject;
mod logs;
mod metrics;
mod others;
mod problems;

pub use allow::{Allow, DEFAULT_ALLOW};
pub use inject::{Inject, InjectAnnotations, MAX_LOG_GLOBS, Native, Order, inject_annotations};
pub use logs::{LogAnnotations, MAX_REGEX_BYTES, MAX_REGEXES, Multiline, Parse, Redaction, log_annotations};
pub use metrics::{MAX_PATH_BYTES, MAX_PORTS, MetricAnnotations, Port, Scheme, metric_annotations};
pub use others::{Exclusion, excluded_by_others};
pub use problems::{MAX_PROBLEMS, Problem, problems};

use crate::nearest::{distance, nearest};

/// What every annotation of ours begins with.
pub const PREFIX: &str = "sidelight.dev/";

/// Every known key, without [`PREFIX`] and suffix.
pub const KEYS: [Key; 25] = [
    Key::per_container("logs"),
    Key::per_container("logs.parse"),
    Key::per_container("logs.multiline"),
    Key::per_container("logs.tag"),
    Key::per_container("logs.rate"),
    Key::per_container("logs.sample"),
    Key::per_container("logs.redact"),
    Key::per_container("metrics"),
    Key::per_container("metrics.port"),
    Key::per_container("metrics.path"),
    Key::per_container("metrics.scheme"),
    Key::per_container("metrics.interval"),
    Key::per_container("metrics.honor-labels"),
    Key::per_pod("inject"),
    Key::per_pod("inject.logs"),
    Key::per_pod("inject.image"),
    Key::per_pod("inject.cpu-request"),
    Key::per_pod("inject.cpu-limit"),
    Key::per_pod("inject.memory-request"),
    Key::per_pod("inject.memory-limit"),
    Key::per_pod("inject.native"),
    Key::per_pod("inject.order"),
    Key::per_pod("inject.otlp"),
    Key::written("injected"),
    Key::written("injected-for"),
];

/// Whether these annotations, which the injector has written, say that a sidecar scrapes the pod.
pub fn sidecar_scrapes<'a>(annotations: impl IntoIterator<Item = (&'a str, &'a str)>) -> bool {
    let key = |key: &str| key.strip_prefix(PREFIX) == Some("injected-for");
    let value = annotations.into_iter().find(|(name, _)| key(name)).map_or("", |(_, value)| value);
    value.split(',').any(|part| part.trim() == "metrics")
}

/// One key of the vocabulary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    /// Without [`PREFIX`] and suffix.
    pub name: &'static str,
    scope: Scope,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scope {
    /// For every container, or with the suffix `.CONTAINER` for one.
    Container,
    Pod,
    /// What the injector writes down; users do not.
    Written,
}

/// An annotation's key, understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Name<'a> {
    key: Key,
    /// The only container that the annotation is for; `None`: all of the pod's.
    container: Option<&'a str>,
}

// === impl Key ===

impl Key {
    const fn per_container(name: &'static str) -> Self {
        Key { name, scope: Scope::Container }
    }

    const fn per_pod(name: &'static str) -> Self {
        Key { name, scope: Scope::Pod }
    }

    const fn written(name: &'static str) -> Self {
        Key { name, scope: Scope::Written }
    }

    fn takes_suffix(self) -> bool {
        self.scope == Scope::Container
    }
}

// === impl Name ===

impl<'a> Name<'a> {
    /// Understands an annotation's key without [`PREFIX`]. The longest known key wins: `logs.parse` is never the key `logs` for a
    /// container called `parse`.
    fn parse(name: &'a str) -> Option<Self> {
        KEYS.into_iter()
            .filter_map(|key| match name.strip_prefix(key.name)? {
                "" => Some(Name { key, container: None }),
                rest if key.takes_suffix() => {
                    let container = rest.strip_prefix('.').filter(|rest| is_container_name(rest))?;
                    Some(Name { key, container: Some(container) })
                }
                _ => None,
            })
            .max_by_key(|name| name.key.name.len())
    }

    fn is_for(&self, container: &str) -> bool {
        self.container.is_none_or(|only| only == container)
    }
}

/// A DNS label, as Kubernetes has it for containers.
fn is_container_name(name: &str) -> bool {
    let inner = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
    !name.is_empty()
        && name.len() <= 63
        && name.bytes().all(inner)
        && !name.starts_with('-')
        && !name.ends_with('-')
}

/// The known name that is nearest to an unknown one, with the suffix that the unknown one seems to have; both without [`PREFIX`].
fn nearest_name(unknown: &str) -> String {
    let names = || KEYS.iter().map(|key| key.name);
    let whole = nearest(unknown, names()).unwrap_or_default();
    let suffixed = unknown.rsplit_once('.').filter(|(_, container)| is_container_name(container)).and_then(
        |(stem, container)| {
            let key = nearest(stem, KEYS.iter().filter(|key| key.takes_suffix()).map(|key| key.name))?;
            (distance(stem, key) < distance(unknown, whole)).then(|| format!("{key}.{container}"))
        },
    );
    suffixed.unwrap_or_else(|| whole.to_owned())
}

fn not_allowed(value: &str, allowed: &str) -> String {
    format!("{} is not allowed; it must be {allowed}", shown(value))
}

/// A value for a message: of tenants' making, so escaped and not long.
fn shown(value: &str) -> String {
    const MAX_CHARS: usize = 64;
    let head: String = value.chars().take(MAX_CHARS).collect();
    if head.len() == value.len() { format!("{head:?}") } else { format!("{head:?}…") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(name: &str) -> Option<(&'static str, Option<&str>)> {
        Name::parse(name).map(|name| (name.key.name, name.container))
    }

    #[test]
    fn every_key_of_the_contract_is_known() {
        for key in KEYS {
            assert_eq!(parsed(key.name), Some((key.name, None)));
        }
    }

    #[test]
    fn a_suffix_limits_a_key_to_one_container() {
        assert_eq!(parsed("logs.web"), Some(("logs", Some("web"))));
        assert_eq!(parsed("logs.parse.web"), Some(("logs.parse", Some("web"))));
        assert_eq!(parsed("metrics.honor-labels.web-1"), Some(("metrics.honor-labels", Some("web-1"))));
    }

    #[test]
    fn the_longest_known_key_wins() {
        assert_eq!(parsed("logs.parse"), Some(("logs.parse", None)));
        assert_eq!(parsed("logs.parse.parse"), Some(("logs.parse", Some("parse"))));
        assert_eq!(parsed("injected-for"), Some(("injected-for", None)));
    }

    #[test]
    fn what_cannot_be_a_container_is_no_suffix() {
        for name in
            ["logs.", "logs.parse.", "logs.a.b", "logs.Web", "logs.-web", "logs.web-", "logs.web_1", "logsx"]
        {
            assert_eq!(parsed(name), None, "{name}");
        }
        assert_eq!(parsed(&format!("logs.{}", "a".repeat(64))), None);
    }

    #[test]
    fn keys_of_the_injector_are_for_the_whole_pod() {
        assert_eq!(parsed("inject.image.web"), None);
        assert_eq!(parsed("inject.web"), None);
        assert_eq!(parsed("injected.web"), None);
    }

    #[test]
    fn the_nearest_name_keeps_the_suffix() {
        assert_eq!(nearest_name("log.parse"), "logs.parse");
        assert_eq!(nearest_name("logs.prase.web"), "logs.parse.web");
        assert_eq!(nearest_name("metrics_port"), "metrics.port");
        assert_eq!(nearest_name("inject.cpu-limits"), "inject.cpu-limit");
    }

    #[test]
    fn a_long_value_is_shown_short() {
        assert_eq!(shown("a\nb"), r#""a\nb""#);
        assert!(shown(&"é".repeat(300_000)).len() < 200);
    }
}
