//! `check`: asks the cluster, judges, prints.

mod ask;

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use k8s_openapi::api::admissionregistration::v1::MutatingWebhook;
use k8s_openapi::jiff::Timestamp;
use serde_json::json;
use sidelight_runtime::exit;
use sidelight_runtime::terminal::{print, say};

use self::ask::Cluster;
use super::load;
use crate::check::certificate::certificate;
use crate::check::installation::{self, calls_for, dry_run, failure_policy, of_service, registration};
use crate::check::pods::{self, Problems};
use crate::check::{Finding, Status};
use crate::config::{Certificate, Config, SelfManaged};

/// Arguments of `check`.
#[derive(Args)]
pub(super) struct Check {
    /// The injector's configuration, as the cluster's injector has it: pods can then be compared with what it makes.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Looks at this namespace alone; also where a pod is created, as a dry run.
    #[arg(short, long, value_name = "NAMESPACE")]
    namespace: Option<String>,
    /// Looks only at objects with these labels.
    #[arg(short = 'l', long, value_name = "LABELS")]
    selector: Option<String>,
    /// The form of the answer.
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    output: Form,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Form {
    /// For people, one line a finding.
    Text,
    /// For scripts.
    Json,
}

// === impl Check ===

impl Check {
    pub(super) fn run(&self) -> u8 {
        let config = match self.config.as_deref().map(load).transpose() {
            Ok(config) => config,
            Err(code) => return code,
        };
        let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => {
                say(&format!("cannot start: {error}"));
                return exit::NEGATIVE;
            }
        };
        let findings = match runtime.block_on(self.find(config.as_ref())) {
            Ok(findings) => findings,
            Err(error) => {
                say(&format!("the API server cannot be reached: {error}"));
                return exit::UNAVAILABLE;
            }
        };
        // Who may see nothing has checked nothing.
        let is_blind = findings.iter().all(|finding| finding.status == Status::Skipped);
        let is_ok = !is_blind && findings.iter().all(|finding| finding.status != Status::Failed);
        let code = print(&match self.output {
            Form::Json => format!("{:#}\n", json!({ "ok": is_ok, "checks": findings })),
            Form::Text => findings.iter().map(|finding| finding.line() + "\n").collect(),
        });
        if is_ok { code } else { exit::NEGATIVE }
    }

    /// All checks.
    ///
    /// # Errors
    /// Why there is no answer at all.
    async fn find(&self, config: Option<&Config>) -> Result<Vec<Finding>, String> {
        let (client, kubernetes) = ask::connect().await?;
        let cluster = Cluster { client, namespace: self.namespace.clone(), selector: self.selector.clone() };
        let managed = match config.map(|config| &config.certificate) {
            Some(Certificate::SelfManaged(managed)) => managed.clone(),
            _ => SelfManaged::default(),
        };
        let is_in_files = matches!(config.map(|config| &config.certificate), Some(Certificate::Files { .. }));
        let (mut findings, configuration) = match cluster.configuration(&managed.webhook).await {
            Err(reason) => (vec![Finding::skipped("webhook", &reason)], None),
            Ok(found) => (vec![registration(&managed.webhook, found.as_ref(), &managed.service)], found),
        };
        let called = configuration.as_ref().map(|found| of_service(found, &managed.service));
        let webhooks = called.unwrap_or_default();
        let secret = Some(managed.secret.as_str()).filter(|_| !is_in_files);
        findings.extend(about_injector(&cluster, &webhooks, secret).await);
        let namespaces = cluster.namespaces().await;
        match &namespaces {
            Ok(known) if !webhooks.is_empty() => findings.push(installation::namespaces(&webhooks, known)),
            Ok(_) => {}
            Err(reason) => findings.push(Finding::skipped("namespaces", reason)),
        }
        let namespaces = namespaces.unwrap_or_default();
        let namespace = self.namespace.as_deref().unwrap_or("default");
        let is_left_out = namespaces.get(namespace).is_some_and(|labels| !calls_for(&webhooks, labels));
        let answer = cluster.dry_run(namespace).await;
        findings.push(if is_left_out && !webhooks.is_empty() {
            Finding::skipped("dry run", &format!("{namespace} is left out; name another with --namespace"))
        } else {
            dry_run(&answer)
        });
        let created = configuration.as_ref().and_then(|found| found.metadata.creation_timestamp.as_ref());
        let known = pods::Cluster {
            config,
            kubernetes,
            profiles: BTreeMap::new(),
            since: created.map(|time| time.0),
            webhooks,
            namespaces,
            current: answer.as_ref().ok().and_then(installation::injected).map(str::to_owned),
        };
        findings.extend(about_pods(&cluster, known).await);
        Ok(findings)
    }
}

/// The Service's certificate, if a Secret has it, and its replicas.
async fn about_injector(
    cluster: &Cluster,
    webhooks: &[&MutatingWebhook],
    secret: Option<&str>,
) -> Vec<Finding> {
    let Some(webhook) = webhooks.first() else { return Vec::new() };
    let Some(service) = &webhook.client_config.service else { return Vec::new() };
    let bundle = webhook.client_config.ca_bundle.as_ref().map(|bundle| String::from_utf8_lossy(&bundle.0));
    let name = format!("{}.{}.svc", service.name, service.namespace);
    let shown = match secret {
        Some(secret) => cluster.secret(&service.namespace, secret).await,
        None => Err("it comes from files, which only the injector sees".to_owned()),
    };
    let shown = shown.as_ref().map(Option::as_ref).map_err(String::as_str);
    let ready = cluster.ready(&service.namespace, &service.name).await;
    vec![
        certificate(&bundle.unwrap_or_default(), shown, &name, Timestamp::now().as_second()),
        failure_policy(webhooks, ready.as_ref().copied().map_err(String::as_str)),
    ]
}

/// Profiles, pods, and what makes pods.
async fn about_pods(cluster: &Cluster, mut known: pods::Cluster<'_>) -> Vec<Finding> {
    let mut findings = match cluster.profiles().await {
        Ok(None) => vec![pods::no_profiles()],
        Ok(Some(profiles)) => {
            let findings = pods::profiles(&profiles, known.config);
            known.profiles = profiles.into_iter().filter_map(pods::named).collect();
            findings
        }
        Err(reason) => vec![Finding::skipped("profiles", &reason)],
    };
    let mut problems = Problems::default();
    let looked = cluster.pods(&mut |pod| problems.look(&known, pod)).await;
    match looked {
        Ok(()) => findings.extend(problems.findings()),
        Err(reason) => findings.push(Finding::skipped("pods", &reason)),
    }
    let mut misplaced = Vec::new();
    let mut look =
        |kind: &str, object: &serde_json::Value| misplaced.extend(pods::misplaced_on(kind, object));
    let unseen = cluster.workloads(&mut look).await;
    findings.extend(unseen.iter().map(|reason| Finding::skipped("annotations", reason)));
    if misplaced.is_empty() && unseen.is_empty() {
        findings.push(Finding::ok("annotations", "none stands where nothing reads it"));
    }
    findings.extend(misplaced);
    findings
}
