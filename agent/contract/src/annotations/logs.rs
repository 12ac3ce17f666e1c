//! The values of `logs` and `logs.*`.

use std::fmt;
use std::str::FromStr;

use super::{Allow, Name, PREFIX, not_allowed, shown};
use crate::nearest::misspelled;

/// The longest regex that a pod may bring, in bytes.
pub const MAX_REGEX_BYTES: usize = 512;

/// How many regexes a pod may bring, all its containers together.
pub const MAX_REGEXES: usize = 8;

/// How the text of a record is taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parse {
    /// Not at all.
    None,
    /// JSON objects, lifted as they are.
    Json,
    /// Whichever of the others fits, Rust's dialects normalised.
    Auto,
    /// What the `tracing` crates write, JSON or text.
    Tracing,
    /// `key=value` pairs.
    Logfmt,
}

/// How lines that belong together are found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Multiline {
    /// Every line is a record.
    None,
    /// All built-in languages.
    Auto,
    /// Panics and backtraces.
    Rust,
    /// Stack traces of the JVM.
    Java,
    /// Tracebacks.
    Python,
    /// Panics and goroutine dumps.
    Go,
    /// A record starts where this regex matches. Not yet compiled; neither empty nor longer than [`MAX_REGEX_BYTES`].
    Start(String),
}

/// One thing to take out of records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Redaction {
    /// What the built-in pattern of this name finds.
    Builtin(String),
    /// What this regex finds. Not yet compiled; neither empty nor longer than [`MAX_REGEX_BYTES`].
    Regex(String),
    /// The pod asks for something that cannot be done, and here is why. Its lines must be held: sent on, they would carry what was to be
    /// taken out.
    Unusable(String),
}

/// What a pod's annotations say about the logs of one container. What they do not say, or say wrongly, is `None`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LogAnnotations {
    /// `logs`: whether to collect them.
    pub collect: Option<bool>,
    /// `logs.parse`.
    pub parse: Option<Parse>,
    /// `logs.multiline`.
    pub multiline: Option<Multiline>,
    /// `logs.tag`: 1 to 63 of `a-z 0-9 _ -`.
    pub tag: Option<String>,
    /// `logs.rate`: records a second, at least 1.
    pub rate: Option<u32>,
    /// `logs.sample`: the share to keep, 0 to 1.
    pub sample: Option<f64>,
    /// `logs.redact`.
    pub redact: Vec<Redaction>,
}

/// Reads what `annotations`, those of a whole pod, say about the logs of `container`. A value for the container alone wins over one for
/// all; a bad one counts as absent, except in `logs.redact`. `patterns` are the names of the built-in redactions.
pub fn log_annotations<'a>(
    annotations: impl IntoIterator<Item = (&'a str, &'a str)> + Clone,
    container: &str,
    allow: &Allow,
    patterns: &[&str],
) -> LogAnnotations {
    let within_limit = regexes_within_limit(annotations.clone(), allow, patterns);
    let mut said = LogAnnotations::default();
    for for_one in [false, true] {
        for (key, value) in annotations.clone() {
            let Some(name) = key.strip_prefix(PREFIX).and_then(Name::parse) else { continue };
            if name.container.is_some() != for_one || !name.is_for(container) || !allow.permits(name.key.name)
            {
                continue;
            }
            let name = name.key.name;
            if within_limit.contains(&key) || !brings_regex(name, value, patterns) {
                // Mistakes are for `problems` to tell.
                let _ = said.set(name, value, patterns);
            } else if name == "logs.redact" {
                said.redact = vec![Redaction::Unusable(too_many_regexes())];
            }
        }
    }
    said
}

/// The keys of a pod's regexes that are not too many: the first [`MAX_REGEXES`] by name, so that the choice does not depend on the order in
/// which annotations are listed.
pub(super) fn regexes_within_limit<'a>(
    annotations: impl IntoIterator<Item = (&'a str, &'a str)>,
    allow: &Allow,
    patterns: &[&str],
) -> Vec<&'a str> {
    let mut keys: Vec<&str> = annotations
        .into_iter()
        .filter(|(key, value)| {
            let name = key.strip_prefix(PREFIX).and_then(Name::parse).map(|name| name.key.name);
            name.is_some_and(|name| allow.permits(name) && brings_regex(name, value, patterns))
        })
        .map(|(key, _)| key)
        .collect();
    keys.sort_unstable();
    keys.truncate(MAX_REGEXES);
    keys
}

/// Whether the value of `key` is a regex, and not a built-in name or no good at all.
pub(super) fn brings_regex(key: &str, value: &str, patterns: &[&str]) -> bool {
    match key {
        "logs.multiline" => matches!(value.parse(), Ok(Multiline::Start(_))),
        "logs.redact" => {
            redactions(value, patterns).iter().any(|redaction| matches!(redaction, Redaction::Regex(_)))
        }
        _ => false,
    }
}

/// Why a regex beyond [`MAX_REGEXES`] is not used.
pub(super) fn too_many_regexes() -> String {
    format!("a pod may bring at most {MAX_REGEXES} regexes, in the order of its annotations' names")
}

