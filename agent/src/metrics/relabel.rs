//! `metric_relabel_configs` of Prometheus: rules that change the labels of a series, or drop it.
//!
//! They are applied once, when a series is new. Source: Prometheus's documentation of `relabel_config`, and
//! `model/relabel/relabel.go` where that is silent. A regex is the `regex` crate's: its `\d`, `\w` and `\s` know all of
//! Unicode and not only ASCII.

use std::collections::BTreeMap;
use std::str::FromStr;

use regex::Regex;
use serde::{Serialize, Serializer};

/// Labels of a series by name; none is empty.
pub type Labels = BTreeMap<String, String>;

/// One rule.
#[derive(Clone, Debug, Serialize)]
#[allow(missing_docs, reason = "Prometheus's keys, described in its documentation")]
pub struct Rule {
    pub source_labels: Vec<String>,
    pub separator: String,
    pub regex: Anchored,
    pub target_label: String,
    pub replacement: String,
    pub action: Action,
}

/// What a rule does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "Prometheus's actions, described in its documentation")]
pub enum Action {
    Replace,
    Keep,
    Drop,
    KeepEqual,
    DropEqual,
    Lowercase,
    Uppercase,
    LabelMap,
    LabelDrop,
    LabelKeep,
}

/// A regex that has to match the whole text.
#[derive(Clone, Debug)]
pub struct Anchored {
    text: String,
    regex: Regex,
}

/// Whether the series is kept; its labels are changed.
pub fn relabel(rules: &[Rule], labels: &mut Labels) -> bool {
    rules.iter().all(|rule| rule.apply(labels)) && labels.contains_key("__name__")
}

// === impl Rule ===

impl Rule {
    fn apply(&self, labels: &mut Labels) -> bool {
        let value = self.source(labels);
        let is_match = |text: &str| self.regex.regex.is_match(text);
        let is_equal = || labels.get(&self.target_label).map_or("", String::as_str) == value;
        match self.action {
            Action::Keep => return is_match(&value),
            Action::Drop => return !is_match(&value),
            Action::KeepEqual => return is_equal(),
            Action::DropEqual => return !is_equal(),
            Action::Replace => self.replace(&value, labels),
            Action::Lowercase => set(labels, self.target_label.clone(), value.to_lowercase()),
            Action::Uppercase => set(labels, self.target_label.clone(), value.to_uppercase()),
            Action::LabelMap => self.map_names(labels),
            Action::LabelDrop => labels.retain(|name, _| !is_match(name)),
            Action::LabelKeep => labels.retain(|name, _| is_match(name)),
        }
        true
    }

    fn source(&self, labels: &Labels) -> String {
        let values = self.source_labels.iter().map(|name| labels.get(name).map_or("", String::as_str));
        values.collect::<Vec<_>>().join(&self.separator)
    }

    fn replace(&self, value: &str, labels: &mut Labels) {
        let Some(captures) = self.regex.regex.captures(value) else { return };
        let expand = |template: &str| {
            let mut expanded = String::new();
            captures.expand(template, &mut expanded);
            expanded
        };
        let name = expand(&self.target_label);
        if !name.is_empty() {
            set(labels, name, expand(&self.replacement));
        }
    }

    fn map_names(&self, labels: &mut Labels) {
        let renamed = |(name, value): (&String, &String)| {
            let is_match = self.regex.regex.is_match(name);
            is_match.then(|| (self.regex.regex.replace(name, &*self.replacement).into_owned(), value.clone()))
        };
        let renamed: Vec<_> = labels.iter().filter_map(renamed).collect();
        renamed
            .into_iter()
            .filter(|(name, _)| !name.is_empty())
            .for_each(|(name, value)| set(labels, name, value));
    }
}

/// An empty value is the same as none.
fn set(labels: &mut Labels, name: String, value: String) {
    if value.is_empty() {
        labels.remove(&name);
    } else {
        labels.insert(name, value);
    }
}

// === impl Action ===

impl FromStr for Action {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Ok(match text.to_lowercase().as_str() {
            "replace" => Action::Replace,
            "keep" => Action::Keep,
            "drop" => Action::Drop,
            "keepequal" => Action::KeepEqual,
            "dropequal" => Action::DropEqual,
            "lowercase" => Action::Lowercase,
            "uppercase" => Action::Uppercase,
            "labelmap" => Action::LabelMap,
            "labeldrop" => Action::LabelDrop,
            "labelkeep" => Action::LabelKeep,
            "hashmod" => {
                return Err("hashmod is not allowed: each node has its own agent, and nothing to share out"
                    .to_owned());
            }
            _ => {
                return Err(format!(
                    "{text:?} is not allowed: replace, keep, drop, keepequal, dropequal, lowercase, uppercase, labelmap, \
                     labeldrop or labelkeep"
                ));
            }
        })
    }
}

