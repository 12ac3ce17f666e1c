//! The injector's configuration.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value as Json, json};
use sidelight_agent::config::mistakes::Mistakes;
use sidelight_agent::config::section::Section;
use sidelight_agent::config::variables::{Environment, expand};
use sidelight_contract::glob::GlobList;
use sidelight_contract::quantity;
use yaml_serde::Value;

use crate::references;
use crate::template::{Resources, Template};

const DAYS: u64 = 24 * 3_600_000;

/// A valid configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where the API server calls.
    pub listen: String,
    /// `/metrics`, `/livez`, `/readyz`, in the clear.
    pub admin_listen: String,
    /// What a bad annotation gets.
    pub mode: Mode,
    /// The certificate that the API server is shown.
    pub certificate: Certificate,
    /// Images that pods and profiles may name.
    pub image_allow: GlobList,
    /// What a pod gets that does not say otherwise.
    pub sidecar: Template,
}

/// What a bad annotation gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// A warning; the annotation counts as absent.
    Warn,
    /// A refusal.
    Deny,
}

/// The certificate that the API server is shown.
#[derive(Clone, Debug)]
pub enum Certificate {
    /// Made, kept in a Secret and renewed by the injector.
    SelfManaged(SelfManaged),
    /// Whoever writes these files renews it, and tells the API server of its authority.
    Files {
        /// The chain, PEM.
        cert_file: PathBuf,
        /// The key, PEM.
        key_file: PathBuf,
    },
}

/// A certificate that the injector makes.
#[derive(Clone, Debug)]
pub struct SelfManaged {
    /// The Secret's name, in the injector's namespace.
    pub secret: String,
    /// The Service that the API server calls, in the injector's namespace.
    pub service: String,
    /// The `MutatingWebhookConfiguration` that is told of the authority; by name, and only that.
    pub webhook: String,
    /// How long a certificate is good.
    pub lifetime: Duration,
    /// How long an authority is good.
    pub ca_lifetime: Duration,
}

// === impl Config ===

impl Config {
    /// Reads and validates the file at `path`.
    ///
    /// # Errors
    /// All mistakes, one line each.
    pub fn load(path: &Path, environment: Environment<'_>) -> Result<Self, Vec<String>> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| vec![format!("cannot read {}: {error}", path.display())])?;
        Self::parse(&text, environment)
    }

    /// Validates a config's text.
    ///
    /// # Errors
    /// All mistakes, one line each, with the path of the key and what is allowed there.
    pub fn parse(text: &str, environment: Environment<'_>) -> Result<Self, Vec<String>> {
        let mut tree: Value =
            yaml_serde::from_str(text).map_err(|error| vec![format!("not valid YAML: {error}")])?;
        let mut mistakes = Mistakes::default();
        expand(&mut tree, "", environment, &mut mistakes);
        let mut root = Section::new("", tree, &mut mistakes);
        let mut admin = root.section("admin", &mut mistakes);
        let default = Config::default();
        let config = Config {
            listen: address(&mut root, "listen", &default.listen, &mut mistakes),
            admin_listen: address(&mut admin, "listen", &default.admin_listen, &mut mistakes),
            mode: root.read("mode", default.mode, &mut mistakes, |text| match text {
                "warn" => Ok(Mode::Warn),
                "deny" => Ok(Mode::Deny),
                other => Err(format!("{other:?} is not allowed: warn or deny")),
            }),
            certificate: certificate(root.section("certificate", &mut mistakes), &mut mistakes),
            image_allow: GlobList::new(&root.texts("image_allow", &[], &mut mistakes)),
            sidecar: sidecar(root.section("sidecar", &mut mistakes), &mut mistakes),
        };
        admin.finish(&mut mistakes);
        root.finish(&mut mistakes);
        if mistakes.is_empty() {
            for mistake in config.sidecar.mistakes() {
                mistakes.add("sidecar", mistake);
            }
        }
        if mistakes.is_empty() { Ok(config) } else { Err(mistakes.into_lines()) }
    }
}

impl Default for Config {
    /// What is in force where nothing is said.
    fn default() -> Self {
        Config {
            listen: "[::]:10250".to_owned(),
            admin_listen: "[::]:9614".to_owned(),
            mode: Mode::Warn,
            certificate: Certificate::SelfManaged(SelfManaged::default()),
            image_allow: GlobList::default(),
            sidecar: Template::default(),
        }
    }
}

impl Default for SelfManaged {
    fn default() -> Self {
        SelfManaged {
            secret: "sidelight-injector-tls".to_owned(),
            service: "sidelight-injector".to_owned(),
            webhook: "sidelight-injector".to_owned(),
            lifetime: Duration::from_millis(90 * DAYS),
            ca_lifetime: Duration::from_millis(3650 * DAYS),
        }
    }
}

fn address(section: &mut Section, key: &'static str, default: &str, mistakes: &mut Mistakes) -> String {
    section.read(key, default.to_owned(), mistakes, |text| match text.parse::<std::net::SocketAddr>() {
        Ok(_) => Ok(text.to_owned()),
        Err(_) => Err(format!("{text:?} is no address; write for example [::]:10250")),
    })
}

