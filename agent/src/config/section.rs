//! Reads a YAML tree key by key and collects every mistake with its path, so that the operator sees all at once.

use std::collections::BTreeMap;
use std::time::Duration;

use sidelight_contract::duration;
use yaml_serde::{Mapping, Value};

/// Looks a variable up for `${VAR}` and `${VAR:-default}`.
pub type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

/// What a config is read for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Purpose {
    /// To run on a node.
    #[default]
    Node,
    /// To run as a sidecar. The injector that wrote it may be newer: unknown keys are told and passed over.
    Sidecar,
    /// To see whether a sidecar could run with it, where it does not: no file that it names is read.
    SidecarElsewhere,
}

/// Everything that is wrong with a config, each line with the path of its key.
#[derive(Debug, Default)]
pub struct Mistakes {
    purpose: Purpose,
    lines: Vec<String>,
    warnings: Vec<String>,
}

/// One mapping of the tree; its keys are taken one by one, and what is left at the end is unknown.
#[derive(Debug)]
pub struct Section {
    path: String,
    entries: Mapping,
    known: Vec<&'static str>,
}

// === impl Mistakes ===

impl Mistakes {
    /// None yet in what is read for this.
    pub fn reading_for(purpose: Purpose) -> Self {
        Mistakes { purpose, ..Mistakes::default() }
    }

    /// Whether the config is a sidecar's.
    pub fn in_sidecar(&self) -> bool {
        self.purpose != Purpose::Node
    }

    /// Whether the files that the config names are here.
    pub fn reads_files(&self) -> bool {
        self.purpose != Purpose::SidecarElsewhere
    }

    /// Adds one.
    pub fn add(&mut self, path: &str, message: impl std::fmt::Display) {
        self.lines.push(line(path, message));
    }

    /// Adds what is only to be told.
    pub fn warn(&mut self, path: &str, message: impl std::fmt::Display) {
        self.warnings.push(line(path, message));
    }

    /// Adds a key that is not known.
    fn add_unknown(&mut self, path: &str, message: impl std::fmt::Display) {
        if self.in_sidecar() { self.warn(path, message) } else { self.add(path, message) }
    }

    /// Nothing wrong so far.
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// One line each.
    pub fn into_lines(self) -> Vec<String> {
        self.lines
    }

    /// What is only to be told, one line each.
    pub fn into_warnings(self) -> Vec<String> {
        self.warnings
    }
}

fn line(path: &str, message: impl std::fmt::Display) -> String {
    if path.is_empty() { message.to_string() } else { format!("{path}: {message}") }
}

// === impl Section ===

impl Section {
    /// The section at `path`; anything but a mapping (or nothing) is a mistake.
    pub fn new(path: &str, value: Value, mistakes: &mut Mistakes) -> Self {
        let entries = match value {
            Value::Mapping(entries) => entries,
            Value::Null => Mapping::new(),
            other => {
                mistakes.add(path, format!("expected a mapping of keys, found {}", describe(&other)));
                Mapping::new()
            }
        };
        Section { path: path.to_owned(), entries, known: Vec::new() }
    }