// === impl Anchored ===

impl FromStr for Anchored {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // Alone first: what closes the group around it would pass otherwise.
        Regex::new(text).map_err(|error| error.to_string())?;
        let regex = Regex::new(&format!("^(?s:{text})$")).map_err(|error| error.to_string())?;
        Ok(Anchored { text: text.to_owned(), regex })
    }
}

impl Serialize for Anchored {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(action: &str, sources: &[&str], regex: &str, target: &str, replacement: &str) -> Rule {
        Rule {
            source_labels: sources.iter().map(|name| (*name).to_owned()).collect(),
            separator: ";".to_owned(),
            regex: regex.parse().unwrap(),
            target_label: target.to_owned(),
            replacement: replacement.to_owned(),
            action: action.parse().unwrap(),
        }
    }

    /// What becomes of `a="foo",b="bar",c="baz"`, or that it is dropped.
    fn relabelled(rules: &[Rule]) -> String {
        let pairs = [("__name__", "m"), ("a", "foo"), ("b", "bar"), ("c", "baz")];
        let mut labels = pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        if !relabel(rules, &mut labels) {
            return "dropped".to_owned();
        }
        labels.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" ")
    }

    /// The facts are those of Prometheus's `relabel_test.go`.
    #[test]
    fn each_action_does_what_it_does_in_prometheus() {
        let all = "__name__=m a=foo b=bar c=baz";
        for (rule, expected) in [
            (
                rule("replace", &["a"], "f(.*)", "d", "ch${1}-ch${1}"),
                "__name__=m a=foo b=bar c=baz d=choo-choo",
            ),
            (
                rule("replace", &["a", "b"], "f(.*);(.*)r", "a", "b${1}${2}m"),
                "__name__=m a=boobam b=bar c=baz",
            ),
            (rule("replace", &["a"], "f", "b", "bar"), all),
            (rule("replace", &["a"], "no-match", "d", "x"), all),
            (rule("replace", &["a"], "f(.*)", "b", ""), "__name__=m a=foo c=baz"),
            (rule("replace", &["a"], "(f).*", "${1}_x", "y"), "__name__=m a=foo b=bar c=baz f_x=y"),
            (rule("replace", &["a"], "f(x)?oo", "$1", "y"), all),
            (rule("replace", &[], "(.*)", "d", "fixed"), "__name__=m a=foo b=bar c=baz d=fixed"),
            (rule("drop", &["a"], "f.*", "", ""), "dropped"),
            (rule("drop", &["a"], "oo", "", ""), all),
            (rule("keep", &["a"], "no-match", "", ""), "dropped"),
            (rule("keep", &["a", "b"], "foo;bar", "", ""), all),
            (rule("keepequal", &["a"], "(.*)", "b", ""), "dropped"),
            (rule("dropequal", &["a"], "(.*)", "b", ""), all),
            (rule("dropequal", &["nothing"], "(.*)", "nothing either", ""), "dropped"),
            (rule("uppercase", &["a"], "(.*)", "a", ""), "__name__=m a=FOO b=bar c=baz"),
            (rule("labelmap", &[], "(b.*)", "", "bar_${1}"), "__name__=m a=foo b=bar bar_b=bar c=baz"),
            (rule("labeldrop", &[], "[ab]", "", ""), "__name__=m c=baz"),
            (rule("labelkeep", &[], "__name__|[ab]", "", ""), "__name__=m a=foo b=bar"),
            (rule("labelkeep", &[], "a", "", ""), "dropped"),
        ] {
            assert_eq!(relabelled(std::slice::from_ref(&rule)), expected, "{rule:?}");
        }
        let chain = [rule("replace", &["a"], "(foo)", "d", "$1$1"), rule("drop", &["d"], "foofoo", "", "")];
        assert_eq!(relabelled(&chain), "dropped");
    }

    #[test]
    fn a_regex_cannot_leave_its_anchors() {
        assert!("a)|(?:b".parse::<Anchored>().is_err());
        assert!("a|b".parse::<Anchored>().unwrap().regex.is_match("b"));
        assert!(!"a|b".parse::<Anchored>().unwrap().regex.is_match("ab"));
    }
}
