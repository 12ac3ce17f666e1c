//! The text of a record as it is sent: without secrets, valid UTF-8, no longer than a record may be.

use crate::logs::redact::Redactor;

/// Room for texts that cannot be sent as they are.
#[derive(Debug, Default)]
pub(super) struct Texts {
    redacted: [Vec<u8>; 2],
    valid: String,
}

/// A text as it is sent.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Text<'a> {
    pub(super) text: &'a str,
    /// Bytes that are cut from its end: what stands in the place of secrets, and of what is no UTF-8, can be longer.
    pub(super) cut: usize,
    /// Something in it was no UTF-8, and is replaced.
    pub(super) was_invalid: bool,
}

// === impl Texts ===

impl Texts {
    /// The text to send for this content, at most `limit` bytes; uncopied, if nothing must change.
    pub(super) fn of<'a>(&'a mut self, content: &'a [u8], redactors: &[Redactor], limit: usize) -> Text<'a> {
        let [first, second] = &mut self.redacted;
        let redacted = match redactors {
            [] => content,
            [one] => one.apply(content, first),
            [one, two, ..] => two.apply(one.apply(content, first), second),
        };
        let (text, was_invalid) = match simdutf8::basic::from_utf8(redacted) {
            Ok(text) => (text, false),
            Err(_) => (replace_invalid(redacted, &mut self.valid), true),
        };
        let mut end = text.len().min(limit);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        Text { text: &text[..end], cut: text.len() - end, was_invalid }
    }

    /// Gives back what only a text far beyond `limit` has needed.
    pub(super) fn trim(&mut self, limit: usize) {
        self.redacted.iter_mut().for_each(|room| room.shrink_to(limit));
        self.valid.shrink_to(limit);
    }
}

fn replace_invalid<'a>(text: &[u8], room: &'a mut String) -> &'a str {
    room.clear();
    for chunk in text.utf8_chunks() {
        room.push_str(chunk.valid());
        if !chunk.invalid().is_empty() {
            room.push(char::REPLACEMENT_CHARACTER);
        }
    }
    room
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_that_became_longer_than_a_record_may_be_is_cut_between_two_characters() {
        let (mut texts, digits) = (Texts::default(), Redactor::compile(&["[0-9]".to_owned()]).unwrap());
        let redacted = texts.of(b"a 1 b 2", std::slice::from_ref(&digits), 20);
        assert_eq!(redacted, Text { text: "a [REDACTED] b [REDA", cut: 5, was_invalid: false });
        let replaced = texts.of(b"a\xff\xff\xff", &[], 8);
        assert_eq!(replaced, Text { text: "a\u{fffd}\u{fffd}", cut: 3, was_invalid: true });
        assert_eq!(texts.of(b"as it is", &[], 8), Text { text: "as it is", cut: 0, was_invalid: false });
        texts.trim(8);
        assert!(texts.redacted.iter().all(|room| room.capacity() <= 25) && texts.valid.capacity() <= 10);
    }
}
