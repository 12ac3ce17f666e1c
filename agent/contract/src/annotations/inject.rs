//! The values of `inject` and `inject.*`: whether a pod wants a sidecar, and what kind of one.

use std::fmt;
use std::str::FromStr;

use super::{Allow, Name, PREFIX, not_allowed};
use crate::glob::{FILE_GLOB, file_glob};
use crate::quantity;

/// How many globs `inject.logs` may name.
pub const MAX_LOG_GLOBS: usize = 16;

/// Whether the pod wants a sidecar.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Inject {
    /// `true`
    Yes,
    /// `false`
    No,
    /// As the `SidecarProfile` of this name in the pod's namespace says.
    Profile(String),
}

/// Whether the sidecar is a native one: an init container that keeps running.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Native {
    /// Where the cluster is new enough.
    #[default]
    Auto,
    /// Whatever the cluster says of itself.
    Always,
    /// A plain container.
    Never,
}

/// Where the sidecar stands among its kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// Before all others: it runs when they start, and, as a native one, until they have ended.
    #[default]
    First,
    /// Behind all others.
    Last,
}

/// What a pod's annotations say about its sidecar. What they do not say, or say wrongly, is `None` or empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InjectAnnotations {
    /// `inject`.
    pub inject: Option<Inject>,
    /// `inject.logs`: globs of files inside the containers, each an absolute path.
    pub logs: Vec<String>,
    /// `inject.image`.
    pub image: Option<String>,
    /// `inject.cpu-request`, a quantity.
    pub cpu_request: Option<String>,
    /// `inject.cpu-limit`, a quantity.
    pub cpu_limit: Option<String>,
    /// `inject.memory-request`, a quantity.
    pub memory_request: Option<String>,
    /// `inject.memory-limit`, a quantity.
    pub memory_limit: Option<String>,
    /// `inject.native`.
    pub native: Option<Native>,
    /// `inject.order`.
    pub order: Option<Order>,
    /// `inject.otlp`: whether the sidecar takes OTLP on the pod's loopback.
    pub otlp: Option<bool>,
}

/// Reads what `annotations` say about the sidecar. A bad value counts as absent; telling it is for [`super::problems`].
pub fn inject_annotations<'a>(
    annotations: impl IntoIterator<Item = (&'a str, &'a str)>,
    allow: &Allow,
) -> InjectAnnotations {
    let mut said = InjectAnnotations::default();
    for (key, value) in annotations {
        let Some(name) = key.strip_prefix(PREFIX).and_then(Name::parse) else { continue };
        if allow.permits(name.key.name) {
            let _ = said.set(name.key.name, value);
        }
    }
    said
}

// === impl Native ===

impl Native {
    const ALL: [(&str, Native); 3] =
        [("auto", Native::Auto), ("true", Native::Always), ("false", Native::Never)];
}

impl fmt::Display for Native {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Native::ALL.iter().find(|(_, native)| native == self).map_or("auto", |(name, _)| name))
    }
}

impl FromStr for Native {
    type Err = String;

    fn from_str(value: &str) -> Result<Self, String> {
        let found = Native::ALL.iter().find(|(name, _)| *name == value);
        found.map(|(_, native)| *native).ok_or_else(|| not_allowed(value, "auto, true or false"))
    }
}

// === impl InjectAnnotations ===

impl InjectAnnotations {
    /// Takes in one annotation; keys of other parts change nothing.
    ///
    /// # Errors
    /// A text for the pod's owner. The value is then as if absent.
    pub(super) fn set(&mut self, key: &str, value: &str) -> Result<(), String> {
        match key {
            "inject" => self.inject = Some(inject(value)?),
            "inject.logs" => self.logs = log_globs(value)?,
            "inject.image" => self.image = Some(image(value)?),
            "inject.cpu-request" => self.cpu_request = Some(resource(value)?),
            "inject.cpu-limit" => self.cpu_limit = Some(resource(value)?),
            "inject.memory-request" => self.memory_request = Some(resource(value)?),
            "inject.memory-limit" => self.memory_limit = Some(resource(value)?),
            "inject.native" => self.native = Some(value.parse()?),
            "inject.order" => self.order = Some(order(value)?),
            "inject.otlp" => {
                self.otlp = Some(value.parse().map_err(|_| not_allowed(value, "true or false"))?);
            }
            _ => {}
        }
        Ok(())
    }
}

fn inject(value: &str) -> Result<Inject, String> {
    match value {
        "true" => Ok(Inject::Yes),
        "false" => Ok(Inject::No),
        name if is_object_name(name) => Ok(Inject::Profile(name.to_owned())),
        _ => Err(not_allowed(value, "true, false or the name of a SidecarProfile")),
    }
}

/// A DNS subdomain (RFC 1123), as Kubernetes names objects.
fn is_object_name(name: &str) -> bool {
    let is_inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let is_label = |label: &str| {
        !label.is_empty() && label.bytes().all(is_inner) && !label.starts_with('-') && !label.ends_with('-')
    };
    name.len() <= 253 && name.split('.').all(is_label)
}

