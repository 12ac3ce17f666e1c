//! What the agent tells about itself: probes and metrics for the network, status for who is on the node.

pub mod explain;
mod gauges;
pub(crate) mod page;
pub mod status;
pub mod targets;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use prometheus::Registry;
use sidelight_runtime::admin::{Handle, Request, Response, Server, StatusCode};
use sidelight_runtime::process;
use sidelight_runtime::progress::Heartbeats;

use crate::admin::gauges::Gauges;
use crate::checkpoint::ledger::SharedLane;
use crate::cluster::Store;
use crate::config::{self, Config};
use crate::delivery::memory::Share;
use crate::delivery::remote_write::{self, Queue};
use crate::delivery::status::{OutputState, OutputStatus};
use crate::logs::container::Inventory;
use crate::metrics::containers;
use crate::metrics::discover::{pod_labels, workload_labels};
use crate::metrics::scraping::States;
use crate::metrics::workloads::{self, Workloads};

/// `/livez` fails when a thread with work to do has made no step for so long.
const STALL: Duration = Duration::from_secs(30);

/// One output as the admin server sees it.
pub struct OutputView {
    /// Its name.
    pub name: String,
    /// `forward` or `stdout`.
    pub kind: &'static str,
    /// Up or not, counters, the newest error.
    pub status: Arc<OutputStatus>,
    /// Its memory.
    pub share: Arc<Share>,
    /// Its lanes, one for each reader.
    pub lanes: Vec<Arc<SharedLane>>,
}

/// One output of samples as the admin server sees it.
#[derive(Clone)]
pub struct SampleOutputView {
    /// Its name.
    pub name: String,
    /// Up or not, the newest error.
    pub state: Arc<OutputState>,
    /// What waits.
    pub queue: Arc<Queue>,
    /// Counters of all these outputs.
    pub metrics: remote_write::Metrics,
}

/// A running pipeline as the admin server sees it.
pub struct View {
    /// The configuration in force.
    pub config: Arc<Config>,
    /// The containers.
    pub inventory: Arc<Inventory>,
    /// What Kubernetes says.
    pub pods: Store,
    /// The outputs by index.
    pub outputs: Vec<OutputView>,
    /// The outputs of samples.
    pub sample_outputs: Vec<SampleOutputView>,
    /// What is known of each target that is scraped.
    pub states: States,
    /// What is known of each that others have asked for.
    pub pulled: States,
    /// Metrics from logs.
    pub workloads: Workloads,
}

/// Whether the agent is alive and ready, and what it is doing: latest values.
pub struct Health {
    view: Mutex<Option<Arc<View>>>,
    waiting: Mutex<Option<String>>,
    stopping: std::sync::atomic::AtomicBool,
    heartbeats: Heartbeats,
    gauges: Gauges,
}

/// The two listeners, on threads of their own: they answer when everything else is busy.
pub struct Admin {
    _network: Handle,
    _api: Handle,
}

// === impl Health ===

impl Health {
    /// Alive, not ready.
    ///
    /// # Errors
    /// When a metric's name is taken.
    pub fn new(registry: &Registry) -> anyhow::Result<Arc<Self>> {
        Ok(Arc::new(Health {
            view: Mutex::default(),
            waiting: Mutex::default(),
            stopping: Default::default(),
            heartbeats: Heartbeats::new(),
            gauges: Gauges::register(registry)?,
        }))
    }

    /// Where threads say that they are alive.
    pub fn heartbeats(&self) -> &Heartbeats {
        &self.heartbeats
    }

    /// The first listing is done: this is what runs now.
    pub fn set_view(&self, view: Arc<View>) {
        *self.view.lock().unwrap_or_else(PoisonError::into_inner) = Some(view);
    }

