//! Requests that wait for their receiver: in memory as long as it answers, on disk when it is away.
//!
//! What is on disk is older than all that is in memory. Where there is no room, the oldest goes: the newest samples say most.
//! A queue outlives a reload, and a request stays in it until the receiver has answered.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use hyper::body::Bytes;
use prometheus::IntCounter;
use tokio::sync::Notify;

use super::Version;
use super::spool::Spool;

/// A request, ready to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Its place in the queue.
    pub number: u64,
    /// Compressed.
    pub body: Bytes,
    /// What it is written in.
    pub version: Version,
    /// Samples in it.
    pub samples: u64,
    /// When it was closed, in milliseconds since the epoch.
    pub time: i64,
}

/// The queue of one output.
#[derive(Debug)]
pub struct Queue {
    waiting: Mutex<Waiting>,
    news: Notify,
    limit: usize,
    spool: Mutex<Option<Spool>>,
    /// What the spool has, for whoever must not wait for the disk.
    spooled: Mutex<Spooled>,
    lost: Lost,
}

/// Counters of samples that are dropped.
#[derive(Clone, Debug)]
pub struct Lost {
    /// There was no room in memory.
    pub queue_full: IntCounter,
    /// There was no room on disk.
    pub spool_full: IntCounter,
    /// They could not be read back.
    pub damaged: IntCounter,
    /// Version 1.0 has no place for them.
    pub unsupported: IntCounter,
}

#[derive(Debug, Default)]
struct Waiting {
    requests: VecDeque<Request>,
    next: u64,
    bytes: usize,
    closed: bool,
}

/// What waits on disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spooled {
    /// Bytes of the segments.
    pub bytes: u64,
    samples: u64,
    /// Number and time of the oldest request.
    oldest: Option<(u64, i64)>,
}

// === impl Queue ===

impl Queue {
    /// One for so many bytes in memory.
    pub fn new(limit: usize, lost: Lost) -> Self {
        Queue {
            waiting: Mutex::default(),
            news: Notify::new(),
            limit,
            spool: Mutex::default(),
            spooled: Mutex::default(),
            lost,
        }
    }

    /// Counters of what is dropped.
    pub fn lost(&self) -> &Lost {
        &self.lost
    }

    /// Takes a spool, with what is in it.
    pub(super) fn set_spool(&self, spool: Option<Spool>) {
        let mut waiting = self.lock();
        waiting.next = spool.as_ref().map_or(0, Spool::next_number).max(waiting.next);
        drop(waiting);
        let mut own = self.lock_spool();
        *own = spool;
        self.note(own.as_mut());
    }

    /// Its spool may hold so many bytes from now on; false when it has none.
    pub(super) fn limit_spool(&self, bytes: u64) -> bool {
        self.lock_spool().as_mut().map(|spool| spool.set_limit(bytes)).is_some()
    }

    /// Adds a request.
    pub fn push(&self, body: Bytes, version: Version, samples: u64) {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let time = i64::try_from(since.as_millis()).unwrap_or(i64::MAX);
        let mut waiting = self.lock();
        let number = waiting.next;
        waiting.next += 1;
        waiting.bytes += body.len();
        waiting.requests.push_back(Request { number, body, version, samples, time });
        while waiting.bytes > self.limit
            && waiting.requests.len() > 1
            && let Some(oldest) = waiting.pop()
        {
            self.lost.queue_full.inc_by(oldest.samples);
        }
        drop(waiting);
        self.news.notify_one();
    }

    /// Nothing more will come, until [`Queue::open`].
    pub fn close(&self) {
        self.lock().closed = true;
        self.news.notify_one();
    }

    /// Requests come again.
    pub(super) fn open(&self) {
        self.lock().closed = false;
    }

    /// A request has come, or the queue was closed, since the last call.
    pub async fn news(&self) {
        self.news.notified().await;
    }

    /// The oldest request, once there is one; none when the queue is closed and empty. It stays where it is.
    pub async fn first(self: &Arc<Self>) -> Option<Request> {
        loop {
            if self.spooled().bytes > 0 {
                let _ = self.spill().await;
                if let Some(oldest) = self.on_disk(|_, spool| spool.first()).await.flatten() {
                    return Some(oldest);
                }
            }
            {
                let waiting = self.lock();
                if let Some(oldest) = waiting.requests.front() {
                    return Some(oldest.clone());
                }
                if waiting.closed {
                    return None;
                }
            }
            self.news().await;
        }
    }

    /// Whether it has not had to make room meanwhile.
    pub fn holds(&self, request: &Request) -> bool {
        let in_memory = || self.lock().requests.front().map(|oldest| oldest.number);
        self.spooled().oldest.map(|(number, _)| number).or_else(in_memory) == Some(request.number)
    }

    /// The receiver has answered. False when the request had to make room meanwhile, and was counted for that.
    pub async fn done(self: &Arc<Self>, request: &Request) -> bool {
        let number = request.number;
        {
            let mut waiting = self.lock();
            if waiting.requests.front().is_some_and(|oldest| oldest.number == number) {
                return waiting.pop().is_some();
            }
        }
        self.on_disk(move |_, spool| spool.done(number)).await.unwrap_or(false)
    }

