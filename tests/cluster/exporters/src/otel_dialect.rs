//! axum with the middleware of `opentelemetry-instrumentation-tower`, by `opentelemetry-prometheus`.

use std::sync::Arc;

use ::opentelemetry_sdk::Resource;
use ::opentelemetry_sdk::metrics::SdkMeterProvider;
use ::prometheus::{Encoder, Registry, TextEncoder};
use axum::Router;
use opentelemetry_instrumentation_tower::http::server::Layer;

use crate::Result;
use crate::axum_dialect::{ask, shop};
use crate::traffic::{Dialect, Request};

pub(crate) struct Otel {
    router: Router,
    registry: Registry,
}

// === impl Otel ===

impl Otel {
    pub(crate) fn new() -> Result<Self> {
        let registry = Registry::new();
        let exporter = ::opentelemetry_prometheus::exporter().with_registry(registry.clone()).build()?;
        let resource = Resource::builder().with_service_name("shop").build();
        let provider = SdkMeterProvider::builder().with_resource(resource).with_reader(exporter).build();
        ::opentelemetry::global::set_meter_provider(provider);
        Ok(Otel { router: shop().layer(Layer::new()), registry })
    }
}

impl Dialect for Otel {
    async fn answer(self: Arc<Self>, request: Request) {
        ask(self.router.clone(), request).await;
    }

    fn page(&self) -> Result<String> {
        let mut page = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut page)?;
        Ok(String::from_utf8(page)?)
    }
}
