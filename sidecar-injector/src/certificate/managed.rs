//! A certificate that the injector makes itself. One Secret is the only truth: replicas agree because each write names the
//! version that it is about.
//!
//! A new authority goes through three states, each visible to every replica: it stands in the Secret before the old one; the
//! API server is told of both; only then is a certificate of it made and served. So no API server ever meets a certificate
//! whose authority it has not been told of.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use k8s_openapi::ByteString;
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{ObjectMeta, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::json;

use super::{Material, Served, now};
use crate::config::SelfManaged;

/// From writing a new authority down to the last API server that has seen it.
const SETTLED: Duration = Duration::from_secs(5);
/// The longest pause between two looks at the Secret.
const INTERVAL: Duration = Duration::from_secs(15);

/// Keeps the Secret, the API server's trust and what is served in step.
pub struct Managed {
    config: SelfManaged,
    namespace: String,
    secrets: Api<Secret>,
    webhooks: Api<MutatingWebhookConfiguration>,
    served: Arc<Served>,
    /// The bundle that the API server was last found to have, and since when.
    published: Option<(String, Instant)>,
    /// Whether the API server believes in what is served.
    pub ready: Arc<AtomicBool>,
}

// === impl Managed ===

impl Managed {
    /// For a Secret and a Service in `namespace`.
    pub fn new(client: Client, namespace: &str, config: SelfManaged, served: Arc<Served>) -> Self {
        Managed {
            config,
            namespace: namespace.to_owned(),
            secrets: Api::namespaced(client.clone(), namespace),
            webhooks: Api::all(client),
            served,
            published: None,
            ready: Arc::default(),
        }
    }

    /// Runs for ever.
    pub async fn run(mut self) {
        // Twenty looks in the life of a certificate, however short.
        let interval = INTERVAL.min(self.config.lifetime / 20);
        let mut said = String::new();
        loop {
            match self.step().await {
                Ok(()) => said.clear(),
                Err(error) if error == said => {}
                Err(error) => {
                    tracing::warn!(error, "cannot look after the certificate; trying again");
                    said = error;
                }
            }
            let settles = self.published.as_ref().is_some_and(|(_, since)| since.elapsed() < SETTLED);
            let pause = if settles || !self.ready.load(Ordering::Relaxed) {
                Duration::from_secs(1)
            } else {
                interval
            };
            tokio::time::sleep(pause.min(interval)).await;
        }
    }

    /// Looks at everything once, and does what comes next.
    async fn step(&mut self) -> Result<(), String> {
        let name = &self.config.secret;
        let found = self
            .secrets
            .get_opt(name)
            .await
            .map_err(|error| format!("cannot read the Secret {name}: {error}"))?;
        let Some(secret) = found else { return self.create().await };
        let material = match read(&secret) {
            Ok(material) => material,
            Err(error) => {
                // An empty one is as whoever installs the injector makes it: to be filled.
                if secret.data.as_ref().is_some_and(|data| !data.is_empty()) {
                    tracing::warn!(
                        secret = name,
                        error,
                        "what the Secret holds cannot be used; making it anew"
                    );
                }
                let fresh = self.fresh()?;
                return self.replace(secret, &fresh).await;
            }
        };
        self.publish(&material.bundle).await?;
        let (certificate, authority) = material.look()?;
        let is_known = self.published.as_ref().is_some_and(|(_, since)| since.elapsed() >= SETTLED);
        if is_old(authority.not_after, self.config.ca_lifetime) {
            tracing::info!(not_after = authority.not_after, "the authority is to be renewed");
            return self.replace(secret, &material.with_new_authority(now(), self.config.ca_lifetime)?).await;
        }
        let is_of_newest = certificate.issuer == authority.subject;
        let is_good = is_of_newest && certificate.names == self.names();
        if (!is_good || is_old(certificate.not_after, self.config.lifetime)) && is_known {
            tracing::info!(not_after = certificate.not_after, "the certificate is renewed");
            let renewed = material.with_new_certificate(&self.names(), now(), self.config.lifetime)?;
            return self.replace(secret, &renewed).await;
        }
        // What is shown has to be believed by every API server, unless there is nothing else to show.
        if !self.served.is(&material.certificate) && (is_known || !self.served.is_valid()) {
            self.served.set(&material.certificate, &material.key)?;
            tracing::info!(not_after = certificate.not_after, "a certificate is served");
        }
        self.ready.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// The names by which the API server calls a Service (`k8s.io/apiserver`, `pkg/util/webhook`).
    fn names(&self) -> Vec<String> {
        let (service, namespace) = (&self.config.service, &self.namespace);
        vec![format!("{service}.{namespace}.svc"), format!("{service}.{namespace}.svc.cluster.local")]
    }

    fn fresh(&self) -> Result<Material, String> {
        let known = self.published.as_ref().map_or("", |(bundle, _)| bundle);
        Material::new(known, &self.names(), now(), self.config.ca_lifetime, self.config.lifetime)
    }

    async fn create(&self) -> Result<(), String> {
        let name = Some(self.config.secret.clone());
        let secret = Secret {
            metadata: ObjectMeta { name, ..ObjectMeta::default() },
            type_: Some("kubernetes.io/tls".to_owned()),
            data: Some(write(&self.fresh()?)),
            ..Secret::default()
        };
        // Another replica may have been faster: its Secret is found by the next look.
        match self.secrets.create(&PostParams::default(), &secret).await {
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
            created => created
                .map(|_| ())
                .map_err(|error| {
                    let name = &self.config.secret;
                    format!("cannot create the Secret {name}: {error}; make it, empty, as the chart does: helm upgrade")
                }),
        }
    }

    /// Writes the Secret, unless another replica has done so since it was read.
    async fn replace(&self, mut secret: Secret, material: &Material) -> Result<(), String> {
        secret.data = Some(write(material));
        match self.secrets.replace(&self.config.secret, &PostParams::default(), &secret).await {
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
            replaced => replaced
                .map(|_| ())
                .map_err(|error| format!("cannot write the Secret {}: {error}", self.config.secret)),
        }
    }

    /// Tells the API server whom to believe: of every webhook that calls our Service, `caBundle` and nothing else.
    async fn publish(&mut self, bundle: &str) -> Result<(), String> {
        let name = &self.config.webhook;
        let text = |error: kube::Error| format!("the MutatingWebhookConfiguration {name}: {error}");
        let configuration = self.webhooks.get(name).await.map_err(text)?;
        let is_ours = |webhook: &&k8s_openapi::api::admissionregistration::v1::MutatingWebhook| {
            let service = webhook.client_config.service.as_ref();
            service.is_some_and(|service| {
                service.name == self.config.service && service.namespace == self.namespace
            })
        };
        let webhooks = configuration.webhooks.unwrap_or_default();
        let outdated: Vec<_> = webhooks
            .iter()
            .filter(is_ours)
            .filter(|webhook| webhook.client_config.ca_bundle.as_ref().is_none_or(|known| known.0 != bundle.as_bytes()))
            .map(|webhook| json!({ "name": webhook.name, "clientConfig": { "caBundle": ByteString(bundle.into()) } }))
            .collect();
        if !outdated.is_empty() {
            let patch = Patch::Strategic(json!({ "webhooks": outdated }));
            self.webhooks.patch(name, &PatchParams::default(), &patch).await.map_err(text)?;
            tracing::info!(webhook = name, "the API server is told of the authority");
        } else if !webhooks.iter().any(|webhook| is_ours(&webhook)) {
            return Err(format!(
                "the MutatingWebhookConfiguration {name} has no webhook that calls the Service {}/{}; correct certificate.webhook or certificate.service",
                self.namespace, self.config.service
            ));
        }
        if self.published.as_ref().is_none_or(|(known, _)| known != bundle) {
            self.published = Some((bundle.to_owned(), Instant::now()));
        }
        Ok(())
    }
}

/// Whether less than a third of a life is left.
fn is_old(not_after: i64, lifetime: Duration) -> bool {
    not_after - now() < i64::try_from(lifetime.as_secs() / 3).unwrap_or(i64::MAX)
}

fn write(material: &Material) -> BTreeMap<String, ByteString> {
    let Material { bundle, ca_key, certificate, key } = material.clone();
    let entries = [("ca.crt", bundle), ("ca.key", ca_key), ("tls.crt", certificate), ("tls.key", key)];
    entries.map(|(name, text)| (name.to_owned(), ByteString(text.into_bytes()))).into()
}

fn read(secret: &Secret) -> Result<Material, String> {
    let text = |name: &str| {
        let bytes = secret
            .data
            .as_ref()
            .and_then(|data| data.get(name))
            .ok_or_else(|| format!("{name} is missing"))?;
        String::from_utf8(bytes.0.clone()).map_err(|_| format!("{name} is no text"))
    };
    let material = Material {
        bundle: text("ca.crt")?,
        ca_key: text("ca.key")?,
        certificate: text("tls.crt")?,
        key: text("tls.key")?,
    };
    material.look()?;
    material.check()?;
    Ok(material)
}
