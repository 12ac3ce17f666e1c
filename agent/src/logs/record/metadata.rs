//! The part of a record that is the same for every line of a container.

use serde_json::Value;

use crate::cluster::Pod;
use crate::config::{Config, Labels};
use crate::logs::encode::ValueSink;
use crate::logs::layout::ContainerPath;
use crate::logs::settings::Settings;
use crate::logs::split::Stream;

/// The entries that all records of a container's stream share: the keys of Fluent Bit's kubernetes filter, and the
/// operator's.
pub(super) fn metadata(
    sink: &mut impl ValueSink,
    config: &Config,
    path: &ContainerPath,
    settings: &Settings,
    restart: u32,
    stream: Stream,
) {
    let pod = settings.pod.as_deref();
    if !path.is_plain() {
        entry(sink, "stream", stream.name());
    }
    sink.key("kubernetes");
    sink.map_begin();
    entry(sink, "namespace_name", &path.namespace);
    entry(sink, "pod_name", &path.pod);
    entry(sink, "pod_id", pod.map_or(&path.uid, |pod| &pod.uid));
    if !path.container.is_empty() {
        entry(sink, "container_name", &path.container);
    }
    entry(sink, "host", &config.node);
    if let Some(pod) = pod {
        pod_entries(sink, config, path, pod, restart);
    }
    sink.map_end();
    if let Some(labels) =
        pod.and_then(|pod| pod.namespace_labels.as_ref()).filter(|_| config.logs.namespace_labels)
    {
        sink.key("kubernetes_namespace");
        sink.map_begin();
        entry(sink, "name", &path.namespace);
        map(sink, config, "labels", labels.iter());
        sink.map_end();
    }
    for (key, value) in &config.logs.add {
        sink.key(key);
        json(sink, value);
    }
}

fn pod_entries(sink: &mut impl ValueSink, config: &Config, path: &ContainerPath, pod: &Pod, restart: u32) {
    if let Some(ip) = &pod.ip {
        entry(sink, "pod_ip", ip);
    }
    if let Some(container) = pod.containers.iter().find(|container| container.name == path.container) {
        if !container.image.is_empty() {
            entry(sink, "container_image", &container.image);
        }
        if let Some(hash) = &container.image_id {
            entry(sink, "container_hash", hash);
        }
        if let Some(id) = container.id.as_ref().filter(|_| container.restart_count == restart) {
            entry(sink, "docker_id", id);
        }
    }
    if let Some(owner) = &pod.owner {
        entry(sink, "owner_kind", &owner.kind);
        entry(sink, "owner_name", &owner.name);
    }
    match &config.logs.labels {
        Labels::Every(true) => map(sink, config, "labels", pod.labels.iter()),
        Labels::Every(false) => {}
        Labels::Named(names) => {
            map(sink, config, "labels", pod.labels.iter().filter(|(name, _)| names.contains(name)))
        }
    }
    map(
        sink,
        config,
        "annotations",
        pod.annotations.iter().filter(|(name, _)| config.logs.annotations.contains(name)),
    );
}

fn entry(sink: &mut impl ValueSink, key: &str, value: &str) {
    sink.key(key);
    sink.str(value);
}

/// A map of texts; an empty one is left out.
fn map<'a>(
    sink: &mut impl ValueSink,
    config: &Config,
    name: &str,
    entries: impl Iterator<Item = (&'a String, &'a String)>,
) {
    let mut entries = entries.peekable();
    if entries.peek().is_none() {
        return;
    }
    sink.key(name);
    sink.map_begin();
    for (key, value) in entries {
        if config.logs.labels_dedot {
            entry(sink, &key.replace('.', "_"), value)
        } else {
            entry(sink, key, value)
        }
    }
    sink.map_end();
}

fn json(sink: &mut impl ValueSink, value: &Value) {
    match value {
        Value::Null => sink.null(),
        Value::Bool(value) => sink.bool(*value),
        Value::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(number), _) => sink.i64(number),
            (None, Some(number)) => sink.u64(number),
            (None, None) => sink.f64(number.as_f64().unwrap_or(f64::NAN)),
        },
        Value::String(text) => sink.str(text),
        Value::Array(items) => {
            sink.array_begin();
            items.iter().for_each(|item| json(sink, item));
            sink.array_end();
        }
        Value::Object(entries) => {
            sink.map_begin();
            for (key, value) in entries {
                sink.key(key);
                json(sink, value);
            }
            sink.map_end();
        }
    }
}
