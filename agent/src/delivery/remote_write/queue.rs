//! Requests that wait for their receiver. When there is no room, the oldest goes: the newest samples say most.
//!
//! A queue outlives a reload, and a request stays in it until the receiver has answered.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hyper::body::Bytes;
use prometheus::IntCounter;
use tokio::sync::Notify;

/// A request, ready to be sent.
#[derive(Clone, Debug)]
pub struct Request {
    number: u64,
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

/// The queues of all outputs, by name and URL.
#[derive(Debug, Default)]
pub struct Queues(Mutex<HashMap<(String, String), Arc<Queue>>>);

#[derive(Debug, Default)]
struct Waiting {
    requests: VecDeque<Request>,
    next: u64,
    bytes: usize,
    closed: bool,
}

// === impl Queues ===

impl Queues {
    /// Keeps the queues of these outputs, and makes those that are missing; gives them in the same order, and how many samples
    /// were in those of outputs that are no more.
    pub fn of(
        &self,
        outputs: impl Iterator<Item = (String, String)>,
        make: impl Fn(&str) -> Queue,
    ) -> (Vec<Arc<Queue>>, u64) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut before = std::mem::take(&mut *all);
        let mut queues = Vec::new();
        for (name, url) in outputs {
            let key = (name, url);
            let queue = before.remove(&key).unwrap_or_else(|| Arc::new(make(&key.0)));
            queue.lock().closed = false;
            queues.push(queue.clone());
            all.insert(key, queue);
        }
        (queues, before.values().map(|queue| queue.samples()).sum())
    }
}

// === impl Queue ===

impl Queue {
    /// One for so many bytes.
    pub fn new(limit: usize, overflowed: IntCounter) -> Self {
        Queue { waiting: Mutex::default(), news: Notify::new(), limit, overflowed }
    }

    /// Adds a request.
    pub fn push(&self, body: Bytes, samples: u64) {
        let mut waiting = self.lock();
        let number = waiting.next;
        waiting.next += 1;
        waiting.bytes += body.len();
        waiting.requests.push_back(Request { number, body, samples });
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

    /// Nothing more will come, until the queue is taken by the next pipeline.
    pub fn close(&self) {
        self.lock().closed = true;
        self.news.notify_one();
    }

    /// The oldest request, once there is one; none when the queue is closed and empty. It stays where it is.
    pub async fn first(&self) -> Option<Request> {
        loop {
            {
                let waiting = self.lock();
                if let Some(oldest) = waiting.requests.front() {
                    return Some(oldest.clone());
                }
                if waiting.closed {
                    return None;
                }
            }
            self.news.notified().await;
        }
    }

    /// The receiver has answered. False when the request had to make room meanwhile, and was counted for that.
    pub fn done(&self, request: &Request) -> bool {
        let mut waiting = self.lock();
        let is_there = waiting.requests.front().is_some_and(|oldest| oldest.number == request.number);
        if is_there {
            waiting.requests.pop_front();
            waiting.bytes -= request.body.len();
        }
        is_there
    }

    /// Samples that wait.
    pub fn samples(&self) -> u64 {
        self.lock().requests.iter().map(|request| request.samples).sum()
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_oldest_goes_when_there_is_no_room_and_is_counted_once() {
        let overflowed = IntCounter::new("a", "b").unwrap();
        let queue = Queue::new(100, overflowed.clone());
        queue.push(vec![0; 40].into(), 1);
        let sent = queue.first().await.unwrap();
        for samples in 2..=4 {
            queue.push(vec![0; 40].into(), samples);
        }
        queue.close();
        assert_eq!(overflowed.get(), 1 + 2);
        assert!(!queue.done(&sent), "it has made room");
        for samples in 3..=4 {
            let first = queue.first().await.unwrap();
            assert_eq!(first.samples, samples);
            assert!(queue.done(&first));
        }
        assert!(queue.first().await.is_none());
    }

    #[tokio::test]
    async fn a_queue_outlives_a_reload_of_its_output() {
        let queues = Queues::default();
        let make = |_: &str| Queue::new(100, IntCounter::new("a", "b").unwrap());
        let key = |name: &str| (name.to_owned(), "http://a".to_owned());
        let (first, _) = queues.of([key("a"), key("b")].into_iter(), make);
        first[0].push(vec![0; 40].into(), 1);
        first[1].push(vec![0; 40].into(), 2);
        first.iter().for_each(|queue| queue.close());
        let (second, lost) = queues.of([key("a")].into_iter(), make);
        assert_eq!((second[0].samples(), lost), (1, 2));
        second[0].push(vec![0; 40].into(), 3);
        assert_eq!(second[0].first().await.map(|request| request.samples), Some(1));
    }
}
