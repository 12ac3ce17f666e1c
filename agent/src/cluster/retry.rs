//! How to bear with an API server that is away: longer and longer pauses, few words.

use std::error::Error;
use std::time::Duration;

use tokio::time::Instant;

const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// While it lasts, one line in the log for each such window.
const LOG_WINDOW: Duration = Duration::from_secs(60);

/// One kind of request that may fail for seconds or for hours.
pub(super) struct Outage {
    consequence: &'static str,
    pause: Duration,
    said: Option<Instant>,
    unsaid: u64,
}

// === impl Outage ===

impl Outage {
    /// None yet; `consequence` is what a failure means to the operator.
    pub(super) fn new(consequence: &'static str) -> Self {
        Outage { consequence, pause: FIRST_PAUSE, said: None, unsaid: 0 }
    }

    /// Another failure: says so if it is time to, and gives the pause to make.
    pub(super) fn failed(&mut self, error: &dyn Error) -> Duration {
        if let Some(failures) = self.due() {
            tracing::warn!(error = describe(error), failures, "{}", self.consequence);
        }
        let mut random = [0];
        // Without randomness the pauses are merely not spread out.
        let _ = getrandom::fill(&mut random);
        let pause = self.pause / 2 + self.pause.mul_f64(f64::from(random[0]) / 510.0);
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        pause
    }

    /// It works again.
    pub(super) fn end(&mut self) {
        self.pause = FIRST_PAUSE;
        self.unsaid = 0;
        if self.said.take().is_some() {
            tracing::info!("the API server answers again");
        }
    }

    /// The failures since the last line, when one is due.
    fn due(&mut self) -> Option<u64> {
        self.unsaid += 1;
        if self.said.is_some_and(|said| said.elapsed() < LOG_WINDOW) {
            return None;
        }
        self.said = Some(Instant::now());
        Some(std::mem::take(&mut self.unsaid))
    }
}

/// The error with its causes: "client error (Connect)" alone does not say that the connection was refused.
fn describe(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn pauses_grow_to_thirty_seconds_and_start_anew_after_a_success() {
        let mut outage = Outage::new("");
        let error = io::Error::other("away");
        let pauses: Vec<Duration> = (0..9).map(|_| outage.failed(&error)).collect();
        assert!(pauses[0] <= FIRST_PAUSE && pauses[0] >= FIRST_PAUSE / 2);
        assert!(pauses[8] <= LONGEST_PAUSE && pauses[8] >= LONGEST_PAUSE / 2);
        outage.end();
        assert!(outage.failed(&error) <= FIRST_PAUSE);
    }

    #[tokio::test(start_paused = true)]
    async fn an_outage_is_one_line_a_window_however_often_it_is_tried() {
        let mut outage = Outage::new("");
        assert_eq!(outage.due(), Some(1));
        assert_eq!((outage.due(), outage.due()), (None, None));
        tokio::time::advance(LOG_WINDOW).await;
        assert_eq!(outage.due(), Some(3), "with those that were passed over");
    }
}
