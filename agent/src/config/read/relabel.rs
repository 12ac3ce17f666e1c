//! `metrics.relabel` and `metrics.external_labels`.

use std::collections::BTreeMap;

use crate::config::mistakes::Mistakes;
use crate::config::section::Section;
use crate::metrics::relabel::{Action, Anchored, Rule};

/// What Prometheus takes where a rule does not say it.
const SEPARATOR: &str = ";";
const REPLACEMENT: &str = "$1";

pub(super) fn relabel(section: &mut Section, mistakes: &mut Mistakes) -> Vec<Rule> {
    let items = section.items("relabel", mistakes).unwrap_or_default();
    items.into_iter().filter_map(|(path, item)| rule(Section::new(&path, item, mistakes), mistakes)).collect()
}

fn rule(mut section: Section, mistakes: &mut Mistakes) -> Option<Rule> {
    let action = section.read("action", Action::Replace, mistakes, str::parse);
    let compares = matches!(action, Action::KeepEqual | Action::DropEqual);
    if compares && ["regex", "replacement", "separator"].iter().any(|key| section.has(key)) {
        mistakes.add(
            &section.path("action"),
            "this action compares source_labels with target_label, and takes no other key",
        );
    }
    let regex =
        section.read("regex", "(.*)".parse::<Anchored>().ok(), mistakes, |text| text.parse().map(Some));
    let rule = Rule {
        source_labels: section.texts("source_labels", &[], mistakes),
        separator: section.text("separator", SEPARATOR, mistakes),
        regex: regex?,
        target_label: section.text("target_label", "", mistakes),
        replacement: section.text("replacement", REPLACEMENT, mistakes),
        action,
    };
    let needs_target = matches!(action, Action::Replace | Action::Lowercase | Action::Uppercase) || compares;
    if needs_target && rule.target_label.is_empty() {
        mistakes.add(&section.path("target_label"), "needed for this action");
    }
    if matches!(action, Action::Keep | Action::Drop) && rule.source_labels.is_empty() {
        mistakes.add(
            &section.path("source_labels"),
            "needed for this action: without them it keeps or drops everything",
        );
    }
    section.finish(mistakes);
    Some(rule)
}

pub(super) fn external_labels(section: &mut Section, mistakes: &mut Mistakes) -> BTreeMap<String, String> {
    let labels = section.mapping("external_labels", mistakes);
    for name in labels.keys() {
        let mut bytes = name.bytes();
        let is_name = bytes.next().is_some_and(|first| first.is_ascii_alphabetic() || first == b'_')
            && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        if !is_name || name == "__name__" {
            mistakes.add(
                &section.path("external_labels"),
                format!("{name:?} is no name of a label: letters, digits and _, no digit first"),
            );
        }
    }
    labels.into_iter().filter(|(_, value)| !value.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use crate::config::Config;

    fn parse(metrics: &str) -> Result<Config, Vec<String>> {
        Config::parse(
            &format!("node: n\nlogs: {{ outputs: [ {{ stdout: {{}} }} ] }}\nmetrics: {{ {metrics} }}"),
            &|_| None,
        )
    }

    #[test]
    fn every_mistake_in_a_rule_is_told_with_its_path() {
        for (rule, mistake) in [
            ("action: hashmod", "metrics.relabel[0].action: hashmod is not allowed: each node"),
            ("action: remove", "metrics.relabel[0].action: \"remove\" is not allowed: replace, keep"),
            ("action: drop, regex: x", "metrics.relabel[0].source_labels: needed"),
            ("source_labels: [a]", "metrics.relabel[0].target_label: needed"),
            ("action: labeldrop, regex: '('", "metrics.relabel[0].regex: regex parse error"),
            (
                "action: keepequal, source_labels: [a], target_label: b, regex: x",
                "metrics.relabel[0].action: this action compares",
            ),
            (
                "action: labeldrop, source_label: [a]",
                "metrics.relabel[0].source_label: unknown key; did you mean `source_labels`",
            ),
        ] {
            let found = parse(&format!("relabel: [ {{ {rule} }} ]")).unwrap_err();
            assert!(found.iter().any(|line| line.starts_with(mistake)), "{rule}: {found:?}");
        }
        let found = parse("external_labels: { 1a: x, ok: y }").unwrap_err();
        assert!(found[0].starts_with("metrics.external_labels: \"1a\" is no name"), "{found:?}");
        assert_eq!(found.len(), 1);
    }

    /// Prometheus's way to write a group is none of an environment variable.
    #[test]
    fn a_group_in_a_replacement_is_no_environment_variable() {
        let config =
            parse("relabel: [ { source_labels: [a], target_label: b, replacement: 'x-${1}' } ]").unwrap();
        let rule = &config.metrics.relabel[0];
        assert_eq!((rule.replacement.as_str(), rule.separator.as_str()), ("x-${1}", ";"));
    }
}
