//! A service that counts by hand with the macros of `metrics`, and sets no buckets: its durations are summaries. It makes two of
//! the mistakes that are made by hand: a label that has a value for each user, and a sample that tells its own time, long past.

use std::fmt::Write;
use std::sync::Arc;

use ::metrics::{counter, gauge, histogram};
use tokio::time::{Instant, sleep};

use crate::Result;
use crate::traffic::{Dialect, Request};

/// More than a target may have where `series_limit` is 5000.
const USERS: u32 = 6000;
/// 13 September 2020, in milliseconds: long before anything that a receiver still takes.
const LAST_BACKUP: u64 = 1_600_000_000_000;

pub(crate) struct Handmade;

// === impl Handmade ===

impl Dialect for Handmade {
    async fn answer(self: Arc<Self>, request: Request) {
        let Request { method, route, takes, status } = request;
        let began = Instant::now();
        gauge!("http_requests_in_flight").increment(1);
        sleep(takes).await;
        gauge!("http_requests_in_flight").decrement(1);
        counter!("http_requests_total", "method" => method, "path" => route, "code" => status.as_str().to_owned())
            .increment(1);
        histogram!("http_request_duration_seconds", "method" => method, "path" => route)
            .record(began.elapsed().as_secs_f64());
    }

    fn page(&self) -> Result<String> {
        let mut page = format!("# TYPE last_backup_bytes gauge\nlast_backup_bytes 1048576 {LAST_BACKUP}\n");
        page += "# TYPE user_sessions gauge\n";
        for user in 0..USERS {
            writeln!(page, "user_sessions{{user=\"{user}\"}} 1")?;
        }
        Ok(page)
    }
}
