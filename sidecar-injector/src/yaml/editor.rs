//! Changes of one list or map in a document, as replacements of text.

use std::ops::Range;

use granit_parser::ScalarStyle;
use serde_json::Value;

use super::render::{self, Lines, Style};
use super::tree::{Kind, Node};

/// Said in a comment where an empty value has become a list or a map: what stood behind the colon.
const WAS: &str = "# sidelight-injector: was ";

/// Bytes that something else takes the place of.
#[derive(Debug)]
pub(super) struct Splice {
    pub(super) range: Range<usize>,
    pub(super) text: String,
}

/// What becomes of one list or map.
#[derive(Debug, Default)]
pub(super) struct Changes<'p> {
    pub(super) first: Vec<&'p Value>,
    pub(super) last: Vec<&'p Value>,
    pub(super) entries: Vec<(String, &'p Value)>,
    pub(super) removed: Vec<String>,
}

/// Changes one document.
pub(super) struct Editor<'t> {
    text: &'t str,
    style: Style,
    /// Whether the document is JSON on many lines, or written like it.
    is_json: bool,
}

// === impl Editor ===

impl<'t> Editor<'t> {
    pub(super) fn new(text: &'t str, root: &Node) -> Self {
        let mut editor = Editor { text, style: style(text, root), is_json: false };
        if let Some((first, _)) = root.entries().first().filter(|_| root.is_flow) {
            editor.is_json = editor.line_start(first.span.start) != editor.line_start(root.content);
            editor.style.step = editor.column(first.span.start).max(1);
        }
        editor
    }

    /// All changes of one list or map.
    pub(super) fn change(&self, node: &Node, changes: &Changes<'_>) -> Result<Vec<Splice>, String> {
        match &node.kind {
            Kind::Sequence(items) => self.change_list(node, items, changes),
            Kind::Mapping(entries) => self.change_map(node, entries, changes),
            _ => Err("there is neither a list nor a map".to_owned()),
        }
    }

    fn change_list(&self, node: &Node, items: &[Node], changes: &Changes<'_>) -> Result<Vec<Splice>, String> {
        let is_removed = |index: &usize| changes.removed.iter().any(|name| name.parse() == Ok(*index));
        let removed: Vec<usize> = (0..items.len()).filter(is_removed).collect();
        let members: Vec<_> = items.iter().map(|item| item.span.clone()).collect();
        if node.is_flow {
            let write = |value: &&Value, lines| render::flow(value, lines);
            let mut splices = self.add_flow(node, &members, &changes.first, &changes.last, &write);
            splices.extend(self.remove_flow(node, &members, &removed));
            return Ok(splices);
        }
        let mut splices = self.add_items(items, changes)?;
        let lines = |index: usize| self.remove_lines(items[index].dash, items[index].span.end);
        splices.extend(removed.into_iter().map(lines));
        Ok(splices)
    }

    fn change_map(
        &self,
        node: &Node,
        entries: &[(Node, Node)],
        changes: &Changes<'_>,
    ) -> Result<Vec<Splice>, String> {
        let mut splices = Vec::new();
        for (name, value) in &changes.entries {
            if let Some((key, old)) = node.entry(name) {
                splices.extend(self.replace(node.is_flow, key, old, value)?);
            }
        }
        // New keys come behind what an old last one may have got.
        for (name, value) in changes.entries.iter().filter(|(name, _)| node.entry(name).is_none()) {
            splices.push(self.add_entry(node, name, value)?);
        }
        let is_removed =
            |(key, _): &(Node, Node)| changes.removed.iter().any(|name| key.text() == Some(name));
        let removed: Vec<usize> = (0..entries.len()).filter(|index| is_removed(&entries[*index])).collect();
        let members = members(entries);
        if node.is_flow {
            splices.extend(self.remove_flow(node, &members, &removed));
        } else {
            let lines = |index: usize| self.remove_lines(members[index].start, members[index].end);
            splices.extend(removed.into_iter().map(lines));
        }
        Ok(splices)
    }

    fn add_entry(&self, node: &Node, name: &str, value: &Value) -> Result<Splice, String> {
        if node.is_flow {
            let write = |(): &(), lines| {
                let lines = if self.is_json { lines } else { None };
                format!("{}: {}", render::quoted(name), render::flow(value, lines))
            };
            let mut added = self.add_flow(node, &members(node.entries()), &[], &[()], &write);
            return added.pop().ok_or_else(|| "there is no place for a key".to_owned());
        }
        let (column, at) = self.end_of_mapping(node)?;
        Ok(insert(at, render::entry(name, value, column, self.style)))
    }

