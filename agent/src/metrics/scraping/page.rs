//! One target's scrapes: page in, samples out, and what the scrape says of itself.

use std::sync::Arc;

use tokio::time::Instant;

use super::feed::{Clock, Feed};
use super::{Shared, State, Wanted};
use crate::metrics::discover::Target;
use crate::metrics::exposition::{Dialect, protobuf};
use crate::metrics::scrape::{Client, Formats};
use crate::metrics::series::{Counts, SeriesLabels, TargetLabels};

/// The series that a scrape makes itself, as Prometheus calls them.
const OWN: [&str; 5] = [
    "up",
    "scrape_duration_seconds",
    "scrape_samples_scraped",
    "scrape_samples_post_metric_relabeling",
    "scrape_series_added",
];

/// What scrapes one target.
pub(super) struct Scraper {
    shared: Arc<Shared>,
    target: Target,
    namespace: String,
    client: Client,
    clock: Clock,
    feed: Feed,
    own: [SeriesLabels; OWN.len()],
    /// The log knows that its content type does not fit.
    is_mistyped: bool,
}

// === impl Scraper ===

impl Scraper {
    /// Of a pod, or of the kubelet, whose series go to outputs each for itself.
    pub(super) fn new(shared: Arc<Shared>, wanted: Wanted) -> Self {
        let Wanted { target, outputs, namespace, pods_of_kubelet } = wanted;
        let labels = TargetLabels {
            labels: target.labels.clone(),
            honor: target.honor_labels,
            pods: pods_of_kubelet.clone(),
            config: shared.config.clone(),
            symbols: shared.symbols.clone(),
        };
        let metrics = &shared.config.metrics;
        let body_limit = usize::try_from(metrics.body_limit).unwrap_or(usize::MAX);
        let mut client = Client::new(metrics.timeout, body_limit, shared.tls.clone());
        if pods_of_kubelet.is_some() {
            client = client.with_token();
        }
        Scraper {
            client,
            own: OWN.map(|name| labels.of_own(name)),
            feed: Feed::new(shared.clone(), target.url(), labels, &namespace, outputs),
            clock: Clock::default(),
            is_mistyped: false,
            namespace,
            shared,
            target,
        }
    }

    pub(super) fn target(&self) -> &Target {
        &self.target
    }

    /// One scrape.
    pub(super) async fn scrape(&mut self) {
        let (begun, time) = (Instant::now(), self.clock.next());
        let (mut page, mut room) = self.shared.pages.take(&self.namespace);
        let formats = if self.feed.takes_histograms() { Formats::WithHistograms } else { Formats::Text };
        let result = self.client.scrape(&self.target, formats, &mut page, &mut room).await;
        let result = result.map_err(|error| error.to_string());
        let result = result.and_then(|content_type| {
            let is_text =
                !content_type.as_deref().is_some_and(|name| name.starts_with(protobuf::CONTENT_TYPE));
            let counts = match formats {
                _ if is_text => self.feed.read(&page).map_err(|fault| fault.to_string())?,
                Formats::WithHistograms => self.feed.read_protobuf(&page)?,
                Formats::Text => return Err("the page is in protobuf, which was not asked for".to_owned()),
            };
            Ok((counts, is_text, content_type))
        });
        let dialect = Dialect::of_page(&page);
        let duration = begun.elapsed().as_secs_f64();
        self.shared.metrics.scraped(result.is_ok(), page.len(), duration);
        drop(room);
        self.shared.pages.give_back(page);
        if let Ok((_, true, content_type)) = &result {
            self.compare(content_type.as_deref(), dialect);
        }
        let counts = result.as_ref().ok().map(|(counts, ..)| *counts);
        self.pass_on(time, duration, counts);
        self.shared.states.set(
            &self.target.key,
            State {
                last_scrape: Some(time),
                last_error: result.err(),
                samples: counts.unwrap_or_default().passed,
                series: self.feed.series(),
            },
        );
    }

    /// A page is read as what it is. What its type says counts for other programs: its owner may want to know.
    fn compare(&mut self, content_type: Option<&str>, dialect: Dialect) {
        if content_type.and_then(Dialect::of_content_type) == Some(dialect) {
            return;
        }
        self.shared.metrics.mistyped();
        if !std::mem::replace(&mut self.is_mistyped, true) {
            let content_type = content_type.unwrap_or_default();
            tracing::info!(
                target = self.target.url(),
                content_type,
                ?dialect,
                "a page is not what its content type says"
            );
        }
    }

    fn pass_on(&mut self, time: i64, duration: f64, counts: Option<Counts>) {
        let Counts { scraped, passed, added, .. } = counts.unwrap_or_default();
        let up = f64::from(u8::from(counts.is_some()));
        let values = [up, duration, scraped as f64, passed as f64, added as f64];
        let own: Vec<_> = self.own.iter().zip(values).collect();
        self.feed.pass_on(time, counts, &own);
    }

    /// The target is gone: all of its series end.
    pub(super) fn end(&mut self) {
        if !self.clock.is_new() {
            self.feed.end(self.clock.next(), &self.own);
        }
    }
}

impl Drop for Scraper {
    fn drop(&mut self) {
        self.shared.states.remove(&self.target.key);
    }
}
