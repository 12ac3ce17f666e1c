//! Who may scrape.

use hyper::StatusCode;
use hyper::header::{AUTHORIZATION, HeaderMap};

use crate::cluster::{Reviews, Verdict};
use crate::config::PullAuth;

/// Who is let in.
pub(super) enum Access {
    /// Everybody, or whom TLS has let in by his certificate.
    Open,
    /// Who has a token whose owner may get the path.
    Tokens(Box<Reviews>),
}

// === impl Access ===

impl Access {
    pub(super) fn new(auth: PullAuth) -> Self {
        match auth {
            PullAuth::None | PullAuth::Mtls => Access::Open,
            PullAuth::Token => Access::Tokens(Box::default()),
        }
    }

    /// Lets a request in, or says with which status and for which reason not. `path` is what RBAC knows.
    pub(super) async fn admit(
        &self,
        headers: &HeaderMap,
        path: &'static str,
    ) -> Result<(), (StatusCode, String)> {
        let Access::Tokens(reviews) = self else { return Ok(()) };
        let authorization = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        let Some(token) = authorization.and_then(|value| value.strip_prefix("Bearer ")) else {
            return Err((StatusCode::UNAUTHORIZED, "a bearer token of Kubernetes is needed".to_owned()));
        };
        match reviews.review(token, path).await {
            Ok(Verdict::Allowed) => Ok(()),
            Ok(Verdict::Forbidden) => {
                Err((StatusCode::FORBIDDEN, format!("needed in RBAC: get on nonResourceURLs [\"{path}\"]")))
            }
            Ok(Verdict::Unknown) => {
                Err((StatusCode::UNAUTHORIZED, "Kubernetes does not know the token".to_owned()))
            }
            Err(error) => {
                tracing::warn!(error, "Kubernetes cannot be asked who scrapes");
                Err((
                    StatusCode::SERVICE_UNAVAILABLE,
                    "Kubernetes cannot be asked about the token".to_owned(),
                ))
            }
        }
    }
}
