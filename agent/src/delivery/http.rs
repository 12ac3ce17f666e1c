//! HTTP towards receivers: over TLS as the config says, through a proxy where there is one.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use base64::prelude::{BASE64_STANDARD, Engine};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{HeaderValue, InvalidHeaderValue, PROXY_AUTHORIZATION};
use hyper::http::uri::Scheme;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper::{Request, Response, Uri};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::client::legacy::connect::{Connected, Connection, HttpConnector};
use hyper_util::rt::{TokioExecutor, TokioIo};
use percent_encoding::percent_decode_str;
use tokio::net::TcpStream;
use tower_service::Service;

use crate::config::Tls;
use crate::delivery::secret::Secret;
use crate::delivery::tls;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A client for one server. It keeps connections.
pub struct HttpClient {
    client: Client<HttpsConnector<Route>, Full<Bytes>>,
    proxy: Option<Proxy>,
}

/// A proxy: https goes through a tunnel (`CONNECT`), http is handed over as it is, which more proxies allow.
#[derive(Clone, Debug)]
pub struct Proxy {
    address: Uri,
    authorization: Option<HeaderValue>,
}

/// The way to a server.
#[derive(Clone)]
enum Route {
    Direct(HttpConnector),
    Proxied(Box<ByProxy>),
}

#[derive(Clone)]
struct ByProxy {
    proxy: Uri,
    connector: HttpConnector,
    tunnel: Tunnel<HttpConnector>,
}

/// A connection to a server, or to the proxy that is to reach it.
struct Reached {
    stream: TokioIo<TcpStream>,
    is_proxy: bool,
}

// === impl HttpClient ===

impl HttpClient {
    /// For the server of this URL.
    ///
    /// # Errors
    /// When the certificates that an https URL needs cannot be used.
    pub fn new(url: &Uri, tls: &Tls, proxy: Option<Proxy>) -> io::Result<Self> {
        let config = if url.scheme_str() == Some("https") {
            (**tls::connector(tls)?.config()).clone()
        } else {
            let trusting_nobody = rustls::RootCertStore::empty();
            let client = tls::client().map_err(io::Error::other)?;
            client.with_root_certificates(trusting_nobody).with_no_client_auth()
        };
        let connector = HttpsConnectorBuilder::new().with_tls_config(config).https_or_http().enable_http1();
        let connector = connector.wrap_connector(Route::new(proxy.as_ref()));
        Ok(HttpClient { client: Client::builder(TokioExecutor::new()).build(connector), proxy })
    }

    /// Sends a request; gives the head of the answer.
    ///
    /// # Errors
    /// When there is none.
    pub async fn send(&self, mut request: Request<Full<Bytes>>) -> anyhow::Result<Response<Incoming>> {
        let authorization = self.proxy.as_ref().and_then(|proxy| proxy.authorization.as_ref());
        if let Some(authorization) = authorization
            && request.uri().scheme() == Some(&Scheme::HTTP)
        {
            request.headers_mut().insert(PROXY_AUTHORIZATION, authorization.clone());
        }
        Ok(self.client.request(request).await?)
    }
}

// === impl Proxy ===

impl Proxy {
    /// The one that a config names, if it does.
    ///
    /// # Errors
    /// As [`Proxy::parse`]; the config was checked by it.
    pub fn of(url: Option<&Secret>) -> anyhow::Result<Option<Self>> {
        url.map(|url| Proxy::parse(url.reveal())).transpose().map_err(anyhow::Error::msg)
    }

