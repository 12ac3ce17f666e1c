//! A program that logs: numbered lines on stdout, at a steady rate. All a test image needs; std only, built by rustc.
//!
//! Everything is told by the environment: `NAME` and a running number begin each line, `LINES` says how many there are
//! (default 0), `RATE` how many in a second (0: as fast as possible), `BYTES` how long they are, `THEN` what follows:
//! `exit` as a Job does, `sleep` (default) as a service does. With `FILE` the lines go into that file, which is renamed to
//! `FILE.1` when it has `ROTATE` bytes. With `PORT` their number is served as a page of metrics, to the pod itself alone.

use std::fs::File;
use std::io::{self, LineWriter, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

static WRITTEN: AtomicU64 = AtomicU64::new(0);

fn main() -> io::Result<()> {
    let name = text("NAME").unwrap_or_else(|| "writer".to_owned());
    if let port @ 1.. = number("PORT", 0) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
        std::thread::spawn(move || listener.incoming().flatten().for_each(|stream| drop(serve(stream))));
    }
    let out: Box<dyn Write> = match text("FILE") {
        None => Box::new(io::stdout().lock()),
        Some(path) => Box::new(Rotated {
            file: File::create(&path)?,
            path,
            bytes: 0,
            limit: number("ROTATE", usize::MAX),
        }),
    };
    write_lines(out, &name, number("LINES", 0), number("RATE", 0), number("BYTES", 100))?;
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
fn write_lines(out: Box<dyn Write>, name: &str, lines: u64, rate: u32, bytes: usize) -> io::Result<()> {
    let mut out = LineWriter::new(out);
    let begun = Instant::now();
    for number in 0..lines {
        if let Some(due) = Duration::from_secs(number).checked_div(rate) {
            // Behind its time it writes without a pause.
            std::thread::sleep(due.saturating_sub(begun.elapsed()));
        }
        let head = format!("seq={name}:{number} ");
        writeln!(out, "{head}{:x<1$}", "", bytes.saturating_sub(head.len()))?;
        WRITTEN.fetch_add(1, Ordering::Relaxed);
    }
    out.flush()
}

/// A log file as logging libraries rotate it.
struct Rotated {
    file: File,
    path: String,
    bytes: usize,
    limit: usize,
}

impl Write for Rotated {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.bytes + line.len() > self.limit {
            std::fs::rename(&self.path, format!("{}.1", self.path))?;
            self.file = File::create(&self.path)?;
            self.bytes = 0;
        }
        let written = self.file.write(line)?;
        self.bytes += written;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Answers whatever is asked with the page.
fn serve(mut stream: TcpStream) -> io::Result<()> {
    let mut request = [0; 4096];
    let _ = stream.read(&mut request)?;
    let page = format!(
        "# TYPE written_lines_total counter\nwritten_lines_total {}\n",
        WRITTEN.load(Ordering::Relaxed)
    );
    let length = page.len();
    write!(
        stream,
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{page}"
    )
}

fn text(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

fn number<T: FromStr>(name: &str, default: T) -> T {
    let parse = |text: String| text.parse().unwrap_or_else(|_| panic!("{name} is no number: {text:?}"));
    text(name).map_or(default, parse)
}
