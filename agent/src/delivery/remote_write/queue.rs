//! Requests that wait for their receiver. When there is no room, the oldest goes: the newest samples say most.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use hyper::body::Bytes;
use prometheus::IntCounter;
use tokio::sync::Notify;

/// A request, ready to be sent.
#[derive(Clone, Debug)]
pub struct Request {
    /// Compressed.
    pub body: Bytes,
    /// Samples in it.
    pub samples: u64,
}

/// The queue of one output.
#[derive(Debug)]
pub struct Queue {
    waiting: Mutex<Waiting>,
    news: Notify,
    limit: usize,
    /// Samples that were dropped for want of room.
    overflowed: IntCounter,
}

#[derive(Debug, Default)]
struct Waiting {
    requests: VecDeque<Request>,
    bytes: usize,
    closed: bool,
}

// === impl Queue ===

impl Queue {
    /// One for so many bytes.
    pub fn new(limit: usize, overflowed: IntCounter) -> Self {
        Queue { waiting: Mutex::default(), news: Notify::new(), limit, overflowed }
    }

    /// Adds a request.
    pub fn push(&self, request: Request) {
        let mut waiting = self.lock();
        waiting.bytes += request.body.len();
        waiting.requests.push_back(request);
        while waiting.bytes > self.limit
            && waiting.requests.len() > 1
            && let Some(oldest) = waiting.requests.pop_front()
        {
            waiting.bytes -= oldest.body.len();
            self.overflowed.inc_by(oldest.samples);
        }
        drop(waiting);
        self.news.notify_one();
    }

    /// Nothing more will come.
    pub fn close(&self) {
        self.lock().closed = true;
        self.news.notify_one();
    }

    /// The oldest request, once there is one; none when the queue is closed and empty.
    pub async fn pop(&self) -> Option<Request> {
        loop {
            {
                let mut waiting = self.lock();
                if let Some(oldest) = waiting.requests.pop_front() {
                    waiting.bytes -= oldest.body.len();
                    return Some(oldest);
                }
                if waiting.closed {
                    return None;
                }
            }
            self.news.notified().await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_oldest_goes_when_there_is_no_room_and_is_counted() {
        let overflowed = IntCounter::new("a", "b").unwrap();
        let queue = Queue::new(100, overflowed.clone());
        for samples in 1..=4 {
            queue.push(Request { body: vec![0; 40].into(), samples });
        }
        queue.close();
        assert_eq!(overflowed.get(), 1 + 2);
        assert_eq!(queue.pop().await.map(|request| request.samples), Some(3));
        assert_eq!(queue.pop().await.map(|request| request.samples), Some(4));
        assert!(queue.pop().await.is_none());
    }
}
