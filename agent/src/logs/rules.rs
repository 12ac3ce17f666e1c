//! The operator's rules about records: what to drop, and label selectors.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use regex::bytes::Regex;
use serde::ser::{Serialize, SerializeMap, Serializer};
use sidelight_contract::glob::GlobList;

use crate::logs::parse::Level;

/// Records to drop: all conditions that are set must hold.
#[derive(Clone, Debug)]
pub struct DropRule {
    /// In these namespaces.
    pub namespaces: GlobList,
    /// Of pods with these labels.
    pub labels: LabelSelector,
    /// Of this level or below.
    pub level: Option<Level>,
    /// Whose text matches.
    pub matches: Option<Regex>,
}

/// A label selector as `kubectl -l` takes it: `a=b,c!=d,e in (x,y),f notin (z),g,!h`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LabelSelector(Vec<Requirement>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Requirement {
    key: String,
    test: Test,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Test {
    In(Vec<String>),
    NotIn(Vec<String>),
    Exists,
    Absent,
}

// === impl DropRule ===

impl DropRule {
    /// Whether a record of this text and level is dropped; namespace and labels were looked at before.
    pub fn drops(&self, text: &[u8], level: Option<Level>) -> bool {
        let by_level = self.level.is_none_or(|limit| level.is_some_and(|level| level <= limit));
        by_level && self.matches.as_ref().is_none_or(|pattern| pattern.is_match(text))
    }
}

impl Serialize for DropRule {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("namespaces", &self.namespaces.rules())?;
        map.serialize_entry("labels", &self.labels.to_string())?;
        map.serialize_entry("level", &self.level.map(Level::name))?;
        map.serialize_entry("matches", &self.matches.as_ref().map(Regex::as_str))?;
        map.end()
    }
}

// === impl LabelSelector ===

impl LabelSelector {
    /// Whether it selects everything.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a pod with these labels is selected.
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.0.iter().all(|Requirement { key, test }| match (test, labels.get(key)) {
            (Test::In(values), Some(value)) => values.contains(value),
            (Test::NotIn(values), Some(value)) => !values.contains(value),
            (Test::Exists, value) => value.is_some(),
            (Test::Absent, value) => value.is_none(),
            (Test::In(_), None) => false,
            (Test::NotIn(_), None) => true,
        })
    }
}

impl FromStr for LabelSelector {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = split_outside_parentheses(text);
        let parts = parts.into_iter().map(str::trim).filter(|part| !part.is_empty());
        parts.map(requirement).collect::<Result<_, _>>().map(LabelSelector)
    }
}

impl fmt::Display for LabelSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, Requirement { key, test }) in self.0.iter().enumerate() {
            let comma = if n == 0 { "" } else { "," };
            match test {
                Test::In(values) => write!(f, "{comma}{key} in ({})", values.join(","))?,
                Test::NotIn(values) => write!(f, "{comma}{key} notin ({})", values.join(","))?,
                Test::Exists => write!(f, "{comma}{key}")?,
                Test::Absent => write!(f, "{comma}!{key}")?,
            }
        }
        Ok(())
    }
}

fn split_outside_parentheses(text: &str) -> Vec<&str> {
    let mut inside = false;
    text.split(|c| {
        inside = (inside || c == '(') && c != ')';
        c == ',' && !inside
    })
    .collect()
}

fn requirement(part: &str) -> Result<Requirement, String> {
    let set = |key: &str, values: &str| {
        let values = values.trim().strip_prefix('(')?.strip_suffix(')')?;
        Some((key.trim().to_owned(), values.split(',').map(|value| value.trim().to_owned()).collect()))
    };
    let one = |value: &str| vec![value.trim().to_owned()];
    let parsed = if let Some((key, values)) = part.split_once(" notin ") {
        set(key, values).map(|(key, values)| (key, Test::NotIn(values)))
    } else if let Some((key, values)) = part.split_once(" in ") {
        set(key, values).map(|(key, values)| (key, Test::In(values)))
    } else if let Some((key, value)) = part.split_once("!=") {
        Some((key.trim().to_owned(), Test::NotIn(one(value))))
    } else if let Some((key, value)) = part.split_once("==").or_else(|| part.split_once('=')) {
        Some((key.trim().to_owned(), Test::In(one(value))))
    } else if let Some(key) = part.strip_prefix('!') {
        Some((key.trim().to_owned(), Test::Absent))
    } else {
        Some((part.to_owned(), Test::Exists))
    };
    let is_of = |text: &str, others: &[u8]| {
        text.bytes().all(|byte| byte.is_ascii_alphanumeric() || others.contains(&byte))
    };
    let is_valid = |key: &str, test: &Test| {
        let values = match test {
            Test::In(values) | Test::NotIn(values) => &values[..],
            Test::Exists | Test::Absent => &[],
        };
        !key.is_empty() && is_of(key, b"-_./") && values.iter().all(|value| is_of(value, b"-_."))
    };
    let parsed =
        parsed.filter(|(key, test)| is_valid(key, test)).map(|(key, test)| Requirement { key, test });
    parsed.ok_or_else(|| {
        format!("{part:?} is no label requirement; write for example app=web, tier in (a,b) or !canary")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_select_as_kubectl_does() {
        let labels =
            BTreeMap::from([("app".to_owned(), "web".to_owned()), ("tier".to_owned(), "front".to_owned())]);
        for selector in [
            "",
            "app=web",
            "app==web,tier in (back, front)",
            "app",
            "!none",
            "none!=x",
            "none notin (a)",
            "app!=db",
        ] {
            assert!(selector.parse::<LabelSelector>().unwrap().matches(&labels), "{selector}");
        }
        for selector in
            ["app=db", "tier in (back)", "none", "!app", "none=x", "app notin (web)", "app=web,tier=x"]
        {
            assert!(!selector.parse::<LabelSelector>().unwrap().matches(&labels), "{selector}");
        }
        for selector in ["a in x", "=x", "a b", "in (x)", "a=(x,y)", "a in (b c)"] {
            assert!(selector.parse::<LabelSelector>().is_err(), "{selector}");
        }
    }
}
