//! The values of `metrics` and `metrics.*`, and of the `prometheus.io` annotations, which say the same in other words.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::{Allow, Name, PREFIX, not_allowed};
use crate::duration;

/// How many ports one annotation may name.
pub const MAX_PORTS: usize = 16;

/// The longest path, in bytes.
pub const MAX_PATH_BYTES: usize = 1024;

/// What annotations of Prometheus's convention begin with.
const PROMETHEUS_IO: &str = "prometheus.io/";

/// A port to scrape.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Port {
    /// By its number.
    Number(u16),
    /// By the name that a container gives it.
    Name(String),
}

/// How a target is spoken to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scheme {
    /// In the clear.
    #[default]
    Http,
    /// Over TLS.
    Https,
}

/// What a pod's annotations say about metrics. What they do not say, or say wrongly, is `None` or empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MetricAnnotations {
    /// `metrics`: whether to scrape.
    pub collect: Option<bool>,
    /// `metrics.port`.
    pub ports: Vec<Port>,
    /// `metrics.path`: origin-form, beginning with exactly one slash.
    pub path: Option<String>,
    /// `metrics.scheme`.
    pub scheme: Option<Scheme>,
    /// `metrics.interval`, as the pod wants it; the agent has limits of its own.
    pub interval: Option<Duration>,
    /// `metrics.honor-labels`: whether the target's own labels win over those of Kubernetes.
    pub honor_labels: Option<bool>,
}

/// Reads what `annotations` say about metrics: those for the whole pod, or with `container` those for it alone. A bad value counts as
/// absent. With `prometheus_io`, what ours do not say about the whole pod is taken from `prometheus.io/scrape|port|path|scheme`.
pub fn metric_annotations<'a>(
    annotations: impl IntoIterator<Item = (&'a str, &'a str)> + Clone,
    container: Option<&str>,
    allow: &Allow,
    prometheus_io: bool,
) -> MetricAnnotations {
    let mut said = MetricAnnotations::default();
    if prometheus_io && container.is_none() {
        for (key, value) in annotations.clone() {
            if let Some(name) = key.strip_prefix(PROMETHEUS_IO).and_then(of_prometheus) {
                let _ = said.set(name, value);
            }
        }
    }
    for (key, value) in annotations {
        let Some(name) = key.strip_prefix(PREFIX).and_then(Name::parse) else { continue };
        if name.container == container && allow.permits(name.key.name) {
            // Mistakes are for `problems` to tell.
            let _ = said.set(name.key.name, value);
        }
    }
    said
}

/// Our key for one of Prometheus's.
fn of_prometheus(name: &str) -> Option<&'static str> {
    Some(match name {
        "scrape" => "metrics",
        "port" => "metrics.port",
        "path" => "metrics.path",
        "scheme" => "metrics.scheme",
        _ => return None,
    })
}

// === impl MetricAnnotations ===

impl MetricAnnotations {
    /// The same, with what it does not say taken from `other`: a container's, then its pod's.
    #[must_use]
    pub fn or(self, other: &Self) -> Self {
        MetricAnnotations {
            collect: self.collect.or(other.collect),
            ports: if self.ports.is_empty() { other.ports.clone() } else { self.ports },
            path: self.path.or_else(|| other.path.clone()),
            scheme: self.scheme.or(other.scheme),
            interval: self.interval.or(other.interval),
            honor_labels: self.honor_labels.or(other.honor_labels),
        }
    }

    /// Takes in one annotation; keys of other parts change nothing.
    ///
    /// # Errors
    /// A text for the pod's owner. The value is then as if absent.
    pub(super) fn set(&mut self, key: &str, value: &str) -> Result<(), String> {
        let flag = || value.parse().map_err(|_| not_allowed(value, "true or false"));
        match key {
            "metrics" => self.collect = Some(flag()?),
            "metrics.port" => self.ports = ports(value)?,
            "metrics.path" => self.path = Some(path(value)?),
            "metrics.scheme" => self.scheme = Some(value.parse()?),
            "metrics.interval" => self.interval = Some(interval(value)?),
            "metrics.honor-labels" => self.honor_labels = Some(flag()?),
            _ => {}
        }
        Ok(())
    }
}

fn ports(value: &str) -> Result<Vec<Port>, String> {
    let ports: Result<Vec<Port>, String> = value.split(',').map(|word| word.trim().parse()).collect();
    match ports {
        Ok(ports) if ports.len() > MAX_PORTS => {
            Err(format!("{} ports are named, at most {MAX_PORTS} may be", ports.len()))
        }
        ports => ports,
    }
}

/// A path goes into the head of a request and must not end it, nor lead to another host.
fn path(value: &str) -> Result<String, String> {
    let is_plain = |byte: u8| byte.is_ascii_graphic() && byte != b'@' && byte != b'#';
    let is_path = value.starts_with('/')
        && !value.starts_with("//")
        && value.len() <= MAX_PATH_BYTES
        && value.bytes().all(is_plain);
    if is_path {
        Ok(value.to_owned())
    } else {
        let allowed = format!(
            "a path such as \"/metrics\": one leading slash, no blanks, @ or #, at most {MAX_PATH_BYTES} bytes"
        );
        Err(not_allowed(value, &allowed))
    }
}

fn interval(value: &str) -> Result<Duration, String> {
    let interval = duration::parse(value).filter(|interval| !interval.is_zero() && !value.starts_with('+'));
    interval.ok_or_else(|| not_allowed(value, "a duration such as \"15s\" or \"1m\""))
}

