//! Which lines belong together: a start line opens a group, and a small state machine says how long it goes on.
//!
//! Ordinary lines cost a few comparisons: each preset first looks for bytes that its start line must have.

use regex::bytes::{Regex, RegexBuilder};
use sidelight_contract::annotations::Multiline;

/// Recognises the groups of one container.
#[derive(Debug)]
pub struct Recognizer(Rules);

#[derive(Debug)]
enum Rules {
    Presets(&'static [Preset]),
    /// Lines that match begin a group; all others continue it.
    Start(Regex),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Preset {
    Rust,
    Java,
    Python,
    Go,
}

/// An open group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Behind a panic's head: its message, to the `note:` or the backtrace.
    RustMessage,
    /// Inside a backtrace: frames, to the `note:`.
    RustBacktrace,
    /// Behind the `note:` of a panic: a note may follow, or the backtrace.
    RustNote,
    /// Behind `Error: …` of a `main` that returned it: the causes.
    RustCauses,
    /// Inside a stack trace.
    JavaTrace,
    /// Inside a traceback: indented lines, then one that is not.
    PythonTraceback,
    /// The traceback's last line was seen: another may follow.
    PythonEnd,
    /// Inside a goroutine dump: anything to its end.
    GoDump,
    /// Begun by the user's start pattern.
    Start,
}

/// Compiled size of a start pattern, at most: a tenant's pattern must not cost the node its memory.
const SIZE_LIMIT: usize = 1 << 20;
/// Level words as tracing and log write them, with what follows.
const LEVELS: [&[u8]; 5] = [b"TRACE ", b"DEBUG ", b"INFO ", b"WARN ", b"ERROR "];
/// What stands behind a panic's message or backtrace.
const RUST_NOTE: &[u8] = b"note: ";

// === impl Recognizer ===

impl Recognizer {
    /// The recogniser of a setting; none where nothing is grouped.
    ///
    /// # Errors
    /// When a start pattern is no regex, or too large a one.
    pub fn new(setting: &Multiline) -> Result<Option<Self>, regex::Error> {
        Ok(Some(Recognizer(match setting {
            Multiline::None => return Ok(None),
            Multiline::Auto => Rules::Presets(&[Preset::Rust, Preset::Java, Preset::Python, Preset::Go]),
            Multiline::Rust => Rules::Presets(&[Preset::Rust]),
            Multiline::Java => Rules::Presets(&[Preset::Java]),
            Multiline::Python => Rules::Presets(&[Preset::Python]),
            Multiline::Go => Rules::Presets(&[Preset::Go]),
            Multiline::Start(pattern) => Rules::Start(
                RegexBuilder::new(pattern)
                    .unicode(false)
                    .size_limit(SIZE_LIMIT)
                    .dfa_size_limit(SIZE_LIMIT)
                    .build()?,
            ),
        })))
    }

    /// Whether a line opens a group.
    pub fn first(&self, line: &[u8]) -> Option<State> {
        match &self.0 {
            Rules::Presets(presets) => presets.iter().find_map(|preset| preset.first(line)),
            Rules::Start(start) => start.is_match(line).then_some(State::Start),
        }
    }