/// Reads `logs.redact`: a list of built-in names if one of its words is such a name, else one regex. A list with a wrong word in it is
/// never taken for a regex, which would find nothing and let everything through.
pub(super) fn redactions(value: &str, patterns: &[&str]) -> Vec<Redaction> {
    let words = || value.split(',').map(str::trim);
    if !words().any(|word| patterns.contains(&word)) {
        return vec![match check_regex(value) {
            Ok(()) => Redaction::Regex(value.to_owned()),
            Err(why) => Redaction::Unusable(why),
        }];
    }
    if let Some(wrong) = words().find(|word| !patterns.contains(word)) {
        let (wrong, allowed) = (shown(wrong), patterns.join(", "));
        return vec![Redaction::Unusable(format!(
            "{wrong} is no built-in pattern; a list may have {allowed}"
        ))];
    }
    // In the order of `patterns`, and each once however often the pod names it.
    let named = patterns.iter().filter(|pattern| words().any(|word| word == **pattern));
    named.map(|pattern| Redaction::Builtin((*pattern).to_owned())).collect()
}

fn check_regex(regex: &str) -> Result<(), String> {
    match regex.len() {
        0 => Err("an empty regex matches everywhere; remove the annotation or give a pattern".to_owned()),
        len if len > MAX_REGEX_BYTES => {
            Err(format!("a regex may have {MAX_REGEX_BYTES} bytes, this one has {len}; make it shorter"))
        }
        _ => Ok(()),
    }
}

// === impl LogAnnotations ===

impl LogAnnotations {
    /// Takes in one annotation; keys of other parts change nothing.
    ///
    /// # Errors
    /// A text for the pod's owner. The value is then as if absent, except that of `logs.redact`.
    pub(super) fn set(&mut self, key: &str, value: &str, patterns: &[&str]) -> Result<(), String> {
        match key {
            "logs" => self.collect = Some(value.parse().map_err(|_| not_allowed(value, "true or false"))?),
            "logs.parse" => self.parse = Some(value.parse()?),
            "logs.multiline" => self.multiline = Some(value.parse()?),
            "logs.tag" => self.tag = Some(tag(value)?),
            "logs.rate" => self.rate = Some(rate(value)?),
            "logs.sample" => self.sample = Some(sample(value)?),
            "logs.redact" => {
                self.redact = redactions(value, patterns);
                let unusable = self.redact.iter().find_map(|redaction| match redaction {
                    Redaction::Unusable(why) => Some(why.clone()),
                    Redaction::Builtin(_) | Redaction::Regex(_) => None,
                });
                return unusable.map_or(Ok(()), Err);
            }
            _ => {}
        }
        Ok(())
    }
}

fn tag(value: &str) -> Result<String, String> {
    let allowed = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'_' || c == b'-';
    if (1..=63).contains(&value.len()) && value.bytes().all(allowed) {
        Ok(value.to_owned())
    } else {
        Err(not_allowed(value, "1 to 63 characters of a-z, 0-9, _ and -"))
    }
}

fn rate(value: &str) -> Result<u32, String> {
    let rate = value.parse().ok().filter(|&rate| rate > 0);
    rate.ok_or_else(|| not_allowed(value, "a whole number of records a second, at least 1"))
}

fn sample(value: &str) -> Result<f64, String> {
    let share = value.parse().ok().filter(|share| (0.0..=1.0).contains(share));
    share.ok_or_else(|| not_allowed(value, "a number from 0 to 1"))
}

// === impl Parse ===

impl Parse {
    /// All of them.
    pub const ALL: [Parse; 5] = [Parse::None, Parse::Json, Parse::Auto, Parse::Tracing, Parse::Logfmt];

    /// As users write it.
    pub fn name(self) -> &'static str {
        match self {
            Parse::None => "none",
            Parse::Json => "json",
            Parse::Auto => "auto",
            Parse::Tracing => "tracing",
            Parse::Logfmt => "logfmt",
        }
    }
}

impl fmt::Display for Parse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Parse {
    type Err = String;

    fn from_str(value: &str) -> Result<Self, String> {
        let names = Parse::ALL.map(Parse::name);
        Parse::ALL.into_iter().find(|parse| parse.name() == value).ok_or_else(|| {
            let hint = misspelled(value, names).map(|name| format!("; did you mean {name:?}?"));
            not_allowed(value, &format!("one of {}", names.join(", "))) + &hint.unwrap_or_default()
        })
    }
}

// === impl Multiline ===

impl Multiline {
    /// The values that are no pattern, as users write them.
    pub const NAMES: [&str; 6] = ["none", "auto", "rust", "java", "python", "go"];
}

impl fmt::Display for Multiline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Multiline::None => "none",
            Multiline::Auto => "auto",
            Multiline::Rust => "rust",
            Multiline::Java => "java",
            Multiline::Python => "python",
            Multiline::Go => "go",
            Multiline::Start(pattern) => pattern,
        })
    }
}

impl FromStr for Multiline {
    type Err = String;

    fn from_str(value: &str) -> Result<Self, String> {
        Ok(match value {
            "none" => Multiline::None,
            "auto" => Multiline::Auto,
            "rust" => Multiline::Rust,
            "java" => Multiline::Java,
            "python" => Multiline::Python,
            "go" => Multiline::Go,
            pattern => {
                check_regex(pattern)?;
                Multiline::Start(pattern.to_owned())
            }
        })
    }
}

#[cfg(test)]
mod tests;
