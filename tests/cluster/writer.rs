//! A program that logs: numbered lines on stdout, at a steady rate. All a test image needs; std only, built by rustc.
//!
//! Everything is told by the environment: `NAME` and a running number begin each line, `LINES` says how many there are
//! (default 0), `RATE` how many in a second (0: as fast as possible), `BYTES` how long they are, `THEN` what follows:
//! `exit` as a Job does, `sleep` (default) as a service does.

use std::io::{LineWriter, Write};
use std::str::FromStr;
use std::time::{Duration, Instant};

fn main() -> std::io::Result<()> {
    let name = text("NAME").unwrap_or_else(|| "writer".to_owned());
    write_lines(&name, number("LINES", 0), number("RATE", 0), number("BYTES", 100))?;
    if text("THEN").as_deref() == Some("exit") {
        return Ok(());
    }
    // As the first process of a container it ignores SIGTERM: pods get a short grace period instead of a handler, which
    // would need unsafe code or a library.
    loop {
        std::thread::sleep(Duration::MAX);
    }
}

/// One write for each line, as programs log.
fn write_lines(name: &str, lines: u64, rate: u32, bytes: usize) -> std::io::Result<()> {
    let mut out = LineWriter::new(std::io::stdout().lock());
    let begun = Instant::now();
    for number in 0..lines {
        if let Some(due) = Duration::from_secs(number).checked_div(rate) {
            // Behind its time it writes without a pause.
            std::thread::sleep(due.saturating_sub(begun.elapsed()));
        }
        let head = format!("seq={name}:{number} ");
        writeln!(out, "{head}{:x<1$}", "", bytes.saturating_sub(head.len()))?;
    }
    out.flush()
}

fn text(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

fn number<T: FromStr>(name: &str, default: T) -> T {
    let parse = |text: String| text.parse().unwrap_or_else(|_| panic!("{name} is no number: {text:?}"));
    text(name).map_or(default, parse)
}
