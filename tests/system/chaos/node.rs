//! The pods of the chaos: what they write, and what the kubelet does with their files.

use std::path::PathBuf;

use sidelight_tests::dice::Dice;
use sidelight_tests::forward_server::ForwardServer;
use sidelight_tests::kubelet::{Log, MAX_LINE, Node};

/// A pod with one container, in a namespace of its own name.
pub(super) struct Pod {
    pub(super) log: Log,
    /// The rest of a line of which the first part is written.
    rest: Option<String>,
    /// Files that are not written any more, each with the number of the first line behind it.
    rotated: Vec<(PathBuf, u64)>,
    /// Its directory is removed; so many bytes were in its only file.
    pub(super) deleted: Option<u64>,
    /// An agent ended while not everything of the deleted pod was delivered: from then on, lines may be missing.
    pub(super) orphaned: bool,
}

// === impl Pod ===

impl Pod {
    pub(super) fn new(node: &Node, name: &str) -> Self {
        let log = node.container_in(name, name);
        Pod { log, rest: None, rotated: Vec::new(), deleted: None, orphaned: false }
    }

    pub(super) fn name(&self) -> &str {
        &self.log.writer
    }

    /// Bytes in its current file.
    pub(super) fn size(&self) -> u64 {
        std::fs::metadata(self.log.path()).unwrap().len()
    }

    /// Whether all that the kubelet has of it is its current file, with whole lines.
    pub(super) fn is_one_file(&self) -> bool {
        self.rotated.is_empty() && self.rest.is_none() && self.deleted.is_none()
    }

    pub(super) fn write(&mut self, dice: &mut Dice) {
        if let Some(rest) = self.rest.take() {
            self.log.piece("stdout", false, rest.as_bytes());
        }
        match dice.below(40) {
            0 => self.log.lines(500 + dice.below(2_000), 150),
            1 => self.log.lines(1, MAX_LINE * 2 + dice.below(200_000) as usize),
            2..5 => self.begin_line(dice),
            5..8 => self.panic(),
            8 => self.log.line("stderr", ""),
            _ => self.log.lines(dice.below(40), 50 + dice.below(400) as usize),
        }
    }

    /// Writes the last line; what was begun is ended.
    pub(super) fn write_last(&mut self) {
        if let Some(rest) = self.rest.take() {
            self.log.piece("stdout", false, rest.as_bytes());
        }
        self.log.lines(1, 100);
    }

    fn begin_line(&mut self, dice: &mut Dice) {
        let text = self.log.numbered(1_000 + dice.below(15_000) as usize);
        let (begun, rest) = text.split_at(dice.below(text.len() as u64) as usize);
        self.log.piece("stdout", true, begun.as_bytes());
        self.rest = Some(rest.to_owned());
    }

    /// A panic with its backtrace on the other stream. Its number is in its first line.
    fn panic(&mut self) {
        // Without its sum: the lines that follow are part of the record.
        let text = self.log.numbered(0);
        let number = text.split(' ').next().unwrap_or_default();
        self.log.line("stderr", &format!("thread 'main' (7) panicked at src/main.rs:2:5: {number}"));
        for line in ["stack backtrace:", "   0: app::main", "             at ./src/main.rs:2:5", "note: more"]
        {
            self.log.line("stderr", line);
        }
    }

    pub(super) fn rotate(&mut self) {
        let path = self.log.rotate();
        self.rotated.push((path, self.log.next));
    }

    /// Compresses the oldest file that is not, but for the newest rotated one.
    pub(super) fn compress(&mut self) {
        let Some(older) = self.rotated.len().checked_sub(1) else { return };
        let plain = |(path, _): &&mut (PathBuf, u64)| path.extension().is_none_or(|end| end != "gz");
        if let Some((path, _)) = self.rotated[..older].iter_mut().find(plain) {
            *path = self.log.gzip(path);
        }
    }

    /// Removes the rotated files of which every receiver has all that is in them.
    pub(super) fn prune(&mut self, servers: &[&ForwardServer]) {
        while let Some((path, behind)) = self.rotated.first()
            && servers.iter().all(|server| server.missing(self.name(), *behind).is_empty())
        {
            std::fs::remove_file(path).unwrap();
            self.rotated.remove(0);
        }
    }

    pub(super) fn delete(&mut self) {
        self.deleted = Some(self.size());
        self.log.delete_pod();
    }
}
