//! What a pod belongs to in the end, worked out from names alone: no API call for each ReplicaSet and Job.

use std::collections::BTreeMap;

use super::Owner;
use super::api::OwnerReference;

/// Digits that a CronJob puts behind its Jobs' names: minutes since the epoch (`pkg/controller/cronjob/utils.go`), and
/// before Kubernetes 1.21 seconds.
const CRON_JOB_DIGITS: [usize; 2] = [8, 10];

/// The owner of a pod with these references and labels.
pub(super) fn of(references: Vec<OwnerReference>, labels: &BTreeMap<String, String>) -> Option<Owner> {
    let controller = references.into_iter().find(|reference| reference.controller)?;
    Some(workload(&controller.kind, &controller.name, |label| labels.get(label).map(String::as_str)))
}

/// What a pod belongs to in the end, by what has made it and by its labels: a ReplicaSet's Deployment or Argo Rollout, a Job's
/// CronJob, anything else as it is.
pub fn workload<'a>(kind: &str, name: &str, label: impl Fn(&str) -> Option<&'a str>) -> Owner {
    let without = |key: &str| name.strip_suffix(label(key)?)?.strip_suffix('-').map(str::to_owned);
    let found = match kind {
        "ReplicaSet" => without("pod-template-hash")
            .map(|name| ("Deployment", name))
            .or_else(|| without("rollouts-pod-template-hash").map(|name| ("Rollout", name))),
        "Job" => name
            .rsplit_once('-')
            .filter(|(_, digits)| {
                CRON_JOB_DIGITS.contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit())
            })
            .map(|(name, _)| ("CronJob", name.to_owned())),
        _ => None,
    };
    match found {
        Some((kind, name)) => Owner { kind: kind.to_owned(), name },
        None => Owner { kind: kind.to_owned(), name: name.to_owned() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owners_are_found_without_asking() {
        for (kind, name, label, expected) in [
            ("ReplicaSet", "web-5d4f", Some(("pod-template-hash", "5d4f")), ("Deployment", "web")),
            ("ReplicaSet", "web-5d4f", Some(("rollouts-pod-template-hash", "5d4f")), ("Rollout", "web")),
            ("ReplicaSet", "bare", None, ("ReplicaSet", "bare")),
            ("StatefulSet", "db", None, ("StatefulSet", "db")),
            ("DaemonSet", "agent", None, ("DaemonSet", "agent")),
            ("Job", "backup-29402880", None, ("CronJob", "backup")),
            ("Job", "backup-1764000000", None, ("CronJob", "backup")),
            ("Node", "node-1", None, ("Node", "node-1")),
            ("Job", "migrate", None, ("Job", "migrate")),
            ("Job", "migrate-42", None, ("Job", "migrate-42")),
        ] {
            let reference = OwnerReference { kind: kind.into(), name: name.into(), controller: true };
            let labels = label.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
            let owner = of(vec![reference], &labels).unwrap();
            assert_eq!((owner.kind.as_str(), owner.name.as_str()), expected);
        }
        let not_controller = OwnerReference { kind: "Node".into(), ..OwnerReference::default() };
        assert_eq!(of(vec![not_controller], &BTreeMap::new()), None);
    }
}
