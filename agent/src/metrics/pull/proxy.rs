//! The pages of targets, each asked for when somebody asks for it.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use form_urlencoded::parse;
use hyper::body::Bytes;
use hyper::header::HeaderMap;
use percent_encoding::percent_decode_str;
use tokio::time::{Instant, timeout_at};

use crate::cluster::Store;
use crate::config::Config;
use crate::metrics::discover::targets;
pub(super) use crate::metrics::discover::{Target, TargetKey};
use crate::metrics::exposition::Dialect;
use crate::metrics::pull::page;
use crate::metrics::scrape::{Client, Formats};
use crate::metrics::scraping::{Pages, Shared, State, now};
use crate::metrics::series::{Counts, Limits, SeriesCache, TargetLabels};

/// A page that is written has the pod's labels in each line: it may be so many times as long as one that is read.
const WRITTEN: usize = 4;

/// Those that were asked for.
pub(super) struct Proxies {
    shared: Arc<Shared>,
    /// Apart from those of scrapes: what is asked for by both is there twice, and neither takes the other's place.
    limits: Arc<Limits>,
    /// Pages on their way from targets, and to scrapers.
    pages: Arc<Pages>,
    proxies: Mutex<HashMap<TargetKey, SharedProxy>>,
}

type SharedProxy = Arc<tokio::sync::Mutex<Proxy>>;

/// What is kept of one, from page to page.
struct Proxy {
    shared: Arc<Shared>,
    target: Target,
    client: Client,
    series: SeriesCache,
    /// Series that the gauge of all has of this one.
    counted: usize,
}

/// The node's targets: those of pods that are told to end too, until they have.
pub(super) fn targets_of(pods: &Store, config: &Config) -> Vec<Target> {
    pods.present().iter().flat_map(|pod| targets(pod, config).targets).collect()
}

/// The target of `UID/PORT/PATH`. A query tells targets apart that differ in nothing else; the pairs come in any order, and
/// scrapers add their own and leave out what they cannot say.
pub(super) fn target_of(pods: &Store, config: &Config, asked: &str) -> Option<Target> {
    let (uid, rest) = asked.split_once('/')?;
    let (port, path) = rest.split_at_checked(rest.find('/')?)?;
    let port: u16 = port.parse().ok()?;
    let pod = pods.present().into_iter().find(|pod| pod.uid == uid)?;
    let (path, pairs) = parts(path);
    let mut found = targets(&pod, config).targets;
    found.retain(|target| target.key.port == port && parts(&target.key.path).0 == path);
    let same_pairs = found.iter().position(|target| parts(&target.key.path).1 == pairs);
    let index = same_pairs.or_else(|| (found.len() == 1).then_some(0))?;
    Some(found.swap_remove(index))
}

/// The path, decoded, and the pairs of the query, sorted.
fn parts(path: &str) -> (Vec<u8>, Vec<(String, String)>) {
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    let mut pairs: Vec<(String, String)> = parse(query.as_bytes()).into_owned().collect();
    pairs.sort_unstable();
    (percent_decode_str(path).collect(), pairs)
}

/// How long whoever asks will wait (Prometheus's `X-Prometheus-Scrape-Timeout-Seconds`).
pub(super) fn timeout_of(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get("x-prometheus-scrape-timeout-seconds")?.to_str().ok()?;
    Duration::try_from_secs_f64(seconds.parse().ok()?).ok().filter(|timeout| !timeout.is_zero())
}

// === impl Proxies ===