fn certificate(mut section: Section, mistakes: &mut Mistakes) -> Certificate {
    let is_self = section.read("source", true, mistakes, |text| match text {
        "self" => Ok(true),
        "files" => Ok(false),
        other => Err(format!("{other:?} is not allowed: self or files")),
    });
    let files = ["cert_file", "key_file"].map(|key| {
        let file = section.text(key, "", mistakes);
        if !is_self && file.is_empty() {
            mistakes.add(&section.path(key), "needed with `source: files`: the path of a PEM file");
        }
        PathBuf::from(file)
    });
    let default = SelfManaged::default();
    // A third of a life has to be longer than API servers take to hear of a new authority.
    let managed = SelfManaged {
        secret: section.text("secret", &default.secret, mistakes),
        service: section.text("service", &default.service, mistakes),
        webhook: section.text("webhook", &default.webhook, mistakes),
        lifetime: section.duration("lifetime", default.lifetime, 30_000..=3650 * DAYS, mistakes),
        ca_lifetime: section.duration("ca_lifetime", default.ca_lifetime, 60_000..=36_500 * DAYS, mistakes),
    };
    if managed.ca_lifetime < 2 * managed.lifetime {
        mistakes.add(
            &section.path("ca_lifetime"),
            "must be at least twice `lifetime`: no certificate outlives its authority",
        );
    }
    section.finish(mistakes);
    let [cert_file, key_file] = files;
    if is_self { Certificate::SelfManaged(managed) } else { Certificate::Files { cert_file, key_file } }
}

fn sidecar(mut section: Section, mistakes: &mut Mistakes) -> Template {
    let default = Template::default();
    let template = Template {
        image: section.text("image", &default.image, mistakes),
        image_pull_policy: section.read("image_pull_policy", None, mistakes, |text| match text {
            "Always" | "IfNotPresent" | "Never" => Ok(Some(text.to_owned())),
            other => Err(format!("{other:?} is not allowed: Always, IfNotPresent or Never")),
        }),
        native: section.read("native", default.native, mistakes, str::parse),
        resources: resources(section.section("resources", mistakes), &default.resources, mistakes),
        log_volume_size: quantity_at(&mut section, "log_volume_size", &default.log_volume_size, mistakes),
        data_volume_size: quantity_at(&mut section, "data_volume_size", &default.data_volume_size, mistakes),
        logs: settings(&mut section, "logs", mistakes),
        metrics: settings(&mut section, "metrics", mistakes),
        labels: BTreeMap::new(),
    };
    section.finish(mistakes);
    template
}

fn quantity_at(section: &mut Section, key: &'static str, default: &str, mistakes: &mut Mistakes) -> String {
    section.read(key, default.to_owned(), mistakes, |text| {
        if quantity::is_positive(text) {
            Ok(text.to_owned())
        } else {
            Err(format!("{text:?} is no quantity above 0 such as 256Mi"))
        }
    })
}

fn resources(mut section: Section, default: &Resources, mistakes: &mut Mistakes) -> Resources {
    let requests = section.mapping("requests", mistakes);
    let limits = section.mapping("limits", mistakes);
    section.finish(mistakes);
    default.with(&requests, &limits)
}

/// A section of the agent's schema as it stands; a secret in it that anybody could read in every pod is a mistake.
fn settings(section: &mut Section, key: &'static str, mistakes: &mut Mistakes) -> Json {
    let Some(value) = section.take(key) else { return json!({}) };
    let path = section.path(key);
    let value = serde_json::to_value(value).unwrap_or_default();
    for mistake in references::mistakes(&value) {
        mistakes.add(&path, mistake);
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<Config, Vec<String>> {
        Config::parse(text, &|_| None)
    }

    #[test]
    fn the_readme_states_every_default_as_it_is() {
        let readme = include_str!("../README.md");
        let block = readme.split("```yaml\n").nth(2).and_then(|rest| rest.split("```").next()).unwrap();
        let stated = parsed(block).unwrap();
        assert_eq!(format!("{stated:?}"), format!("{:?}", parsed("").unwrap()));
        assert_eq!(format!("{stated:?}"), format!("{:?}", Config::default()));
    }

    #[test]
    fn every_mistake_is_told_with_its_path() {
        let text = "listen: here\nmode: maybe\ncertificate: { source: files, lifetime: 90h, ca_lifetime: 100h }\n\
                    sidecar: { native: perhaps, logs: { outputs: [{ forward: { shared_key: hush } }] } }\nmore: 1";
        let told = parsed(text).unwrap_err().join("\n");
        for path in [
            "listen: ",
            "mode: ",
            "certificate.cert_file: ",
            "certificate.key_file: ",
            "certificate.ca_lifetime: ",
            "sidecar.native: ",
            "sidecar.logs: outputs[0].forward.shared_key: ",
            "more: ",
        ] {
            assert!(told.lines().any(|line| line.starts_with(path)), "{path} is not told: {told}");
        }
        assert!(!told.contains("hush"));
    }

    #[test]
    fn what_the_sidecar_would_refuse_is_refused_here() {
        let told =
            parsed("sidecar: { logs: { outputs: [{ forward: { upstreams: ['no port'] } }] } }").unwrap_err();
        assert!(told[0].starts_with("sidecar: logs.outputs[0].forward.upstreams"), "{told:?}");
        let told = parsed("sidecar: { resources: { limits: { cpu: much } } }").unwrap_err();
        assert!(told[0].starts_with("sidecar: resources.limits.cpu: \"much\" is no quantity"), "{told:?}");
        let told = parsed("sidecar: { logs: { files: [/a/b], outputs: [{ stdout: {} }] } }").unwrap_err();
        assert!(told[0].contains("are the pod's to say"), "{told:?}");
    }
}
