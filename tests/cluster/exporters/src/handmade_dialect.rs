//! A service that counts by hand with the macros of `metrics`, and sets no buckets: its durations are summaries.

use std::sync::Arc;

use ::metrics::{counter, gauge, histogram};
use tokio::time::{Instant, sleep};

use crate::traffic::{Dialect, Request};

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
}