impl Proxies {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        let metrics = &shared.config.metrics;
        let body_limit = usize::try_from(metrics.body_limit).unwrap_or(usize::MAX);
        let pages = Arc::new(Pages::new(body_limit.saturating_mul(WRITTEN)));
        let limits = Arc::new(Limits::of(metrics));
        Proxies { limits, pages, proxies: Mutex::default(), shared }
    }

    /// The page of a target as it is now, in this dialect or in text.
    ///
    /// # Errors
    /// Why there is none.
    pub(super) async fn page(
        &self,
        target: Target,
        wanted: Dialect,
        patience: Option<Duration>,
    ) -> Result<(Bytes, Dialect), String> {
        let limit = self.shared.config.metrics.timeout;
        let begun = Instant::now();
        let deadline = begun + patience.map_or(limit, |patience| patience.min(limit));
        let shared_proxy = self.proxy(&target);
        let busy = |_| "others ask for the same page, and there was no turn within the timeout".to_owned();
        let mut proxy = timeout_at(deadline, shared_proxy.lock()).await.map_err(busy)?;
        if proxy.target != target {
            *proxy = Proxy::new(&self.shared, &self.limits, target);
        }
        let left = deadline.saturating_duration_since(Instant::now()).as_millis();
        proxy.client.set_timeout(Duration::from_millis(u64::try_from(left).unwrap_or(u64::MAX)));
        let page = self.read(&mut proxy, wanted, begun).await;
        let state = State {
            last_scrape: Some(now()),
            last_error: page.as_ref().err().cloned(),
            samples: page.as_ref().map_or(0, |(.., counts)| counts.passed),
            series: proxy.series.len(),
        };
        // Its pod may have gone meanwhile.
        let proxies = self.lock();
        if proxies.get(&proxy.target.key).is_some_and(|known| Arc::ptr_eq(known, &shared_proxy)) {
            self.shared.pulled.set(&proxy.target.key, state);
        }
        page.map(|(page, dialect, _)| (page, dialect))
    }

    async fn read(
        &self,
        proxy: &mut Proxy,
        wanted: Dialect,
        begun: Instant,
    ) -> Result<(Bytes, Dialect, Counts), String> {
        let metrics = &self.shared.metrics;
        let namespace = namespace_of(&proxy.target).to_owned();
        let (mut bytes, mut room) = self.pages.take(&namespace);
        let answer = proxy.client.scrape(&proxy.target, Formats::Text, &mut bytes, &mut room).await;
        let dialect = Dialect::of_page(&bytes);
        let read = answer
            .map_err(|error| error.to_string())
            .and_then(|_| proxy.series.read(&bytes, dialect).map_err(|fault| fault.to_string()));
        metrics.scraped(read.is_ok(), bytes.len(), begun.elapsed().as_secs_f64());
        drop(room);
        self.pages.give_back(bytes);
        let dialect = if dialect == wanted { wanted } else { Dialect::Text };
        let page =
            read.as_ref().map(|_| page::write(proxy.series.samples(), &self.shared.symbols.lock(), dialect));
        let page = page.map_err(Clone::clone);
        proxy.series.end_vanished(read.is_ok(), |_, _| {});
        proxy.series.forget_page();
        proxy.count();
        let (page, counts) = (page?, read?);
        metrics.series_dropped(counts.dropped);
        let no_room =
            "the pages of this namespace, or of all, that are on their way have reached their limit";
        let page = self.pages.hold(&namespace, page).ok_or(no_room)?;
        metrics.samples(counts.passed);
        Ok((page, dialect, counts))
    }

    fn proxy(&self, target: &Target) -> SharedProxy {
        let proxy = || Proxy::new(&self.shared, &self.limits, target.clone());
        let mut proxies = self.lock();
        let known = proxies.entry(target.key.clone());
        known.or_insert_with(|| Arc::new(tokio::sync::Mutex::new(proxy()))).clone()
    }

    /// Forgets those that are no targets any more.
    pub(super) fn forget_others(&self, pods: &Store) {
        let keys: HashSet<TargetKey> =
            targets_of(pods, &self.shared.config).into_iter().map(|target| target.key).collect();
        for (key, _) in self.lock().extract_if(|key, _| !keys.contains(key)) {
            self.shared.pulled.remove(&key);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<TargetKey, SharedProxy>> {
        self.proxies.lock().unwrap_or_else(PoisonError::into_inner)
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
        let series = SeriesCache::new(labels, namespace_of(&target), limits.clone());
        Proxy { shared: shared.clone(), client, series, target, counted: 0 }
    }

    fn count(&mut self) {
        let before = std::mem::replace(&mut self.counted, self.series.len());
        self.shared.metrics.series(self.counted as i64 - before as i64);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.metrics.series(-(self.counted as i64));
    }
}

fn namespace_of(target: &Target) -> &str {
    target.labels.iter().find(|(name, _)| name == "namespace").map_or("", |(_, value)| value)
}
