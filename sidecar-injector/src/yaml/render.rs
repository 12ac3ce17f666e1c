//! New nodes as text.

use serde_json::Value;

/// How a file is written, so that what is new looks like what is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Style {
    /// Columns from a key to the dash of its list.
    pub(super) dash: usize,
    /// Columns from a key to the keys below it.
    pub(super) step: usize,
}

/// How a value in brackets is spread: on one line, or each entry on its own, as JSON is written for people. Then the first
/// number is the columns before the closing bracket, the second how many more each level has.
pub(super) type Lines = Option<(usize, usize)>;

/// Words that are something else than text without quotes, for one reader of YAML or another.
const RESERVED: [&str; 9] = ["true", "false", "yes", "no", "on", "off", "null", "y", "n"];

/// A value on its own lines, each with a line break, every one `column` to the right.
pub(super) fn block(value: &Value, column: usize, style: Style) -> String {
    let mut text = String::new();
    match value {
        Value::Object(entries) if !entries.is_empty() => {
            for (key, value) in named_first(entries) {
                text.push_str(&entry(key, value, column, style));
            }
        }
        Value::Array(items) if !items.is_empty() => {
            items.iter().for_each(|one| text.push_str(&item(one, column, style)));
        }
        other => text = format!("{:column$}{}\n", "", scalar(other)),
    }
    text
}

/// A key and its value, with the key at `column`.
pub(super) fn entry(key: &str, value: &Value, column: usize, style: Style) -> String {
    let key = string(key);
    let below = match value {
        Value::Object(entries) if !entries.is_empty() => column + style.step,
        Value::Array(items) if !items.is_empty() => column + style.dash,
        other => return format!("{:column$}{key}: {}\n", "", scalar(other)),
    };
    format!("{:column$}{key}:\n{}", "", block(value, below, style))
}

/// An item of a list, with its dash at `column`.
pub(super) fn item(value: &Value, column: usize, style: Style) -> String {
    let text = block(value, column + 2, style);
    format!("{:column$}- {}", "", &text[column + 2..])
}

/// A value in brackets and braces.
pub(super) fn flow(value: &Value, lines: Lines) -> String {
    let below = lines.map(|(indent, step)| (indent + step, step));
    let parts: Vec<String> = match value {
        Value::Object(entries) => named_first(entries)
            .map(|(key, value)| format!("{}: {}", quoted(key), flow(value, below)))
            .collect(),
        Value::Array(items) => items.iter().map(|item| flow(item, below)).collect(),
        Value::String(text) => return quoted(text),
        other => return other.to_string(),
    };
    let (open, close) = if value.is_object() { ('{', '}') } else { ('[', ']') };
    match lines.filter(|_| !parts.is_empty()) {
        None => format!("{open}{}{close}", parts.join(", ")),
        Some((indent, step)) => {
            let inner = indent + step;
            let parts = parts.join(&format!(",\n{:inner$}", ""));
            format!("{open}\n{:inner$}{parts}\n{:indent$}{close}", "", "")
        }
    }
}

/// People look for the name first.
fn named_first(entries: &serde_json::Map<String, Value>) -> impl Iterator<Item = (&String, &Value)> {
    let (name, others): (Vec<_>, Vec<_>) = entries.iter().partition(|(key, _)| *key == "name");
    name.into_iter().chain(others)
}

fn scalar(value: &Value) -> String {
    match value {
        Value::String(text) => string(text),
        other => other.to_string(),
    }
}

/// A text, without quotes where no reader of YAML can take it for anything else.
pub(super) fn string(text: &str) -> String {
    if is_plain(text) {
        text.to_owned()
    } else if text.chars().any(is_unseen) {
        quoted(text)
    } else {
        format!("'{}'", text.replace('\'', "''"))
    }
}

/// A text as JSON has it.
pub(super) fn quoted(text: &str) -> String {
    let escaped = |c| if is_unseen(c) { format!("\\u{:04x}", u32::from(c)) } else { c.to_string() };
    Value::from(text).to_string().chars().map(escaped).collect()
}

/// What a reader of YAML may take for a line break, or may refuse.
fn is_unseen(c: char) -> bool {
    c != ' ' && (c.is_whitespace() || c.is_control() || c == '\u{feff}')
}

fn is_plain(text: &str) -> bool {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    if digits > 0 {
        return !text.starts_with('0') && matches!(&text[digits..], "m" | "s" | "Ki" | "Mi" | "Gi" | "Ti");
    }
    let is_safe = |c: char| c.is_ascii_alphanumeric() || "_-./:,".contains(c);
    text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/')
        && text.chars().all(is_safe)
        && !text.ends_with([':', ','])
        && !RESERVED.contains(&text.to_ascii_lowercase().as_str())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::yaml::values;

    #[test]
    fn what_is_rendered_is_read_back_as_it_was() {
        for text in [
            "",
            "a",
            "true",
            "Yes",
            "n",
            "0644",
            "10m",
            "08m",
            "1e3",
            "0x1f",
            "1:30",
            "~",
            "null",
            "a: b",
            "a #b",
            "#",
            "- a",
            "'",
            "\"",
            "a\nb\n",
            "\t",
            " a ",
            "é",
            "\u{85}",
            "\u{2028}",
            "\u{feff}",
            "\u{0}",
            "{a}",
            "a,b",
            "/var:",
            "*x",
            "&x",
            "!x",
            "%x",
            "@x",
            "/x/y.log",
            "sidelight:0.1.0",
            "\u{1f600}",
            "a:b",
            "=",
            ".5",
            "-1",
            "+1",
            "...",
            "---",
        ] {
            let value = json!({ "name": text, text: [text, { "k": text }, [], {}, [[text]], { text: { "a": [1, null, 1.5, true] } }] });
            for style in [Style { dash: 0, step: 2 }, Style { dash: 4, step: 4 }] {
                let block = block(&value, 3, style);
                assert_eq!(values(&block), Ok(vec![Ok(value.clone())]), "{block}");
                assert!(super::super::parse(&block).is_ok(), "{block}");
            }
            for lines in [None, Some((2, 3))] {
                let flow = flow(&value, lines);
                assert_eq!(values(&flow), Ok(vec![Ok(value.clone())]), "{flow}");
                assert_eq!(serde_json::from_str::<Value>(&flow).unwrap(), value);
            }
        }
    }

    #[test]
    fn quotes_stand_only_where_they_are_needed() {
        let plain = [
            "sidelight",
            "10m",
            "32Mi",
            "30s",
            "/var/log/x",
            "metadata.podIP",
            "logs,metrics",
            "sidelight:0.1.0",
        ];
        assert_eq!(plain.map(string), plain);
        assert_eq!(["true", "1", "a b", "$(X)"].map(string), ["'true'", "'1'", "'a b'", "'$(X)'"]);
        assert_eq!(
            item(&json!({ "image": "x", "name": "web" }), 2, Style { dash: 0, step: 2 }),
            "  - name: web\n    image: x\n"
        );
    }
}
