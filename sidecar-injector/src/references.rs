//! Secrets that a configuration names and does not contain: `{ secret: NAME, key: KEY }` wherever a text may stand, or
//! `{ config_map: NAME, key: KEY }`. A sidecar gets what its pod's own namespace has under that name, never the cluster's.

use serde_json::{Map, Value, json};
use sidelight_contract::sidecar::{POD_INFO_PATH, SECRET_PREFIX};

/// Keys of the agent's schema that hold a secret, or whatever stands below them does.
const SECRETS: [&str; 10] = [
    "shared_key",
    "password",
    "client_secret",
    "secret_key",
    "secret_access_key",
    "session_token",
    "bearer_token",
    "authorization",
    "proxy_url",
    "endpoint_params",
];

/// What a configuration names, as its pod has to bring it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Resolved {
    /// Environment variables, each with its `valueFrom`.
    pub env: Vec<Value>,
    /// Sources of the projected volume, below [`POD_INFO_PATH`].
    pub sources: Vec<Value>,
}

/// A reference to one key of a Secret or a ConfigMap.
struct Reference<'a> {
    kind: Kind,
    name: &'a str,
    key: &'a str,
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Secret,
    ConfigMap,
}

/// What is wrong with the references of a section, and with secrets that stand there as they are.
pub fn mistakes(section: &Value) -> Vec<String> {
    let mut mistakes = Vec::new();
    visit(section, "", &mut |path, value| {
        let mut names = path.split('.').rev();
        let is_proxy = names.clone().next() == Some("proxy_url");
        let is_secret = names.any(|name| SECRETS.contains(&name.to_ascii_lowercase().as_str()));
        match value {
            Value::Object(entries) if looks_like_reference(entries) && reference(entries).is_none() => {
                mistakes.push(format!(
                    "{path}: a reference is {{ secret: NAME, key: KEY }} or {{ config_map: NAME, key: KEY }}, each a name as Kubernetes has them"
                ));
            }
            Value::String(text) if text.is_empty() || (is_proxy && !text.contains('@')) => {}
            Value::String(_) | Value::Number(_) | Value::Bool(_) if is_secret => mistakes.push(format!(
                "{path}: a secret must not stand in pods for everybody to read; write {{ secret: NAME, key: KEY }}, of the pod's own namespace"
            )),
            _ => {}
        }
    });
    mistakes
}

