//! What has to go from a pod for it to be as it was before it got a sidecar.

use json_patch::{Patch, PatchOperation, RemoveOperation, ReplaceOperation};
use jsonptr::PointerBuf;
use serde_json::Value;
use sidelight_contract::annotations::PREFIX;
use sidelight_contract::sidecar::{CONTAINER, DATA_VOLUME, LOGS_VOLUME_PREFIX, POD_INFO_VOLUME};

use crate::decide::{DEFAULT_CONTAINER, SAFE_TO_EVICT};
use crate::yaml::{Layout, Was};

/// What has to go; none where the pod has no sidecar of ours. Paths begin at the pod. `layout` tells how the pod is written.
pub fn removals(pod: &Value, layout: &Layout<'_>) -> Option<Patch> {
    let annotations = pod.pointer("/metadata/annotations")?.as_object()?;
    annotations.get(&injected())?;
    let mut removals = Removals { layout, operations: Vec::new() };
    // What is below a list comes first: there the places of its items are still those of the text.
    let containers = pod.pointer("/spec/containers").and_then(Value::as_array).into_iter().flatten();
    for (index, _) in containers.enumerate().filter(|(_, container)| container["name"] != CONTAINER) {
        removals.items(pod, &["spec", "containers", &index.to_string(), "volumeMounts"], is_log_volume);
    }
    removals.items(pod, &["spec", "volumes"], is_volume);
    for list in ["containers", "initContainers"] {
        removals.items(pod, &["spec", list], |name| name == CONTAINER);
    }
    removals.annotations(annotations);
    Some(Patch(removals.operations))
}

fn injected() -> String {
    format!("{PREFIX}injected")
}

fn is_log_volume(name: &str) -> bool {
    name.strip_prefix(LOGS_VOLUME_PREFIX).is_some_and(|number| number.parse::<usize>().is_ok())
}

fn is_volume(name: &str) -> bool {
    name == DATA_VOLUME || name == POD_INFO_VOLUME || is_log_volume(name)
}

struct Removals<'l> {
    layout: &'l Layout<'l>,
    operations: Vec<PatchOperation>,
}

// === impl Removals ===

impl Removals<'_> {
    fn remove(&mut self, path: PointerBuf) {
        self.operations.push(PatchOperation::Remove(RemoveOperation { path }));
    }

    fn replace(&mut self, path: PointerBuf, value: Value) {
        self.operations.push(PatchOperation::Replace(ReplaceOperation { path, value }));
    }

    /// Removes items of a list by their names; the list as well where nothing else was in it.
    fn items(&mut self, pod: &Value, path: &[&str], is_ours: impl Fn(&str) -> bool) {
        let path = PointerBuf::from_tokens(path.iter().copied());
        let Some(items) = pod.pointer(path.as_str()).and_then(Value::as_array) else { return };
        let is_ours = |index: &usize| items[*index]["name"].as_str().is_some_and(&is_ours);
        let ours: Vec<usize> = (0..items.len()).filter(is_ours).collect();
        if ours.is_empty() {
            return;
        }
        match self.layout.before(&path) {
            Was::Null if ours.len() == items.len() => self.replace(path, Value::Null),
            Was::Absent if ours.len() == items.len() => self.remove(path),
            _ => {
                for index in ours.into_iter().rev() {
                    let mut path = path.clone();
                    path.push_back(index);
                    self.remove(path);
                }
            }
        }
    }

    /// `injected` and `injected-for` stand around all that `inject` has written, so what others wrote is known from it.
    fn annotations(&mut self, annotations: &serde_json::Map<String, Value>) {
        let path = |key: &str| PointerBuf::from_tokens(["metadata", "annotations", key]);
        let (first, last) = (injected(), format!("{PREFIX}injected-for"));
        let keys = self.layout.keys(&PointerBuf::from_tokens(["metadata", "annotations"]));
        let place = |key: &str| keys.iter().position(|found| *found == key);
        let is_ours = |key: &str| place(&first) < place(key) && place(key) < place(&last);
        if annotations.contains_key(DEFAULT_CONTAINER) && is_ours(DEFAULT_CONTAINER) {
            self.remove(path(DEFAULT_CONTAINER));
        }
        if let Some(volumes) = annotations.get(SAFE_TO_EVICT).and_then(Value::as_str) {
            let others: Vec<&str> = volumes.split(',').filter(|name| !is_volume(name)).collect();
            if others.is_empty() {
                self.remove(path(SAFE_TO_EVICT));
            } else if others.join(",") != volumes {
                self.replace(path(SAFE_TO_EVICT), Value::from(others.join(",")));
            }
        }
        for key in [first, last].into_iter().filter(|key| annotations.contains_key(key)) {
            self.remove(path(&key));
        }
    }
}
