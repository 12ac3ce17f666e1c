//! A reader over one file, without discovery and delivery.

use std::fmt::Write as _;

use prometheus::Registry;
use sidelight_contract::annotations::Parse;
use sidelight_runtime::progress::Heartbeats;
use sidelight_tests::fault::Row;
use sidelight_tests::forward_server::Tally;
use tokio::sync::mpsc;

use super::*;
use crate::checkpoint::account::{Accounts, DropReason, OutputAccount};
use crate::delivery::chunk::{Chunk, Compression};
use crate::delivery::memory::Share;
use crate::logs::generation::{Generation, Opened};
use crate::logs::layout::{ContainerPath, LogName};
use crate::logs::record::{PANICS, PANICS_WHEN_PARSED};
use crate::logs::settings::{Metadata, Settings};
use crate::logs::source::Source;
use crate::wake::Wake;

/// Chunks of 1 MiB that a reader may fill before one is taken.
const CHUNKS: usize = 64;

/// A reader that is to read one file to its end, and what its chunks come out of.
struct Prepared {
    reader: Reader,
    delivery: mpsc::Receiver<Chunk>,
    account: Arc<OutputAccount>,
    share: Arc<Share>,
    _file: tempfile::NamedTempFile,
}

impl Prepared {
    fn new(content: &str, parse: Parse) -> Self {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), content).unwrap();
        let text = format!(
            "node: n\nworkers: 1\nkubernetes: {{ source: none }}\nlogs: {{ parse: {parse}, outputs: [ {{ forward: {{ upstreams: ['h:1'] }} }} ] }}"
        );
        let config = Arc::new(Config::parse(&text, &|_| None).unwrap());
        let registry = Registry::new();
        let (accounts, metrics) =
            (Accounts::register(&registry).unwrap(), LogMetrics::register(&registry).unwrap());
        let account = accounts.output("forward");
        let wakes = vec![Arc::new(Wake::new().unwrap())];
        let (chunks, delivery) = mpsc::channel(CHUNKS);
        let share = Share::new(CHUNKS << 20, 1 << 20, wakes.clone());
        let lane = Lane::new(0, Compression::None, chunks, share.clone(), account.clone());

        let of = Arc::new(ContainerPath::parse("ns_pod_uid", "app").unwrap());
        let settings = Settings::resolve(&config, &of, &Metadata::NotAsked, &[]);
        let namespace_account = accounts.namespace("ns");
        let container =
            Arc::new(Container::new(of.clone(), "/none".into(), namespace_account.clone(), settings));
        let source = Some(Arc::new(Source::plain(std::fs::File::open(file.path()).unwrap())));
        let name = LogName::parse("0.log").unwrap();
        let opened = Opened {
            container: of,
            namespace_account,
            inode: (0, 0),
            name,
            path: file.path().into(),
            source,
        };
        container.update(|generations| generations.push(Arc::new(Generation::new(opened, 1))));
        let inventory = Arc::new(Inventory::new(wakes));
        inventory.add(container.clone());
        inventory.changed(&container);
        let order = Arc::new(Order::default());
        order.finish();
        let heartbeat = Heartbeats::new().register("reader");
        let namespaces = NamespaceLimits::default();
        let reader =
            Reader { index: 0, config, inventory, order, lanes: vec![lane], namespaces, metrics, heartbeat };
        Prepared { reader, delivery, account, share, _file: file }
    }
}

/// The texts of a chunk's records.
fn texts(chunk: &Chunk) -> Vec<String> {
    let mut rest = chunk.entries.as_slice();
    let mut texts = Vec::new();
    while !rest.is_empty() {
        let entry = rmpv::decode::read_value(&mut rest).unwrap();
        texts.push(entry[1]["log"].as_str().unwrap().to_owned());
    }
    texts
}

