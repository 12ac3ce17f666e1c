//! One connection to one receiver: parcels out, acknowledgements in, both at once.

use std::collections::VecDeque;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use rmpv::Value;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

use crate::delivery::forward::Config;
use crate::delivery::forward::frame::{self, Replies};
use crate::delivery::forward::handshake;
use crate::delivery::forward::parcel::Parcel;
use crate::delivery::forward::upstreams::{PIPELINE_PARCELS, jittered};
use crate::delivery::tls;
use crate::delivery::until;

/// For resolving, connecting, TLS and the handshake, each.
const STEP_TIMEOUT: Duration = Duration::from_secs(10);
/// A connection through a Service sticks to one receiver: a new one now and then finds the others.
const MAX_AGE: Duration = Duration::from_secs(300);

/// How long replies are awaited on a connection that cannot be written to any more.
const LAST_REPLIES: Duration = Duration::from_millis(100);
/// A connection that its receiver ends sooner than this, without having taken anything, is a failure and not peace.
const LEAST_AGE: Duration = Duration::from_secs(10);

/// Which connection to which receiver: an old one may still wait for acknowledgements when there is a new one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ConnectionId {
    pub(super) upstream: usize,
    pub(super) number: u64,
}

/// What a connection tells the dispatcher.
#[derive(Debug)]
pub(super) enum Event {
    /// The receiver can take parcels.
    Up(ConnectionId),
    /// The receiver has taken a parcel.
    Acknowledged(ConnectionId, Parcel),
    /// The connection is closed.
    Ended(ConnectionId, Remains),
}

/// What is left when a connection has ended.
#[derive(Debug)]
pub(super) struct Remains {
    /// Sent, at least in part, and not acknowledged; oldest first.
    pub(super) sent: Vec<Parcel>,
    /// Not sent.
    pub(super) unsent: Vec<Parcel>,
    /// For the operator, unless it ended in peace.
    pub(super) error: Option<String>,
}

trait Socket: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Socket for T {}

/// Connects and serves parcels until one side ends it.
pub(super) async fn run(
    config: Arc<Config>,
    id: ConnectionId,
    address: String,
    mut parcels: mpsc::Receiver<Parcel>,
    events: mpsc::Sender<Event>,
) {
    let mut waiting = VecDeque::new();
    let result = async {
        let (socket, replies, keepalive) = connect(&config, &address).await?;
        let _ = events.send(Event::Up(id)).await;
        let mut connection = Connection {
            config: &config,
            id,
            events: &events,
            waiting: &mut waiting,
            next_late: Instant::now(),
            begun: Instant::now(),
            has_taken: false,
            replies,
            keepalive,
        };
        connection.serve(socket, &mut parcels).await
    }
    .await;
    parcels.close();
    let mut unsent = Vec::new();
    while let Some(parcel) = parcels.recv().await {
        unsent.push(parcel);
    }
    let sent = waiting.into_iter().map(|(parcel, _)| parcel).collect();
    let error = result.err().map(|error: io::Error| error.to_string());
    let _ = events.send(Event::Ended(id, Remains { sent, unsent, error })).await;
}

async fn connect(config: &Config, address: &str) -> io::Result<(Box<dyn Socket>, Replies, bool)> {
    let stream = within("connecting", connect_tcp(address)).await?;
    stream.set_nodelay(true)?;
    let mut socket: Box<dyn Socket> = Box::new(stream);
    if config.tls.enabled {
        let name = tls::server_name(&config.tls, address)?;
        let connector = tls::connector(&config.tls)?;
        let wrapped = within("the TLS handshake", connector.connect(name, socket)).await;
        socket = Box::new(wrapped.map_err(|error| io::Error::other(format!("TLS: {error}")))?);
    }
    let mut replies = Replies::default();
    let mut keepalive = true;
    if let Some(key) = &config.shared_key {
        let agreed = within(
            "HELO (has the receiver a <security> section?)",
            handshake::shake(config, key, &mut socket, &mut replies),
        )
        .await?;
        keepalive = agreed.keepalive;
    }
    Ok((socket, replies, keepalive))
}

