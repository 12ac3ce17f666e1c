//! How many series may be alive: of one target, of a namespace, of the node. What a page has above that is dropped and
//! counted, series by series, and the rest of the page counts: a label that explodes must not take a target away, nor
//! another namespace's share.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

/// Whose limit it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// `series_limit`.
    Target,
    /// `series_limit_namespace`.
    Namespace,
    /// `series_limit_total`.
    Node,
}

/// The series of the node that are alive, by namespace.
#[derive(Debug)]
pub struct Limits {
    target: usize,
    namespace: usize,
    node: usize,
    alive: Mutex<Alive>,
}

#[derive(Debug, Default)]
struct Alive {
    by_namespace: HashMap<String, usize>,
    all: usize,
}

// === impl Limits ===

impl Limits {
    /// Limits of a target, of a namespace, and of the node.
    pub fn new(target: usize, namespace: usize, node: usize) -> Self {
        Limits { target, namespace, node, alive: Mutex::default() }
    }

    /// Takes a place for one more series of a target that has `of_target`.
    ///
    /// # Errors
    /// The limit that is reached.
    pub fn take(&self, of_target: usize, namespace: &str) -> Result<(), Limit> {
        if of_target >= self.target {
            return Err(Limit::Target);
        }
        let mut alive = self.alive.lock().unwrap_or_else(PoisonError::into_inner);
        if alive.all >= self.node {
            return Err(Limit::Node);
        }
        let of_namespace = alive.by_namespace.get(namespace).copied().unwrap_or(0);
        if of_namespace >= self.namespace {
            return Err(Limit::Namespace);
        }
        alive.by_namespace.insert(namespace.to_owned(), of_namespace + 1);
        alive.all += 1;
        Ok(())
    }

    /// Gives the places of so many series back.
    pub fn give_back(&self, series: usize, namespace: &str) {
        let mut alive = self.alive.lock().unwrap_or_else(PoisonError::into_inner);
        alive.all = alive.all.saturating_sub(series);
        if let Some(of_namespace) = alive.by_namespace.get_mut(namespace) {
            *of_namespace = of_namespace.saturating_sub(series);
            if *of_namespace == 0 {
                alive.by_namespace.remove(namespace);
            }
        }
    }
}

// === impl Limit ===

impl Limit {
    /// All, in the order of their counters.
    pub const ALL: [Limit; 3] = [Limit::Target, Limit::Namespace, Limit::Node];

    /// The label value of `series_dropped_total`.
    pub fn name(self) -> &'static str {
        match self {
            Limit::Target => "target_limit",
            Limit::Namespace => "namespace_limit",
            Limit::Node => "node_limit",
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
