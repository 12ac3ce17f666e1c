//! How a part of a document is written: what its value alone does not tell.

use jsonptr::Pointer;

use super::editor::Editor;
use super::tree::Node;

/// A part of a document.
pub struct Layout<'t> {
    editor: Editor<'t>,
    part: Option<&'t Node>,
}

/// What a list was before the first item was added to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Was {
    /// Not there.
    Absent,
    /// There, without a value.
    Null,
    /// There, and empty.
    Empty,
}

// === impl Layout ===

impl<'t> Layout<'t> {
    /// The part at `pointer` of the document whose root is given.
    pub fn new(text: &'t str, root: &'t Node, pointer: &Pointer) -> Self {
        Layout { editor: Editor::new(text, root), part: root.at(pointer) }
    }

    /// What the list at `path` was before anything was added to it, if all in it was added.
    pub fn before(&self, path: &Pointer) -> Was {
        let find = || {
            let (parent, name) = path.split_back()?;
            let parent = self.part?.at(parent)?;
            let (key, value) = parent.entry(&name.decoded())?;
            Some((parent, key, value))
        };
        match find() {
            Some((parent, _, value)) if value.is_flow && !parent.is_flow => Was::Empty,
            Some((_, key, value)) if self.editor.was_null(key, value) => Was::Null,
            _ => Was::Absent,
        }
    }

    /// The keys of the map at `path`, in their order.
    pub fn keys(&self, path: &Pointer) -> Vec<&'t str> {
        let map = self.part.and_then(|part| part.at(path));
        map.into_iter().flat_map(Node::entries).filter_map(|(key, _)| key.text()).collect()
    }
}
