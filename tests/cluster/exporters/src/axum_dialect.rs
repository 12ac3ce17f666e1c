//! axum with the middleware of `axum-prometheus`.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::Extension;
use axum::routing::any;
use tokio::time::sleep;
use tower::ServiceExt;

use crate::traffic::{Dialect, Request};

/// The shop: each route answers what the request has with it.
pub(crate) fn shop() -> Router {
    let handler = |Extension(request): Extension<Request>| async move {
        sleep(request.takes).await;
        request.status
    };
    ["/articles", "/articles/{id}", "/orders", "/stock"]
        .into_iter()
        .fold(Router::new(), |router, route| router.route(route, any(handler)))
}

/// Sends a request through a router and its middleware.
pub(crate) async fn ask(router: Router, request: Request) {
    let asked = axum::http::Request::builder()
        .method(request.method)
        .uri(request.route.replace("{id}", "7"))
        .extension(request)
        .body(Body::empty());
    let Ok(asked) = asked else { return };
    let Ok(response) = router.oneshot(asked).await;
    // The middleware counts a request when its answer has been read.
    if let Err(error) = axum::body::to_bytes(response.into_body(), usize::MAX).await {
        tracing::warn!(%error, "an answer broke off");
    }
}

pub(crate) struct Axum(Router);

// === impl Axum ===

impl Axum {
    pub(crate) fn new() -> Self {
        Axum(shop().layer(axum_prometheus::BaseMetricLayer::new()))
    }
}

impl Dialect for Axum {
    async fn answer(self: Arc<Self>, request: Request) {
        ask(self.0.clone(), request).await;
    }
}
