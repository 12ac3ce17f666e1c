//! The input of a run: log files as containerd writes them, the same bytes for the same seed.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::Path;

use serde_json::json;

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

/// Writes `records` records into `directory`: `pods/` as the kubelet lays it out, and `pods.json`. Every record carries
/// `seq=POD:NUMBER`.
///
/// # Errors
/// The system's.
pub(crate) fn write(directory: &Path, records: u64) -> io::Result<()> {
    let mut random = Random(SEED);
    for pod in 0..PODS {
        let container = directory.join("pods").join(format!("shop_{}_{}", name(pod), uid(pod))).join("app");
        fs::create_dir_all(&container)?;
        let mut file = BufWriter::with_capacity(1 << 20, File::create(container.join("0.log"))?);
        for number in 0..records / PODS {
            let record = record(pod, number, &mut random);
            write_lines(&mut file, number, record.as_bytes())?;
        }
        file.flush()?;
    }
    let items: Vec<_> = (0..PODS).map(pod).collect();
    fs::write(directory.join("pods.json"), json!({ "kind": "List", "items": items }).to_string())
}

/// What the records of a pod carry.
pub(crate) fn name(pod: u64) -> String {
    format!("checkout-7c9d5b6f4-x{pod}k2p")
}

fn uid(pod: u64) -> String {
    format!("6f1d2c3b-8a7e-4c5d-9b0a-{pod:012}")
}

fn record(pod: u64, number: u64, random: &mut Random) -> String {
    let seq = format!("seq={}:{number}", name(pod));
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

/// A pod whose metadata take about 600 bytes in a record.
pub(crate) fn pod(pod: u64) -> serde_json::Value {
    json!({
        "metadata": {
            "name": name(pod), "namespace": "shop", "uid": uid(pod),
            "labels": {
                "app.kubernetes.io/name": "checkout", "app.kubernetes.io/instance": "checkout-eu-1",
                "app.kubernetes.io/version": "1.4.2", "app.kubernetes.io/part-of": "shop", "pod-template-hash": "7c9d5b6f4",
            },
            "ownerReferences": [{ "kind": "ReplicaSet", "name": "checkout-7c9d5b6f4", "controller": true }],
        },
        "spec": { "containers": [{ "name": "app", "image": "registry.example/shop/checkout:1.4.2" }] },
        "status": {
            "podIP": "10.1.2.3",
            "containerStatuses": [{
                "name": "app", "restartCount": 0,
                "containerID": "containerd://3f1c9a7e5d2b4c6f8091a2b3c4d5e6f708192a3b4c5d6e7f8091a2b3c4d5e6f7",
                "imageID": "registry.example/shop/checkout@sha256:9a7e5d2b4c6f8091a2b3c4d5e6f708192a3b4c5d6e7f8091a2b3c4d5e6f70819",
            }],
        },
    })
}
