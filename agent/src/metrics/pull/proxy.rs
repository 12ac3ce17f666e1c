//! The pages of targets, each asked for when somebody asks for it.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hyper::header::HeaderMap;
use tokio::time::Instant;

use crate::cluster::Store;
use crate::config::Config;
use crate::metrics::discover::targets;
pub(super) use crate::metrics::discover::{Target, TargetKey};
use crate::metrics::exposition::Dialect;
use crate::metrics::pull::page;
use crate::metrics::scrape::{Client, Formats};
use crate::metrics::scraping::{Shared, State};
use crate::metrics::series::{Limits, SeriesCache, TargetLabels};

/// Those that were asked for.
pub(super) struct Proxies {
    shared: Arc<Shared>,
    /// Apart from those of scrapes: what is asked for by both is there twice.
    limits: Arc<Limits>,
    proxies: Mutex<HashMap<TargetKey, Arc<tokio::sync::Mutex<Proxy>>>>,
}

/// What is kept of one, from page to page.
struct Proxy {
    target: Target,
    client: Client,
    series: SeriesCache,
}

/// The node's targets: those of pods that are told to end too, until they have.
pub(super) fn targets_of(pods: &Store, config: &Config) -> Vec<Target> {
    pods.present().iter().flat_map(|pod| targets(pod, config).targets).collect()
}

/// The target of `UID/PORT/PATH`, perhaps with a query, whose pairs may come in any order.
pub(super) fn target_of(pods: &Store, config: &Config, asked: &str) -> Option<Target> {
    let (uid, rest) = asked.split_once('/')?;
    let (port, path) = rest.split_at_checked(rest.find('/')?)?;
    let port: u16 = port.parse().ok()?;
    let pod = pods.present().into_iter().find(|pod| pod.uid == uid)?;
    let is_it = |target: &Target| target.key.port == port && parts(&target.key.path) == parts(path);
    targets(&pod, config).targets.into_iter().find(is_it)
}

fn parts(path: &str) -> (&str, Vec<(String, String)>) {
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    let mut pairs: Vec<(String, String)> = form_urlencoded::parse(query.as_bytes()).into_owned().collect();
    pairs.sort_unstable();
    (path, pairs)
}

/// How long whoever asks will wait (Prometheus's `X-Prometheus-Scrape-Timeout-Seconds`).
pub(super) fn timeout_of(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get("x-prometheus-scrape-timeout-seconds")?.to_str().ok()?;
    Duration::try_from_secs_f64(seconds.parse().ok()?).ok().filter(|timeout| !timeout.is_zero())
}

// === impl Proxies ===

impl Proxies {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        let limits = Arc::new(Limits::of(&shared.config.metrics));
        Proxies { shared, limits, proxies: Mutex::default() }
    }

    /// The page of a target as it is now, in this dialect or in text.
    ///
    /// # Errors
    /// Why there is none.
    pub(super) async fn page(
        &self,
        target: Target,
        wanted: Dialect,
        timeout: Option<Duration>,
    ) -> Result<(String, Dialect), String> {
        let proxy = self.proxy(&target);
        // Two that ask for the same at once are answered one after the other.
        let mut proxy = proxy.lock().await;
        if proxy.target != target {
            *proxy = Proxy::new(&self.shared, &self.limits, target);
        }
        let begun = Instant::now();
        let limit = self.shared.config.metrics.timeout;
        proxy.client.set_timeout(timeout.map_or(limit, |timeout| timeout.min(limit)));
        let namespace = proxy.namespace().to_owned();
        let (mut bytes, mut room) = self.shared.pages.take(&namespace);
        let read = proxy.read(&mut bytes, &mut room).await;
        self.shared.metrics.scraped(read.is_ok(), bytes.len(), begun.elapsed().as_secs_f64());
        let dialect = if Dialect::of_page(&bytes) == wanted { wanted } else { Dialect::Text };
        drop(room);
        self.shared.pages.give_back(bytes);
        let (samples, result) = match read {
            Ok(counts) => {
                self.shared.metrics.samples(counts.passed);
                self.shared.metrics.series_dropped(counts.dropped);
                (counts.passed, Ok((proxy.write(&self.shared, dialect), dialect)))
            }
            Err(reason) => (0, Err(reason)),
        };
        proxy.series.end_vanished(result.is_ok(), drop);
        proxy.series.forget_page();
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let state = State {
            last_scrape: i64::try_from(since.as_millis()).ok(),
            last_error: result.as_ref().err().cloned(),
            samples,
            series: proxy.series.len(),
        };
        self.shared.states.set(&proxy.target.key, state);
        result
    }

    fn proxy(&self, target: &Target) -> Arc<tokio::sync::Mutex<Proxy>> {
        let mut proxies = self.proxies.lock().unwrap_or_else(PoisonError::into_inner);
        let proxy = || Proxy::new(&self.shared, &self.limits, target.clone());
        let known = proxies.entry(target.key.clone());
        known.or_insert_with(|| Arc::new(tokio::sync::Mutex::new(proxy()))).clone()
    }

    /// Forgets those that are no targets any more.
    pub(super) fn forget_others(&self, pods: &Store) {
        let keys: HashSet<TargetKey> =
            targets_of(pods, &self.shared.config).into_iter().map(|target| target.key).collect();
        let mut proxies = self.proxies.lock().unwrap_or_else(PoisonError::into_inner);
        proxies.retain(|key, _| {
            let stays = keys.contains(key);
            if !stays {
                self.shared.states.remove(key);
            }
            stays
        });
    }
}

// === impl Proxy ===

impl Proxy {
    fn new(shared: &Arc<Shared>, limits: &Arc<Limits>, target: Target) -> Self {
        let metrics = &shared.config.metrics;
        let labels = TargetLabels {
            labels: target.labels.clone(),
            honor: target.honor_labels,
            pods: None,
            config: shared.config.clone(),
            symbols: shared.symbols.clone(),
        };
        let body_limit = usize::try_from(metrics.body_limit).unwrap_or(usize::MAX);
        let client = Client::new(metrics.timeout, body_limit, shared.tls.clone());
        let namespace = namespace_of(&target);
        let series = SeriesCache::new(labels, namespace, limits.clone());
        Proxy { client, series, target }
    }

    fn namespace(&self) -> &str {
        namespace_of(&self.target)
    }

    async fn read(
        &mut self,
        bytes: &mut Vec<u8>,
        room: &mut (dyn crate::metrics::scrape::Room + Send),
    ) -> Result<crate::metrics::series::Counts, String> {
        let answer = self.client.scrape(&self.target, Formats::Text, bytes, room).await;
        answer.map_err(|error| error.to_string())?;
        self.series.read(bytes, Dialect::of_page(bytes)).map_err(|fault| fault.to_string())
    }

    fn write(&self, shared: &Shared, dialect: Dialect) -> String {
        page::write(self.series.samples(), &shared.symbols.lock(), dialect)
    }
}

fn namespace_of(target: &Target) -> &str {
    target.labels.iter().find(|(name, _)| name == "namespace").map_or("", |(_, value)| value)
}
