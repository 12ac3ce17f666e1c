//! The records of a file as they should be, from all of its bytes at once.

use std::time::Duration;

use sidelight_agent::config::READ_WINDOW;
use sidelight_agent::logs::join::MAX_GROUP_LINES;
use sidelight_agent::logs::multiline::State;
use sidelight_agent::logs::settings::Settings;
use sidelight_agent::logs::split::{Line, Splitter, Stream, Time};

use super::{MAX_RECORD, Seen};

/// A record that may go on.
struct Open {
    stream: Stream,
    time: Time,
    last: Time,
    partial: bool,
    group: Option<State>,
    lines: Vec<Vec<u8>>,
    content: usize,
}

struct Model<'a> {
    settings: &'a Settings,
    open: [Option<Open>; 2],
    last_time: Time,
    records: Vec<Seen>,
}

pub(super) fn records(file: &[u8], settings: &Settings) -> Vec<Seen> {
    let mut model = Model { settings, open: [None, None], last_time: Time::default(), records: Vec::new() };
    let mut rest = file;
    while let Some(newline) = rest.iter().position(|byte| *byte == b'\n') {
        model.line(&rest[..newline]);
        rest = &rest[newline + 1..];
    }
    if rest.len() >= READ_WINDOW {
        model.line(rest);
        rest = &[];
    }
    model.close(Stream::Stdout);
    model.close(Stream::Stderr);
    if !rest.is_empty() {
        model.raw(rest);
    }
    model.records
}

// === impl Model ===

impl Model<'_> {
    fn line(&mut self, line: &[u8]) {
        // What does not fit into a window with its newline is cut before it is split.
        let is_long = line.len() >= READ_WINDOW;
        let bytes = &line[..line.len().min(READ_WINDOW)];
        let Some(line) = Splitter::default().split(bytes) else { return self.raw(bytes) };
        self.last_time = line.time;
        if is_long {
            self.close(line.stream);
            return self.push(line.time, line.stream, line.content.to_vec(), true);
        }
        if self.continues(&line) {
            return;
        }
        self.close(line.stream);
        let group = self.settings.multiline.as_ref().and_then(|recognizer| recognizer.first(&line.content));
        let open = Open {
            stream: line.stream,
            time: line.time,
            last: line.time,
            partial: line.partial,
            group,
            lines: vec![line.content.to_vec()],
            content: line.content.len(),
        };
        self.open[line.stream as usize] = Some(open);
        if !line.partial && group.is_none() {
            self.close(line.stream);
        }
    }

    /// Adds the line to the open record of its stream, if it belongs there.
    fn continues(&mut self, line: &Line<'_>) -> bool {
        let Some(open) = &mut self.open[line.stream as usize] else { return false };
        if open.partial {
            open.lines.last_mut().expect("a first line").extend_from_slice(&line.content);
        } else {
            let (Some(state), Some(recognizer)) = (&mut open.group, &self.settings.multiline) else {
                return false;
            };
            let has_place = open.lines.len() < MAX_GROUP_LINES as usize
                && open.content < MAX_RECORD
                && line.time.since(open.last) < Duration::from_secs(1);
            if !has_place || !recognizer.next(state, &line.content) {
                return false;
            }
            open.lines.push(line.content.to_vec());
        }
        open.content += line.content.len();
        open.last = line.time;
        open.partial = line.partial;
        if !line.partial && open.group.is_none() {
            self.close(line.stream);
        }
        true
    }

    fn close(&mut self, stream: Stream) {
        if let Some(open) = self.open[stream as usize].take() {
            self.push(open.time, open.stream, open.lines.join(&b'\n'), false);
        }
    }

    fn raw(&mut self, line: &[u8]) {
        self.push(self.last_time, Stream::Stdout, line.to_vec(), false);
    }

    fn push(&mut self, time: Time, stream: Stream, mut content: Vec<u8>, truncated: bool) {
        let mut truncated = truncated || content.len() > MAX_RECORD;
        content.truncate(MAX_RECORD);
        let mut text = String::from_utf8_lossy(&content).into_owned();
        while text.len() > MAX_RECORD {
            text.pop();
            truncated = true;
        }
        // EventTime has no time before the epoch, and none after 2106.
        let seconds = u32::try_from(time.seconds).unwrap_or(0).into();
        let time = Time { seconds, ..time };
        self.records.push(Seen { time, stream, text, truncated });
    }
}
