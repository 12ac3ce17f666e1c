//! A gRPC service with the middleware of `tonic_prometheus_layer`.

use std::convert::Infallible;
use std::sync::Arc;

use axum::http::StatusCode;
use tokio::time::sleep;
use tonic::Code;
use tonic::body::Body;
use tonic_prometheus_layer::{MetricsLayer, metrics};
use tower::{Layer, ServiceExt, service_fn};

use crate::Result;
use crate::traffic::{Dialect, Request};

pub(crate) struct Tonic;

// === impl Tonic ===

impl Tonic {
    pub(crate) fn new() -> Result<Self> {
        metrics::try_init_settings(metrics::GlobalSettings::default())?;
        Ok(Tonic)
    }
}

impl Dialect for Tonic {
    async fn answer(self: Arc<Self>, request: Request) {
        let code = match request.status {
            StatusCode::NOT_FOUND => Code::NotFound,
            StatusCode::INTERNAL_SERVER_ERROR => Code::Internal,
            StatusCode::SERVICE_UNAVAILABLE => Code::Unavailable,
            _ => Code::Ok,
        };
        let service = service_fn(move |_: http::Request<Body>| async move {
            sleep(request.takes).await;
            Ok::<_, Infallible>(tonic::Status::new(code, "").into_http::<Body>())
        });
        let method = match request.route {
            "/orders" => "/shop.Orders/Place",
            "/stock" => "/shop.Stock/Get",
            _ => "/shop.Articles/List",
        };
        let asked = http::Request::builder().method("POST").uri(method).body(Body::empty());
        if let Ok(asked) = asked {
            let Ok(_) = MetricsLayer::new().layer(service).oneshot(asked).await;
        }
    }

    fn page(&self) -> Result<String> {
        Ok(metrics::encode_to_string()?)
    }
}
