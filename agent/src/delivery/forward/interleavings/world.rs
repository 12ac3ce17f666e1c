//! What outlives the agent: files that grow, receivers that count, a checkpoint.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Write};
use std::sync::Arc;

use sidelight_tests::dice::Dice;
use tokio::time::Instant;

use super::agent::Agent;
use crate::config::Config;
use crate::delivery::chunk::Compression;
use crate::delivery::forward::parcel::Parcel;
use crate::logs::split::Stream;

/// A line that a receiver refuses, with the message that it is in.
const POISON: &str = "POISON";
/// Its bytes in a file.
const POISON_BYTES: u64 = "2026-11-24T10:00:00.000000000Z stdout F POISON\n".len() as u64;

/// Where a line begins, and how often it may come: once, and again for each time that nobody could know that it had.
struct Written {
    file: usize,
    start: u64,
    allowed: u64,
}

/// What outlives a kill: the files, the receivers, the disk.
pub(super) struct World {
    pub(super) dice: Dice,
    pub(super) compression: Compression,
    pub(super) config: Arc<Config>,
    pub(super) files: Vec<(File, u64)>,
    lines: Vec<Written>,
    pub(super) poison: u64,
    /// Lines in the files, whole or not: their times differ by it.
    pieces: u64,
    /// By number, how often each line has come.
    taken: BTreeMap<usize, u64>,
    pub(super) checkpoint: Vec<u8>,
    pub(super) begun: (Instant, std::time::Instant),
}

// === impl World ===

impl World {
    pub(super) fn new(seed: u64) -> Self {
        let text = "node: n\nworkers: 1\nkubernetes: { source: none }\nlogs: { parse: none, multiline: none, outputs: [ \
                    { name: out, forward: { upstreams: ['a:1', 'b:1'] } } ] }";
        let mut world = World {
            dice: Dice::new(seed),
            compression: if seed.is_multiple_of(2) { Compression::None } else { Compression::Gzip },
            config: Arc::new(Config::parse(text, &|_| None).unwrap()),
            files: Vec::new(),
            lines: Vec::new(),
            poison: 0,
            pieces: 0,
            taken: BTreeMap::new(),
            checkpoint: Vec::new(),
            begun: (Instant::now(), std::time::Instant::now()),
        };
        world.files.push((tempfile::tempfile().unwrap(), 0));
        world
    }

    pub(super) fn write(&mut self, flag: char, text: &str) {
        self.pieces += 1;
        let line = format!("2026-11-24T10:00:00.{:09}Z stdout {flag} {text}\n", self.pieces);
        let (file, size) = self.files.last_mut().unwrap();
        file.write_all(line.as_bytes()).unwrap();
        *size += line.len() as u64;
    }

    pub(super) fn next_line(&mut self) -> String {
        let (_, start) = *self.files.last().unwrap();
        self.lines.push(Written { file: self.files.len() - 1, start, allowed: 1 });
        text(self.lines.len() - 1)
    }

    /// A line, in two pieces now and then; between them, a file may end.
    pub(super) fn write_line(&mut self, agent: &mut Agent) {
        if self.dice.one_in(60) {
            self.poison += 1;
            return self.write('F', POISON);
        }
        let text = self.next_line();
        if !self.dice.one_in(5) {
            return self.write('F', &text);
        }
        let (first, second) = text.split_at(text.len() / 2);
        self.write('P', first);
        match self.dice.below(20) {
            0..4 => self.rotate(agent),
            4..10 => agent.read(self, false),
            10 => self.kill(agent),
            _ => {}
        }
        self.write('F', second);
    }

    pub(super) fn rotate(&mut self, agent: &mut Agent) {
        self.files.push((tempfile::tempfile().unwrap(), 0));
        let generation = agent.open(&self.files, self.files.len() - 1);
        agent.generations.push(generation);
    }

    /// The agent is gone; another begins where the checkpoint says.
    pub(super) fn kill(&mut self, agent: &mut Agent) {
        self.check_rejected(agent);
        *agent = Agent::new(self);
        for (number, line) in self.lines.iter_mut().enumerate() {
            let is_saved = agent.generations[line.file].is_acked(0, Some(Stream::Stdout), line.start);
            if !is_saved && self.taken.contains_key(&number) {
                line.allowed = self.taken[&number] + 1;
            }
        }
    }

    /// What a receiver makes of a message; false when it refuses it.
    pub(super) fn take(&mut self, parcel: &Parcel) -> bool {
        let texts = texts(parcel);
        if texts.iter().any(|text| text == POISON) {
            return false;
        }
        assert_eq!(texts.len(), parcel.records());
        for found in texts {
            let number = found.split(' ').next().unwrap().parse().unwrap();
            assert_eq!(found, text(number), "damaged");
            *self.taken.entry(number).or_default() += 1;
        }
        true
    }

    /// A connection has broken: that these lines have come, nobody can know.
    pub(super) fn allow_again<'a>(&mut self, parcels: impl Iterator<Item = &'a Parcel>) {
        for found in parcels.flat_map(texts) {
            let number: usize = found.split(' ').next().unwrap().parse().unwrap();
            self.lines[number].allowed += 1;
        }
    }

    /// Checks that nothing was given up but what a receiver refuses.
    fn check_rejected(&self, agent: &Agent) {
        let (rejected, poison) = (agent.rejected(), self.poison);
        let is_poison = rejected.is_multiple_of(POISON_BYTES) && rejected / POISON_BYTES <= poison;
        assert!(is_poison, "{rejected} bytes are rejected, of {poison} lines of {POISON_BYTES} bytes");
    }

    /// Checks that every line has come, and none more often than it may.
    pub(super) fn check(&self, agent: &Agent) {
        self.check_rejected(agent);
        for (number, line) in self.lines.iter().enumerate() {
            let times = self.taken.get(&number).copied().unwrap_or(0);
            let allowed = line.allowed;
            assert!((1..=allowed).contains(&times), "line {number} came {times} times of 1 to {allowed}");
        }
    }
}

/// The text of a line, of some length that its number says.
fn text(number: usize) -> String {
    format!("{number} {}", "x".repeat(number * 7 % 120))
}

/// The texts of a parcel's records.
fn texts(parcel: &Parcel) -> Vec<String> {
    let mut unpacked = Vec::new();
    let mut entries = match parcel.compression() {
        Compression::Gzip => {
            flate2::read::GzDecoder::new(parcel.entries()).read_to_end(&mut unpacked).unwrap();
            unpacked.as_slice()
        }
        _ => parcel.entries(),
    };
    let mut texts = Vec::new();
    while !entries.is_empty() {
        let entry = rmpv::decode::read_value(&mut entries).unwrap();
        texts.push(entry[1]["log"].as_str().unwrap().to_owned());
    }
    texts
}