    /// Whether a line belongs to the open group.
    pub fn next(&self, state: &mut State, line: &[u8]) -> bool {
        if let Rules::Start(start) = &self.0 {
            return !start.is_match(line);
        }
        match next(*state, line) {
            Some(after) => {
                *state = after;
                true
            }
            None => false,
        }
    }
}

// === impl Preset ===

impl Preset {
    fn first(self, line: &[u8]) -> Option<State> {
        match self {
            Preset::Rust => match line.first()? {
                b't' if line.starts_with(b"thread '") && contains(line, b" panicked at ") => {
                    Some(State::RustMessage)
                }
                b'E' if line.starts_with(b"Error: ") => Some(State::RustCauses),
                b's' if line == b"stack backtrace:" => Some(State::RustBacktrace),
                _ => None,
            },
            Preset::Java => is_java_head(line).then_some(State::JavaTrace),
            Preset::Python => (line.first() == Some(&b'T')
                && line.starts_with(b"Traceback (most recent call last):"))
            .then_some(State::PythonTraceback),
            Preset::Go => match line.first()? {
                b'p' if line.starts_with(b"panic: ") => Some(State::GoDump),
                b'f' if line.starts_with(b"fatal error: ") => Some(State::GoDump),
                b'g' if line.starts_with(b"goroutine ") && line.ends_with(b"]:") => Some(State::GoDump),
                _ => None,
            },
        }
    }
}

fn next(state: State, line: &[u8]) -> Option<State> {
    let indented = matches!(line.first(), Some(b' ' | b'\t'));
    match state {
        State::RustMessage | State::RustNote if line == b"stack backtrace:" => Some(State::RustBacktrace),
        State::RustMessage | State::RustBacktrace | State::RustNote if line.starts_with(RUST_NOTE) => {
            Some(State::RustNote)
        }
        State::RustBacktrace => (is_frame(line) || indented).then_some(state),
        State::RustNote => None,
        // The message of a panic is free text; a line that looks like a record of its own ends it.
        State::RustMessage => (!begins_record(line)).then_some(state),
        State::RustCauses
            if line.starts_with(b"Caused by:") || line == b"Stack backtrace:" || line.is_empty() =>
        {
            Some(state)
        }
        State::RustCauses => (indented || is_frame(line)).then_some(state),
        State::JavaTrace => (is_java_frame(line)).then_some(state),
        State::PythonTraceback => Some(if indented { State::PythonTraceback } else { State::PythonEnd }),
        State::PythonEnd => {
            let chained = line.is_empty()
                || line.starts_with(b"During handling of the above exception")
                || line.starts_with(b"The above exception was the direct cause");
            match chained {
                true => Some(State::PythonEnd),
                false => {
                    line.starts_with(b"Traceback (most recent call last):").then_some(State::PythonTraceback)
                }
            }
        }
        State::GoDump => {
            let belongs = indented
                || line.is_empty()
                || line.starts_with(b"goroutine ")
                || line.starts_with(b"created by ")
                || line.starts_with(b"exit status ")
                || line.starts_with(b"[signal ")
                || line.ends_with(b")");
            belongs.then_some(state)
        }
        State::Start => None,
    }
}

/// `   0: path::to::function`: the frames of std::backtrace.
fn is_frame(line: &[u8]) -> bool {
    let line = line.trim_ascii_start();
    let digits = line.iter().take_while(|byte| byte.is_ascii_digit()).count();
    digits > 0 && line[digits..].starts_with(b": ")
}

/// What loggers begin a record with: `{`, a date, `[` and a date or level (env_logger), a level word, a colour.
fn begins_record(line: &[u8]) -> bool {
    let is_date = |line: &[u8]| {
        line.len() > 10 && line[..4].iter().all(u8::is_ascii_digit) && line[4] == b'-' && line[7] == b'-'
    };
    let is_level = |line: &[u8]| LEVELS.iter().any(|level| line.trim_ascii_start().starts_with(level));
    match line.first() {
        Some(b'{' | 0x1b) => true,
        Some(b'[') => is_date(&line[1..]) || is_level(&line[1..]),
        _ => is_date(line) || is_level(line) || line.starts_with(b"thread '"),
    }
}

/// `Exception in thread …` or `package.SomeException: message`.
fn is_java_head(line: &[u8]) -> bool {
    match line.first() {
        Some(b'a'..=b'z') => {
            let is_other = |byte: &u8| !(byte.is_ascii_alphanumeric() || b"._$".contains(byte));
            let (class, rest) = line.split_at(line.iter().position(is_other).unwrap_or(line.len()));
            matches!(rest, [] | [b':', ..])
                && class.contains(&b'.')
                && [&b"Exception"[..], b"Error", b"Throwable"].iter().any(|end| class.ends_with(end))
        }
        first => first == Some(&b'E') && line.starts_with(b"Exception in thread "),
    }
}

fn is_java_frame(line: &[u8]) -> bool {
    let inside = line.trim_ascii_start();
    let indented = inside.len() < line.len();
    let is_frame = inside.starts_with(b"at ")
        || inside.starts_with(b"Suppressed: ")
        || (inside.starts_with(b"... ") && (inside.ends_with(b" more") || inside.ends_with(b"omitted")));
    line.starts_with(b"Caused by: ") || (indented && is_frame)
}

fn contains(line: &[u8], wanted: &[u8]) -> bool {
    memchr::memmem::find(line, wanted).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Groups as the reader does: `|` stands before every line that begins a record.
    fn grouped(setting: Multiline, lines: &str) -> String {
        let recognizer = Recognizer::new(&setting).unwrap().unwrap();
        let mut open: Option<State> = None;
        let mut out = String::new();
        for line in lines.lines() {
            let belongs = open.as_mut().is_some_and(|state| recognizer.next(state, line.as_bytes()));
            if !belongs {
                open = recognizer.first(line.as_bytes());
                out.push('|');
            }
            out.push_str(line);
            out.push('\n');
        }
        out
    }

    fn stays(setting: Multiline, expected: &str) {
        assert_eq!(grouped(setting, &expected.replace('|', "")), expected);
    }

    #[test]
    fn a_rust_panic_with_its_backtrace_is_one_record() {
        stays(
            Multiline::Auto,
            "|before\n|thread 'main' (4242) panicked at src/main.rs:2:5:\nindex out of bounds\nsecond line\nstack backtrace:\n   0: std::panicking::begin\n             at /rustc/x.rs:1:2\n   1: app::main\nnote: Some details are omitted\n|after\n",
        );
        stays(
            Multiline::Rust,
            "|thread 'w' panicked at 'old style', a.rs:1:2\nnote: run with `RUST_BACKTRACE=1`\n|{\"level\":\"INFO\"}\n",
        );
        stays(
            Multiline::Auto,
            "|thread 'a' panicked at x.rs:1:1:\nboom\n|thread 'b' panicked at x.rs:1:1:\nboom\n|2026-11-24T10:00:00Z  INFO x\n",
        );
        stays(
            Multiline::Rust,
            "|thread 'a' panicked at x.rs:1:1:\n[1, 2] is short\n|[2026-11-24T10:00:00Z INFO  x] y\n",
        );
        stays(Multiline::Rust, "|thread 'a' panicked at x.rs:1:1:\nboom\n| INFO x: y\n|\u{1b}[2mx\n");
        stays(
            Multiline::Auto,
            "|Error: cannot start\n\nCaused by:\n    0: no config\n    1: not found\n|next\n",
        );
    }

    #[test]
    fn traces_of_java_python_and_go_are_one_record_each() {
        stays(
            Multiline::Auto,
            "|java.lang.IllegalStateException: x\n\tat a.B.c(B.java:1)\n\t... 3 more\nCaused by: y\n\tat d.e(F.java)\n|next\n",
        );
        stays(
            Multiline::Auto,
            "|Traceback (most recent call last):\n  File \"x\"\n    y()\nValueError: z\n|next\n",
        );
        stays(
            Multiline::Auto,
            "|panic: boom\n\ngoroutine 1 [running]:\nmain.main()\n\t/app/main.go:3 +0x1\nexit status 2\n|next line\n",
        );
    }

    #[test]
    fn a_start_pattern_begins_records_and_everything_else_continues_them() {
        stays(Multiline::Start("^\\d{4}".to_owned()), "|2026 a\nb\n\nc\n|2027 d\n");
    }

    #[test]
    fn ordinary_lines_stay_alone() {
        stays(Multiline::Auto, "|info: java.x\n|  indented\n|\n|Error\n|thread pool started\n|panicked\n");
    }
}
