//! A page of metrics that a test can change.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::http::{Answer, serve};

/// The server.
pub struct Exporter {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    answer: Mutex<Answer>,
    scrapes: AtomicU64,
    hangs: AtomicBool,
}

// === impl Exporter ===

impl Exporter {
    /// Serves this page at every path. Where it says `{scrape}`, stands the number of the scrape, from 1.
    pub fn start(page: &str) -> Self {
        let shared = Arc::new(Shared {
            answer: Mutex::new(Answer::status(200)),
            scrapes: AtomicU64::new(0),
            hangs: AtomicBool::new(false),
        });
        let serving = shared.clone();
        let address = serve(move |_| {
            let scrape = serving.scrapes.fetch_add(1, Ordering::SeqCst) + 1;
            while serving.hangs.load(Ordering::SeqCst) {
                std::thread::sleep(Duration::from_millis(10));
            }
            let answer = serving.answer.lock().unwrap().clone();
            match String::from_utf8(answer.body.clone()) {
                Ok(page) => Answer { body: page.replace("{scrape}", &scrape.to_string()).into(), ..answer },
                Err(_) => answer,
            }
        });
        let exporter = Exporter { address, shared };
        exporter.serve(page);
        exporter
    }

    /// From now on it serves this page.
    pub fn serve(&self, page: &str) {
        let body = page.as_bytes().to_vec();
        self.answer(Answer { body, ..Answer::status(200) });
    }

    /// From now on it answers so.
    pub fn answer(&self, answer: Answer) {
        *self.shared.answer.lock().unwrap() = answer;
    }

    /// From now on it does not answer, or does again.
    pub fn hang(&self, hangs: bool) {
        self.shared.hangs.store(hangs, Ordering::SeqCst);
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// How often it was asked.
    pub fn scrapes(&self) -> u64 {
        self.shared.scrapes.load(Ordering::SeqCst)
    }
}