    /// Moves what is in memory to the disk. Without a spool it stays there.
    ///
    /// # Errors
    /// The system's; what could not be written stays in memory.
    pub async fn spill(self: &Arc<Self>) -> io::Result<()> {
        self.on_disk(Queue::spill_into).await.unwrap_or(Ok(()))
    }

    fn spill_into(&self, spool: &mut Spool) -> io::Result<()> {
        loop {
            // Whoever comes behind must not overtake it: it is away only while the disk is written to.
            let Some(oldest) = self.lock().pop() else { return Ok(()) };
            match spool.push(&oldest) {
                Ok(gone) => self.lost.spool_full.inc_by(gone),
                Err(error) => {
                    let mut waiting = self.lock();
                    waiting.bytes += oldest.body.len();
                    waiting.requests.push_front(oldest);
                    return Err(error);
                }
            }
        }
    }

    /// Works with the spool, if there is one, where waiting for the disk holds nobody up.
    async fn on_disk<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Queue, &mut Spool) -> T + Send + 'static,
    ) -> Option<T> {
        let queue = self.clone();
        let working = tokio::task::spawn_blocking(move || {
            let mut spool = queue.lock_spool();
            let done = work(&queue, spool.as_mut()?);
            queue.note(spool.as_mut());
            Some(done)
        });
        working.await.ok().flatten()
    }

    fn note(&self, spool: Option<&mut Spool>) {
        let mut spooled = Spooled::default();
        if let Some(spool) = spool {
            self.lost.damaged.inc_by(spool.take_damaged());
            spooled = Spooled { bytes: spool.bytes(), samples: spool.samples(), oldest: spool.oldest() };
        }
        *self.spooled.lock().unwrap_or_else(PoisonError::into_inner) = spooled;
    }

    /// What waits on disk.
    pub fn spooled(&self) -> Spooled {
        *self.spooled.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Samples that wait in memory.
    pub fn samples_in_memory(&self) -> u64 {
        self.lock().requests.iter().map(|request| request.samples).sum()
    }

    /// Samples that wait.
    pub fn samples(&self) -> u64 {
        self.samples_in_memory() + self.spooled().samples
    }

    /// Bytes that wait.
    pub fn bytes(&self) -> u64 {
        self.lock().bytes as u64 + self.spooled().bytes
    }

    /// When the oldest request that waits was closed, in milliseconds since the epoch.
    pub fn oldest(&self) -> Option<i64> {
        let in_memory = || self.lock().requests.front().map(|request| request.time);
        self.spooled().oldest.map(|(_, time)| time).or_else(in_memory)
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_spool(&self) -> MutexGuard<'_, Option<Spool>> {
        self.spool.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Waiting ===

impl Waiting {
    fn pop(&mut self) -> Option<Request> {
        let oldest = self.requests.pop_front()?;
        self.bytes -= oldest.body.len();
        Some(oldest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lost() -> Lost {
        let counter = || IntCounter::new("a", "b").unwrap();
        Lost { queue_full: counter(), spool_full: counter(), damaged: counter(), unsupported: counter() }
    }

    fn push(queue: &Queue, samples: std::ops::RangeInclusive<u64>) {
        for samples in samples {
            queue.push(vec![0; 40].into(), Version::V2, samples);
        }
    }

    /// Takes all there is: the samples of each request.
    async fn drain(queue: &Arc<Queue>) -> Vec<u64> {
        queue.close();
        let mut samples = Vec::new();
        while let Some(first) = queue.first().await {
            assert!(queue.done(&first).await);
            samples.push(first.samples);
        }
        samples
    }

    #[tokio::test]
    async fn the_oldest_goes_when_there_is_no_room_and_is_counted_once() {
        let queue = Arc::new(Queue::new(100, lost()));
        push(&queue, 1..=1);
        let sent = queue.first().await.unwrap();
        push(&queue, 2..=4);
        assert_eq!(queue.lost.queue_full.get(), 1 + 2);
        assert!(!queue.done(&sent).await, "it has made room");
        assert_eq!(drain(&queue).await, [3, 4]);
    }

    #[tokio::test]
    async fn what_is_on_disk_comes_before_what_is_in_memory_and_outlives_the_process() {
        let folder = tempfile::tempdir().unwrap();
        let spool = || Some(Spool::open(folder.path(), 1 << 20).unwrap());
        let queue = Arc::new(Queue::new(1000, lost()));
        queue.set_spool(spool());
        push(&queue, 1..=3);
        let sent = queue.first().await.unwrap();
        queue.spill().await.unwrap();
        push(&queue, 4..=5);
        assert_eq!((queue.samples_in_memory(), queue.samples()), (4 + 5, 15));
        assert!(queue.done(&sent).await, "it was moved meanwhile");
        assert_eq!(queue.first().await.map(|request| request.samples), Some(2));
        assert_eq!(queue.samples_in_memory(), 0, "what comes goes to the disk as well, until that is empty");
        queue.set_spool(None);
        push(&queue, 6..=6);
        drop(queue);
        let queue = Arc::new(Queue::new(1000, lost()));
        queue.set_spool(spool());
        push(&queue, 7..=7);
        assert_eq!(drain(&queue).await, [2, 3, 4, 5, 7], "the sixth was in memory only");
        assert_eq!((queue.samples(), queue.spooled()), (0, Spooled::default()));
    }
}
