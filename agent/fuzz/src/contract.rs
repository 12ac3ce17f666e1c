//! What operators and tenants write: globs, label selectors, tags, annotations, patterns.

use std::sync::LazyLock;

use sidelight_agent::logs::multiline::Recognizer;
use sidelight_agent::logs::redact::{BUILTIN, Redactor};
use sidelight_agent::logs::rules::LabelSelector;
use sidelight_agent::logs::tag::TagTemplate;
use sidelight_contract::annotations::{Allow, Multiline, PREFIX, Redaction, log_annotations, problems};
use sidelight_contract::glob;

const MARK: &[u8] = b"[REDACTED]";

static BUILTIN_REDACTORS: LazyLock<Vec<Redactor>> = LazyLock::new(|| {
    let compile = |(name, _): (&str, _)| Redactor::compile(&[name.to_owned()]).expect("a valid pattern");
    BUILTIN.map(compile).into()
});

/// The lines are texts: what is read of them, and what it is tried on.
///
/// A glob matches as a slow matcher says; a selector that is printed selects the same; what a pod says wrongly is told and
/// counts as absent; and a redaction adds nothing but its mark.
pub fn contract(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let mut lines = text.split('\n');
    let (first, second) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
    if first.chars().count() * second.chars().count() < 10_000 {
        assert_eq!(glob::matches(first, second), slow_glob(first, second), "{first:?} and {second:?}");
    }
    selector(first);
    let _ = first.parse::<TagTemplate>();
    let pairs: Vec<_> = text.split('\n').filter_map(|line| line.split_once('=')).collect();
    annotations(&pairs);
    redacted(first, second);
}

/// One row of a table for each character of the text: which prefixes of the glob match up to there.
fn slow_glob(glob: &str, text: &str) -> bool {
    let glob: Vec<char> = glob.chars().collect();
    let stars = |mut row: Vec<bool>| {
        (0..glob.len()).for_each(|at| row[at + 1] |= row[at] && glob[at] == '*');
        row
    };
    let mut first = vec![false; glob.len() + 1];
    first[0] = true;
    let last = text.chars().fold(stars(first), |before, found| {
        let mut row = vec![false; glob.len() + 1];
        for (at, wanted) in glob.iter().enumerate() {
            row[at + 1] |= match wanted {
                '*' => before[at + 1],
                '?' => before[at],
                _ => before[at] && *wanted == found,
            };
        }
        stars(row)
    });
    last[glob.len()]
}

/// What is printed is read as the same.
fn selector(text: &str) {
    let Ok(selector) = text.parse::<LabelSelector>() else { return };
    let printed = selector.to_string();
    assert_eq!(printed.parse(), Ok(selector), "{printed:?}");
}

fn annotations(pairs: &[(&str, &str)]) {
    let (allow, builtin) = (Allow::default(), BUILTIN.map(|(name, _)| name));
    let said = log_annotations(pairs.iter().copied(), "app", &allow, &builtin);
    let told = problems(pairs.iter().copied(), &["app"], &allow, &builtin);
    for problem in &told {
        assert!(problem.key.starts_with(PREFIX) && pairs.iter().any(|(key, _)| *key == problem.key));
        assert!(!problem.message.is_empty());
    }
    assert!(said.sample.is_none_or(|share| (0.0..=1.0).contains(&share)));
    assert!(said.rate != Some(0) && said.tag.is_none(), "a pod does not choose its tag by default");
    let is_unusable = said.redact.iter().any(|one| matches!(one, Redaction::Unusable(_)));
    assert!(!is_unusable || !told.is_empty(), "what cannot be redacted is told");
    if let Some(Multiline::Start(pattern)) = &said.multiline {
        // Whether it compiles is for the agent to say; it must only not take its memory or its thread down.
        let _ = Recognizer::new(&Multiline::Start(pattern.clone()))
            .map(|recognizer| recognizer.map(|recognizer| recognizer.first(b"2026-11-24 INFO a line")));
    }
}

/// What is put in the place of a secret is all that is added, and what stands around it is all that is left.
fn redacted(pattern: &str, text: &str) {
    let own = Redactor::compile(&[pattern.to_owned()]).ok();
    for redactor in BUILTIN_REDACTORS.iter().chain(&own) {
        let mut room = Vec::new();
        let mut clean = redactor.apply(text.as_bytes(), &mut room);
        if clean == text.as_bytes() {
            continue;
        }
        let mut rest = Some(text.as_bytes());
        while let Some(mark) = find(clean, MARK) {
            // A mark stands for one byte at least; it may stand for a part of a character.
            rest = rest.and_then(|rest| behind(rest, &clean[..mark])?.get(1..));
            clean = &clean[mark + MARK.len()..];
        }
        let is_of_text = rest.is_some_and(|rest| rest.ends_with(clean));
        assert!(is_of_text, "{:?} is not of {text:?}", String::from_utf8_lossy(&room));
    }
}

/// What stands behind the first `part` of a text.
fn behind<'a>(text: &'a [u8], part: &[u8]) -> Option<&'a [u8]> {
    text.get(find(text, part)? + part.len()..)
}

fn find(text: &[u8], part: &[u8]) -> Option<usize> {
    (0..=text.len().checked_sub(part.len())?).find(|at| text[*at..].starts_with(part))
}