/// Resolves anew each time and tries every address, beginning anywhere: the agents of a cluster spread out.
async fn connect_tcp(address: &str) -> io::Result<TcpStream> {
    let mut addresses: Vec<_> = tokio::net::lookup_host(address).await?.collect();
    if !addresses.is_empty() {
        let mut random = [0];
        let _ = getrandom::fill(&mut random);
        let first = usize::from(random[0]) % addresses.len();
        addresses.rotate_left(first);
    }
    let mut last = io::Error::other("the name has no address");
    for resolved in addresses {
        match TcpStream::connect(resolved).await {
            Ok(stream) => return Ok(stream),
            // Which of a name's addresses it was; a plain address is named by the caller.
            Err(error) if resolved.to_string() != address => {
                last = io::Error::new(error.kind(), format!("{resolved}: {error}"));
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

async fn within<T>(what: &str, step: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    let late = |_| {
        io::Error::new(
            io::ErrorKind::TimedOut,
            format!("{what} took longer than {} s", STEP_TIMEOUT.as_secs()),
        )
    };
    timeout(STEP_TIMEOUT, step).await.map_err(late)?
}

struct Connection<'a> {
    config: &'a Config,
    id: ConnectionId,
    events: &'a mpsc::Sender<Event>,
    /// Sent and not acknowledged, oldest first, with the time until which the acknowledgement must come.
    waiting: &'a mut VecDeque<(Parcel, Instant)>,
    /// The same for the parcel that is being written.
    next_late: Instant,
    begun: Instant,
    has_taken: bool,
    replies: Replies,
    keepalive: bool,
}

// === impl Connection ===

impl Connection<'_> {
    async fn serve(
        &mut self,
        socket: Box<dyn Socket>,
        parcels: &mut mpsc::Receiver<Parcel>,
    ) -> io::Result<()> {
        let (mut reader, mut writer) = tokio::io::split(socket);
        let retires = Instant::now() + jittered(MAX_AGE);
        let mut retiring = false;
        loop {
            if retiring && self.waiting.is_empty() {
                return Ok(());
            }
            let late = self.waiting.front().map(|(_, late)| *late);
            tokio::select! {
                parcel = parcels.recv(), if !retiring && self.waiting.len() < PIPELINE_PARCELS => {
                    let Some(parcel) = parcel else { retiring = true; continue };
                    if let Err(error) = self.send(parcel, &mut writer, &mut reader).await {
                        self.take_last_replies(&mut reader).await;
                        return Err(error);
                    }
                    retiring |= !self.keepalive;
                }
                reply = self.replies.next(&mut reader) => match reply {
                    Ok(reply) => self.take_reply(&reply).await?,
                    Err(error) if self.ends_in_peace(&error) => return Ok(()),
                    Err(error) => return Err(error),
                },
                () = until(late) => return Err(self.too_late()),
                () = tokio::time::sleep_until(retires), if !retiring => retiring = true,
            }
            if retiring {
                parcels.close();
            }
        }
    }

    /// Writes a parcel, and takes replies meanwhile: a receiver that waits for us to read must not wait for ever.
    async fn send(
        &mut self,
        parcel: Parcel,
        writer: &mut (impl AsyncWrite + Unpin),
        reader: &mut (impl AsyncRead + Unpin),
    ) -> io::Result<()> {
        self.next_late = Instant::now() + self.config.ack_timeout;
        let result = self.write(&parcel, writer, reader).await;
        if self.config.ack || result.is_err() {
            self.waiting.push_back((parcel, self.next_late));
        } else {
            let _ = self.events.send(Event::Acknowledged(self.id, parcel)).await;
        }
        result
    }

    async fn write(
        &mut self,
        parcel: &Parcel,
        writer: &mut (impl AsyncWrite + Unpin),
        reader: &mut (impl AsyncRead + Unpin),
    ) -> io::Result<()> {
        let (head, foot) = frame::envelope(parcel, self.config.ack)?;
        let mut written = pin!(write_all([&head, parcel.entries(), &foot], writer));
        loop {
            let late = self.next_late;
            tokio::select! {
                done = &mut written => return done,
                reply = self.replies.next(reader) => self.take_reply(&reply?).await?,
                () = tokio::time::sleep_until(late) => return Err(self.too_late()),
            }
        }
    }

    async fn take_reply(&mut self, reply: &Value) -> io::Result<()> {
        if let Some(reason) = handshake::wants_security(reply) {
            return Err(io::Error::other(reason));
        }
        let id = frame::acknowledged(reply);
        let position =
            self.waiting.iter().position(|(parcel, _)| id == Some(frame::chunk_id(parcel.id()).as_bytes()));
        let Some((position, (parcel, _))) = position.and_then(|at| Some((at, self.waiting.remove(at)?)))
        else {
            return Err(io::Error::other("the receiver has acknowledged a chunk that was not sent"));
        };
        // Receivers take one chunk after the other: what was sent behind this one has only now come to its turn. Without
        // this, one that needs longer for a full pipeline than ack_timeout would get it again and again.
        let late = Instant::now() + self.config.ack_timeout;
        self.waiting.iter_mut().skip(position).for_each(|(_, until)| *until = late);
        self.next_late = late;
        self.has_taken = true;
        let _ = self.events.send(Event::Acknowledged(self.id, parcel)).await;
        Ok(())
    }

    /// What the receiver has acknowledged before it went away may still be on its way to us: then it need not be sent
    /// again.
    async fn take_last_replies(&mut self, reader: &mut (impl AsyncRead + Unpin)) {
        while let Ok(Ok(reply)) = timeout(LAST_REPLIES, self.replies.next(reader)).await {
            if self.take_reply(&reply).await.is_err() {
                return;
            }
        }
    }

    /// Receivers, and what stands before them, close connections that are idle.
    fn ends_in_peace(&self, error: &io::Error) -> bool {
        error.kind() == io::ErrorKind::UnexpectedEof
            && self.waiting.is_empty()
            && (self.has_taken || self.begun.elapsed() >= LEAST_AGE)
    }

    fn too_late(&self) -> io::Error {
        io::Error::new(
            io::ErrorKind::TimedOut,
            format!("no acknowledgement within ack_timeout ({} s)", self.config.ack_timeout.as_secs_f64()),
        )
    }
}

/// All three parts, in as few system calls as the socket takes.
async fn write_all(parts: [&[u8]; 3], writer: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
    let total: usize = parts.iter().map(|part| part.len()).sum();
    let mut done = 0;
    while done < total {
        let mut skip = done;
        let slices = parts.map(|part| {
            let skipped = skip.min(part.len());
            skip -= skipped;
            io::IoSlice::new(&part[skipped..])
        });
        match writer.write_vectored(&slices).await? {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            written => done += written,
        }
    }
    writer.flush().await
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every connection resolves the name for itself, and none lives for ever: so a receiver that moves is found. The
    /// name has an address at which nobody listens, where the system has IPv6.
    #[tokio::test(start_paused = true)]
    async fn a_connection_tries_every_address_and_retires_in_peace_for_the_next_to_resolve_anew() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("localhost:{}", listener.local_addr().unwrap().port());
        let config = Config {
            name: "out".to_owned(),
            self_hostname: "node".to_owned(),
            upstreams: Vec::new(),
            ack: true,
            ack_timeout: Duration::from_secs(60),
            shared_key: None,
            username: String::new(),
            password: None,
            tls: crate::config::Tls::default(),
        };
        let id = ConnectionId { upstream: 0, number: 1 };
        let ((_parcels, receiver), (events, mut inbox)) = (mpsc::channel(1), mpsc::channel(8));
        tokio::spawn(run(Arc::new(config), id, address, receiver, events));
        let _accepted = listener.accept().await.unwrap();
        assert!(matches!(inbox.recv().await, Some(Event::Up(_))));
        let begun = Instant::now();
        let ended = inbox.recv().await;
        assert!(matches!(ended, Some(Event::Ended(_, Remains { error: None, .. }))), "{ended:?}");
        assert!(begun.elapsed() >= MAX_AGE / 2);
    }
}
