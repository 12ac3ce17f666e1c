//! A pod as it is read: without the parts that are long and that nothing here looks at or changes. Environments of a thousand
//! variables are seen; each would cost as much as all that the decision needs.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// Where in a pod a value stands.
#[derive(Clone, Copy)]
enum Place {
    Pod,
    Metadata,
    Spec,
    Containers,
    Container,
    /// All of it is kept.
    Whole,
}

/// Reads a pod.
///
/// # Errors
/// When it is not JSON.
pub(super) fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Value, D::Error> {
    Place::Pod.deserialize(deserializer)
}

// === impl Place ===

impl Place {
    /// Where the value of a key stands; none when it is left out.
    fn below(self, key: &str) -> Option<Place> {
        match (self, key) {
            (Place::Pod, "metadata") => Some(Place::Metadata),
            (Place::Pod, "spec") => Some(Place::Spec),
            (Place::Pod, "status") | (Place::Metadata, "managedFields") => None,
            (Place::Spec, "containers" | "initContainers") => Some(Place::Containers),
            (Place::Spec, "affinity" | "tolerations" | "topologySpreadConstraints") => None,
            (Place::Container, "env" | "envFrom" | "command" | "args" | "lifecycle") => None,
            (Place::Container, "livenessProbe" | "readinessProbe" | "startupProbe") => None,
            _ => Some(Place::Whole),
        }
    }
}

impl<'de> DeserializeSeed<'de> for Place {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Place {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            match self.below(&key) {
                Some(place) => drop(map.insert(key, entries.next_value_seed(place)?)),
                None => drop(entries.next_value::<IgnoredAny>()?),
            }
        }
        Ok(Value::Object(map))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let place = if matches!(self, Place::Containers) { Place::Container } else { Place::Whole };
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(place)? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn outline(pod: &Value) -> Value {
        read(&mut serde_json::Deserializer::from_str(&pod.to_string())).unwrap()
    }

    #[test]
    fn what_is_long_and_of_no_use_is_left_out_where_it_stands_and_nowhere_else() {
        let names = json!({ "env": "prod", "status": "x", "managedFields": "y", "args": "z" });
        let container = |env: Value| {
            let mut container =
                json!({ "name": "web", "volumeMounts": [{ "name": "env" }], "future": { "env": [1.5] } });
            if !env.is_null() {
                container["env"] = env;
            }
            container
        };
        let pod = |env: Value, more: bool| {
            let mut pod = json!({ "metadata": { "labels": names, "annotations": names },
                "spec": { "containers": [container(env.clone())], "initContainers": [container(env)], "env": [null, true, -1, 18_446_744_073_709_551_615_u64] } });
            if more {
                pod["status"] = json!({ "phase": "Pending" });
                pod["metadata"]["managedFields"] = json!([{ "manager": "kubectl" }]);
            }
            pod
        };
        let long = pod(json!([{ "name": "A", "value": "b" }]), true);
        assert_eq!(outline(&long), pod(json!(null), false));
    }

    #[test]
    fn what_is_no_pod_stays_what_it_is() {
        for value in [json!(null), json!([{ "env": 1 }]), json!("x"), json!({ "spec": null })] {
            assert_eq!(outline(&value), value);
        }
    }
}
