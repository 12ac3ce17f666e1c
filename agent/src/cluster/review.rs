//! Who asks, and whether he may: TokenReview and SubjectAccessReview, as kube-rbac-proxy and every controller's metrics
//! have it.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, UserInfo};
use k8s_openapi::api::authorization::v1::{
    NonResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec,
};
use kube::Client;
use kube::api::{Api, PostParams};
use sha2::{Digest, Sha256};
use tokio::sync::{OnceCell, Semaphore};
use tokio::time::timeout;

/// What was answered holds for so long: a scraper comes again and again, for each of its targets. A role that is missing is made
/// soon.
const ALLOWED_HOLDS: Duration = Duration::from_secs(60);
const REFUSED_HOLDS: Duration = Duration::from_secs(10);
/// For an answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Answers that are kept of either kind.
const MAX_KEPT: usize = 1024;
/// Questions at once: strangers may ask for anything, and the API server has more to do.
const MAX_ASKED: usize = 4;

/// What Kubernetes says of a token and a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Its owner may.
    Allowed,
    /// Its owner is known, and may not.
    Forbidden,
    /// It is nobody's token.
    Unknown,
}

/// Asks Kubernetes, and remembers the answers for a while.
pub struct Reviews {
    client: OnceCell<Client>,
    asked: Semaphore,
    kept: Mutex<HashMap<Question, (Verdict, Instant)>>,
}

/// The token's digest, and the path: tokens are not kept.
type Question = ([u8; 32], &'static str);

// === impl Reviews ===

impl Default for Reviews {
    fn default() -> Self {
        Reviews { client: OnceCell::new(), asked: Semaphore::new(MAX_ASKED), kept: Mutex::default() }
    }
}

impl Reviews {
    /// Whether the owner of a token may get a path (`nonResourceURLs` in RBAC).
    ///
    /// # Errors
    /// When Kubernetes cannot be asked.
    pub async fn review(&self, token: &str, path: &'static str) -> Result<Verdict, String> {
        let question = (Sha256::digest(token).into(), path);
        if let Some(verdict) = self.known(&question) {
            return Ok(verdict);
        }
        let answer = async {
            let _turn = self.asked.acquire().await;
            // Another request may have asked the same meanwhile.
            match self.known(&question) {
                Some(verdict) => Ok(verdict),
                None => self.ask(token, path).await,
            }
        };
        let verdict = timeout(PATIENCE, answer)
            .await
            .map_err(|_| format!("no answer within {} s", PATIENCE.as_secs()))?
            .map_err(|error| error.to_string())?;
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let is_allowed = |verdict: Verdict| verdict == Verdict::Allowed;
        kept.retain(|_, (verdict, asked)| holds(*verdict, *asked));
        // What strangers ask for does not push out what is allowed.
        if kept.values().filter(|(other, _)| is_allowed(*other) == is_allowed(verdict)).count() >= MAX_KEPT {
            kept.retain(|_, (other, _)| is_allowed(*other) != is_allowed(verdict));
        }
        kept.insert(question, (verdict, Instant::now()));
        Ok(verdict)
    }

    fn known(&self, question: &Question) -> Option<Verdict> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.get(question).filter(|(verdict, asked)| holds(*verdict, *asked)).map(|(verdict, _)| *verdict)
    }

    async fn ask(&self, token: &str, path: &str) -> Result<Verdict, kube::Error> {
        let client = self.client.get_or_try_init(Client::try_default).await?;
        let spec = TokenReviewSpec { token: Some(token.to_owned()), ..TokenReviewSpec::default() };
        let review = TokenReview { spec, ..TokenReview::default() };
        let reviews = Api::<TokenReview>::all(client.clone());
        let status = reviews.create(&PostParams::default(), &review).await?.status.unwrap_or_default();
        let Some(user) = status.user.filter(|_| status.authenticated == Some(true)) else {
            return Ok(Verdict::Unknown);
        };
        let reviews = Api::<SubjectAccessReview>::all(client.clone());
        let review = SubjectAccessReview { spec: may_get(user, path), ..SubjectAccessReview::default() };
        let status = reviews.create(&PostParams::default(), &review).await?.status;
        let is_allowed = status.is_some_and(|status| status.allowed);
        Ok(if is_allowed { Verdict::Allowed } else { Verdict::Forbidden })
    }
}

fn holds(verdict: Verdict, asked: Instant) -> bool {
    asked.elapsed() < if verdict == Verdict::Allowed { ALLOWED_HOLDS } else { REFUSED_HOLDS }
}

fn may_get(user: UserInfo, path: &str) -> SubjectAccessReviewSpec {
    SubjectAccessReviewSpec {
        extra: user.extra,
        groups: user.groups,
        uid: user.uid,
        user: user.username,
        non_resource_attributes: Some(NonResourceAttributes {
            path: Some(path.to_owned()),
            verb: Some("get".to_owned()),
        }),
        ..SubjectAccessReviewSpec::default()
    }
}