/// Only the last part may have wildcards: what stands before it is the directory that is mounted.
fn log_globs(value: &str) -> Result<Vec<String>, String> {
    let globs: Vec<&str> = value.split(',').map(str::trim).collect();
    if globs.len() > MAX_LOG_GLOBS {
        return Err(format!("{} globs are named, at most {MAX_LOG_GLOBS} may be", globs.len()));
    }
    let is_good = |glob: &&str| {
        file_glob(glob).is_some()
            && glob.len() <= 1024
            && !glob.chars().any(|c| c.is_control() || ['$', ':', '\u{feff}'].contains(&c))
    };
    match globs.iter().find(|glob| !is_good(glob)) {
        Some(bad) => Err(not_allowed(bad, FILE_GLOB)),
        None => Ok(globs.into_iter().map(str::to_owned).collect()),
    }
}

fn image(value: &str) -> Result<String, String> {
    let is_good =
        !value.is_empty() && value.len() <= 512 && value.bytes().all(|byte| byte.is_ascii_graphic());
    if is_good { Ok(value.to_owned()) } else { Err(not_allowed(value, "the name of an image")) }
}

fn resource(value: &str) -> Result<String, String> {
    if quantity::is_positive(value) {
        Ok(value.to_owned())
    } else {
        Err(not_allowed(value, "a quantity above 0 such as 50m or 64Mi"))
    }
}

fn order(value: &str) -> Result<Order, String> {
    match value {
        "first" => Ok(Order::First),
        "last" => Ok(Order::Last),
        _ => Err(not_allowed(value, "first or last")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(annotations: &[(&str, &str)]) -> InjectAnnotations {
        let allow = Allow::new(&["*".to_owned()]).unwrap();
        inject_annotations(annotations.iter().copied(), &allow)
    }

    #[test]
    fn all_of_a_pods_wishes_are_read() {
        let wishes = said(&[
            ("sidelight.dev/inject", "small"),
            ("sidelight.dev/inject.logs", "/var/log/app/*.log, /srv/audit.json"),
            ("sidelight.dev/inject.image", "registry/sidelight:1"),
            ("sidelight.dev/inject.cpu-request", "50m"),
            ("sidelight.dev/inject.cpu-limit", "1"),
            ("sidelight.dev/inject.memory-request", "32Mi"),
            ("sidelight.dev/inject.memory-limit", "64Mi"),
            ("sidelight.dev/inject.native", "false"),
            ("sidelight.dev/inject.order", "last"),
            ("sidelight.dev/inject.otlp", "true"),
        ]);
        let expected = InjectAnnotations {
            inject: Some(Inject::Profile("small".to_owned())),
            logs: vec!["/var/log/app/*.log".to_owned(), "/srv/audit.json".to_owned()],
            image: Some("registry/sidelight:1".to_owned()),
            cpu_request: Some("50m".to_owned()),
            cpu_limit: Some("1".to_owned()),
            memory_request: Some("32Mi".to_owned()),
            memory_limit: Some("64Mi".to_owned()),
            native: Some(Native::Never),
            order: Some(Order::Last),
            otlp: Some(true),
        };
        assert_eq!(wishes, expected);
    }

    #[test]
    fn an_image_is_the_operators_to_choose_unless_he_says_otherwise() {
        let wish = [("sidelight.dev/inject.image", "evil"), ("sidelight.dev/inject", "true")];
        let wishes = inject_annotations(wish, &Allow::default());
        assert_eq!((wishes.image, wishes.inject), (None, Some(Inject::Yes)));
    }

    #[test]
    fn a_glob_leads_into_one_directory() {
        for good in ["/var/log/app/*.log", "/logs/a?b.log", "/a/b"] {
            assert_eq!(log_globs(good), Ok(vec![good.to_owned()]));
        }
        for bad in [
            "/a/..",
            "/a/.",
            "",
            "*.log",
            "logs/a.log",
            "/a.log",
            "/var/*/a.log",
            "/var/../etc/shadow",
            "/var//a",
            "/var/log/",
            "/a/b,",
            "/a:b/c",
            "/a\n/c",
            "/a/$(HOME)",
        ] {
            assert!(log_globs(bad).is_err(), "{bad:?}");
        }
        assert!(log_globs(&vec!["/a/b"; MAX_LOG_GLOBS + 1].join(",")).unwrap_err().contains("at most 16"));
    }

    #[test]
    fn a_profile_is_named_as_kubernetes_names_objects() {
        for good in ["small", "team-a.v2", "yes"] {
            assert_eq!(inject(good), Ok(Inject::Profile(good.to_owned())));
        }
        for bad in ["", "True", "a_b", "-a", "a..b", "a/b", &"a".repeat(254)] {
            assert!(inject(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_resource_is_more_than_nothing() {
        for bad in ["", "0", "-1", "many", "1 Gi", "inf"] {
            assert!(resource(bad).is_err(), "{bad:?}");
        }
    }
}