    /// What runs now.
    pub fn view(&self) -> Option<Arc<View>> {
        self.view.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The agent waits for something before it can start.
    pub fn set_waiting(&self, reason: Option<String>) {
        *self.waiting.lock().unwrap_or_else(PoisonError::into_inner) = reason;
    }

    /// The agent is on its way out.
    pub fn set_stopping(&self) {
        self.stopping.store(true, std::sync::atomic::Ordering::Relaxed);
    }

    /// Whether the last reload took the new config.
    pub fn set_reloaded(&self, successful: bool) {
        self.gauges.set_reloaded(successful);
    }

    /// Bytes of an output that are in no counter.
    pub fn set_unaccounted(&self, output: &str, bytes: u64) {
        self.gauges.set_unaccounted(output, bytes);
    }

    /// Looks at what is known only over time; to be called once a second.
    pub fn look(&self, view: &View) {
        self.gauges.look(view);
    }

    fn livez(&self) -> Response {
        match self.heartbeats.stalled(STALL) {
            None => Response::text("ok\n"),
            Some(name) => unavailable(&format!("{name} has made no step for {} s\n", STALL.as_secs())),
        }
    }

    fn readyz(&self) -> Response {
        if self.stopping.load(std::sync::atomic::Ordering::Relaxed) {
            return unavailable("stopping\n");
        }
        if let Some(reason) = &*self.waiting.lock().unwrap_or_else(PoisonError::into_inner) {
            return unavailable(&format!("{reason}\n"));
        }
        if self.view().is_some() {
            Response::text("ok\n")
        } else {
            unavailable("the first listing of the logs is not done\n")
        }
    }
}

// === impl Admin ===

impl Admin {
    /// Binds both listeners and answers.
    ///
    /// # Errors
    /// When an address cannot be bound.
    pub fn start(config: &config::Admin, registry: &Registry, health: Arc<Health>) -> anyhow::Result<Self> {
        let bind = |key: &str, address: &str| {
            Server::bind(address).with_context(|| {
                format!(
                    "cannot listen on {address} (admin.{key}): is another agent running? choose a free port"
                )
            })
        };
        let (network, api) = (bind("listen", &config.listen)?, bind("api", &config.api)?);
        tracing::info!(listen = %network.local_addr()?, api = %api.local_addr()?, "admin servers are up");
        let (registry, for_network) = (registry.clone(), health.clone());
        let network = network
            .spawn("admin", Arc::new(move |request| answer_network(request, &registry, &for_network)))?;
        let api = api.spawn("admin-api", Arc::new(move |request| answer_api(request, &health)))?;
        Ok(Admin { _network: network, _api: api })
    }
}

fn answer_network(request: &Request, registry: &Registry, health: &Health) -> Response {
    match request.path.as_str() {
        "/metrics" => {
            if let Some(view) = health.view() {
                health.gauges.update(&view);
            }
            Response::new(process::CONTENT_TYPE, process::encode(registry))
        }
        "/metrics/containers" => match health.view().filter(|view| has_containers_page(view)) {
            Some(view) if !view.pods.synced() => unavailable("the pods of the node are not known yet\n"),
            Some(view) => Response::new(process::CONTENT_TYPE, containers_page(&view)),
            None => Response::not_found(),
        },
        "/livez" => health.livez(),
        "/readyz" => health.readyz(),
        _ => Response::not_found(),
    }
}

fn has_containers_page(view: &View) -> bool {
    view.config.metrics.containers || view.config.logs.events
}

/// The node's own view, for whoever pulls.
fn containers_page(view: &View) -> String {
    let Config { metrics, logs, .. } = &*view.config;
    let mut page = String::new();
    if metrics.containers {
        let pods = view.pods.present();
        let wanted = pods.iter().filter(|pod| metrics.namespaces.matches(&pod.namespace));
        let pods: Vec<_> = wanted.map(|pod| (&**pod, pod_labels(pod, &view.config))).collect();
        page += &containers::page(&pods);
    }
    if logs.events {
        let counted = (view.workloads)();
        let wanted = counted.iter().filter(|workload| metrics.namespaces.matches(&workload.namespace));
        page +=
            &workloads::page(wanted.map(|workload| {
                (workload, workload_labels(&workload.namespace, &workload.name, &view.config))
            }));
    }
    page
}

fn answer_api(request: &Request, health: &Health) -> Response {
    let Some(view) = health.view() else { return unavailable("the agent is starting\n") };
    match request.path.as_str() {
        "/" => Response::html(page::render(&view)),
        "/api/v1/files" => json(&status::files(&view)),
        "/api/v1/targets" => json(&targets::targets(&view)),
        "/api/v1/outputs" => json(&status::outputs(&view)),
        "/api/v1/config" => json(&*view.config),
        "/api/v1/explain" => match request.param("pod").and_then(|pod| pod.split_once('/')) {
            Some((namespace, name)) => json(&explain::explain(&view, namespace, name)),
            None => Response::text("say which: ?pod=NAMESPACE/NAME\n").with_status(StatusCode::BAD_REQUEST),
        },
        _ => Response::not_found(),
    }
}

fn json(value: &impl serde::Serialize) -> Response {
    match serde_json::to_vec(value) {
        Ok(body) => Response::json(body),
        Err(error) => Response::text(format!("{error}\n")).with_status(StatusCode::INTERNAL_SERVER_ERROR),
    }
}

fn unavailable(text: &str) -> Response {
    Response::text(text.to_owned()).with_status(StatusCode::SERVICE_UNAVAILABLE)
}
