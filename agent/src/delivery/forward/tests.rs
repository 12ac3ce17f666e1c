use super::*;
use crate::checkpoint::account::{Accounts, OutputAccount};
use crate::checkpoint::ledger::SharedLane;
use crate::config::OutputKind;
use crate::delivery::chunk::{Compression, RecordMark};
use crate::delivery::compression::Compressor;
use crate::delivery::memory::Share;
use crate::wake::Wake;

/// Of an output.
pub(super) const MEMORY: usize = 1 << 20;
/// Of a chunk.
pub(super) const CHUNK: usize = 1 << 10;
/// Bytes of a record.
pub(super) const RECORD: usize = 100;

/// Makes chunks in a memory of their own, whose reader is `reader`.
pub(super) struct Chunks {
    pub(super) share: Arc<Share>,
    reader: Arc<Wake>,
    lane: Arc<SharedLane>,
}

impl Chunks {
    pub(super) fn new() -> Self {
        let reader = Arc::new(Wake::new().unwrap());
        let accounts = Accounts::register(&prometheus::Registry::new()).unwrap();
        let share = Share::new(MEMORY, CHUNK, vec![reader.clone()]);
        Chunks { share, reader, lane: SharedLane::new(0, accounts.output("out")) }
    }

    /// A chunk of so many records.
    pub(super) fn of(&self, records: usize) -> Chunk {
        self.chunk(records, Vec::with_capacity(records * RECORD), Compression::None)
    }

    /// As full as a reader makes it; each record consists of its number.
    pub(super) fn full(&self, compression: Compression) -> Chunk {
        self.chunk(CHUNK / RECORD, Vec::with_capacity(CHUNK), compression)
    }

    /// A hundred short records that are all the same; none when there is no memory.
    pub(super) fn of_same_records(&self, compression: Compression) -> Option<Chunk> {
        let credit = self.share.try_take()?;
        let marks = (1..=100).map(|record| RecordMark { end: record * 10, source: 1 }).collect();
        let (entries, compression) =
            Compressor::new(compression).compress(&mut vec![0; 1000], || self.share.copy_buffer());
        let receipt = self.lane.reserve(Vec::new());
        Some(Chunk::new("tag".into(), entries, compression, marks, receipt, credit))
    }

    fn chunk(&self, records: usize, mut buffer: Vec<u8>, compression: Compression) -> Chunk {
        let mark = |record: usize| RecordMark { end: ((record + 1) * RECORD) as u32, source: 1 };
        let marks = (0..records).map(mark).collect();
        (0..records).for_each(|record| buffer.resize(buffer.len() + RECORD, record as u8));
        let (entries, compression) = Compressor::new(compression).compress(&mut buffer, Vec::new);
        let (receipt, credit) = (self.lane.reserve(Vec::new()), self.share.try_take().unwrap());
        Chunk::new("tag".into(), entries, compression, marks, receipt, credit)
    }
}

/// A dispatcher whose connections are opened by its test: what they would tell it, the test does. Its pauses are what they
/// are without chance.
pub(super) fn dispatcher(config: &crate::config::Config, account: Arc<OutputAccount>) -> Dispatcher {
    let OutputKind::Forward(forward) = &config.logs.outputs[0].kind else { unreachable!() };
    let (events, _) = mpsc::channel(1);
    let mut dispatcher =
        Dispatcher::new(Config::new("out", "n", forward), events, OutputStatus::new(account));
    dispatcher.jitter = |pause| pause;
    dispatcher
}

#[test]
fn a_compressed_chunk_leaves_its_buffer_to_the_next() {
    let chunks = Chunks::new();
    let chunk = chunks.of_same_records(Compression::Gzip).unwrap();
    let length = chunk.entries.len();
    chunk.settle(&[]);
    let buffer = chunks.share.copy_buffer();
    assert!(buffer.is_empty() && buffer.capacity() >= length);
}

fn dispatcher_to_one() -> Dispatcher {
    let text = "node: n\nlogs: { outputs: [ { name: out, forward: { upstreams: ['a:1'] } } ] }";
    let config = crate::config::Config::parse(text, &|_| None).unwrap();
    let accounts = Accounts::register(&prometheus::Registry::new()).unwrap();
    dispatcher(&config, accounts.output("out"))
}

/// A connection has failed with this oldest parcel of those that it had sent.
fn fail(dispatcher: &mut Dispatcher, id: ConnectionId, sent: Vec<Parcel>) {
    let error = Some("refused".to_owned());
    dispatcher.handle(Event::Ended(id, Remains { sent, unsent: Vec::new(), error }));
}

/// Otherwise a receiver that takes something and closes is asked again without end, and each time counts as a refusal.
#[tokio::test(start_paused = true)]
async fn a_receiver_has_its_pause_when_the_failure_is_told_behind_the_next_connection() {
    let mut dispatcher = dispatcher_to_one();
    let chunks = Chunks::new();
    let (first, taken) = dispatcher.upstreams.open(0);
    dispatcher.handle(Event::Up(first));
    drop(taken);
    dispatcher.take(chunks.of(1));
    assert!(!dispatcher.assign(Instant::now()), "the connection takes nothing more");
    let (second, mut parcels) = dispatcher.upstreams.open(0);
    fail(&mut dispatcher, first, Vec::new());
    dispatcher.handle(Event::Up(second));
    assert!(dispatcher.assign(Instant::now()));
    assert!(parcels.try_recv().is_err(), "it pauses");
    tokio::time::advance(Duration::from_secs(1)).await;
    assert!(dispatcher.assign(Instant::now()));
    let parcel = parcels.try_recv().unwrap();
    dispatcher.handle(Event::Acknowledged(second, parcel));
    for _ in 0..2 {
        dispatcher.take(chunks.of(1));
        assert!(dispatcher.assign(Instant::now()));
    }
    assert!(parcels.try_recv().is_ok() && parcels.try_recv().is_ok(), "it has its pipeline again");
}

/// Readers wait for a place in the channel to be told that there is one. Where chunks come back, that wakes them; of
/// suspects none may come back for long.
#[tokio::test(start_paused = true)]
async fn the_readers_are_woken_by_a_place_in_the_channel_while_suspects_wait() {
    let mut dispatcher = dispatcher_to_one();
    let chunks = Chunks::new();
    let (suspect, waiting) = (chunks.of(2), chunks.of(2));
    let (id, _parcels) = dispatcher.upstreams.open(0);
    fail(&mut dispatcher, id, vec![Parcel::whole(suspect)]);
    chunks.share.ask_for_wake_up();
    assert!(!chunks.reader.take(), "nothing has changed for them");
    dispatcher.take(waiting);
    assert!(chunks.reader.take());
}
