//! A service in a pod that counts what it does with one of the libraries that Rust services use, and serves `/metrics`.
//!
//!     exporter LIBRARY
//!     exporter service DIALECT
//!
//! With `service` it has requests that nobody needs to send ([`traffic`]). What follows is about a library alone.
//!
//! The pages are numbered by what each says of itself in `pages_served_total`. Before it goes out a page is written to
//! `/served/$POD/NUMBER`, so that a test can compare what a receiver has with what was really served.
//!
//! As the first process of a container it ignores SIGTERM, and so serves until its pod's grace period is over.

mod axum_dialect;
mod handmade_dialect;
mod metrics_exporter_prometheus;
mod opentelemetry_prometheus;
mod otel_dialect;
mod prometheus;
mod prometheus_client;
mod tonic_dialect;
mod traffic;

use std::error::Error;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv6Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

const PORT: u16 = 8080;
/// Longer than any request that is meant.
const REQUEST_BYTES: u64 = 64 * 1024;
const REQUEST_TIME: Duration = Duration::from_secs(5);
/// Seconds that each request takes which a service is said to have had between two pages.
const DURATIONS: [f64; 3] = [0.003, 0.07, 1.2];
/// Bounds of buckets, in seconds.
const BUCKETS: [f64; 7] = [0.005, 0.025, 0.1, 0.5, 1.0, 2.5, 10.0];
const PAGES: &str = "Pages of metrics that were served, this one among them";
const REQUESTS: &str = "Requests, by method and status";
const QUEUE: &str = "Requests that wait";
const DURATION: &str = "How long requests take";

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// A service that counts with some library.
trait Service {
    /// What users of the library send with a page.
    fn content_type(&self) -> &str;

    /// Counts the work of a moment, then writes the page of that number. Counters and histograms grow from page to page;
    /// this many requests wait.
    fn page(&mut self, waiting: u32) -> Result<String>;
}

/// What one pod serves.
struct Server {
    service: Box<dyn Service>,
    /// Where its pages are written down.
    served: PathBuf,
    number: u32,
}

fn main() -> Result<()> {
    let library = std::env::args().nth(1).unwrap_or_default();
    if library == "service" {
        return traffic::run(&std::env::args().nth(2).unwrap_or_default());
    }
    let service: Box<dyn Service> = match library.as_str() {
        "metrics-exporter-prometheus" => Box::new(metrics_exporter_prometheus::Metrics::new()?),
        "opentelemetry-prometheus" => Box::new(opentelemetry_prometheus::Metrics::new()?),
        "prometheus" => Box::new(prometheus::Metrics::new()?),
        "prometheus-client" => Box::new(prometheus_client::Metrics::new()),
        _ => return Err(format!("no such library: {library:?}").into()),
    };
    let served = Path::new("/served").join(std::env::var("POD")?);
    std::fs::create_dir_all(&served)?;
    let mut server = Server { service, served, number: 0 };
    // Of either family.
    for stream in TcpListener::bind((Ipv6Addr::UNSPECIFIED, PORT))?.incoming() {
        if let Err(error) = stream.map_err(Into::into).and_then(|stream| server.answer(stream)) {
            eprintln!("a request failed: {error}");
        }
    }
    Ok(())
}

// === impl Server ===

impl Server {
    /// One request for each connection.
    fn answer(&mut self, mut stream: TcpStream) -> Result<()> {
        stream.set_read_timeout(Some(REQUEST_TIME))?;
        stream.set_write_timeout(Some(REQUEST_TIME))?;
        let mut lines = BufReader::new((&stream).take(REQUEST_BYTES)).lines();
        let request = lines.next().transpose()?.unwrap_or_default();
        while lines.next().transpose()?.is_some_and(|header| !header.is_empty()) {}
        drop(lines);
        if !request.starts_with("GET /metrics ") {
            stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")?;
            return Ok(());
        }
        self.number += 1;
        let page = self.service.page(self.number % 7)?;
        std::fs::write(self.served.join(self.number.to_string()), &page)?;
        write!(
            stream,
            "HTTP/1.1 200 OK\r\nContent-Type: {}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{page}",
            self.service.content_type(),
            page.len()
        )?;
        Ok(())
    }
}