#[test]
fn a_line_that_panics_is_sent_raw_with_all_that_was_joined_to_it_and_dropped_if_that_panics_too() {
    let mut file = String::new();
    let parsed = format!("{PANICS_WHEN_PARSED} joined");
    for (tag, text) in [
        ("F", "one"),
        ("P", "part, "),
        ("F", parsed.as_str()),
        ("F", "two"),
        ("F", PANICS_WHEN_PARSED),
        ("F", "three"),
        ("P", "open, "),
        ("F", PANICS),
        ("F", "four"),
    ] {
        writeln!(file, "2026-11-24T10:00:00Z stdout {tag} {text}").unwrap();
    }
    let Prepared { reader, mut delivery, account, share, .. } = Prepared::new(&file, Parse::Json);
    reader.run();
    let used = share.used();

    let mut arrived = Vec::new();
    while let Ok(chunk) = delivery.try_recv() {
        arrived.extend(texts(&chunk));
        chunk.settle(&[]);
    }
    let head = "2026-11-24T10:00:00Z stdout";
    let joined = [format!("{head} P part, "), format!("{head} F {parsed}")];
    let alone = format!("{head} F {PANICS_WHEN_PARSED}");
    let open = format!("{head} P open, ");
    assert_eq!(arrived, ["one", &joined[0], &joined[1], "two", &alone, "three", &open, "four"]);
    let poison = format!("{head} F {PANICS}\n").len() as u64;
    let dropped: Vec<_> = account.bytes_dropped().filter(|(_, bytes)| *bytes > 0).collect();
    assert_eq!(dropped, [(DropReason::Poison, poison)]);
    assert_eq!(account.bytes_read(), file.len() as u64);
    assert_eq!(account.bytes_in_flight(), 0);
    let row = Row {
        tally: Tally { sent: 9, delivered: 8, repeated: 0 },
        dropped: [(("forward".to_owned(), "poison".to_owned()), poison)].into(),
    };
    row.add_to_table(
        "reader: lines panic when parsed, one of them raw as well",
        used as u64,
        (CHUNKS << 20) as u64,
    );
}

/// Allocations of reading so many lines like this to the end, and the chunks that they made.
fn allocations(line: &str, lines: usize, parse: Parse) -> (u64, u64) {
    let file = format!("2026-11-24T10:00:00.123456789Z stdout F {line}\n").repeat(lines);
    let Prepared { reader, mut delivery, account, _file, .. } = Prepared::new(&file, parse);
    let allocated = allocation_counter::measure(|| reader.run());
    let mut chunks = 0;
    while let Ok(chunk) = delivery.try_recv() {
        chunk.settle(&[]);
        chunks += 1;
    }
    assert_eq!(account.records_delivered(), lines as u64);
    (allocated.count_total, chunks)
}

#[test]
fn a_line_costs_no_allocation_whatever_it_is_parsed_as() {
    let json = r#"{"timestamp":"t","level":"INFO","fields":{"message":"a \"b\"","n":1.5},"target":"a::b","span":{"name":"s"}}"#;
    let text =
        "2026-11-24T10:00:00.123456Z  INFO request{method=GET}: shop::orders: placed order=7 total=12.5";
    for (line, parse) in [
        ("GET /orders/7 200", Parse::None),
        ("GET /orders/7 200", Parse::Auto),
        ("GET /orders/7 200 \u{e4}\u{2028}", Parse::Json),
        (json, Parse::Json),
        (json, Parse::Auto),
        (text, Parse::Auto),
        ("level=info msg=\"a b\" n=7", Parse::Logfmt),
    ] {
        let (few, few_chunks) = allocations(line, 1_000, parse);
        let (many, many_chunks) = allocations(line, 50_000, parse);
        let for_each_chunk = (many - few) / (many_chunks - few_chunks);
        assert!(
            for_each_chunk < 30,
            "{line} as {parse}: {few} in {few_chunks} chunks, {many} in {many_chunks}"
        );
    }
}

/// A file may be seen longer by another thread between two looks of its reader.
#[test]
fn a_file_that_grows_is_never_taken_for_a_truncated_one() {
    let Prepared { reader, _file: file, .. } = Prepared::new("", Parse::None);
    let generation = reader.inventory.containers()[0].generations()[0].clone();
    let source = generation.source().unwrap();
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for _ in 0..20_000 {
                std::io::Write::write_all(&mut file.as_file(), b"x").unwrap();
                generation.refresh();
            }
        });
        while !writer.is_finished() {
            assert!(!generation.has_shrunk(&source));
        }
    });
    file.as_file().set_len(0).unwrap();
    assert!(generation.has_shrunk(&source));
}