    /// The same with a value that is text already.
    pub(super) fn add_written(&self, node: &Node, name: &str, value: &str) -> Result<Splice, String> {
        let name = render::string(name);
        if node.is_flow {
            let write = |(): &(), _| format!("{name}: {value}");
            let mut added = self.add_flow(node, &members(node.entries()), &[], &[()], &write);
            return added.pop().ok_or_else(|| "there is no place for a key".to_owned());
        }
        let (column, at) = self.end_of_mapping(node)?;
        Ok(insert(at, format!("{:column$}{name}: {value}\n", "")))
    }

    /// The column of the keys, and where the next one has its line.
    fn end_of_mapping(&self, node: &Node) -> Result<(usize, usize), String> {
        let (first, last) = (node.entries().first(), node.entries().last());
        let ((first, _), (_, last)) = first.zip(last).ok_or("there is no key to put another behind")?;
        Ok((self.column(first.span.start), self.next_line(last.span.end)))
    }

    fn add_items(&self, items: &[Node], changes: &Changes<'_>) -> Result<Vec<Splice>, String> {
        let (first, last) =
            items.first().zip(items.last()).ok_or("there is no item to put another beside")?;
        let start = self.line_start(first.dash);
        if !self.text[start..first.dash].trim_matches(' ').is_empty() {
            return Err("the list begins behind something else on its line".to_owned());
        }
        let written = |values: &[&Value]| -> String {
            values.iter().map(|value| render::item(value, first.dash - start, self.style)).collect()
        };
        // Comments above the first item are about that one.
        let mut top = start;
        while let Some(above) = top.checked_sub(1).map(|end| self.line_start(end)) {
            let line = self.text[above..top].trim();
            if !(line.is_empty() || line.starts_with('#')) {
                break;
            }
            top = above;
        }
        let inserts = [
            insert(top, written(&changes.first)),
            insert(self.next_line(last.span.end), written(&changes.last)),
        ];
        Ok(inserts.into_iter().filter(|splice| !splice.text.is_empty()).collect())
    }

    /// A value in the place of another.
    fn replace(&self, is_flow: bool, key: &Node, old: &Node, new: &Value) -> Result<Vec<Splice>, String> {
        let colon = self.colon(key)?;
        if new.is_null() {
            return self.restore_null(colon, old);
        }
        let span = colon + 1..old.span.end.max(colon + 1);
        if !old.is_null() {
            let Kind::Scalar(_, style) = &old.kind else {
                return Err("it would be replaced as a whole".to_owned());
            };
            let text = new.as_str().ok_or("it would be replaced as a whole")?;
            let written = match style {
                ScalarStyle::SingleQuoted => format!("'{}'", text.replace('\'', "''")),
                ScalarStyle::DoubleQuoted => render::quoted(text),
                _ if is_flow => render::quoted(text),
                _ => render::string(text),
            };
            let is_block = matches!(style, ScalarStyle::Literal | ScalarStyle::Folded);
            let start = if is_block { colon + 1 } else { old.span.start };
            let written = if is_block { format!(" {written}") } else { written };
            return Ok(vec![Splice { range: start..old.span.end, text: written }]);
        }
        if is_flow || !(new.is_array() || new.is_object()) {
            return Ok(vec![Splice { range: span, text: format!(" {}", render::flow(new, None)) }]);
        }
        let shift = if new.is_array() { self.style.dash } else { self.style.step };
        let column = self.column(key.span.start) + shift;
        let was = Value::from(&self.text[span.clone()]);
        let lines = format!("{:column$}{WAS}{was}\n{}", "", render::block(new, column, self.style));
        let below = insert(self.next_line(colon), lines);
        Ok(vec![Splice { range: span, text: String::new() }, below])
    }

    /// Where the comment is that tells what a list or map was before, and what it was.
    fn was(&self, colon: usize, node: &Node) -> Option<(Range<usize>, String)> {
        let first = first_inside(node);
        let mut at = self.next_line(colon);
        while at < first {
            let line = at..self.next_line(at);
            if let Some(was) = self.text[line.clone()].trim().strip_prefix(WAS) {
                return Some((line, serde_json::from_str(was).ok()?));
            }
            at = line.end;
        }
        None
    }

    /// Whether `restore_null` can be.
    pub(super) fn was_null(&self, key: &Node, value: &Node) -> bool {
        !value.is_flow && self.colon(key).is_ok_and(|colon| self.was(colon, value).is_some())
    }

    fn restore_null(&self, colon: usize, node: &Node) -> Result<Vec<Splice>, String> {
        let (line, was) = self.was(colon, node).ok_or("what it was before is not known")?;
        let mut splices = vec![insert(colon + 1, was), Splice { range: line, text: String::new() }];
        splices.extend(node.items().iter().map(|item| self.remove_lines(item.dash, item.span.end)));
        let entries = node.entries().iter();
        splices.extend(entries.map(|(key, value)| self.remove_lines(key.span.start, value.span.end)));
        Ok(splices)
    }

    fn remove_lines(&self, start: usize, end: usize) -> Splice {
        Splice { range: self.line_start(start)..self.next_line(end), text: String::new() }
    }

