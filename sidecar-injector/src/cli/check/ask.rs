//! What the API server is asked. Every error is a text; lists come in pages.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use k8s_openapi::api::core::v1::{Namespace, Pod, Secret};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{ApiResource, DynamicObject, ListParams, ObjectMeta, PartialObjectMeta, PostParams};
use kube::core::GroupVersionKind;
use kube::{Api, Client, Resource, ResourceExt};
use serde_json::Value;

use crate::check::certificate::Shown;
use crate::check::installation::{Labels, probe};
use crate::profile::SidecarProfile;

/// An API server that answers at all does so within this time.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How many objects a page has.
const PAGE: u32 = 250;
/// What makes pods: group, version, kind.
const WORKLOADS: [(&str, &str, &str); 5] = [
    ("apps", "v1", "Deployment"),
    ("apps", "v1", "StatefulSet"),
    ("apps", "v1", "DaemonSet"),
    ("batch", "v1", "Job"),
    ("batch", "v1", "CronJob"),
];

/// The cluster, or what of it is looked at.
pub(super) struct Cluster {
    pub(super) client: Client,
    pub(super) namespace: Option<String>,
    pub(super) selector: Option<String>,
}

/// Connects as kubectl or a pod does, and asks for the minor version.
pub(super) async fn connect() -> Result<(Client, u32), String> {
    let mut config = kube::Config::infer().await.map_err(|error| error.to_string())?;
    // Somebody waits for the answer.
    config.default_retry = false;
    config.connect_timeout = Some(TIMEOUT);
    config.read_timeout = Some(3 * TIMEOUT);
    let client = Client::try_from(config).map_err(|error| error.to_string())?;
    let version = tokio::time::timeout(TIMEOUT, client.apiserver_version()).await;
    let version = version.map_err(|_| "no answer within 10 s".to_owned())?.map_err(text)?;
    // `34+` with some vendors.
    let digits: String = version.minor.chars().take_while(char::is_ascii_digit).collect();
    Ok((client, digits.parse().unwrap_or(0)))
}

fn text(error: kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message,
        other => format!("{:#}", anyhow::Error::from(other)),
    }
}

// === impl Cluster ===

impl Cluster {
    fn params(&self) -> ListParams {
        let params = ListParams::default();
        self.selector.iter().fold(params, |params, selector| params.labels(selector))
    }

    pub(super) async fn configuration(
        &self,
        name: &str,
    ) -> Result<Option<MutatingWebhookConfiguration>, String> {
        Api::all(self.client.clone()).get_opt(name).await.map_err(text)
    }

    pub(super) async fn secret(&self, namespace: &str, name: &str) -> Result<Option<Shown>, String> {
        let api: Api<Secret> = Api::namespaced(self.client.clone(), namespace);
        let Some(secret) = api.get_opt(name).await.map_err(text)? else { return Ok(None) };
        let read = |key: &str| {
            let bytes = secret.data.as_ref().and_then(|data| data.get(key))?;
            Some(String::from_utf8_lossy(&bytes.0).into_owned())
        };
        Ok(Some(Shown { chain: read("tls.crt").unwrap_or_default(), bundle: read("ca.crt") }))
    }

    /// How many replicas take the Service's connections.
    pub(super) async fn ready(&self, namespace: &str, service: &str) -> Result<usize, String> {
        let api: Api<EndpointSlice> = Api::namespaced(self.client.clone(), namespace);
        let params = ListParams::default().labels(&format!("kubernetes.io/service-name={service}"));
        let slices = api.list(&params).await.map_err(text)?;
        // One replica has an endpoint for each family of addresses.
        let ready = slices.items.iter().flat_map(|slice| slice.endpoints.iter()).filter(|endpoint| {
            endpoint.conditions.as_ref().is_none_or(|conditions| conditions.ready != Some(false))
        });
        let names = ready.map(|endpoint| {
            let pod = endpoint.target_ref.as_ref().and_then(|pod| pod.name.clone());
            pod.unwrap_or_else(|| endpoint.addresses.join(","))
        });
        Ok(names.collect::<std::collections::BTreeSet<_>>().len())
    }

