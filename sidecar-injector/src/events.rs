//! Events on what has made a pod: its warnings reach the controller that creates pods, and nobody else.

use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use tokio::sync::mpsc;

use crate::metrics::Metrics;
use crate::pod::Pod;

/// Events that wait; more are dropped, and counted.
const WAITING: usize = 256;
/// From one to the next: pods may come by the thousand, and an API server has better things to do.
const PAUSE: Duration = Duration::from_millis(50);
/// The API server may be away; the next event tries again.
const TIMEOUT: Duration = Duration::from_secs(5);
/// The longest `note` of `events.k8s.io/v1`, in bytes.
const MAX_NOTE: usize = 1024;

/// Writes events behind the answers.
#[derive(Clone, Debug)]
pub struct Events {
    queue: mpsc::Sender<(Event, ObjectReference)>,
    metrics: Metrics,
}

// === impl Events ===

impl Events {
    /// Begins to write.
    pub fn start(client: Client, metrics: Metrics) -> Self {
        let (queue, mut waiting) = mpsc::channel::<(Event, ObjectReference)>(WAITING);
        let instance = std::env::var("HOSTNAME").ok();
        let recorder =
            Recorder::new(client, Reporter { controller: "sidelight-injector".to_owned(), instance });
        let dropped = metrics.events_dropped.clone();
        tokio::spawn(async move {
            while let Some((event, regarding)) = waiting.recv().await {
                let published = tokio::time::timeout(TIMEOUT, recorder.publish(&event, &regarding)).await;
                if let Ok(Err(error)) = &published {
                    tracing::debug!(%error, "an event was not taken");
                }
                if !matches!(published, Ok(Ok(()))) {
                    dropped.inc();
                }
                tokio::time::sleep(PAUSE).await;
            }
        });
        Events { queue, metrics }
    }

    /// Writes one about a pod, never waiting for it.
    pub fn tell(&self, pod: &Pod<'_>, namespace: &str, is_warning: bool, reason: &str, note: &str) {
        let Some(regarding) = regarding(pod, namespace) else { return };
        let type_ = if is_warning { EventType::Warning } else { EventType::Normal };
        let end = (0..=note.len().min(MAX_NOTE)).rfind(|end| note.is_char_boundary(*end)).unwrap_or(0);
        let event = Event {
            type_,
            reason: reason.to_owned(),
            note: Some(note[..end].to_owned()),
            // Events are told apart by all but their note: with another note it is another event, not one more of the same.
            action: format!("Inject-{:08x}", hash(note)),
            secondary: None,
        };
        if self.queue.try_send((event, regarding)).is_err() {
            self.metrics.events_dropped.inc();
        }
    }
}

fn hash(note: &str) -> u32 {
    note.bytes().fold(0, |hash: u32, byte| hash.wrapping_mul(31).wrapping_add(byte.into()))
}

/// Its controller; of a pod that nobody controls, itself: its UID is not known yet, so it is found by its name.
fn regarding(pod: &Pod<'_>, namespace: &str) -> Option<ObjectReference> {
    let some = |text: &str| Some(text.to_owned());
    let reference = match pod.controller() {
        Some(owner) => ObjectReference {
            api_version: some(owner.api_version),
            kind: some(owner.kind),
            name: some(owner.name),
            uid: some(owner.uid),
            ..ObjectReference::default()
        },
        None if pod.metadata.name.is_empty() => return None,
        None => ObjectReference {
            api_version: some("v1"),
            kind: some("Pod"),
            name: some(pod.metadata.name),
            ..ObjectReference::default()
        },
    };
    Some(ObjectReference { namespace: some(namespace), ..reference })
}
