//! One container as its reader sees it: its files, and each output's place in them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::checkpoint::account::DropReason;
use crate::logs::container::Container;
use crate::logs::cursor::Cursor;
use crate::logs::generation::Generation;
use crate::logs::lane::Lane;
use crate::logs::settings::{Settings, Takes};

/// How long after a rotation nobody writes the older files any more: between the kubelet's rename and the runtime's
/// reopening, lines still go into the renamed file.
pub(super) const LINGER: Duration = Duration::from_secs(10);
/// How long after a plain file was truncated its copy is waited for, which discovery may not have come to.
const COPY_WAIT: Duration = Duration::from_secs(1);

/// A container that a reader has.
pub(super) struct Tail {
    pub(super) container: Arc<Container>,
    pub(super) settings: Arc<Settings>,
    pub(super) generations: Vec<Arc<Generation>>,
    /// By output.
    pub(super) cursors: Vec<Cursor>,
    /// Outputs that have found nothing new in their last pass.
    pub(super) quiet: Vec<bool>,
    /// When the newest generation was first seen.
    newest_since: Instant,
    /// Armed: the kernel wakes the reader at the next write.
    pub(super) watch: Option<i32>,
    /// Since when the newest file is known to be truncated; what follows is not read yet.
    truncated: Option<Instant>,
}

// === impl Tail ===

impl Tail {
    pub(super) fn new(container: Arc<Container>, outputs: usize) -> Self {
        Tail {
            settings: container.settings(),
            container,
            generations: Vec::new(),
            cursors: (0..outputs).map(|_| Cursor::default()).collect(),
            quiet: vec![false; outputs],
            newest_since: Instant::now(),
            watch: None,
            truncated: None,
        }
    }

    pub(super) fn namespace(&self) -> &str {
        &self.container.path.namespace
    }

    pub(super) fn takes(&self, output: usize) -> bool {
        self.settings.collect == Takes::Yes && self.settings.outputs[output].0 == Takes::Yes
    }

    /// Whether it is visited in every sweep.
    pub(super) fn is_active(&self) -> bool {
        self.watch.is_none() && (0..self.quiet.len()).any(|output| self.takes(output))
    }

    /// An output that waits for metadata has a backlog; one that never takes the lines has none.
    pub(super) fn set_generations(&mut self, generations: Vec<Arc<Generation>>) {
        let newest = |list: &[Arc<Generation>]| list.last().map(Arc::as_ptr);
        if newest(&generations) != newest(&self.generations) {
            self.newest_since = Instant::now();
        }
        self.generations = generations;
        let refused = |takes: &Takes| matches!(takes, Takes::No(_));
        for (output, (takes, _)) in self.settings.outputs.iter().enumerate() {
            let taken = !refused(&self.settings.collect) && !refused(takes);
            self.generations.iter().for_each(|generation| generation.set_taken(output, taken));
        }
    }

    pub(super) fn activate(&mut self) {
        self.watch = None;
        self.quiet.fill(false);
    }

    /// Whether nobody writes the older files any more.
    pub(super) fn is_settled(&self, now: Instant) -> bool {
        now.duration_since(self.newest_since) >= LINGER
    }

    /// Bytes that an output has read for the first time since the last call.
    pub(super) fn count_read(&self, output: usize) -> u64 {
        self.generations.iter().map(|generation| generation.count_read(output)).sum()
    }

    /// Whether no output has anything to do here until the next write.
    pub(super) fn is_quiet(&self, now: Instant) -> bool {
        let done =
            |output: usize| !self.takes(output) || (self.quiet[output] && !self.cursors[output].is_open());
        let lingering = self.generations.len() > 1
            && self.generations.iter().rev().skip(1).any(|old| {
                let stays = self.stays_open(old) && self.is_settled(now) && old.is_read();
                old.source().is_some() && !stays
            });
        (0..self.quiet.len()).all(done) && !lingering
    }

