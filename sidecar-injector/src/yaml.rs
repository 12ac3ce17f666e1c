//! YAML that is changed where it stands: everything that a change is not about keeps its bytes, comments included.
//!
//! `tree` finds the place of every node, `aliases` writes out what a change must not share with other places, `edit` turns a
//! JSON patch into replacements of text, and `render` writes what is new.

mod aliases;
mod edit;
mod editor;
mod layout;
mod render;
mod tree;

pub use edit::{Edited, edit};
pub use layout::{Layout, Was};
pub use tree::{Kind, Node, parse};

use serde::Deserialize;
use serde_json::Value;

/// The documents of a stream as JSON; one that JSON has no words for is an error inside.
///
/// # Errors
/// What is wrong with the YAML.
pub fn values(text: &str) -> Result<Vec<Result<Value, String>>, String> {
    let documents = yaml_serde::Deserializer::from_str(text.strip_prefix('\u{feff}').unwrap_or(text));
    let values = documents.map(|document| {
        let mut value = yaml_serde::Value::deserialize(document).map_err(|error| error.to_string())?;
        Ok(match value.apply_merge() {
            Ok(()) => serde_json::to_value(value).map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        })
    });
    values.collect()
}

#[cfg(test)]
mod tests;