    /// Adds to a list or map in brackets, whose members have these places.
    fn add_flow<V>(
        &self,
        node: &Node,
        members: &[Range<usize>],
        first: &[V],
        last: &[V],
        write: &dyn Fn(&V, Lines) -> String,
    ) -> Vec<Splice> {
        let outer = self.indent(node.content);
        let lines = match members.first() {
            Some(member) if self.line_start(member.start) != self.line_start(node.content) => {
                let indent = self.column(member.start);
                Some((indent, indent.saturating_sub(outer).max(1)))
            }
            None if self.is_json => Some((outer + self.style.step, self.style.step)),
            _ => None,
        };
        let between = lines.map_or(", ".to_owned(), |(indent, _)| format!(",\n{:indent$}", ""));
        let written =
            |values: &[V]| -> Vec<String> { values.iter().map(|value| write(value, lines)).collect() };
        let (first, last) = (written(first), written(last));
        let Some((begin, end)) = members.first().zip(members.last()) else {
            let all = [first, last].concat();
            if all.is_empty() {
                return Vec::new();
            }
            let text = match lines {
                None => all.join(&between),
                Some((indent, _)) => format!("\n{:indent$}{}\n{:outer$}", "", all.join(&between), ""),
            };
            return vec![insert(node.content + 1, text)];
        };
        let before: String = first.iter().map(|text| format!("{text}{between}")).collect();
        let behind: String = last.iter().map(|text| format!("{between}{text}")).collect();
        let inserts = [insert(begin.start, before), insert(end.end, behind)];
        inserts.into_iter().filter(|splice| !splice.text.is_empty()).collect()
    }

    fn remove_flow(&self, node: &Node, members: &[Range<usize>], removed: &[usize]) -> Vec<Splice> {
        let Some(kept) = (0..members.len()).find(|index| !removed.contains(index)) else {
            let inside = node.content + 1..node.span.end - 1;
            return vec![Splice { range: inside, text: String::new() }];
        };
        let range = |index: &usize| match *index {
            index if index < kept => members[index].start..members[index + 1].start,
            index => members[index - 1].end..members[index].end,
        };
        removed.iter().map(|index| Splice { range: range(index), text: String::new() }).collect()
    }

    /// The colon behind a key.
    fn colon(&self, key: &Node) -> Result<usize, String> {
        let behind = &self.text[key.span.end..];
        let blanks = behind.len() - behind.trim_start_matches([' ', '\t']).len();
        if behind[blanks..].starts_with(':') {
            Ok(key.span.end + blanks)
        } else {
            Err("there is no colon behind its key".to_owned())
        }
    }

    fn column(&self, at: usize) -> usize {
        at - self.line_start(at)
    }

    /// The blanks that the line begins with.
    fn indent(&self, at: usize) -> usize {
        let line = &self.text[self.line_start(at)..];
        line.len() - line.trim_start_matches([' ', '\t']).len()
    }

    fn line_start(&self, at: usize) -> usize {
        line_start(self.text, at)
    }

    fn next_line(&self, at: usize) -> usize {
        self.text[at..].find('\n').map_or(self.text.len(), |end| at + end + 1)
    }
}

fn insert(at: usize, text: String) -> Splice {
    Splice { range: at..at, text }
}

/// A byte order mark is no part of the first line.
fn line_start(text: &str, at: usize) -> usize {
    let first = if text.starts_with('\u{feff}') { 3 } else { 0 };
    text[..at].rfind('\n').map_or(first, |end| end + 1)
}

/// The places of the entries of a map.
fn members(entries: &[(Node, Node)]) -> Vec<Range<usize>> {
    entries.iter().map(|(key, value)| key.span.start..value.span.end).collect()
}

/// How lists and maps are indented, by the first of each.
fn style(text: &str, root: &Node) -> Style {
    let (mut dash, mut step) = (None, None);
    root.visit(&mut |node| {
        for (key, value) in node.entries().iter().filter(|_| !node.is_flow) {
            let inner = match &value.kind {
                Kind::Mapping(_) if !value.is_flow => &mut step,
                Kind::Sequence(_) if !value.is_flow => &mut dash,
                _ => continue,
            };
            let column = |at: usize| at - line_start(text, at);
            let at = first_inside(value);
            inner.get_or_insert(column(at).saturating_sub(column(key.span.start)));
        }
    });
    Style { dash: dash.unwrap_or(0), step: step.filter(|step| *step > 0).unwrap_or(2) }
}

/// Where the first key or the first dash of a value in block style stands.
fn first_inside(value: &Node) -> usize {
    match &value.kind {
        Kind::Sequence(items) => items.first().map_or(value.content, |item| item.dash),
        _ => value.entries().first().map_or(value.content, |(key, _)| key.span.start),
    }
}
