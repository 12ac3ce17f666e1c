//! OAuth 2.0, the client credentials grant (RFC 6749, section 4.4): a token for an id and a secret, until it expires.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, bail};
use form_urlencoded::{Serializer, byte_serialize};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue, USER_AGENT};
use hyper::{Request, StatusCode, Uri};
use serde::Deserialize;
use tokio::time::Instant;

use super::{credentials, secret};
use crate::delivery::http::{HttpClient, Proxy};
use crate::delivery::secret::Secret;
use crate::{config, delivery};

/// A token is not used any more so long before it expires: it has to reach the receiver, whose clock may be ahead.
const MARGIN: Duration = Duration::from_secs(10);
/// Of an answer; tokens have some kilobytes.
const MAX_ANSWER: usize = 64 << 10;

/// Where tokens are had, and the newest.
pub(in crate::delivery::remote_write) struct OAuth2 {
    client: HttpClient,
    url: Uri,
    config: config::OAuth2,
    newest: Mutex<Newest>,
}

#[derive(Default)]
struct Newest {
    token: Option<Token>,
    /// The server wants id and secret in the form, not in a header (RFC 6749, section 2.3.1).
    in_form: bool,
}

struct Token {
    authorization: HeaderValue,
    /// None where the server has not said it.
    expires: Option<Instant>,
}

/// RFC 6749, section 5.1.
#[derive(Deserialize)]
struct Answer {
    access_token: String,
    token_type: String,
    /// Seconds.
    expires_in: Option<u64>,
}

// === impl OAuth2 ===

impl OAuth2 {
    pub(super) fn new(config: &config::OAuth2) -> anyhow::Result<Self> {
        let url: Uri = config.token_url.parse().context("the URL was valid when the config was read")?;
        let proxy = config.proxy_url.as_ref().map(|url| Proxy::parse(url.reveal())).transpose();
        let client = HttpClient::new(&url, &config.tls, proxy.map_err(anyhow::Error::msg)?)?;
        Ok(OAuth2 { client, url, config: config.clone(), newest: Mutex::default() })
    }

    /// The token of now, as the header has it.
    pub(super) async fn token(&self) -> anyhow::Result<HeaderValue> {
        let in_form = {
            let newest = self.newest();
            let lasts =
                |token: &&Token| token.expires.is_none_or(|expires| Instant::now() + MARGIN < expires);
            if let Some(token) = newest.token.as_ref().filter(lasts) {
                return Ok(token.authorization.clone());
            }
            newest.in_form
        };
        let (status, answer) = self.ask(in_form).await?;
        // Which of the two ways a server knows, nobody says beforehand.
        let is_unknown = [StatusCode::BAD_REQUEST, StatusCode::UNAUTHORIZED].contains(&status);
        let (status, answer, in_form) = if is_unknown {
            let (status, answer) = self.ask(!in_form).await?;
            (status, answer, !in_form)
        } else {
            (status, answer, in_form)
        };
        if status != StatusCode::OK {
            bail!("{status}: {}", String::from_utf8_lossy(&answer).trim());
        }
        let token = Token::read(&answer)?;
        let authorization = token.authorization.clone();
        *self.newest() = Newest { token: Some(token), in_form };
        Ok(authorization)
    }

    /// The token is not accepted. Whether there was one that another can replace.
    pub(super) fn forget(&self) -> bool {
        self.newest().token.take().is_some()
    }

    async fn ask(&self, in_form: bool) -> anyhow::Result<(StatusCode, Bytes)> {
        let response = self.client.send(self.request(in_form)?).await?;
        let (status, body) = (response.status(), Limited::new(response.into_body(), MAX_ANSWER));
        let body = body.collect().await.map_err(|error| anyhow::anyhow!("no whole answer: {error}"))?;
        Ok((status, body.to_bytes()))
    }

    fn request(&self, in_form: bool) -> anyhow::Result<Request<Full<Bytes>>> {
        let config = &self.config;
        let password = config.client_secret.as_ref().map_or("", Secret::reveal);
        let mut form = Serializer::new(String::new());
        form.append_pair("grant_type", "client_credentials");
        if !config.scopes.is_empty() {
            form.append_pair("scope", &config.scopes.join(" "));
        }
        for (name, value) in &config.endpoint_params {
            form.append_pair(name, value.reveal());
        }
        let mut request = Request::post(&self.url)
            .header(ACCEPT, "application/json")
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .header(USER_AGENT, delivery::USER_AGENT);
        if in_form {
            form.append_pair("client_id", &config.client_id).append_pair("client_secret", password);
        } else {
            let [id, password] =
                [&config.client_id, password].map(|text| byte_serialize(text.as_bytes()).collect::<String>());
            request = request.header(AUTHORIZATION, credentials(&id, &password)?);
        }
        Ok(request.body(Full::from(form.finish()))?)
    }

    fn newest(&self) -> std::sync::MutexGuard<'_, Newest> {
        self.newest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Token ===

impl Token {
    fn read(answer: &[u8]) -> anyhow::Result<Self> {
        // What serde says of it may quote the token.
        let Ok(answer) = serde_json::from_slice::<Answer>(answer) else {
            bail!("the answer is no JSON with access_token and token_type");
        };
        if !answer.token_type.eq_ignore_ascii_case("bearer") {
            bail!("the token's type is {:?}, and only Bearer is known", answer.token_type);
        }
        Ok(Token {
            authorization: secret(format!("Bearer {}", answer.access_token))?,
            expires: answer.expires_in.map(|seconds| Instant::now() + Duration::from_secs(seconds)),
        })
    }
}
