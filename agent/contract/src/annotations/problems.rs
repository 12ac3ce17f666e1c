//! What is wrong with a pod's annotations, for its owner: shown by `explain`, and by the webhook as a warning or refusal.

use super::inject::InjectAnnotations;
use super::logs::{LogAnnotations, Multiline, brings_regex, regexes_within_limit, too_many_regexes};
use super::metrics::MetricAnnotations;
use super::{Allow, KEYS, Name, PREFIX, nearest_name};
use crate::nearest::misspelled;

/// One annotation that does not do what it looks like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The annotation's whole key, as the pod has it.
    pub key: String,
    /// What is wrong, and what would be right.
    pub message: String,
}

/// How many problems of one pod are told: nobody reads more, and a tenant may write a hundred thousand.
pub const MAX_PROBLEMS: usize = 16;
/// No known key is half as long; the nearest one to a longer key is not looked for.
const MAX_KEY: usize = 128;

/// Checks all annotations of a pod; those that are not ours are left alone. `containers` are the names of all its containers, of every
/// kind; empty: not known. `patterns` are the names of the built-in redactions.
pub fn problems<'a>(
    annotations: impl IntoIterator<Item = (&'a str, &'a str)> + Clone,
    containers: &[&str],
    allow: &Allow,
    patterns: &[&str],
) -> Vec<Problem> {
    let within_limit = regexes_within_limit(annotations.clone(), allow, patterns);
    annotations
        .into_iter()
        .filter_map(|(key, value)| {
            let name = key.strip_prefix(PREFIX)?;
            let message = match Name::parse(name) {
                None if name.len() > MAX_KEY => Some("unknown annotation".to_owned()),
                None => Some(format!("unknown annotation; did you mean {PREFIX}{}?", nearest_name(name))),
                Some(known) if !allow.permits(known.key.name) => Some(
                    "ignored: the cluster's operator does not let pods use it (annotations.allow)".to_owned(),
                ),
                Some(known) => wrong_container(name, known, containers)
                    .or_else(|| {
                        let beyond_limit =
                            brings_regex(known.key.name, value, patterns) && !within_limit.contains(&key);
                        beyond_limit.then(too_many_regexes)
                    })
                    .or_else(|| wrong_value(name, known, value, patterns))
                    .or_else(|| likely_slip(known.key.name, value, patterns)),
            };
            message.map(|message| Problem { key: key.to_owned(), message })
        })
        .take(MAX_PROBLEMS)
        .collect()
}

fn wrong_container(name: &str, known: Name<'_>, containers: &[&str]) -> Option<String> {
    let container = known.container.filter(|name| !containers.is_empty() && !containers.contains(name))?;
    let hint =
        misspelled_key(name).unwrap_or_else(|| format!("its containers are {}", containers.join(", ")));
    Some(format!("the pod has no container {container:?}; {hint}"))
}

fn wrong_value(name: &str, known: Name<'_>, value: &str, patterns: &[&str]) -> Option<String> {
    let of_logs = LogAnnotations::default().set(known.key.name, value, patterns);
    let error = of_logs
        .and_then(|()| MetricAnnotations::default().set(known.key.name, value))
        .and_then(|()| InjectAnnotations::default().set(known.key.name, value))
        .err()?;
    // `logs.prase: json` reads as the key `logs` for a container `prase`.
    let hint = known.container.and_then(|_| misspelled_key(name)).map(|hint| format!("; {hint}"));
    Some(error + &hint.unwrap_or_default())
}

fn misspelled_key(name: &str) -> Option<String> {
    misspelled(name, KEYS.iter().map(|key| key.name)).map(|key| format!("did you mean {PREFIX}{key}?"))
}

/// A value that is good as a regex, but looks like a built-in name with a slip in it.
fn likely_slip(key: &str, value: &str, patterns: &[&str]) -> Option<String> {
    if !brings_regex(key, value, patterns) {
        return None;
    }
    let names = if key == "logs.redact" { patterns } else { &Multiline::NAMES };
    let name = value.split(',').find_map(|word| misspelled(word.trim(), names.iter().copied()))?;
    Some(format!("taken as a regex; did you mean {name:?}?"))
}

#[cfg(test)]
mod tests {
    use super::super::{DEFAULT_ALLOW, MAX_REGEXES};
    use super::*;

    const PATTERNS: [&str; 3] = ["email", "card", "token"];

    fn check(annotations: &[(&str, &str)], containers: &[&str]) -> Vec<(String, String)> {
        problems(annotations.iter().copied(), containers, &Allow::default(), &PATTERNS)
            .into_iter()
            .map(|problem| (problem.key, problem.message))
            .collect()
    }

