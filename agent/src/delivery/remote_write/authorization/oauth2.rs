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
use tokio::time::{Instant, timeout};

use super::{credentials, secret};
use crate::delivery::http::{HttpClient, Proxy};
use crate::delivery::secret::Secret;
use crate::{config, delivery};

/// A token is not used any more so long before it expires: it has to reach the receiver, whose clock may be ahead.
const MARGIN: Duration = Duration::from_secs(10);
/// Of an answer; tokens have some kilobytes.
const MAX_ANSWER: usize = 64 << 10;

/// Characters of a refusal that are shown.
const MAX_REASON: usize = 200;
/// For a token.
const PATIENCE: Duration = Duration::from_secs(10);

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
    /// In which the server has given one.
    style: Option<Style>,
}

/// Where id and secret stand (RFC 6749, section 2.3.1).
#[derive(Clone, Copy, PartialEq, Eq)]
enum Style {
    Header,
    Form,
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
    /// Some servers leave it out.
    #[serde(default)]
    token_type: String,
    /// Seconds; a number, or with some servers a text.
    expires_in: Option<serde_json::Value>,
}

/// RFC 6749, section 5.2.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Refusal {
    error: String,
    error_description: String,
}

// === impl OAuth2 ===

impl OAuth2 {
    pub(super) fn new(config: &config::OAuth2) -> anyhow::Result<Self> {
        let url: Uri = config.token_url.parse().context("the URL was valid when the config was read")?;
        let client = HttpClient::new(&url, &config.tls, Proxy::of(config.proxy_url.as_ref())?)?;
        Ok(OAuth2 { client, url, config: config.clone(), newest: Mutex::default() })
    }

    /// The token of now, as the header has it.
    pub(super) async fn token(&self) -> anyhow::Result<HeaderValue> {
        let style = {
            let newest = self.newest();
            let lasts =
                |token: &&Token| token.expires.is_none_or(|expires| Instant::now() + MARGIN < expires);
            if let Some(token) = newest.token.as_ref().filter(lasts) {
                return Ok(token.authorization.clone());
            }
            newest.style
        };
        let patience = || format!("no answer within {} s", PATIENCE.as_secs());
        let (token, style) = timeout(PATIENCE, self.ask(style)).await.with_context(patience)??;
        let authorization = token.authorization.clone();
        *self.newest() = Newest { token: Some(token), style: Some(style) };
        Ok(authorization)
    }

    /// The token is not accepted. Whether there was one that another can replace.
    pub(super) fn forget(&self) -> bool {
        self.newest().token.take().is_some()
    }

    /// Which of two styles a server knows, nobody says beforehand: the header, then the form, until one has proved right.
    async fn ask(&self, style: Option<Style>) -> anyhow::Result<(Token, Style)> {
        let first = style.unwrap_or(Style::Header);
        let refused = match self.ask_once(first).await? {
            Ok(token) => return Ok((token, first)),
            Err(refused) => refused,
        };
        if style.is_some() {
            // The next time both are tried: the server may have changed its mind.
            self.newest().style = None;
            bail!(refused);
        }
        match self.ask_once(Style::Form).await? {
            Ok(token) => Ok((token, Style::Form)),
            Err(also) if also == refused => bail!(refused),
            Err(also) => bail!("{refused}; with id and secret in the form: {also}"),
        }
    }

    /// The token, or the server's reason why not.
    async fn ask_once(&self, style: Style) -> anyhow::Result<Result<Token, String>> {
        let response = self.client.send(self.request(style)?).await?;
        let (status, body) = (response.status(), Limited::new(response.into_body(), MAX_ANSWER));
        let body = body.collect().await.map_err(|error| anyhow::anyhow!("no whole answer: {error}"))?;
        let body = body.to_bytes();
        if status.is_success() { Token::read(&body).map(Ok) } else { Ok(Err(reason(status, &body))) }
    }

    fn request(&self, style: Style) -> anyhow::Result<Request<Full<Bytes>>> {
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
        if style == Style::Form {
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

/// What a server says of its refusal, and nothing else of its answer: that may have the secret in it, or a token.
fn reason(status: StatusCode, answer: &[u8]) -> String {
    let Refusal { error, error_description } = serde_json::from_slice(answer).unwrap_or_default();
    let said: String = [error, error_description].join(" ").chars().take(MAX_REASON).collect();
    format!("{status} {}", said.trim()).trim_end().to_owned()
}

// === impl Token ===

impl Token {
    fn read(answer: &[u8]) -> anyhow::Result<Self> {
        // What serde says of it may quote the token.
        let Ok(answer) = serde_json::from_slice::<Answer>(answer) else {
            bail!("the answer is no JSON with access_token");
        };
        if !answer.token_type.is_empty() && !answer.token_type.eq_ignore_ascii_case("bearer") {
            bail!("the token's type is {:?}, and only Bearer is known", answer.token_type);
        }
        let seconds = answer.expires_in.and_then(|seconds| match seconds {
            serde_json::Value::String(text) => text.parse::<f64>().ok(),
            other => other.as_f64(),
        });
        let lasts = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        Ok(Token {
            authorization: secret(format!("Bearer {}", answer.access_token))?,
            // Where that is beyond all clocks, it means never.
            expires: lasts.and_then(|lasts| Instant::now().checked_add(lasts)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_read_as_servers_write_them() {
        let lasts = |expires: &str| {
            let answer = format!("{{\"access_token\": \"t\"{expires}}}");
            let token = Token::read(answer.as_bytes()).unwrap();
            assert_eq!(token.authorization, "Bearer t");
            token.expires.map(|expires| (expires - Instant::now()).as_secs_f64().round())
        };
        assert_eq!(lasts(", \"expires_in\": 60, \"token_type\": \"bearer\""), Some(60.0));
        assert_eq!(lasts(", \"expires_in\": \"60\""), Some(60.0));
        assert_eq!(lasts(", \"expires_in\": 60.0"), Some(60.0));
        assert_eq!(lasts(""), None);
        assert_eq!(lasts(", \"expires_in\": 9223372036854775807"), None);
        assert!(Token::read(b"{\"access_token\": \"t\", \"token_type\": \"mac\"}").is_err());
    }

    #[test]
    fn of_a_refusal_only_the_reason_is_shown() {
        let answer =
            b"{\"error\": \"invalid_client\", \"error_description\": \"who?\", \"echo\": \"secret\"}";
        assert_eq!(reason(StatusCode::UNAUTHORIZED, answer), "401 Unauthorized invalid_client who?");
        assert_eq!(reason(StatusCode::BAD_GATEWAY, b"<p>secret</p>"), "502 Bad Gateway");
    }
}
