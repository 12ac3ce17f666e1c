//! How a reader ends: at the ends that the files have when it is told so.

use super::Sweeper;
use crate::logs::tail::Tail;

impl Sweeper {
    /// From now on every file ends where it ends now.
    pub(super) fn begin_finish(&mut self) {
        if std::mem::replace(&mut self.finishing, true) {
            return;
        }
        for tail in self.tails.iter_mut().flatten() {
            tail.generations.iter().for_each(|generation| generation.end_here());
            tail.activate();
        }
        for clock in &mut self.clocks {
            clock.pending.clear();
        }
    }

    pub(super) fn is_finished(&self) -> bool {
        let is_read = |tail: &Tail| {
            (0..self.clocks.len()).filter(|output| tail.takes(*output)).all(|output| tail.quiet[output])
        };
        self.clocks.iter().all(|clock| clock.pending.is_empty()) && self.tails.iter().flatten().all(is_read)
    }
}
