//! A JSON patch as replacements of text.

use std::collections::BTreeMap;

use json_patch::{Patch, PatchOperation};
use jsonptr::PointerBuf;
use serde_json::Value;

use super::aliases::{Shared, shared, written_out};
use super::editor::{Changes, Editor, Splice};
use super::tree::{Node, parse};
use super::values;
use crate::patch::apply;

/// A changed text.
#[derive(Debug, PartialEq, Eq)]
pub struct Edited {
    /// The text.
    pub text: String,
    /// What had to be written otherwise than the change alone would ask for.
    pub notes: Vec<String>,
}

/// Changes documents of a stream, each named by its place in it. The result is read again, and is what the patches say, or an
/// error. Known are `add` to lists (first or last) and maps, `remove`, and `replace` of texts and, by null, of lists and maps
/// that were null before they were added to.
///
/// # Errors
/// Why the text cannot be changed so.
pub fn edit(text: &str, patches: &[(usize, Patch)]) -> Result<Edited, String> {
    // The last line is one like the others while work goes on.
    let is_ended = text.is_empty() || text.ends_with('\n');
    let newline = if text.contains("\r\n") { "\r\n" } else { "\n" };
    let whole = if is_ended { text.to_owned() } else { format!("{text}{newline}") };
    let expected = expected(&whole, patches)?;
    let (mut whole, roots, notes) = unshared(whole, patches)?;
    let mut splices = Vec::new();
    for (index, patch) in patches {
        let root = roots.get(*index).ok_or("there is no such document")?;
        let editor = Editor::new(&whole, root);
        // What is deeper comes first: where both end on the same line, that is their order in the text.
        for (path, changes) in changes(patch)?.into_iter().rev() {
            let container = root.at(&path).ok_or_else(|| format!("{path} is not there"))?;
            let added = editor.change(container, &changes).map_err(|error| format!("{path}: {error}"))?;
            splices.extend(added);
        }
    }
    if newline != "\n" {
        splices.iter_mut().for_each(|splice| splice.text = splice.text.replace('\n', newline));
    }
    whole = spliced(&whole, splices)?;
    let found = values(&whole).map_err(|error| format!("the result would be no YAML: {error}"))?;
    if found != expected {
        return Err("the result would say something else than it should".to_owned());
    }
    if !is_ended {
        whole.truncate(whole.strip_suffix(newline).map_or(whole.len(), str::len));
    }
    Ok(Edited { text: whole, notes })
}

/// What the result has to say.
fn expected(text: &str, patches: &[(usize, Patch)]) -> Result<Vec<Result<Value, String>>, String> {
    let mut expected = values(text)?;
    for (index, patch) in patches {
        let document = expected.get_mut(*index).ok_or("there is no such document")?;
        let document = document.as_mut().map_err(|error| error.clone())?;
        apply(document, patch).map_err(|error| error.to_string())?;
    }
    Ok(expected)
}

/// The same text, and its documents, with what is shared between places that change and others written out, one by one.
fn unshared(
    mut text: String,
    patches: &[(usize, Patch)],
) -> Result<(String, Vec<Node>, Vec<String>), String> {
    let mut notes = Vec::new();
    'again: loop {
        let roots = parse(&text)?;
        for (index, patch) in patches {
            let root = roots.get(*index).ok_or("there is no such document")?;
            for operation in &patch.0 {
                let Some(found) = shared(root, operation.path()) else { continue };
                let line = |node: &Node| text[..node.span.start].matches('\n').count() + 1;
                let splice = match found {
                    Shared::Alias(alias, target) => {
                        notes.push(format!("line {}: the alias is written out", line(alias)));
                        Splice { range: alias.span.clone(), text: written_out(&text, root, target)? }
                    }
                    Shared::Merged(mapping, key, value) => {
                        notes.push(format!("line {}: {key} is written out, it was merged in", line(mapping)));
                        let value = written_out(&text, root, value)?;
                        Editor::new(&text, root).add_written(mapping, &key, &value)?
                    }
                };
                text = spliced(&text, vec![splice])?;
                continue 'again;
            }
        }
        return Ok((text, roots, notes));
    }
}

/// The operations by the list or map that they change.
fn changes(patch: &Patch) -> Result<BTreeMap<PointerBuf, Changes<'_>>, String> {
    let mut all: BTreeMap<PointerBuf, Changes<'_>> = BTreeMap::new();
    for operation in &patch.0 {
        let (parent, name) = operation.path().split_back().ok_or("a document as a whole is not changed")?;
        let (changes, name) = (all.entry(parent.to_buf()).or_default(), name.decoded().into_owned());
        match operation {
            PatchOperation::Add(add) if name == "-" => changes.last.push(&add.value),
            PatchOperation::Add(add) if name == "0" => changes.first.push(&add.value),
            PatchOperation::Add(add) => changes.entries.push((name, &add.value)),
            PatchOperation::Replace(replace) => changes.entries.push((name, &replace.value)),
            PatchOperation::Remove(_) => changes.removed.push(name),
            other => return Err(format!("{other} is not known here")),
        }
    }
    Ok(all)
}

/// The text with all replacements made; none may be in another.
fn spliced(text: &str, mut splices: Vec<Splice>) -> Result<String, String> {
    splices.sort_by_key(|splice| (splice.range.start, splice.range.end));
    let mut result = String::with_capacity(text.len() + 4096);
    let mut at = 0;
    for Splice { range, text: new } in splices {
        result.push_str(text.get(at..range.start).ok_or("two changes are about the same text")?);
        result.push_str(&new);
        at = range.end;
    }
    result.push_str(text.get(at..).ok_or("a change is behind the end")?);
    Ok(result)
}
