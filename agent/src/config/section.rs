//! Reads a YAML tree key by key; what is wrong goes to the mistakes, and a default stands in for it.

use std::collections::BTreeMap;
use std::time::Duration;

use sidelight_contract::duration;
use yaml_serde::{Mapping, Value};

use super::mistakes::Mistakes;

/// One mapping of the tree; its keys are taken one by one, and what is left at the end is unknown.
#[derive(Debug)]
pub struct Section {
    path: String,
    entries: Mapping,
    known: Vec<&'static str>,
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
}
