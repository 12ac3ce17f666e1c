//! Requests that wait for their receiver: in memory as long as it answers, on disk when it is away.
//!
//! What is on disk is older than all that is in memory. Where there is no room, the oldest goes: the newest samples say most.
//! A queue outlives a reload, and a request stays in it until the receiver has answered.

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use hyper::body::Bytes;
use prometheus::IntCounter;
use tokio::sync::Notify;

use super::Version;
use super::spool::Spool;

/// A request, ready to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Request {
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
    /// Whoever sends has the spool for as long as it does. None where there is none, or it was not yet opened.
    spool: tokio::sync::Mutex<Option<Spool>>,
    folder: PathBuf,
    /// Bytes that may be on disk; 0: nothing more goes there.
    spool_limit: AtomicU64,
    /// What the spool has, for whoever must not wait for it.
    spooled: Mutex<Spooled>,
    lost: Lost,
}

/// One run of the agent with one configuration, as a queue knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pipeline(u64);

/// What there is to send.
pub(super) enum Next {
    /// The oldest request. It stays where it is.
    Request(Request),
    /// Nothing yet.
    Nothing,
    /// Nothing, and no more will come from this pipeline.
    Closed,
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
    /// The newest pipeline, and the newest that has closed the queue.
    opened: u64,
    closed: u64,
    /// The newest pipeline that is to leave what waits to the next one.
    handed_over: u64,
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
    /// One for so many bytes in memory, with its spool in this folder.
    pub fn new(limit: usize, folder: PathBuf, lost: Lost) -> Self {
        Queue {
            waiting: Mutex::default(),
            news: Notify::new(),
            limit,
            spool: tokio::sync::Mutex::default(),
            folder,
            spool_limit: AtomicU64::new(0),
            spooled: Mutex::default(),
            lost,
        }
    }

    /// For a pipeline that begins; its spool may hold so many bytes.
    pub fn open(&self, spool: u64) -> Pipeline {
        self.spool_limit.store(spool, Ordering::Relaxed);
        let mut waiting = self.lock();
        waiting.opened += 1;
        Pipeline(waiting.opened)
    }

    /// Nothing more will come from this pipeline.
    pub fn close(&self, pipeline: Pipeline) {
        let mut waiting = self.lock();
        waiting.closed = waiting.closed.max(pipeline.0);
        drop(waiting);
        self.news.notify_one();
    }

    /// The newest pipeline leaves what waits to the next one.
    pub fn hand_over(&self) {
        let mut waiting = self.lock();
        waiting.handed_over = waiting.opened;
        drop(waiting);
        self.news.notify_one();
    }

    /// Whether this pipeline does.
    pub(super) fn is_handed_over(&self, pipeline: Pipeline) -> bool {
        self.lock().handed_over >= pipeline.0
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
            && let Some(oldest) = waiting.pop()
        {
            self.lost.queue_full.inc_by(oldest.samples);
        }
        drop(waiting);
        self.news.notify_one();
    }

    /// A request has come, or the queue was closed, since the last call.
    pub async fn news(&self) {
        self.news.notified().await;
    }

    /// Whether it is time to use the disk.
    pub(super) fn is_half_full(&self) -> bool {
        self.lock().bytes > self.limit / 2
    }

    /// What is oldest in memory, for this pipeline's output.
    pub(super) fn first(&self, pipeline: Pipeline) -> Next {
        let waiting = self.lock();
        match waiting.requests.front() {
            Some(oldest) => Next::Request(oldest.clone()),
            None if waiting.closed >= pipeline.0 => Next::Closed,
            None => Next::Nothing,
        }
    }

    /// The spool, for as long as somebody sends; waits until nobody else does.
    pub(super) async fn spool(&self) -> tokio::sync::MutexGuard<'_, Option<Spool>> {
        self.spool.lock().await
    }

    /// Opens the spool, unless it is not wanted and has never been.
    pub(super) fn open_spool(&self, output: &str, spool: &mut Option<Spool>) {
        let limit = self.spool_limit.load(Ordering::Relaxed);
        if spool.is_none() && (limit > 0 || self.folder.exists()) {
            let folder = self.folder.display();
            match Spool::open(&self.folder, limit) {
                Ok(opened) => {
                    self.lock().number_from(opened.next_number());
                    *spool = Some(opened);
                }
                Err(error) => tracing::error!(
                    output, %folder, %error,
                    "the spool cannot be used: what waits for the receiver is in memory only"
                ),
            }
        }
        self.note(spool);
    }

    /// The oldest request on disk.
    pub(super) fn first_on_disk(&self, spool: &mut Option<Spool>) -> Option<Request> {
        let oldest = spool.as_mut().and_then(Spool::first);
        self.note(spool);
        oldest
    }

    /// Whether it has not had to make room meanwhile.
    pub(super) fn holds(&self, request: &Request) -> bool {
        let in_memory = || self.lock().requests.front().map(|oldest| oldest.number);
        self.spooled().oldest.map(|(number, _)| number).or_else(in_memory) == Some(request.number)
    }

    /// The receiver has answered. False when the request had to make room meanwhile, and was counted for that.
    pub(super) fn done(&self, request: &Request, spool: &mut Option<Spool>) -> bool {
        let mut waiting = self.lock();
        if waiting.requests.front().is_some_and(|oldest| oldest.number == request.number) {
            return waiting.pop().is_some();
        }
        drop(waiting);
        let is_there = spool.as_mut().is_some_and(|spool| spool.done(request.number));
        self.note(spool);
        is_there
    }

    /// Moves what is in memory to the disk. Without a spool it stays there.
    ///
    /// # Errors
    /// The system's; what could not be written stays in memory.
    pub(super) fn spill(&self, spool: &mut Option<Spool>) -> io::Result<()> {
        let limit = self.spool_limit.load(Ordering::Relaxed);
        let Some(open) = spool.as_mut().filter(|_| limit > 0) else { return Ok(()) };
        open.set_limit(limit);
        let mut result = Ok(());
        while result.is_ok()
            && let Some(oldest) = self.lock().pop()
        {
            match open.push(&oldest) {
                Ok(gone) => self.lost.spool_full.inc_by(gone),
                Err(error) => {
                    self.lock().put_back(oldest);
                    result = Err(error);
                }
            }
        }
        self.note(spool);
        result
    }

    /// Keeps what is to be told of the spool.
    fn note(&self, spool: &mut Option<Spool>) {
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

    /// Counters of what is dropped.
    pub fn lost(&self) -> &Lost {
        &self.lost
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

    /// Its output is no more; gives how many samples were in memory. What is on disk is the folder's.
    pub(super) fn end(&self) -> u64 {
        if let Ok(mut spool) = self.spool.try_lock() {
            *spool = None;
        }
        std::mem::take(&mut *self.lock()).requests.iter().map(|request| request.samples).sum()
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Waiting ===

impl Waiting {
    fn pop(&mut self) -> Option<Request> {
        let oldest = self.requests.pop_front()?;
        self.bytes -= oldest.body.len();
        Some(oldest)
    }

    fn put_back(&mut self, oldest: Request) {
        self.bytes += oldest.body.len();
        self.requests.push_front(oldest);
    }

    /// What waits comes behind what an earlier process has numbered.
    fn number_from(&mut self, first: u64) {
        let begun = self.requests.front().map_or(self.next, |oldest| oldest.number);
        let missing = first.saturating_sub(begun);
        self.requests.iter_mut().for_each(|request| request.number += missing);
        self.next += missing;
    }
}

#[cfg(test)]
pub(super) mod tests;