    /// A file that is shorter than it was has been truncated, and so has one that begins with another line: what follows
    /// is another generation. What was unread is lost, unless there is a copy to read it from. False while that is waited
    /// for.
    pub(super) fn restart_truncated(&mut self, lanes: &mut [Lane], now: Instant) -> bool {
        let Some(newest) = self.generations.last().filter(|newest| newest.is_truncated()) else {
            return true;
        };
        let since = *self.truncated.get_or_insert(now);
        let may_be_copied = self.container.path.is_plain() && newest.copied_for().is_none();
        if may_be_copied && now.duration_since(since) < COPY_WAIT {
            return false;
        }
        self.truncated = None;
        tracing::info!(path = %newest.path().display(), "a log file was truncated; reading it from its start");
        let old = newest.clone();
        let new = Arc::new(old.restarted());
        (0..self.cursors.len()).for_each(|output| new.set_taken(output, old.is_taken(output)));
        let known = old.size();
        match old.go_on_in_copy() {
            Some(copied) => {
                drop_between(&old, copied, known, lanes);
                self.container.insert_behind(&old, new);
            }
            None => {
                drop_rest(&old, &mut self.cursors, lanes, DropReason::LostUnlinked);
                self.container.replace(&old, new);
            }
        }
        self.set_generations(self.container.generations());
        true
    }

    /// A plain file that is still there stays open: as long as it is, its inode tells it from all others.
    fn stays_open(&self, generation: &Generation) -> bool {
        self.container.path.is_plain() && generation.is_listed()
    }

    /// Drops what is unread of files that discovery has given up.
    pub(super) fn drop_given_up(&mut self, lanes: &mut [Lane]) {
        for generation in &self.generations {
            if generation.is_given_up() && generation.source().is_some() {
                drop_rest(generation, &mut self.cursors, lanes, DropReason::HeldDeleted);
                generation.close();
            }
        }
    }

    /// Closes old files that every receiver has acknowledged, once nobody can be writing them any more. Not sooner: a
    /// chunk that is given back unsent is read again.
    pub(super) fn close_read(&mut self, now: Instant) {
        let (gone, settled) = (self.container.is_gone(), self.is_settled(now));
        let newest = self.generations.len().saturating_sub(1);
        for (index, generation) in self.generations.iter().enumerate() {
            let Some(source) = generation.source() else { continue };
            let is_complete =
                (index < newest || gone) && (source.is_gzip() || settled) && !self.stays_open(generation);
            if is_complete
                && generation.is_acknowledged()
                && generation.refresh().is_some()
                && generation.is_acknowledged()
            {
                generation.close();
            }
        }
    }
}

/// Counts what was seen in a file and is not in its copy: it was written between the copying and the truncation.
fn drop_between(generation: &Arc<Generation>, copied: u64, known: u64, lanes: &mut [Lane]) {
    for lane in lanes.iter_mut().filter(|lane| generation.is_taken(lane.output)) {
        let lost = known.saturating_sub(copied.max(generation.read(lane.output)));
        lane.account.read(lost);
        lane.drop_bytes(generation, DropReason::LostUnlinked, 0, lost);
    }
}

/// Counts what no output will ever send of a file: what is unread, and records that are open. Every output moves to its
/// end.
fn drop_rest(generation: &Arc<Generation>, cursors: &mut [Cursor], lanes: &mut [Lane], reason: DropReason) {
    for (lane, cursor) in lanes.iter_mut().zip(cursors).filter(|(lane, _)| generation.is_taken(lane.output)) {
        for open in cursor.abandon(generation) {
            lane.drop_bytes(generation, reason, 1, open.source);
            // What it has held back in older files is settled with it.
            for (older, _) in open.starts() {
                lane.advance(older, cursor.watermark(older, older.read(lane.output)));
            }
        }
        let unread = generation.size().saturating_sub(generation.read(lane.output));
        generation.set_read(lane.output, generation.size());
        lane.account.read(generation.count_read(lane.output));
        lane.drop_bytes(generation, reason, 0, unread);
        lane.advance(generation, [generation.size(); 3]);
    }
}
