//! Aliases and merge keys write one text for several places. A change to one of the places must not reach the others, nor miss
//! its own: what stands in its way is written out first.

use granit_parser::ScalarStyle;
use jsonptr::Pointer;

use super::render::quoted;
use super::tree::{Kind, Node};

/// Something that has to be written out.
#[derive(Debug)]
pub(super) enum Shared<'n> {
    /// An alias, and what it stands for.
    Alias(&'n Node, &'n Node),
    /// A mapping that has the value of a key only by a merge, with that value.
    Merged(&'n Node, String, &'n Node),
}

/// The first thing on the way to `pointer`, or in it, that is shared with another place.
pub(super) fn shared<'n>(root: &'n Node, pointer: &Pointer) -> Option<Shared<'n>> {
    let mut node = root;
    let mut tokens = pointer.tokens().peekable();
    loop {
        if let Some(alias) = alias_of(root, node) {
            return Some(alias);
        }
        let token = tokens.next()?.decoded().into_owned();
        match node.child(&token) {
            Some(child) => node = child,
            None => {
                // A single value that is merged in needs no place of its own: a new one stands before it.
                tokens.peek()?;
                return merged(root, node, &token).map(|value| Shared::Merged(node, token, value));
            }
        }
    }
}

/// The node itself where it is an alias, else one that stands for it.
fn alias_of<'n>(root: &'n Node, node: &'n Node) -> Option<Shared<'n>> {
    if let Kind::Alias(id) = node.kind {
        return anchored(root, id).map(|target| Shared::Alias(node, target));
    }
    let mut found = None;
    if node.anchor != 0 {
        root.visit(&mut |other| {
            if matches!(other.kind, Kind::Alias(id) if id == node.anchor) {
                found.get_or_insert(other);
            }
        });
    }
    found.map(|alias| Shared::Alias(alias, node))
}

fn anchored(root: &Node, id: usize) -> Option<&Node> {
    let mut found = None;
    root.visit(&mut |node| {
        if node.anchor == id && !matches!(node.kind, Kind::Alias(_)) {
            found = Some(node);
        }
    });
    found
}

/// The value of a key that a mapping has by `<<`; of several mappings the first one's.
fn merged<'n>(root: &'n Node, node: &'n Node, key: &str) -> Option<&'n Node> {
    let (_, merge) = node.entry("<<")?;
    let sources = if let Kind::Sequence(sources) = &merge.kind {
        sources.as_slice()
    } else {
        std::slice::from_ref(merge)
    };
    sources.iter().find_map(|source| {
        let source = if let Kind::Alias(id) = source.kind { anchored(root, id)? } else { source };
        source.child(key).or_else(|| merged(root, source, key))
    })
}

/// A node in brackets and braces, on one line, with every alias in it written out. Scalars without quotes stay as they are
/// written: what `0644` means is for its reader to say.
///
/// # Errors
/// When something in it cannot be written like that.
pub(super) fn written_out(text: &str, root: &Node, node: &Node) -> Result<String, String> {
    if node.is_tagged {
        return Err("it has a tag".to_owned());
    }
    Ok(match &node.kind {
        Kind::Alias(id) => {
            let target = anchored(root, *id).ok_or("an alias stands for nothing")?;
            written_out(text, root, target)?
        }
        Kind::Scalar(value, ScalarStyle::Plain) => {
            let written = &text[node.content..node.span.end];
            if written.is_empty() || node.is_null() {
                "null".to_owned()
            } else if value == written && !written.contains(['[', ']', '{', '}', ',', ':', '#']) {
                written.to_owned()
            } else {
                quoted(value)
            }
        }
        Kind::Scalar(value, _) => quoted(value),
        Kind::Sequence(items) => {
            let items =
                items.iter().map(|item| written_out(text, root, item)).collect::<Result<Vec<_>, _>>()?;
            format!("[{}]", items.join(", "))
        }
        Kind::Mapping(entries) => {
            let entry = |(key, value): &(Node, Node)| {
                Ok(format!("{}: {}", written_out(text, root, key)?, written_out(text, root, value)?))
            };
            let entries = entries.iter().map(entry).collect::<Result<Vec<_>, String>>()?;
            format!("{{{}}}", entries.join(", "))
        }
    })
}
