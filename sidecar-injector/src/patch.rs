//! A JSON patch (RFC 6902) of `add` operations, made for one object in as many steps as it adds things.
//!
//! Never the difference of two objects: that takes the square of the pod's size, and a typed pod loses the fields that are
//! newer than the type.

use std::collections::BTreeMap;

use json_patch::{AddOperation, Patch, PatchError, PatchOperation};
use jsonptr::{PointerBuf, Token};
use serde_json::{Map, Value};

/// Where in a list something is added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Before all others.
    First,
    /// Behind all others.
    Last,
}

/// What is to be added to an object.
#[derive(Debug, Default)]
pub struct Additions {
    lists: BTreeMap<PointerBuf, Vec<(Place, Value)>>,
    maps: BTreeMap<PointerBuf, Map<String, Value>>,
}

// === impl Additions ===

impl Additions {
    /// To the list at a path, which may not be there yet.
    pub fn to_list(&mut self, path: &[&str], place: Place, value: Value) {
        self.lists.entry(pointer(path)).or_default().push((place, value));
    }

    /// To the map at a path, which may not be there yet; a value that is there is replaced.
    pub fn to_map(&mut self, path: &[&str], key: &str, value: Value) {
        self.maps.entry(pointer(path)).or_default().insert(key.to_owned(), value);
    }

    /// The operations that add all of it to `object`. Parents that are missing are added with what is in them; that only the
    /// list or the map itself may be missing is for the caller to know.
    pub fn into_patch(self, object: &Value) -> Patch {
        let mut operations = Vec::new();
        for (path, entries) in self.maps {
            match object.pointer(path.as_str()) {
                Some(Value::Object(_)) => {
                    for (key, value) in entries {
                        let mut path = path.clone();
                        path.push_back(Token::new(key));
                        operations.push(add(path, value));
                    }
                }
                _ => operations.push(add(path, Value::Object(entries))),
            }
        }
        // What is below a list comes before the list itself: there the places of its items are still those of `object`.
        for (path, values) in self.lists.into_iter().rev() {
            if matches!(object.pointer(path.as_str()), Some(Value::Array(_))) {
                for (place, value) in values {
                    let mut path = path.clone();
                    path.push_back(if place == Place::First { "0" } else { "-" });
                    operations.push(add(path, value));
                }
            } else {
                let values = values.into_iter().map(|(_, value)| value).collect();
                operations.push(add(path, Value::Array(values)));
            }
        }
        Patch(operations)
    }
}

fn pointer(path: &[&str]) -> PointerBuf {
    PointerBuf::from_tokens(path.iter().copied())
}

fn add(path: PointerBuf, value: Value) -> PatchOperation {
    PatchOperation::Add(AddOperation { path, value })
}

/// Applies a patch as the API server will: one that fails there refuses the pod whatever the `failurePolicy`.
///
/// # Errors
/// The operation that cannot be applied: a defect of ours.
pub fn apply(object: &mut Value, patch: &Patch) -> Result<(), PatchError> {
    json_patch::patch_unsafe(object, patch)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn lists_and_maps_are_added_to_or_made() {
        let mut additions = Additions::default();
        additions.to_list(&["spec", "volumes"], Place::Last, json!("v1"));
        additions.to_list(&["spec", "volumes"], Place::Last, json!("v2"));
        additions.to_list(&["spec", "initContainers"], Place::First, json!("first"));
        additions.to_map(&["metadata", "annotations"], "a/b~c", json!("x"));
        for (mut object, expected) in [
            (
                json!({ "metadata": {}, "spec": { "volumes": null } }),
                json!({ "metadata": { "annotations": { "a/b~c": "x" } },
                    "spec": { "volumes": ["v1", "v2"], "initContainers": ["first"] } }),
            ),
            (
                json!({ "metadata": { "annotations": { "k": "v" } }, "spec": { "volumes": ["v0"], "initContainers": ["i"] } }),
                json!({ "metadata": { "annotations": { "k": "v", "a/b~c": "x" } },
                    "spec": { "volumes": ["v0", "v1", "v2"], "initContainers": ["first", "i"] } }),
            ),
        ] {
            let additions = Additions { lists: additions.lists.clone(), maps: additions.maps.clone() };
            let patch = additions.into_patch(&object);
            apply(&mut object, &patch).unwrap();
            assert_eq!(object, expected);
        }
    }
}