// === impl Port ===

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Port::Number(number) => write!(f, "{number}"),
            Port::Name(name) => f.write_str(name),
        }
    }
}

impl FromStr for Port {
    type Err = String;

    /// A number, or a name as Kubernetes allows it (IANA_SVC_NAME): at most 15 of `a-z 0-9 -`, one of them a letter.
    fn from_str(value: &str) -> Result<Self, String> {
        if let Some(number) = value.parse().ok().filter(|number| *number > 0) {
            return Ok(Port::Number(number));
        }
        let is_inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        let is_name = (1..=15).contains(&value.len())
            && value.bytes().all(is_inner)
            && value.bytes().any(|byte| byte.is_ascii_lowercase());
        if is_name {
            Ok(Port::Name(value.to_owned()))
        } else {
            Err(not_allowed(
                value,
                "a port from 1 to 65535 or the name of one, or several with commas between",
            ))
        }
    }
}

// === impl Scheme ===

impl Scheme {
    /// As users write it.
    pub fn name(self) -> &'static str {
        match self {
            Scheme::Http => "http",
            Scheme::Https => "https",
        }
    }
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Scheme {
    type Err = String;

    fn from_str(value: &str) -> Result<Self, String> {
        match value {
            "http" => Ok(Scheme::Http),
            "https" => Ok(Scheme::Https),
            _ => Err(not_allowed(value, "http or https")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(annotations: &[(&str, &str)], container: Option<&str>) -> MetricAnnotations {
        let allow = Allow::new(&["*".to_owned()]).unwrap();
        metric_annotations(annotations.iter().copied(), container, &allow, true)
    }

    #[test]
    fn all_of_a_pods_wishes_are_read() {
        let wishes = said(
            &[
                ("sidelight.dev/metrics", "true"),
                ("sidelight.dev/metrics.port", "9090, admin,8080"),
                ("sidelight.dev/metrics.path", "/internal/metrics?all=1"),
                ("sidelight.dev/metrics.scheme", "https"),
                ("sidelight.dev/metrics.interval", "1m"),
                ("sidelight.dev/metrics.honor-labels", "true"),
            ],
            None,
        );
        let expected = MetricAnnotations {
            collect: Some(true),
            ports: vec![Port::Number(9090), Port::Name("admin".to_owned()), Port::Number(8080)],
            path: Some("/internal/metrics?all=1".to_owned()),
            scheme: Some(Scheme::Https),
            interval: Some(Duration::from_secs(60)),
            honor_labels: Some(true),
        };
        assert_eq!(wishes, expected);
    }

    #[test]
    fn prometheuss_own_annotations_say_what_ours_do_not() {
        let both = [
            ("sidelight.dev/metrics.port", "9091"),
            ("prometheus.io/scrape", "true"),
            ("prometheus.io/port", "9090"),
            ("prometheus.io/path", "/m"),
            ("prometheus.io/scheme", "https"),
            ("prometheus.io/interval", "1s"),
        ];
        let wishes = said(&both, None);
        assert_eq!((wishes.collect, wishes.ports), (Some(true), vec![Port::Number(9091)]));
        assert_eq!((wishes.path.as_deref(), wishes.scheme), (Some("/m"), Some(Scheme::Https)));
        assert_eq!(wishes.interval, None);
        let ours = metric_annotations(both, None, &Allow::default(), false);
        assert_eq!((ours.collect, ours.path), (None, None));
    }

    #[test]
    fn a_suffix_speaks_of_one_container_alone() {
        let wishes = [("sidelight.dev/metrics", "true"), ("sidelight.dev/metrics.port.web", "9090")];
        assert_eq!(said(&wishes, None).ports, []);
        assert_eq!(said(&wishes, Some("web")).ports, [Port::Number(9090)]);
        assert_eq!(said(&wishes, Some("web")).collect, None);
        assert_eq!(said(&wishes, Some("db")), MetricAnnotations::default());
    }

    #[test]
    fn what_the_operator_forbids_and_what_is_wrong_is_not_said() {
        let wishes =
            [("sidelight.dev/metrics.honor-labels", "true"), ("sidelight.dev/metrics.path", "metrics")];
        let said = metric_annotations(wishes, None, &Allow::default(), true);
        assert_eq!(said, MetricAnnotations::default());
    }

    #[test]
    fn a_path_leads_nowhere_else() {
        for good in ["/", "/metrics", "/a//b?c=d&e=%20"] {
            assert_eq!(path(good).as_deref(), Ok(good));
        }
        let long = format!("/{}", "a".repeat(MAX_PATH_BYTES));
        for bad in ["", "metrics", "//evil.example/", "/a b", "/a\r\nX: y", "/u@evil", "/#a", "/é", &long] {
            assert!(path(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn ports_are_numbers_or_names_as_kubernetes_has_them() {
        for bad in ["", "0", "65536", "-1", "Metrics", "a_b", "a-name-that-is-long", "9090,", "127.0.0.1:80"]
        {
            assert!(ports(bad).is_err(), "{bad:?}");
        }
        assert!(ports(&vec!["80"; MAX_PORTS + 1].join(",")).unwrap_err().contains("at most 16"));
    }

    #[test]
    fn an_interval_has_a_unit() {
        assert_eq!(interval("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(interval("2h"), Ok(Duration::from_secs(7_200)));
        for bad in
            ["", "15", "0s", "s", "1d", "-1s", "1.5s", "99999999999999999999s", "18446744073709551615h"]
        {
            assert!(interval(bad).is_err(), "{bad:?}");
        }
    }
}