    /// The path of a key of this section.
    pub fn path(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// Whether a key is given.
    pub fn has(&self, key: &str) -> bool {
        self.entries.contains_key(key)
    }

    /// Whether nothing is given.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Takes a key's value as it is.
    pub fn take(&mut self, key: &'static str) -> Option<Value> {
        self.known.push(key);
        self.entries.remove(key).filter(|value| !value.is_null())
    }

    /// Takes a nested section; a missing one is empty.
    pub fn section(&mut self, key: &'static str, mistakes: &mut Mistakes) -> Section {
        let value = self.take(key).unwrap_or(Value::Null);
        Section::new(&self.path(key), value, mistakes)
    }

    /// Takes a nested section if it is there.
    pub fn optional_section(&mut self, key: &'static str, mistakes: &mut Mistakes) -> Option<Section> {
        self.known.push(key);
        let value = self.entries.remove(key)?;
        Some(Section::new(&self.path(key), value, mistakes))
    }

    /// Takes a scalar and reads it with `read`, which says what is wrong; `default` when it is missing or wrong.
    pub fn read<T>(
        &mut self,
        key: &'static str,
        default: T,
        mistakes: &mut Mistakes,
        read: impl FnOnce(&str) -> Result<T, String>,
    ) -> T {
        let Some(value) = self.take(key) else { return default };
        let Some(text) = scalar(&value) else {
            mistakes.add(&self.path(key), format!("expected one value, found {}", describe(&value)));
            return default;
        };
        read(&text).unwrap_or_else(|message| {
            mistakes.add(&self.path(key), message);
            default
        })
    }

    /// Takes a text.
    pub fn text(&mut self, key: &'static str, default: &str, mistakes: &mut Mistakes) -> String {
        self.read(key, default.to_owned(), mistakes, |text| Ok(text.to_owned()))
    }

    /// Takes `true` or `false`.
    pub fn flag(&mut self, key: &'static str, default: bool, mistakes: &mut Mistakes) -> bool {
        self.read(key, default, mistakes, |text| match text {
            "true" => Ok(true),
            "false" => Ok(false),
            other => Err(format!("{other:?} is neither true nor false")),
        })
    }

    /// Takes a whole number within `allowed`.
    pub fn number(
        &mut self,
        key: &'static str,
        default: u64,
        allowed: std::ops::RangeInclusive<u64>,
        mistakes: &mut Mistakes,
    ) -> u64 {
        self.read(key, default, mistakes, |text| {
            let number = text.parse().map_err(|_| format!("{text:?} is no whole number"))?;
            within(number, allowed, |number| number.to_string())
        })
    }

    /// Takes a size such as `1MiB`, in bytes, within `allowed`.
    pub fn size(
        &mut self,
        key: &'static str,
        default: u64,
        allowed: std::ops::RangeInclusive<u64>,
        mistakes: &mut Mistakes,
    ) -> u64 {
        self.read(key, default, mistakes, |text| within(parse_size(text)?, allowed, format_size))
    }

    /// Takes a duration such as `5s`, within `allowed` milliseconds.
    pub fn duration(
        &mut self,
        key: &'static str,
        default: Duration,
        allowed: std::ops::RangeInclusive<u64>,
        mistakes: &mut Mistakes,
    ) -> Duration {
        self.read(key, default, mistakes, |text| {
            let millis = u64::try_from(parse_duration(text)?.as_millis()).unwrap_or(u64::MAX);
            within(millis, allowed, |millis| format_duration(Duration::from_millis(millis)))
                .map(Duration::from_millis)
        })
    }

    /// Takes a list of texts; one text alone is a list of one.
    pub fn texts(&mut self, key: &'static str, default: &[&str], mistakes: &mut Mistakes) -> Vec<String> {
        let default = || default.iter().map(|text| (*text).to_owned()).collect();
        let Some(value) = self.take(key) else { return default() };
        let items = match value {
            Value::Sequence(items) => items,
            single => vec![single],
        };
        let texts = items.iter().map(scalar).collect::<Option<Vec<_>>>();
        texts.unwrap_or_else(|| {
            mistakes.add(&self.path(key), "expected a list of texts");
            default()
        })
    }

    /// Takes a mapping of texts.
    pub fn mapping(&mut self, key: &'static str, mistakes: &mut Mistakes) -> BTreeMap<String, String> {
        let value = self.take(key).unwrap_or(Value::Mapping(Mapping::new()));
        let texts = value.as_mapping().and_then(|entries| {
            entries.iter().map(|(name, text)| Some((scalar(name)?, scalar(text)?))).collect::<Option<_>>()
        });
        texts.unwrap_or_else(|| {
            mistakes.add(&self.path(key), "expected names, each with a text");
            BTreeMap::new()
        })
    }

    /// Takes a list, each item with its path.
    pub fn items(&mut self, key: &'static str, mistakes: &mut Mistakes) -> Option<Vec<(String, Value)>> {
        let path = self.path(key);
        match self.take(key)? {
            Value::Sequence(items) => {
                Some(items.into_iter().enumerate().map(|(n, item)| (format!("{path}[{n}]"), item)).collect())
            }
            other => {
                mistakes.add(&path, format!("expected a list, found {}", describe(&other)));
                None
            }
        }
    }

    /// Reports the keys that nobody took, each with the nearest known one.
    pub fn finish(self, mistakes: &mut Mistakes) {
        for key in self.entries.keys() {
            let name = scalar(key).unwrap_or_else(|| describe(key).to_owned());
            let nearest = sidelight_contract::nearest::misspelled(&name, self.known.iter().copied());
            let hint = match nearest {
                Some(nearest) => format!("unknown key; did you mean `{nearest}`?"),
                None => format!("unknown key; known here: {}", self.known.join(", ")),
            };
            mistakes.add_unknown(&self.path(&name), hint);
        }
    }
}

/// Replaces `${VAR}` and `${VAR:-default}` in every text of the tree. A variable that is neither set nor has a
/// default is a mistake.
pub fn expand(value: &mut Value, path: &str, environment: Environment<'_>, mistakes: &mut Mistakes) {
    match value {
        Value::String(text) if text.contains("${") => match expand_text(text, environment) {
            Ok(expanded) => *text = expanded,
            Err(message) => mistakes.add(path, message),
        },
        Value::Sequence(items) => {
            for (n, item) in items.iter_mut().enumerate() {
                expand(item, &format!("{path}[{n}]"), environment, mistakes);
            }
        }
        Value::Mapping(entries) => {
            for (key, item) in entries.iter_mut() {
                let key = scalar(key).unwrap_or_default();
                let path = if path.is_empty() { key } else { format!("{path}.{key}") };
                expand(item, &path, environment, mistakes);
            }
        }
        _ => {}
    }
}

fn expand_text(text: &str, environment: Environment<'_>) -> Result<String, String> {
    let mut expanded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, reference)) = rest.split_once("${") {
        let (reference, after) =
            reference.split_once('}').ok_or_else(|| "a ${ without its closing brace".to_owned())?;
        expanded.push_str(before);
        rest = after;
        // No variable has such a name; a group of a regex has.
        if reference.bytes().all(|byte| byte.is_ascii_digit()) {
            expanded.extend(["${", reference, "}"]);
            continue;
        }
        let (name, default) = match reference.split_once(":-") {
            Some((name, default)) => (name, Some(default)),
            None => (reference, None),
        };
        let set = environment(name).filter(|value| !value.is_empty() || default.is_none());
        let value = set.or_else(|| default.map(str::to_owned));
        expanded.push_str(&value.ok_or_else(|| {
            format!("the environment variable {name} is not set; set it or write ${{{name}:-default}}")
        })?);
    }
    expanded.push_str(rest);
    Ok(expanded)
}

