//! The input of a run: log files as containerd writes them, the same bytes for the same seed.

use std::fs::File;
use std::io::{self, BufWriter, Write};

use crate::node::{Node, pod_name};

/// Pods, each with one container and one file.
pub(crate) const PODS: u64 = 10;
/// containerd's `max_container_log_line_size`.
const MAX_LINE: usize = 16 << 10;
const SEED: u64 = 0x5eed_0f51_de11_6487;
/// Of a thousand records: those that are tracing's JSON, and those that are long enough to be cut into partial lines.
const JSON_PER_MILLE: u64 = 600;
const LONG_PER_MILLE: u64 = 3;
const LONG_BYTES: usize = 40_000;

/// xorshift64*: enough to vary lengths and kinds.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % limit
    }
}

/// Writes `records` records into the files of a new node. Every record carries `seq=POD:NUMBER`.
///
/// # Errors
/// The system's.
pub(crate) fn write(records: u64) -> io::Result<Node> {
    let node = Node::new(PODS, 1)?;
    let mut random = Random(SEED);
    for pod in 0..PODS {
        let mut file = BufWriter::with_capacity(1 << 20, File::create(node.log(pod, 0))?);
        for number in 0..records / PODS {
            let record = record(pod, number, &mut random);
            write_lines(&mut file, number, record.as_bytes())?;
        }
        file.flush()?;
    }
    Ok(node)
}

fn record(pod: u64, number: u64, random: &mut Random) -> String {
    let seq = format!("seq={}:{number}", pod_name(pod));
    let kind = random.below(1000);
    if kind < LONG_PER_MILLE {
        return format!("{seq} {}", "long line ".repeat(LONG_BYTES / 10));
    }
    let filler = "lorem ipsum dolor sit amet consectetur adipiscing elit sed do eiusmod ";
    let filler = &filler.repeat(2)[..random.below(120) as usize];
    let (ms, status, id) =
        (random.below(900), [200, 200, 201, 404, 500][random.below(5) as usize], random.below(1 << 30));
    if kind < LONG_PER_MILLE + JSON_PER_MILLE {
        return format!(
            r#"{{"timestamp":"2026-11-24T10:00:00.123456Z","level":"INFO","fields":{{"message":"{seq} request served {filler}","status":{status},"latency_ms":{ms},"order":"{id:x}"}},"target":"checkout::http","span":{{"name":"request"}}}}"#
        );
    }
    format!("{seq} GET /orders/{id:x} {status} {ms}ms {filler}")
}

fn write_lines(file: &mut impl Write, number: u64, record: &[u8]) -> io::Result<()> {
    let (second, nanos) = (number / 1000 % 86_400, number % 1000 * 1_000_000 + 123_457);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    let mut pieces = record.chunks(MAX_LINE).peekable();
    while let Some(piece) = pieces.next() {
        let tag = if pieces.peek().is_some() { 'P' } else { 'F' };
        write!(file, "2026-11-24T{hour:02}:{minute:02}:{second:02}.{nanos:09}Z stdout {tag} ")?;
        file.write_all(piece)?;
        file.write_all(b"\n")?;
    }
    Ok(())
}