    /// The only problem of a pod with the one container `web` and the one annotation `key`, given without prefix.
    fn told(key: &str, value: &str) -> String {
        let key = format!("{PREFIX}{key}");
        let mut problems = check(&[(&key, value)], &["web"]);
        assert_eq!(problems.len(), 1, "{key}={value}: {problems:?}");
        let (of, message) = problems.remove(0);
        assert_eq!(of, key);
        message
    }

    #[test]
    fn good_annotations_and_those_of_others_are_no_problem() {
        let good = [
            ("sidelight.dev/logs", "true"),
            ("sidelight.dev/logs.web", "false"),
            ("sidelight.dev/logs.multiline", "^\\d{4}-"),
            ("sidelight.dev/logs.redact", "email,card"),
            ("sidelight.dev/logs.redact.web", r"password=\S+"),
            ("sidelight.dev/metrics.port", "9090"),
            ("sidelight.dev/inject", "small"),
            ("sidelight.dev/injected", "0.1.0-abc"),
            ("sidelight.dev/injected-for", "logs"),
            ("prometheus.io/scrape", "maybe"),
            ("not-sidelight.dev/logs", "maybe"),
        ];
        assert_eq!(check(&good, &["web"]), []);
        assert_eq!(check(&good, &[]), []);
    }

    #[test]
    fn an_unknown_key_is_told_with_the_nearest_right_name() {
        assert_eq!(told("log.parse", "json"), "unknown annotation; did you mean sidelight.dev/logs.parse?");
        assert_eq!(
            told("logs.prase.web", "json"),
            "unknown annotation; did you mean sidelight.dev/logs.parse.web?"
        );
        assert_eq!(told("", ""), "unknown annotation; did you mean sidelight.dev/logs?");
    }

    #[test]
    fn a_misspelled_key_that_reads_as_a_container_is_told_as_well() {
        let message = told("logs.prase", "json");
        assert_eq!(message, r#"the pod has no container "prase"; did you mean sidelight.dev/logs.parse?"#);
        let message = check(&[("sidelight.dev/logs.prase", "json")], &[]).remove(0).1;
        assert_eq!(
            message,
            r#""json" is not allowed; it must be true or false; did you mean sidelight.dev/logs.parse?"#
        );
        assert_eq!(told("logs.db", "true"), r#"the pod has no container "db"; its containers are web"#);
    }

    #[test]
    fn what_the_operator_forbids_is_told_whatever_its_value() {
        for key in DEFAULT_ALLOW.iter().filter_map(|rule| rule.strip_prefix('!')) {
            assert!(told(key, "!").starts_with("ignored: the cluster's operator"), "{key}");
        }
    }

    #[test]
    fn a_bad_value_is_told_with_the_allowed_ones() {
        assert_eq!(told("logs", "yes"), r#""yes" is not allowed; it must be true or false"#);
        assert!(told("logs.parse.web", "xml").contains("none, json, auto, tracing, logfmt"));
        assert!(told("logs.rate", "0").contains("at least 1"));
        assert!(told("logs.sample", "2").contains("from 0 to 1"));
        assert!(told("metrics.port", "http:80").contains("from 1 to 65535"));
        assert!(told("inject", "Yes!").contains("true, false or the name of a SidecarProfile"));
        assert!(told("inject.memory-limit", "much").contains("50m or 64Mi"));
        assert!(told("logs.redact", "email,crad").contains("email, card, token"));
        assert!(told("logs.multiline", &"a".repeat(513)).contains("512 bytes, this one has 513"));
    }

    #[test]
    fn a_slip_that_makes_a_regex_of_a_name_is_told() {
        assert_eq!(told("logs.multiline", "jav"), r#"taken as a regex; did you mean "java"?"#);
        assert_eq!(told("logs.redact", "emial"), r#"taken as a regex; did you mean "email"?"#);
    }

    #[test]
    fn of_many_problems_the_first_are_told() {
        let keys: Vec<String> = (0..1_000).map(|n| format!("{PREFIX}x{n}{}", "y".repeat(200))).collect();
        let annotations = keys.iter().map(|key| (key.as_str(), ""));
        assert_eq!(problems(annotations, &[], &Allow::default(), &PATTERNS).len(), MAX_PROBLEMS);
    }

    #[test]
    fn too_many_regexes_are_told() {
        let annotations: Vec<_> =
            (0..=MAX_REGEXES).map(|n| (format!("{PREFIX}logs.redact.c{n}"), "a+")).collect();
        let problems = problems(
            annotations.iter().map(|(key, value)| (key.as_str(), *value)),
            &[],
            &Allow::default(),
            &PATTERNS,
        );
        assert_eq!(
            problems,
            [Problem { key: format!("{PREFIX}logs.redact.c8"), message: too_many_regexes() }]
        );
    }
}
