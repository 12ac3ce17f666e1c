//! What the targets of the node share, series or bytes: a limit for each namespace, and one for all together, so that a
//! namespace cannot take what is left for the others.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What is taken, by namespace and of all.
#[derive(Debug)]
pub(super) struct Shares {
    of_namespace: usize,
    of_all: usize,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    by_namespace: HashMap<String, usize>,
    all: usize,
}

/// Whose limit is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Exhausted {
    /// That of the namespace.
    Namespace,
    /// That of all together.
    All,
}

// === impl Shares ===

impl Shares {
    /// With these limits, for a namespace and for all.
    pub(super) fn new(of_namespace: usize, of_all: usize) -> Self {
        Shares { of_namespace, of_all, taken: Mutex::default() }
    }

    /// Takes so much more.
    ///
    /// # Errors
    /// The limit that would be passed; nothing is taken then.
    pub(super) fn take(&self, amount: usize, namespace: &str) -> Result<(), Exhausted> {
        let mut taken = self.lock();
        if taken.all + amount > self.of_all {
            return Err(Exhausted::All);
        }
        let of_namespace = taken.by_namespace.get(namespace).copied().unwrap_or(0);
        if of_namespace + amount > self.of_namespace {
            return Err(Exhausted::Namespace);
        }
        taken.by_namespace.insert(namespace.to_owned(), of_namespace + amount);
        taken.all += amount;
        Ok(())
    }

    /// Gives so much back.
    pub(super) fn give_back(&self, amount: usize, namespace: &str) {
        let mut taken = self.lock();
        taken.all = taken.all.saturating_sub(amount);
        if let Some(of_namespace) = taken.by_namespace.get_mut(namespace) {
            *of_namespace = of_namespace.saturating_sub(amount);
            if *of_namespace == 0 {
                taken.by_namespace.remove(namespace);
            }
        }
    }

    /// Whether nothing is taken.
    #[cfg(test)]
    pub(super) fn is_unused(&self) -> bool {
        let taken = self.lock();
        taken.all == 0 && taken.by_namespace.is_empty()
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
