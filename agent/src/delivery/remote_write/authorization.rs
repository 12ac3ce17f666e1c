//! How a receiver is shown who sends: a header that stays, a token that is had from elsewhere, or a signature.

mod oauth2;
mod sigv4;

use anyhow::Context;
use hyper::StatusCode;
use hyper::body::Bytes;
use hyper::header::{AUTHORIZATION, HeaderValue};
use hyper::http::request::Parts;

use crate::config::{self, BasicAuth};
use crate::delivery::http;
use crate::delivery::remote_write::authorization::oauth2::OAuth2;
use crate::delivery::remote_write::authorization::sigv4::SigV4;
use crate::delivery::secret::Secret;

/// One of the ways that the config knows.
pub(super) enum Authorization {
    None,
    Fixed(HeaderValue),
    OAuth2(Box<OAuth2>),
    SigV4(Box<SigV4>),
}

// === impl Authorization ===

impl Authorization {
    /// As the config has it.
    ///
    /// # Errors
    /// When a secret cannot stand in a header, or TLS of a server of tokens cannot be used.
    pub(super) fn new(config: &config::RemoteWrite) -> anyhow::Result<Self> {
        if let Some(oauth2) = &config.oauth2 {
            return Ok(Authorization::OAuth2(Box::new(OAuth2::new(oauth2)?)));
        }
        if let Some(sigv4) = &config.sigv4 {
            return Ok(Authorization::SigV4(Box::new(SigV4::new(sigv4, config.proxy_url.as_ref())?)));
        }
        let fixed = config.basic_auth.as_ref().map(basic);
        let bearer = config.bearer_token.as_ref().map(|token| secret(format!("Bearer {}", token.reveal())));
        Ok(fixed.or(bearer).transpose()?.map_or(Authorization::None, Authorization::Fixed))
    }

    /// Adds it to a request.
    ///
    /// # Errors
    /// When there is no token, or no key, to be had now.
    pub(super) async fn add(&self, head: &mut Parts, body: &Bytes) -> anyhow::Result<()> {
        let value = match self {
            Authorization::None => return Ok(()),
            Authorization::Fixed(value) => value.clone(),
            Authorization::OAuth2(oauth2) => {
                oauth2.token().await.context("no token from oauth2.token_url")?
            }
            Authorization::SigV4(sigv4) => {
                return sigv4.sign(head, body).await.context("the request cannot be signed");
            }
        };
        head.headers.insert(AUTHORIZATION, value);
        Ok(())
    }

    /// The receiver has not accepted it, and says so with this status. Whether the next one may be another.
    pub(super) fn renew(&self, status: StatusCode) -> bool {
        match (self, status) {
            (Authorization::OAuth2(oauth2), StatusCode::UNAUTHORIZED) => oauth2.forget(),
            (Authorization::SigV4(sigv4), StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => sigv4.renew(),
            _ => false,
        }
    }
}

fn basic(auth: &BasicAuth) -> anyhow::Result<HeaderValue> {
    credentials(&auth.username, auth.password.as_ref().map_or("", Secret::reveal))
}

/// A user and a password as RFC 7617 has them.
fn credentials(user: &str, password: &str) -> anyhow::Result<HeaderValue> {
    Ok(http::basic(format!("{user}:{password}"))?)
}

fn secret(text: String) -> anyhow::Result<HeaderValue> {
    let mut value = HeaderValue::try_from(text).context("a secret with what no header may have")?;
    value.set_sensitive(true);
    Ok(value)
}
