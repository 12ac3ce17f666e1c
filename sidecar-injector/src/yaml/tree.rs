//! The nodes of a text, each with its place.

use std::iter::Peekable;
use std::ops::Range;
use std::vec::IntoIter;

use granit_parser::{Event, Parser, ScalarStyle, Span, StructureStyle};
/// A node.
#[derive(Clone, Debug)]
pub struct Node {
    /// What it is.
    pub kind: Kind,
    /// Its bytes, from its anchor or tag to the last byte that is its own: no comment, no blank line behind it.
    pub span: Range<usize>,
    /// Where it stands without anchor and tag.
    pub content: usize,
    /// Of an item of a list in block style, its dash.
    pub dash: usize,
    /// Whether it is written in brackets or braces.
    pub is_flow: bool,
    /// Its anchor; 0 is none.
    pub anchor: usize,
    /// Whether it has a tag.
    pub is_tagged: bool,
}

/// What a node is.
#[derive(Clone, Debug)]
pub enum Kind {
    /// Text, as it is read.
    Scalar(String, ScalarStyle),
    /// Items.
    Sequence(Vec<Node>),
    /// Keys and values in their order.
    Mapping(Vec<(Node, Node)>),
    /// Stands for the node with that anchor.
    Alias(usize),
}

/// Reads a stream: the root of each document.
///
/// # Errors
/// What is wrong, and where.
pub fn parse(text: &str) -> Result<Vec<Node>, String> {
    let options = granit_parser::options! { emit_anchor_events: true, emit_comments: false };
    let events = Parser::new_from_str_with_options(text, options)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| format!("line {}: {}", error.marker().line(), error.info()))?;
    let mut reader = Reader { text, events: events.into_iter().peekable(), end: 0 };
    let mut roots = Vec::new();
    while let Some((event, span)) = reader.events.next() {
        match event {
            Event::StreamStart | Event::StreamEnd | Event::DocumentStart(..) | Event::DocumentEnd => {}
            event => roots.push(reader.node(event, span)?),
        }
    }
    Ok(roots)
}

/// Makes nodes of events.
struct Reader<'t> {
    text: &'t str,
    events: Peekable<IntoIter<(Event<'t>, Span)>>,
    /// Where the last node ended that has no others in it.
    end: usize,
}

// === impl Reader ===

impl<'t> Reader<'t> {
    fn node(&mut self, event: Event<'t>, span: Span) -> Result<Node, String> {
        let place = span.byte_range().ok_or("the parser does not say where a node is")?;
        let mut start = place.start;
        if let Some(tag) = span.tag_span().and_then(|tag| tag.byte_range()) {
            start = start.min(tag.start);
        }
        let mut anchor = 0;
        if let Some((Event::Anchor(id, _), span)) =
            self.events.next_if(|(event, _)| matches!(event, Event::Anchor(..)))
        {
            anchor = id;
            start = start.min(span.byte_range().map_or(start, |range| range.start));
        }
        let node = |kind, end, is_flow, is_tagged| Node {
            kind,
            span: start..end,
            content: place.start,
            dash: start,
            is_flow,
            anchor,
            is_tagged,
        };
        let node = match event {
            Event::Alias(id) => node(Kind::Alias(id), place.end, false, false),
            Event::Scalar(text, style, _, tag) => {
                let end = self.end_of_scalar(&place, &text, style);
                node(Kind::Scalar(text.into_owned(), style), end.max(start), false, tag.is_some())
            }
            Event::SequenceStart(style, _, tag) => {
                let (items, end) = self.items()?;
                let is_flow = style == StructureStyle::Flow;
                let last = items.last().map_or(place.end, |item| item.span.end);
                node(Kind::Sequence(items), if is_flow { end } else { last }, is_flow, tag.is_some())
            }
            Event::MappingStart(style, _, tag) => {
                let (entries, end) = self.entries()?;
                let is_flow = style == StructureStyle::Flow;
                let last = entries.last().map_or(place.end, |(_, value)| value.span.end);
                node(Kind::Mapping(entries), if is_flow { end } else { last }, is_flow, tag.is_some())
            }
            other => return Err(format!("unexpected in a document: {other:?}")),
        };
        self.end = node.span.end;
        Ok(node)
    }

    fn next(&mut self) -> Result<(Event<'t>, Span), String> {
        self.events.next().ok_or_else(|| "the document ends too early".to_owned())
    }