    pub(super) async fn namespaces(&self) -> Result<BTreeMap<String, Labels>, String> {
        let mut found = BTreeMap::new();
        let api: Api<Namespace> = Api::all(self.client.clone());
        let mut add = |namespace: PartialObjectMeta<Namespace>| {
            found.insert(namespace.name_any(), namespace.metadata.labels.unwrap_or_default());
        };
        pages(ListParams::default(), async |params: ListParams| api.list_metadata(&params).await, &mut add)
            .await
            .map_err(text)?;
        Ok(found)
    }

    /// Creates the probe, as a dry run.
    pub(super) async fn dry_run(&self, namespace: &str) -> Result<Value, (u16, String)> {
        let failed = |error: kube::Error| match error {
            kube::Error::Api(status) => (status.code, status.message),
            other => (0, text(other)),
        };
        let pod: Pod = serde_json::from_value(probe()).map_err(|error| (0, error.to_string()))?;
        let params = PostParams { dry_run: true, ..PostParams::default() };
        let api: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        let created = api.create(&params, &pod).await.map_err(failed)?;
        serde_json::to_value(created).map_err(|error| (0, error.to_string()))
    }

    /// The profiles; none where the cluster does not know what one is.
    pub(super) async fn profiles(&self) -> Result<Option<Vec<SidecarProfile>>, String> {
        let api: Api<SidecarProfile> = match &self.namespace {
            Some(namespace) => Api::namespaced(self.client.clone(), namespace),
            None => Api::all(self.client.clone()),
        };
        let mut found = Vec::new();
        let mut add = |profile| found.push(profile);
        match pages(ListParams::default(), async |params: ListParams| api.list(&params).await, &mut add).await
        {
            Ok(()) => Ok(Some(found)),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(None),
            Err(error) => Err(text(error)),
        }
    }

    /// Every pod, whatever fields it has.
    pub(super) async fn pods(&self, look: &mut dyn FnMut(&Value)) -> Result<(), String> {
        let resource = ApiResource::erase::<Pod>(&());
        let api = self.api(&resource);
        let mut each = |pod: DynamicObject| look(&serde_json::to_value(pod).unwrap_or_default());
        pages(self.params(), async |params: ListParams| api.list(&params).await, &mut each)
            .await
            .map_err(text)
    }

    /// What makes pods, its metadata alone. What could not be listed comes back.
    pub(super) async fn workloads(&self, look: &mut dyn FnMut(&str, &Value)) -> Vec<String> {
        let mut unseen = Vec::new();
        for (group, version, kind) in WORKLOADS {
            let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
            let api = self.api(&resource);
            let mut each = |object: PartialObjectMeta<DynamicObject>| {
                look(kind, &serde_json::json!({ "metadata": metadata(object.metadata) }));
            };
            let listed =
                pages(self.params(), async |params: ListParams| api.list_metadata(&params).await, &mut each);
            unseen.extend(listed.await.err().map(text));
        }
        unseen
    }

    fn api(&self, resource: &ApiResource) -> Api<DynamicObject> {
        match &self.namespace {
            Some(namespace) => Api::namespaced_with(self.client.clone(), namespace, resource),
            None => Api::all_with(self.client.clone(), resource),
        }
    }
}

fn metadata(metadata: ObjectMeta) -> Value {
    serde_json::to_value(metadata).unwrap_or_default()
}

/// Hands over a list's objects, one page after the other.
async fn pages<K: Resource + Clone>(
    params: ListParams,
    list: impl AsyncFn(ListParams) -> kube::Result<kube::api::ObjectList<K>>,
    each: &mut dyn FnMut(K),
) -> kube::Result<()> {
    let mut params = params.limit(PAGE);
    loop {
        let page = list(params.clone()).await?;
        page.items.into_iter().for_each(&mut *each);
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params = params.continue_token(&token),
            None => return Ok(()),
        }
    }
}