    /// As a URL has it, perhaps with a user and a password.
    ///
    /// # Errors
    /// What is wrong with it; the text does not show it, for it may have a password.
    pub fn parse(url: &str) -> Result<Self, String> {
        let wrong = || "no URL of a proxy; write for example http://proxy:3128".to_owned();
        // They would end the authority in the middle of a password.
        let is_plain = !url.contains(['?', '#']);
        let url: Uri = url.parse().map_err(|_| wrong())?;
        let authority = url.authority().map_or("", |authority| authority.as_str());
        if !is_plain || url.scheme() != Some(&Scheme::HTTP) || authority.is_empty() || url.path().len() > 1 {
            return Err(wrong());
        }
        let (user, host) = authority.rsplit_once('@').unwrap_or(("", authority));
        let authorization = (!user.is_empty()).then(|| {
            let (name, password) = user.split_once(':').unwrap_or((user, ""));
            let decoded = [name, password].map(|text| percent_decode_str(text).collect::<Vec<u8>>());
            basic(decoded.join(&b':')).map_err(|_| wrong())
        });
        let address = Uri::builder().scheme(Scheme::HTTP).authority(host).path_and_query("/").build();
        Ok(Proxy { address: address.map_err(|_| wrong())?, authorization: authorization.transpose()? })
    }
}

/// A user and a password, with a colon between them, as RFC 7617 has them.
///
/// # Errors
/// None that is known: base64 may stand in a header.
pub fn basic(credentials: impl AsRef<[u8]>) -> Result<HeaderValue, InvalidHeaderValue> {
    let mut header = HeaderValue::try_from(format!("Basic {}", BASE64_STANDARD.encode(credentials)))?;
    header.set_sensitive(true);
    Ok(header)
}

// === impl Route ===

impl Route {
    fn new(proxy: Option<&Proxy>) -> Self {
        let mut connector = HttpConnector::new();
        // TLS is the business of who asks.
        connector.enforce_http(false);
        connector.set_nodelay(true);
        let Some(Proxy { address, authorization }) = proxy else { return Route::Direct(connector) };
        let tunnel = Tunnel::new(address.clone(), connector.clone());
        let tunnel = match authorization {
            Some(authorization) => tunnel.with_auth(authorization.clone()),
            None => tunnel,
        };
        Route::Proxied(Box::new(ByProxy { proxy: address.clone(), connector, tunnel }))
    }
}

impl Service<Uri> for Route {
    type Response = Reached;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Reached, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, server: Uri) -> Self::Future {
        let reached = |stream, is_proxy| Ok(Reached { stream, is_proxy });
        match self {
            Route::Direct(connector) => {
                let connecting = connector.call(server);
                Box::pin(async move { reached(connecting.await?, false) })
            }
            Route::Proxied(by) if server.scheme() == Some(&Scheme::HTTPS) => {
                let connecting = by.tunnel.call(server);
                Box::pin(async move { reached(connecting.await?, false) })
            }
            Route::Proxied(by) => {
                let connecting = by.connector.call(by.proxy.clone());
                Box::pin(async move { reached(connecting.await?, true) })
            }
        }
    }
}

// === impl Reached ===

impl Connection for Reached {
    fn connected(&self) -> Connected {
        self.stream.connected().proxy(self.is_proxy)
    }
}

impl Read for Reached {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl Write for Reached {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, bytes)
    }

    /// Head and body go in one call, and the body is not copied.
    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxys_url_has_a_host_and_perhaps_a_user() {
        let parts = |url: &str| {
            let proxy = Proxy::parse(url).ok()?;
            let authorization = proxy.authorization.map(|header| header.to_str().unwrap().to_owned());
            Some((proxy.address.to_string(), authorization))
        };
        assert_eq!(parts("http://proxy:3128"), Some(("http://proxy:3128/".to_owned(), None)));
        assert_eq!(
            parts("http://user:p%40ss@[::1]:1/"),
            Some(("http://[::1]:1/".to_owned(), Some("Basic dXNlcjpwQHNz".to_owned())))
        );
        for wrong in [
            "",
            "proxy:3128",
            "https://proxy",
            "socks5://proxy",
            "http://proxy/path",
            "http://",
            "http://u:a#b@proxy",
            "http://u:a?b@proxy",
        ] {
            assert_eq!(parts(wrong), None, "{wrong}");
        }
    }
}
