//! Pages as exporters write them, read with no code of the agent's.

use std::collections::BTreeMap;

/// Of a series, by name; its own name is one of them, as Prometheus has it.
pub(super) type Labels = BTreeMap<String, String>;

/// The samples of a page under the labels of its target: one on the page that has the same name becomes `exported_...`.
pub(super) fn samples(page: &str, target: &Labels) -> Vec<(Labels, String)> {
    let lines = page.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let samples = lines.map(|line| {
        let (series, value) = line.rsplit_once(' ').unwrap();
        let (name, own) = series.split_once('{').unwrap_or((series, ""));
        let mut labels = series_of_target(name, target);
        for (name, value) in pairs(own) {
            let prefix = if target.contains_key(name) { "exported_" } else { "" };
            labels.insert(format!("{prefix}{name}"), value);
        }
        (labels, number(value))
    });
    samples.collect()
}

/// The series of that name without labels of its own.
pub(super) fn series_of_target(name: &str, target: &Labels) -> Labels {
    let mut labels = target.clone();
    labels.insert("__name__".to_owned(), name.to_owned());
    labels
}

/// A value as Rust writes it: programs write the same number in several ways.
pub(super) fn number(text: &str) -> String {
    text.parse::<f64>().unwrap().to_string()
}

/// What stands between braces. Quoted texts are escaped as in JSON.
fn pairs(mut text: &str) -> Vec<(&str, String)> {
    let mut pairs = Vec::new();
    while let Some((name, rest)) = text.split_once('=') {
        let mut texts = serde_json::Deserializer::from_str(rest).into_iter();
        pairs.push((name, texts.next().unwrap().unwrap()));
        text = rest[texts.byte_offset()..].trim_start_matches([',', '}']);
    }
    pairs
}