fn within(
    number: u64,
    allowed: std::ops::RangeInclusive<u64>,
    show: impl Fn(u64) -> String,
) -> Result<u64, String> {
    if allowed.contains(&number) {
        return Ok(number);
    }
    Err(format!(
        "{} is out of range: {} to {} is allowed",
        show(number),
        show(*allowed.start()),
        show(*allowed.end())
    ))
}

const SIZE_UNITS: [(&str, u64); 8] = [
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("kB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("B", 1),
];

/// A size such as `1MiB`, `10MB` or `512` (bytes).
fn parse_size(text: &str) -> Result<u64, String> {
    let (number, unit) = SIZE_UNITS
        .iter()
        .find_map(|(unit, factor)| Some((text.strip_suffix(unit)?, *factor)))
        .unwrap_or((text, 1));
    let number = number.trim().parse::<u64>().ok().and_then(|number| number.checked_mul(unit));
    number.ok_or_else(|| format!("{text:?} is no size; write for example 512KiB, 1MiB or 1GiB"))
}

/// The shortest exact way to write a size.
pub fn format_size(bytes: u64) -> String {
    let exact = |(unit, factor): &&(&str, u64)| {
        unit.ends_with("iB") && bytes >= *factor && bytes.is_multiple_of(*factor)
    };
    match SIZE_UNITS.iter().rev().find(exact) {
        Some((unit, factor)) => format!("{}{unit}", bytes / factor),
        None => format!("{bytes}B"),
    }
}

/// A duration such as `100ms`, `5s`, `10m` or `1h`.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    duration::parse(text)
        .ok_or_else(|| format!("{text:?} is no duration; write for example 100ms, 5s or 10m"))
}

/// The shortest exact way to write a duration.
pub fn format_duration(duration: Duration) -> String {
    let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let exact = |(_, unit): &&(&str, u64)| millis >= *unit && millis.is_multiple_of(*unit);
    match duration::UNITS.iter().rev().find(exact) {
        Some((name, unit)) => format!("{}{name}", millis / unit),
        None => format!("{millis}ms"),
    }
}

/// A scalar's text.
pub fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(flag) => Some(flag.to_string()),
        _ => None,
    }
}

fn describe(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Sequence(_) => "a list",
        Value::Mapping(_) => "a mapping",
        Value::Tagged(_) => "a YAML tag",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_durations_are_read_and_written_back() {
        for (text, bytes) in [("1MiB", 1 << 20), ("512", 512), ("10kB", 10_000), ("3 GiB", 3 << 30)] {
            assert_eq!(parse_size(text), Ok(bytes));
        }
        assert!(parse_size("1 Mib").is_err());
        assert!(parse_size("99999999999GiB").is_err());
        assert_eq!(format_size(24 << 20), "24MiB");
        assert_eq!(format_size(1000), "1000B");
        for text in ["100ms", "5s", "90s", "10m", "1h"] {
            assert_eq!(format_duration(parse_duration(text).unwrap()), text);
        }
        assert!(parse_duration("5").is_err());
    }

    #[test]
    fn variables_are_replaced_and_a_missing_one_is_a_mistake_with_its_path() {
        let environment = |name: &str| (name == "SET").then(|| "x".to_owned());
        let mut value: Value =
            yaml_serde::from_str("a: 'pre-${SET}-${NOT:-def}-${EMPTY:-}'\nb: ['${NOT}']").unwrap();
        let mut mistakes = Mistakes::default();
        expand(&mut value, "", &environment, &mut mistakes);
        assert_eq!(value["a"], Value::from("pre-x-def-"));
        let lines = mistakes.into_lines();
        assert_eq!(lines.len(), 1);
        assert!(lines[0].starts_with("b[0]: the environment variable NOT is not set"), "{lines:?}");
    }
}
