//! The Forward output: chunks to one of several upstreams, each until a receiver has acknowledged it.
//!
//! One task, the dispatcher, owns what is pending and what is known of the upstreams. One task for each connection
//! owns the socket and the parcels that wait for their acknowledgement; it hands them back when the connection ends.
//!
//! Source: the Forward protocol specification v1, and Fluentd's `in_forward.rb` where they differ.

mod connection;
pub mod frame;
pub mod handshake;
#[cfg(test)]
mod interleavings;
mod parcel;
#[cfg(test)]
mod tests;
mod upstreams;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::config;
use crate::delivery::chunk::Chunk;
use crate::delivery::forward::connection::{ConnectionId, Event, Remains};
use crate::delivery::forward::parcel::{Parcel, Parcels};
use crate::delivery::forward::upstreams::Upstreams;
use crate::delivery::secret::Secret;
use crate::delivery::status::OutputStatus;
use crate::delivery::{deadline_passed, until};

/// Parcels above suspicion that wait here for a place in a pipeline; the others wait in the channel.
const PENDING: usize = 1;

/// A Forward output.
#[derive(Clone, Debug)]
pub struct Config {
    /// The output's name, for logs.
    pub name: String,
    /// What we call ourselves in a handshake; must not be the receiver's own name.
    pub self_hostname: String,
    /// The receivers.
    pub upstreams: Vec<config::Upstream>,
    /// Whether to wait for acknowledgements.
    pub ack: bool,
    /// How long.
    pub ack_timeout: Duration,
    /// The key that both sides know.
    pub shared_key: Option<Secret>,
    /// User of the handshake.
    pub username: String,
    /// Its password.
    pub password: Option<Secret>,
    /// TLS.
    pub tls: config::Tls,
}

// === impl Config ===

impl Config {
    /// The output `name` of the node `node`.
    pub fn new(name: &str, node: &str, forward: &config::Forward) -> Self {
        Config {
            name: name.to_owned(),
            self_hostname: node.to_owned(),
            upstreams: forward.upstreams.clone(),
            ack: forward.ack,
            ack_timeout: forward.ack_timeout,
            shared_key: forward.shared_key.clone(),
            username: forward.username.clone(),
            password: forward.password.clone(),
            tls: forward.tls.clone(),
        }
    }
}

/// Delivers until `chunks` is closed and everything is settled, or the deadline that `stop` gives has passed. What is
/// not settled then is read again after the next start.
pub async fn run(
    config: Config,
    chunks: mpsc::Receiver<Chunk>,
    status: Arc<OutputStatus>,
    mut stop: watch::Receiver<Option<Instant>>,
) {
    let (events, inbox) = mpsc::channel(64);
    let mut dispatcher = Dispatcher::new(config, events, status);
    tokio::select! {
        () = dispatcher.dispatch(chunks, inbox) => {}
        () = deadline_passed(&mut stop) => {}
    }
}

struct Dispatcher {
    config: Arc<Config>,
    upstreams: Upstreams,
    jitter: fn(Duration) -> Duration,
    parcels: Parcels,
    pending: VecDeque<Parcel>,
    connections: JoinSet<()>,
    events: mpsc::Sender<Event>,
    status: Arc<OutputStatus>,
}

// === impl Dispatcher ===

impl Dispatcher {
    fn new(config: Config, events: mpsc::Sender<Event>, status: Arc<OutputStatus>) -> Self {
        Dispatcher {
            upstreams: Upstreams::new(&config.upstreams),
            jitter: upstreams::jittered,
            parcels: Parcels::new(config.upstreams.len()),
            config: Arc::new(config),
            pending: VecDeque::new(),
            connections: JoinSet::new(),
            events,
            status,
        }
    }

    async fn dispatch(&mut self, mut chunks: mpsc::Receiver<Chunk>, mut inbox: mpsc::Receiver<Event>) {
        let mut is_open = true;
        loop {
            let now = Instant::now();
            self.connect(now);
            while !self.assign(now) {
                self.connect(now);
            }
            if !is_open && self.pending.is_empty() && self.upstreams.in_flight() == 0 {
                return;
            }
            self.status.state.set_up(self.upstreams.any_up());
            tokio::select! {
                chunk = chunks.recv(), if is_open && self.has_place() => match chunk {
                    Some(chunk) => self.take(chunk),
                    None => is_open = false,
                },
                Some(event) = inbox.recv() => self.handle(event),
                () = until(self.upstreams.next_retry(now)) => {}
                Some(_) = self.connections.join_next() => {}
            }
        }
    }

