//! The memory of pages that are on their way: bounded for a namespace and for all, and given back when they are large.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::metrics::scrape::Room;

/// A buffer that has grown beyond this is not kept.
const KEPT_BYTES: usize = 1 << 20;
/// So many buffers are kept.
const KEPT: usize = 8;
/// All namespaces together may have so many times what one may have.
const NAMESPACES: usize = 4;

/// Buffers, and how much of them is in use.
#[derive(Debug)]
pub struct Pages {
    /// For the pages of a namespace together: that of one page, so that none is refused that comes alone.
    limit: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    spare: Vec<Vec<u8>>,
    by_namespace: HashMap<String, usize>,
    all: usize,
}

/// The room of one page. It is given back when this goes.
#[derive(Debug)]
pub(super) struct PageRoom<'a> {
    pages: &'a Pages,
    namespace: &'a str,
    taken: usize,
}

// === impl Pages ===

impl Pages {
    /// For pages of at most so many bytes.
    pub fn new(limit: usize) -> Self {
        Pages { limit, state: Mutex::default() }
    }

    /// A buffer, and the room for a page of a pod in this namespace.
    pub(super) fn take<'a>(&'a self, namespace: &'a str) -> (Vec<u8>, PageRoom<'a>) {
        let buffer = self.lock().spare.pop().unwrap_or_default();
        (buffer, PageRoom { pages: self, namespace, taken: 0 })
    }

    pub(super) fn give_back(&self, buffer: Vec<u8>) {
        let mut state = self.lock();
        if buffer.capacity() <= KEPT_BYTES && state.spare.len() < KEPT {
            state.spare.push(buffer);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Room for PageRoom<'_> {
    fn take(&mut self, bytes: usize) -> bool {
        let mut state = self.pages.lock();
        let of_namespace = state.by_namespace.get(self.namespace).copied().unwrap_or(0);
        let limit = self.pages.limit;
        if of_namespace + bytes > limit || state.all + bytes > NAMESPACES * limit {
            return false;
        }
        state.by_namespace.insert(self.namespace.to_owned(), of_namespace + bytes);
        state.all += bytes;
        self.taken += bytes;
        true
    }
}

impl Drop for PageRoom<'_> {
    fn drop(&mut self) {
        let mut state = self.pages.lock();
        state.all -= self.taken;
        if let Some(of_namespace) = state.by_namespace.get_mut(self.namespace) {
            *of_namespace -= self.taken;
            if *of_namespace == 0 {
                state.by_namespace.remove(self.namespace);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pages_of_one_namespace_leave_room_for_those_of_others() {
        let pages = Pages::new(100);
        let (_, mut a) = pages.take("a");
        let (_, mut other) = pages.take("a");
        assert!(a.take(60) && !other.take(50) && other.take(40));
        let mut rooms: Vec<_> = ["b", "c", "d"].map(|namespace| pages.take(namespace).1).into();
        assert!(rooms.iter_mut().all(|room| room.take(100)));
        assert!(!pages.take("e").1.take(1), "all together");
        drop((a, other, rooms));
        assert!(pages.take("a").1.take(100));
        assert!(pages.lock().by_namespace.is_empty() && pages.lock().all == 0);
    }
}