    fn items(&mut self) -> Result<(Vec<Node>, usize), String> {
        let mut items = Vec::new();
        loop {
            let (event, span) = self.next()?;
            if matches!(event, Event::SequenceEnd) {
                return Ok((items, span.byte_range().map_or(0, |range| range.end)));
            }
            let from = self.end;
            let mut item = self.node(event, span)?;
            item.dash = dash_before(self.text, from, item.span.start);
            if item.is_null() && item.content == item.span.end {
                item.span.end = item.dash + 1;
            }
            self.end = item.span.end;
            items.push(item);
        }
    }

    fn entries(&mut self) -> Result<(Vec<(Node, Node)>, usize), String> {
        let mut entries = Vec::new();
        loop {
            let (event, span) = self.next()?;
            if matches!(event, Event::MappingEnd) {
                return Ok((entries, span.byte_range().map_or(0, |range| range.end)));
            }
            let key = self.node(event, span)?;
            let (event, span) = self.next()?;
            let mut value = self.node(event, span)?;
            // Of a value that is not written the place is the key's.
            if value.is_null() && value.content == value.span.end {
                value.span.end = key.span.end;
            }
            self.end = value.span.end;
            entries.push((key, value));
        }
    }

    /// Where the last byte of a scalar's own is. A block scalar ends with its text, or, where it keeps them, with the line
    /// breaks behind it.
    fn end_of_scalar(&self, place: &Range<usize>, text: &str, style: ScalarStyle) -> usize {
        if !matches!(style, ScalarStyle::Literal | ScalarStyle::Folded) {
            return place.end;
        }
        let written = &self.text[place.clone()];
        let keeps = text.ends_with("\n\n") || text == "\n";
        let own = match written.trim_end_matches(' ').strip_suffix('\n') {
            // The line break itself ends the last line; what is behind it leads to the next node.
            Some(lines) if keeps => lines,
            _ => written.trim_end(),
        };
        place.start + own.len()
    }
}

/// The dash of an item that starts at `to`. What comes before the item ends at `from`: between them are blanks, comments, a
/// colon and properties.
fn dash_before(text: &str, from: usize, to: usize) -> usize {
    let bytes = text.as_bytes();
    let mut at = from;
    while at < to {
        match bytes[at] {
            b'#' => at += text[at..].find('\n').map_or(to, |end| end + 1),
            b'-' if bytes.get(at + 1).is_none_or(u8::is_ascii_whitespace) => return at,
            _ => at += 1,
        }
    }
    to
}

// === impl Node ===

impl Node {
    /// The text of a scalar.
    pub fn text(&self) -> Option<&str> {
        match &self.kind {
            Kind::Scalar(text, _) => Some(text),
            _ => None,
        }
    }

    /// The items of a sequence.
    pub fn items(&self) -> &[Node] {
        match &self.kind {
            Kind::Sequence(items) => items,
            _ => &[],
        }
    }

    /// The entries of a mapping.
    pub fn entries(&self) -> &[(Node, Node)] {
        match &self.kind {
            Kind::Mapping(entries) => entries,
            _ => &[],
        }
    }

    /// The entry of a key, without what is merged in.
    pub fn entry(&self, key: &str) -> Option<&(Node, Node)> {
        self.entries().iter().find(|(name, _)| name.text() == Some(key))
    }

    /// What a token of a JSON pointer leads to.
    pub fn child(&self, token: &str) -> Option<&Node> {
        match &self.kind {
            Kind::Sequence(items) => items.get(token.parse::<usize>().ok()?),
            Kind::Mapping(_) => self.entry(token).map(|(_, value)| value),
            _ => None,
        }
    }

    /// What a JSON pointer leads to.
    pub fn at(&self, pointer: &jsonptr::Pointer) -> Option<&Node> {
        pointer.tokens().try_fold(self, |node, token| node.child(&token.decoded()))
    }

    /// Whether it is a value that says nothing: `null`, `~`, or nothing at all.
    pub fn is_null(&self) -> bool {
        let Kind::Scalar(text, ScalarStyle::Plain) = &self.kind else { return false };
        !self.is_tagged && matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL")
    }

    /// It and all below it.
    pub fn visit<'n>(&'n self, found: &mut dyn FnMut(&'n Node)) {
        found(self);
        self.items().iter().for_each(|item| item.visit(found));
        for (key, value) in self.entries() {
            key.visit(found);
            value.visit(found);
        }
    }
}
