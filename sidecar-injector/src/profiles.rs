//! The cluster's `SidecarProfile`s: each is validated, and its status says what was found.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::{FutureExt, StreamExt, TryStreamExt};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use kube::runtime::controller::{self, Action, applier, trigger_self};
use kube::runtime::reflector::{self, ObjectRef, Store};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, ResourceExt};
use serde_json::json;

use crate::config::Config;
use crate::decide::{NoProfile, profile_mistake};
use crate::profile::{SidecarProfile, SidecarProfileSpec, SidecarProfileStatus};
use crate::webhook::Profiles;

const READY: &str = "Ready";
const RETRY: Duration = Duration::from_secs(10);
/// How long one watch lasts, in seconds: less than the client waits for a word of the API server.
const WATCH: u32 = 30;

/// Profiles as they are listed and watched.
pub struct WatchedProfiles {
    store: Store<SidecarProfile>,
    listed: Arc<AtomicBool>,
}

/// What a reconciliation needs.
struct Reconciler {
    client: Client,
    config: Config,
}

// === impl WatchedProfiles ===

impl WatchedProfiles {
    /// Begins to watch, and to write conditions.
    pub fn start(client: Client, config: Config) -> Self {
        let (store, writer) = reflector::store();
        let listed = Arc::new(AtomicBool::new(false));
        let is_listed = listed.clone();
        let events = watcher(Api::all(client.clone()), watcher::Config::default().timeout(WATCH))
            .default_backoff()
            .reflect(writer)
            // By hand: `Store::wait_until_ready` wakes only one of those that wait for it, and kube's own is another.
            .inspect_ok(move |event| {
                if matches!(event, watcher::Event::InitDone) {
                    is_listed.store(true, Ordering::Relaxed);
                }
            })
            .applied_objects();
        let reconciler = Arc::new(Reconciler { client, config });
        let config = controller::Config::default();
        let conditions = applier(
            |one, with| reconcile(one, with).boxed(),
            retry,
            reconciler,
            store.clone(),
            trigger_self(events, ()),
            config,
        );
        tokio::spawn(conditions.for_each(|result| async move {
            if let Err(error) = result {
                tracing::debug!(%error, "profiles");
            }
        }));
        WatchedProfiles { store, listed }
    }
}

impl Profiles for WatchedProfiles {
    fn find(&self, namespace: &str, name: &str) -> Result<Arc<SidecarProfileSpec>, NoProfile> {
        match self.store.get(&ObjectRef::new(name).within(namespace)) {
            Some(profile) => Ok(Arc::new(profile.spec.clone())),
            None if self.listed.load(Ordering::Relaxed) => Err(NoProfile::Missing),
            None => Err(NoProfile::NotListed),
        }
    }
}

/// Says in a profile's status whether pods may name it. Every replica does: they find the same, and write only what is news.
async fn reconcile(profile: Arc<SidecarProfile>, reconciler: Arc<Reconciler>) -> Result<Action, kube::Error> {
    let mistake = profile_mistake(&profile.spec, &reconciler.config);
    let (status, reason, message) = match &mistake {
        None => ("True", "Valid", "pods may name it"),
        Some(mistake) => ("False", "Invalid", mistake.as_str()),
    };
    let generation = profile.metadata.generation;
    let known =
        profile.status.iter().flat_map(|status| &status.conditions).find(|known| known.type_ == READY);
    let is_same = |known: &&Condition| known.status == status && known.message == message;
    if known.filter(is_same).is_some_and(|known| known.observed_generation == generation) {
        return Ok(Action::await_change());
    }
    let since = known.filter(|known| known.status == status).map(|known| known.last_transition_time.clone());
    let condition = Condition {
        type_: READY.to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message: message.to_owned(),
        observed_generation: generation,
        last_transition_time: since.unwrap_or_else(|| Time(Timestamp::now())),
    };
    let found = SidecarProfileStatus { conditions: vec![condition], observed_generation: generation };
    let api: Api<SidecarProfile> =
        Api::namespaced(reconciler.client.clone(), &profile.namespace().unwrap_or_default());
    let patch = Patch::Merge(json!({ "status": found }));
    api.patch_status(&profile.name_any(), &PatchParams::default(), &patch).await?;
    Ok(Action::await_change())
}

fn retry(_: Arc<SidecarProfile>, _: &kube::Error, _: Arc<Reconciler>) -> Action {
    Action::requeue(RETRY)
}
