//! What the injector puts into a pod, and `sidelight sidecar` finds there: names, places and environment.

/// What the container is called that the injector adds.
pub const CONTAINER: &str = "sidelight";

/// The volume of checkpoints and spool.
pub const DATA_VOLUME: &str = "sidelight-data";
/// Where the container has it.
pub const DATA_PATH: &str = "/var/lib/sidelight";

/// The volume of what the Downward API says of the pod, and of the files that secrets and authorities are read from.
pub const POD_INFO_VOLUME: &str = "sidelight-podinfo";
/// Where the container has it.
pub const POD_INFO_PATH: &str = "/etc/sidelight/podinfo";
/// The pod's labels there, one `name="value"` a line.
pub const LABELS_FILE: &str = "labels";
/// The pod's annotations there, in the same form.
pub const ANNOTATIONS_FILE: &str = "annotations";

/// What the volumes begin with that the injector adds for log directories which the app does not mount; a number follows.
pub const LOGS_VOLUME_PREFIX: &str = "sidelight-logs-";
/// Log directories are mounted here below the name of the container that writes them, by their path there:
/// `/var/log/sidelight/web/srv/logs` is `/srv/logs` of `web`.
pub const LOGS_PATH: &str = "/var/log/sidelight";

/// The configuration: one document in the agent's schema, with `logs.files` instead of `logs.root`.
pub const CONFIG: &str = "SIDELIGHT_CONFIG";
/// The pod's namespace.
pub const NAMESPACE: &str = "SIDELIGHT_NAMESPACE";
/// The pod's name.
pub const POD: &str = "SIDELIGHT_POD";
/// The pod's UID.
pub const POD_UID: &str = "SIDELIGHT_POD_UID";
/// The pod's first address.
pub const POD_IP: &str = "SIDELIGHT_POD_IP";
/// The node's name.
pub const NODE: &str = "SIDELIGHT_NODE";
/// What variables begin with that hold a secret, for the configuration to name; a number follows.
pub const SECRET_PREFIX: &str = "SIDELIGHT_SECRET_";

/// The prefix of every variable of ours.
const PREFIX: &str = "SIDELIGHT_";

/// What the injector says by the environment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Environment {
    /// [`CONFIG`]
    pub config: String,
    /// [`NAMESPACE`]
    pub namespace: String,
    /// [`POD`]
    pub pod: String,
    /// [`POD_UID`]
    pub pod_uid: String,
    /// [`POD_IP`]; the kubelet may not know it yet when it starts the container.
    pub pod_ip: Option<String>,
    /// [`NODE`]
    pub node: String,
    /// Variables with our prefix that this version does not know: an injector of another version may have set them.
    pub unknown: Vec<String>,
}

// === impl Environment ===

impl Environment {
    /// Reads the process's variables.
    ///
    /// # Errors
    /// All that is missing, one line each.
    pub fn read(variables: impl IntoIterator<Item = (String, String)>) -> Result<Self, Vec<String>> {
        let mut environment = Environment::default();
        for (name, value) in variables {
            match name.as_str() {
                CONFIG => environment.config = value,
                NAMESPACE => environment.namespace = value,
                POD => environment.pod = value,
                POD_UID => environment.pod_uid = value,
                POD_IP => environment.pod_ip = Some(value).filter(|address| !address.is_empty()),
                NODE => environment.node = value,
                other if is_unknown(other) => environment.unknown.push(name),
                _ => {}
            }
        }
        environment.unknown.sort();
        let needed = [
            (CONFIG, &environment.config),
            (NAMESPACE, &environment.namespace),
            (POD, &environment.pod),
            (POD_UID, &environment.pod_uid),
            (NODE, &environment.node),
        ];
        let missing: Vec<String> = needed
            .into_iter()
            .filter(|(_, value)| value.is_empty())
            .map(|(name, _)| {
                format!("{name} is not set; the injector sets it, from the Downward API or its configuration")
            })
            .collect();
        if missing.is_empty() { Ok(environment) } else { Err(missing) }
    }
}

/// Whether a variable looks as if it were for us and is none that we know. A Service called `sidelight` makes the kubelet set
/// `SIDELIGHT_SERVICE_HOST`, `SIDELIGHT_PORT_80_TCP` and others of the kind in every container of its namespace; one called
/// `sidelight-x` sets `SIDELIGHT_X_SERVICE_HOST`.
fn is_unknown(name: &str) -> bool {
    let Some(rest) = name.strip_prefix(PREFIX) else { return false };
    let of_service = format!("_{rest}");
    let is_of_service =
        ["_SERVICE_HOST", "_SERVICE_PORT", "_PORT"].iter().any(|part| of_service.contains(part));
    !is_of_service && !name.starts_with(SECRET_PREFIX)
}

/// The container whose log file this is, by the place where the injector mounts it, and the file's path there.
pub fn container_of(path: &str) -> Option<(&str, &str)> {
    let rest = path.strip_prefix(LOGS_PATH)?.strip_prefix('/')?;
    let slash = rest.find('/').filter(|slash| *slash > 0)?;
    Some(rest.split_at(slash))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<Environment, Vec<String>> {
        Environment::read(variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())))
    }

    const WHOLE: [(&str, &str); 5] =
        [(CONFIG, "{}"), (NAMESPACE, "shop"), (POD, "web-1"), (POD_UID, "u-1"), (NODE, "node-1")];

    #[test]
    fn what_is_missing_is_told_all_at_once() {
        let missing = read(&[(CONFIG, "{}"), (POD, "")]).unwrap_err();
        let names: Vec<&str> = missing.iter().filter_map(|line| line.split(' ').next()).collect();
        assert_eq!(names, [NAMESPACE, POD, POD_UID, NODE]);
        assert!(read(&WHOLE).is_ok());
    }

    #[test]
    fn what_another_version_says_is_unknown_and_what_services_say_is_not_ours() {
        let others = [
            ("SIDELIGHT_FUTURE", "1"),
            ("SIDELIGHT_SERVICE_HOST", "10.96.0.7"),
            ("SIDELIGHT_SERVICE_PORT_HTTPS", "443"),
            ("SIDELIGHT_PORT", "tcp://10.96.0.7:443"),
            ("SIDELIGHT_PORT_443_TCP_ADDR", "10.96.0.7"),
            ("SIDELIGHT_INJECTOR_SERVICE_HOST", "10.96.0.8"),
            ("SIDELIGHT_SECRET_0", "hush"),
            ("HOME", "/"),
        ];
        let environment = read(&[&WHOLE[..], &others[..]].concat()).unwrap();
        assert_eq!(environment.unknown, ["SIDELIGHT_FUTURE"]);
    }

    #[test]
    fn a_mounted_log_tells_its_container() {
        assert_eq!(container_of("/var/log/sidelight/web/srv/logs/a.log"), Some(("web", "/srv/logs/a.log")));
        for path in [
            "/var/log/web/a.log",
            "/var/log/sidelight/web",
            "/var/log/sidelight//a",
            "/var/log/sidelightx/a/b",
        ] {
            assert_eq!(container_of(path), None, "{path}");
        }
    }
}