    /// A chunk from the readers, which may have waited for its place. Elsewhere acknowledgements wake them; suspects get
    /// none.
    fn take(&mut self, chunk: Chunk) {
        if self.pending.iter().any(Parcel::is_suspect) {
            chunk.credit.wake_readers();
        }
        self.pending.push_back(Parcel::whole(chunk));
    }

    /// Opens the connections that are missing.
    fn connect(&mut self, now: Instant) {
        for index in self.upstreams.unconnected(now) {
            let (id, receiver) = self.upstreams.open(index);
            let address = self.upstreams.get(index).config.address.clone();
            self.connections.spawn(connection::run(
                self.config.clone(),
                id,
                address,
                receiver,
                self.events.clone(),
            ));
        }
    }

    /// Gives pending parcels to upstreams that have room for them. False when another connection has to be opened first.
    fn assign(&mut self, now: Instant) -> bool {
        while let Some(parcel) = self.next() {
            let refused = match self.upstreams.choose(now) {
                Some(index) => self.upstreams.get(index).give(parcel),
                None => Err(TrySendError::Full(parcel)),
            };
            match refused {
                Ok(()) => {}
                Err(TrySendError::Full(parcel)) => {
                    self.pending.push_front(parcel);
                    return true;
                }
                Err(TrySendError::Closed(parcel)) => {
                    self.pending.push_front(parcel);
                    return false;
                }
            }
        }
        true
    }

    /// What goes next. While no receiver takes anything, one parcel at a time is tried: those above suspicion first.
    fn next(&mut self) -> Option<Parcel> {
        let innocent = self.pending.iter().position(|parcel| !parcel.is_suspect());
        let next = innocent.filter(|_| !self.upstreams.any_up()).unwrap_or(0);
        self.pending.remove(next)
    }

    /// Suspects do not count: what says whether a receiver refuses them or everything is what comes behind them.
    fn has_place(&self) -> bool {
        self.pending.iter().filter(|parcel| !parcel.is_suspect()).count() < PENDING
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Up(id) => {
                if self.upstreams.get(id.upstream).connected(Instant::now()) {
                    tracing::info!(
                        output = self.config.name,
                        upstream = self.upstreams.get(id.upstream).config.address,
                        "connected"
                    );
                }
            }
            Event::Acknowledged(id, parcel) => {
                let upstream = self.upstreams.get(id.upstream);
                upstream.acknowledged();
                upstream.gives_back(parcel.entries().len());
                self.parcels.acknowledged(parcel);
            }
            Event::Ended(id, remains) => self.ended(id, remains),
        }
    }

    /// A connection has ended; its parcels come back to be sent again, in their order.
    fn ended(&mut self, id: ConnectionId, remains: Remains) {
        let Remains { mut sent, unsent, error } = remains;
        let upstream = self.upstreams.get(id.upstream);
        sent.iter().chain(&unsent).for_each(|parcel| upstream.gives_back(parcel.entries().len()));
        let is_newest = upstream.connection == id.number;
        if is_newest {
            upstream.parcels = None;
        }
        if let Some(error) = error {
            let is_news = upstream.failed(Instant::now(), self.jitter);
            self.complain(id.upstream, error, sent.len() + unsent.len(), is_news);
            self.status.account().retry(sent.iter().map(|parcel| parcel.records() as u64).sum());
            let suspect = (!sent.is_empty()).then(|| sent.remove(0));
            self.requeue(sent.into_iter().chain(unsent));
            if let Some(suspect) = suspect {
                let again = self.parcels.after_failure(suspect);
                if again.len() > 1 && self.parcels.is_in_the_dark() {
                    again.into_iter().rev().for_each(|half| self.pending.push_front(half));
                } else {
                    self.requeue(again.into_iter());
                }
            }
            return;
        }
        if is_newest {
            upstream.closed(Instant::now());
        }
        self.requeue(sent.into_iter().chain(unsent));
    }

    fn complain(&mut self, upstream: usize, error: String, waiting: usize, is_news: bool) {
        let address = &self.upstreams.get(upstream).config.address;
        if is_news {
            tracing::warn!(
                output = self.config.name,
                upstream = address,
                error,
                waiting,
                "a receiver is away; what is not acknowledged is kept and sent again"
            );
        }
        self.status.state.set_error(format!("{address}: {error}"));
    }

    /// In their order, but suspects behind all others.
    fn requeue(&mut self, parcels: impl Iterator<Item = Parcel>) {
        let (suspects, others): (Vec<_>, Vec<_>) = parcels.partition(Parcel::is_suspect);
        self.pending.extend(suspects);
        others.into_iter().rev().for_each(|parcel| self.pending.push_front(parcel));
    }
}