/// Puts variables and paths of files in the place of references.
pub fn resolve(section: &mut Value, resolved: &mut Resolved) {
    match section {
        Value::Object(entries) => {
            for (name, value) in entries {
                match value.as_object().and_then(reference) {
                    Some(reference) => {
                        *value = Value::String(resolved.add(&reference, name.ends_with("_file")))
                    }
                    None => resolve(value, resolved),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| resolve(item, resolved)),
        _ => {}
    }
}

/// The section as it can be validated where nothing it names exists: texts in the place of secrets, no files.
pub fn pretend(section: &mut Value) {
    match section {
        Value::Object(entries) => {
            entries.retain(|name, value| {
                !(name.ends_with("_file") && value.as_object().and_then(reference).is_some())
            });
            for value in entries.values_mut() {
                match value.as_object().and_then(reference) {
                    Some(_) => *value = json!("secret"),
                    None => pretend(value),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(pretend),
        _ => {}
    }
}

fn visit(value: &Value, path: &str, seen: &mut impl FnMut(&str, &Value)) {
    match value {
        Value::Object(entries) => {
            for (name, value) in entries {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                seen(&path, value);
                if !value.as_object().is_some_and(looks_like_reference) {
                    visit(value, &path, seen);
                }
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                let path = format!("{path}[{index}]");
                seen(&path, item);
                visit(item, &path, seen);
            }
        }
        _ => {}
    }
}

fn looks_like_reference(entries: &Map<String, Value>) -> bool {
    (entries.contains_key("secret") || entries.contains_key("config_map")) && entries.contains_key("key")
}

fn reference(entries: &Map<String, Value>) -> Option<Reference<'_>> {
    let is_name = |text: &&str| {
        let inner = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        !text.is_empty() && text.len() <= 253 && text.bytes().all(inner) && !text.starts_with('.')
    };
    let text = |name: &str| entries.get(name)?.as_str().filter(is_name);
    let (kind, name) = match (text("secret"), text("config_map")) {
        (Some(name), None) => (Kind::Secret, name),
        (None, Some(name)) => (Kind::ConfigMap, name),
        _ => return None,
    };
    (entries.len() == 2).then_some(Reference { kind, name, key: text("key")? })
}

// === impl Resolved ===

impl Resolved {
    /// What stands in the configuration instead. A file is renewed when its Secret is; so it is what to prefer.
    fn add(&mut self, reference: &Reference<'_>, as_file: bool) -> String {
        let Reference { kind, name, key } = reference;
        if as_file {
            let (source, folder) = match kind {
                Kind::Secret => ("secret", "secrets"),
                Kind::ConfigMap => ("configMap", "config-maps"),
            };
            let path = format!("{folder}/{name}/{key}");
            let item = json!({ source: { "name": name, "items": [{ "key": key, "path": path }] } });
            if !self.sources.contains(&item) {
                self.sources.push(item);
            }
            return format!("{POD_INFO_PATH}/{path}");
        }
        let source = if *kind == Kind::Secret { "secretKeyRef" } else { "configMapKeyRef" };
        let value_from = json!({ source: { "name": name, "key": key } });
        let known = self.env.iter().position(|variable| variable["valueFrom"] == value_from);
        let number = known.unwrap_or_else(|| {
            self.env.push(
                json!({ "name": format!("{SECRET_PREFIX}{}", self.env.len()), "valueFrom": value_from }),
            );
            self.env.len() - 1
        });
        format!("${{{SECRET_PREFIX}{number}}}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_becomes_a_variable_or_a_file() {
        let key = json!({ "secret": "fluentd", "key": "shared" });
        let ca = json!({ "config_map": "ca", "key": "ca.crt" });
        let mut section = json!({ "outputs": [
            { "forward": { "shared_key": key, "tls": { "ca_file": ca, "enabled": true } } },
            { "forward": { "password": key, "shared_key_file": key } },
        ] });
        assert_eq!(mistakes(&section), Vec::<String>::new());
        let mut resolved = Resolved::default();
        resolve(&mut section, &mut resolved);
        assert_eq!(
            section,
            json!({ "outputs": [
                { "forward": { "shared_key": "${SIDELIGHT_SECRET_0}", "tls": {
                    "ca_file": "/etc/sidelight/podinfo/config-maps/ca/ca.crt", "enabled": true } } },
                { "forward": { "password": "${SIDELIGHT_SECRET_0}",
                    "shared_key_file": "/etc/sidelight/podinfo/secrets/fluentd/shared" } },
            ] })
        );
        let from = json!({ "secretKeyRef": { "name": "fluentd", "key": "shared" } });
        assert_eq!(resolved.env, [json!({ "name": "SIDELIGHT_SECRET_0", "valueFrom": from })]);
        assert_eq!(resolved.sources.len(), 2);
    }

    #[test]
    fn a_secret_that_anybody_could_read_is_a_mistake() {
        let section = json!({ "outputs": [{ "forward": { "shared_key": "hush" } },
            { "remote_write": { "headers": { "Authorization": "Bearer x" }, "basic_auth": { "password": "", "password_file": "/f" },
                "proxy_url": "http://proxy:3128", "oauth2": { "endpoint_params": { "resource": "x" }, "client_secret": 7 } } }] });
        let told = mistakes(&section);
        assert_eq!(told.len(), 4, "{told:?}");
        assert!(told[0].starts_with("outputs[0].forward.shared_key: a secret must not"));
        assert!(!told.iter().any(|line| line.contains("hush")));
    }

    #[test]
    fn a_broken_reference_is_a_mistake() {
        for bad in [
            json!({ "secret": "a", "key": "../b/c" }),
            json!({ "secret": "", "key": "b" }),
            json!({ "secret": "a", "config_map": "a", "key": "b" }),
            json!({ "secret": "a", "key": "b", "namespace": "kube-system" }),
        ] {
            assert_eq!(mistakes(&json!({ "shared_key": bad })).len(), 1, "{bad}");
        }
    }
}
