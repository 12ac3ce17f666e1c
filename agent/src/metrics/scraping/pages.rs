//! The memory of pages that are on their way: bounded for a namespace and for all, and given back when they are large.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hyper::body::Bytes;

use crate::metrics::scrape::Room;
use crate::metrics::shares::Shares;

/// A buffer that has grown beyond this is not kept.
const KEPT_BYTES: usize = 1 << 20;
/// So many buffers are kept.
const KEPT: usize = 8;
/// All namespaces together may have so many times what one may have.
const NAMESPACES: usize = 4;

/// Buffers, and how much of them is in use.
#[derive(Debug)]
pub struct Pages {
    spare: Mutex<Vec<Vec<u8>>>,
    /// Of a namespace, what one page may have: so none is refused that comes alone.
    room: Shares,
}

/// A page that was written, and has its room until it is sent.
#[derive(Debug)]
struct Held {
    pages: Arc<Pages>,
    namespace: String,
    page: String,
}

/// The room of one page. It is given back when this goes.
#[derive(Debug)]
pub(in crate::metrics) struct PageRoom<'a> {
    pages: &'a Pages,
    namespace: &'a str,
    taken: usize,
}

// === impl Pages ===

impl Pages {
    /// For pages of at most so many bytes.
    pub fn new(limit: usize) -> Self {
        Pages { spare: Mutex::default(), room: Shares::new(limit, NAMESPACES.saturating_mul(limit)) }
    }

    /// A buffer, and the room for a page of a pod in this namespace.
    pub(in crate::metrics) fn take<'a>(&'a self, namespace: &'a str) -> (Vec<u8>, PageRoom<'a>) {
        let buffer = self.lock().pop().unwrap_or_default();
        (buffer, PageRoom { pages: self, namespace, taken: 0 })
    }

    pub(in crate::metrics) fn give_back(&self, buffer: Vec<u8>) {
        let mut spare = self.lock();
        if buffer.capacity() <= KEPT_BYTES && spare.len() < KEPT {
            spare.push(buffer);
        }
    }

    /// A page of a pod in this namespace that is to be sent, if there is room for it until it is.
    pub(in crate::metrics) fn hold(self: &Arc<Self>, namespace: &str, page: String) -> Option<Bytes> {
        self.room.take(page.len(), namespace).ok()?;
        Some(Bytes::from_owner(Held { pages: self.clone(), namespace: namespace.to_owned(), page }))
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Vec<u8>>> {
        self.spare.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        self.page.as_bytes()
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.pages.room.give_back(self.page.len(), &self.namespace);
    }
}

impl Room for PageRoom<'_> {
    fn take(&mut self, bytes: usize) -> bool {
        let is_taken = self.pages.room.take(bytes, self.namespace).is_ok();
        self.taken += if is_taken { bytes } else { 0 };
        is_taken
    }
}

impl Drop for PageRoom<'_> {
    fn drop(&mut self) {
        self.pages.room.give_back(self.taken, self.namespace);
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
        let pages = Arc::new(pages);
        let held = pages.hold("a", "x".repeat(70)).unwrap();
        assert!(!pages.take("a").1.take(40) && pages.hold("a", "x".repeat(40)).is_none());
        let part = held.slice(..1);
        drop(held);
        assert!(!pages.take("a").1.take(40), "a part of it is not sent yet");
        drop(part);
        assert!(pages.take("a").1.take(100));
        assert!(pages.room.is_unused());
    }
}
