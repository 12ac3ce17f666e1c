//! How many series may be alive: of one target, of a namespace, of the node. What a page has above that is dropped and
//! counted, series by series, and the rest of the page counts: a label that explodes must not take a target away, nor
//! another namespace's share.

use crate::config::Metrics;
use crate::metrics::shares::{Exhausted, Shares};

/// Whose limit it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// `series_limit`.
    Target,
    /// `series_limit_namespace`.
    Namespace,
    /// `series_limit_total`.
    Node,
    /// Of the texts of its labels, in bytes.
    Labels,
}

/// The limits, and the series of the node that are alive.
#[derive(Debug)]
pub struct Limits {
    target: usize,
    alive: Shares,
    /// Those that rules drop and that are known again: as many as may be alive.
    remembered: Shares,
}

// === impl Limits ===

impl Limits {
    /// As the config has them.
    pub fn of(metrics: &Metrics) -> Self {
        let count = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
        let of_namespace = metrics.series_limit_total * metrics.series_limit_namespace / 100;
        Limits::new(count(metrics.series_limit), count(of_namespace), count(metrics.series_limit_total))
    }

    /// Limits of a target, of a namespace, and of the node.
    pub fn new(target: usize, namespace: usize, node: usize) -> Self {
        Limits { target, alive: Shares::new(namespace, node), remembered: Shares::new(namespace, node) }
    }

    /// Takes a place in the memory of what rules drop; false when there is none.
    pub fn remember(&self, namespace: &str) -> bool {
        self.remembered.take(1, namespace).is_ok()
    }

    /// Gives so many places in it back.
    pub fn forget(&self, places: usize, namespace: &str) {
        self.remembered.give_back(places, namespace);
    }

    /// Takes a place for one more series of a target that has `of_target`.
    ///
    /// # Errors
    /// The limit that is reached.
    pub fn take(&self, of_target: usize, namespace: &str) -> Result<(), Limit> {
        if of_target >= self.target {
            return Err(Limit::Target);
        }
        self.alive.take(1, namespace).map_err(|exhausted| match exhausted {
            Exhausted::Namespace => Limit::Namespace,
            Exhausted::All => Limit::Node,
        })
    }

    /// Gives the places of so many series back.
    pub fn give_back(&self, series: usize, namespace: &str) {
        self.alive.give_back(series, namespace);
    }
}

// === impl Limit ===

impl Limit {
    /// All, in the order of their counters.
    pub const ALL: [Limit; 4] = [Limit::Target, Limit::Namespace, Limit::Node, Limit::Labels];

    /// The label value of `series_dropped_total`.
    pub fn name(self) -> &'static str {
        match self {
            Limit::Target => "target_limit",
            Limit::Namespace => "namespace_limit",
            Limit::Node => "node_limit",
            Limit::Labels => "labels_limit",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_namespace_leaves_the_others_their_share() {
        let limits = Limits::new(3, 4, 6);
        for of_target in 0..3 {
            assert_eq!(limits.take(of_target, "a"), Ok(()));
        }
        assert_eq!(limits.take(3, "a"), Err(Limit::Target));
        assert_eq!((limits.take(0, "a"), limits.take(1, "a")), (Ok(()), Err(Limit::Namespace)));
        assert_eq!((limits.take(0, "b"), limits.take(1, "b")), (Ok(()), Ok(())));
        assert_eq!(limits.take(0, "c"), Err(Limit::Node));
        limits.give_back(4, "a");
        assert_eq!((limits.take(0, "c"), limits.take(0, "a")), (Ok(()), Ok(())));
    }
}
