//! The cluster's `SidecarProfile`s: each is validated, and its status says what was found.
//!
//! Only their metadata is watched, and each is read by itself: one that cannot be read, for it is nested too deeply, would
//! else keep all others from being listed.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::{FutureExt, StreamExt, TryStreamExt};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use kube::core::PartialObjectMeta;
use kube::runtime::controller::{self, Action, applier, trigger_self};
use kube::runtime::reflector::{self, ObjectRef, Store};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, ResourceExt};
use serde_json::json;

use crate::config::Config;
use crate::decide::NoProfile;
use crate::profile::{SidecarProfile, SidecarProfileSpec, SidecarProfileStatus, profile_mistake};
use crate::webhook::Profiles;

const READY: &str = "Ready";
const RETRY: Duration = Duration::from_secs(10);
/// How long one watch lasts, in seconds: less than the client waits for a word of the API server.
const WATCH: u32 = 30;

/// How long replicas of two configurations leave each other's word in a status.
const DISPUTE: Duration = Duration::from_secs(60);

type Known = PartialObjectMeta<SidecarProfile>;

/// Profiles as they are listed and watched.
pub struct WatchedProfiles {
    store: Store<Known>,
    listed: Arc<AtomicBool>,
    verdicts: Verdicts,
}

/// What was found of each profile, by its UID.
#[derive(Clone, Debug, Default)]
struct Verdicts(Arc<Mutex<HashMap<String, Verdict>>>);

#[derive(Clone, Debug)]
struct Verdict {
    generation: Option<i64>,
    spec: Result<Arc<SidecarProfileSpec>, String>,
}

/// What a reconciliation needs.
struct Reconciler {
    client: Client,
    config: Config,
    store: Store<Known>,
    verdicts: Verdicts,
}

// === impl WatchedProfiles ===

impl WatchedProfiles {
    /// Begins to watch, and to write conditions.
    pub fn start(client: Client, config: Config) -> Self {
        let (store, writer) = reflector::store();
        let listed = Arc::new(AtomicBool::new(false));
        let is_listed = listed.clone();
        let events = watcher(Api::<Known>::all(client.clone()), watcher::Config::default().timeout(WATCH))
            .default_backoff()
            .reflect(writer)
            // By hand: `Store::wait_until_ready` wakes only one of those that wait for it, and kube's own is another.
            .inspect_ok(move |event| {
                if matches!(event, watcher::Event::InitDone) {
                    is_listed.store(true, Ordering::Relaxed);
                }
            })
            .applied_objects();
        let verdicts = Verdicts::default();
        let reconciler =
            Arc::new(Reconciler { client, config, store: store.clone(), verdicts: verdicts.clone() });
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
        WatchedProfiles { store, listed, verdicts }
    }
}

impl Profiles for WatchedProfiles {
    fn find(&self, namespace: &str, name: &str) -> Result<Arc<SidecarProfileSpec>, NoProfile> {
        match self.store.get(&ObjectRef::new(name).within(namespace)) {
            Some(known) => self.verdicts.of(&known).unwrap_or(Err(NoProfile::NotListed)),
            None if self.listed.load(Ordering::Relaxed) => Err(NoProfile::Missing),
            None => Err(NoProfile::NotListed),
        }
    }
}

// === impl Verdicts ===

impl Verdicts {
    /// What was found of a profile as it is now; none before anybody has looked.
    fn of(&self, known: &Known) -> Option<Result<Arc<SidecarProfileSpec>, NoProfile>> {
        let verdicts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let verdict = verdicts.get(&known.uid()?)?;
        (verdict.generation >= known.metadata.generation)
            .then(|| verdict.spec.clone().map_err(NoProfile::Invalid))
    }

    fn keep(&self, uid: String, verdict: Verdict, store: &Store<Known>) {
        let there: HashSet<String> = store.state().iter().filter_map(|known| known.uid()).collect();
        let mut verdicts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        verdicts.retain(|uid, _| there.contains(uid));
        verdicts.insert(uid, verdict);
    }
}

/// Looks at a profile, and says in its status whether pods may name it. Every replica does: they find the same, and write only
/// what is news.
async fn reconcile(known: Arc<Known>, reconciler: Arc<Reconciler>) -> Result<Action, kube::Error> {
    let namespace = known.namespace().unwrap_or_default();
    let api: Api<SidecarProfile> = Api::namespaced(reconciler.client.clone(), &namespace);
    let (generation, spec, status) = match api.get_opt(&known.name_any()).await {
        Ok(None) => return Ok(Action::await_change()),
        Ok(Some(profile)) => {
            let spec = match profile_mistake(&profile.spec, &reconciler.config) {
                None => Ok(Arc::new(profile.spec)),
                Some(mistake) => Err(mistake),
            };
            (profile.metadata.generation, spec, profile.status)
        }
        Err(kube::Error::SerdeError(error)) => {
            (known.metadata.generation, Err(format!("it cannot be read: {error}")), None)
        }
        Err(error) => return Err(error),
    };
    let mistake = spec.as_ref().err().cloned();
    let uid = known.uid().unwrap_or_default();
    reconciler.verdicts.keep(uid, Verdict { generation, spec }, &reconciler.store);
    let before = status.iter().flat_map(|status| &status.conditions).find(|known| known.type_ == READY);
    let condition = condition(mistake.as_deref(), generation, before, &known);
    if let Some(before) = before.filter(|before| before.observed_generation == generation) {
        let age = Timestamp::now().duration_since(before.last_transition_time.0);
        if before.status == condition.status && before.message == condition.message {
            return Ok(Action::await_change());
        }
        if age.unsigned_abs() < DISPUTE {
            return Ok(Action::requeue(DISPUTE));
        }
    }
    let found = SidecarProfileStatus { conditions: vec![condition], observed_generation: generation };
    let patch = Patch::Merge(json!({ "status": found }));
    api.patch_status(&known.name_any(), &PatchParams::default(), &patch).await?;
    Ok(Action::await_change())
}

fn condition(
    mistake: Option<&str>,
    generation: Option<i64>,
    before: Option<&Condition>,
    known: &Known,
) -> Condition {
    let (status, reason) = if mistake.is_none() { ("True", "Valid") } else { ("False", "Invalid") };
    let since = match before {
        Some(before) if before.status == status => before.last_transition_time.clone(),
        Some(_) => Time(Timestamp::now()),
        // The same again where it cannot be seen that it has been said: so it is said once.
        None => known.creation_timestamp().unwrap_or(Time(Timestamp::UNIX_EPOCH)),
    };
    Condition {
        type_: READY.to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message: mistake.unwrap_or("pods may name it").to_owned(),
        observed_generation: generation,
        last_transition_time: since,
    }
}

fn retry(_: Arc<Known>, _: &kube::Error, _: Arc<Reconciler>) -> Action {
    Action::requeue(RETRY)
}
