//! Targets as they should be, and as they are.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;
use crate::metrics::discover::TargetKey;

const LIMIT: usize = 64 << 10;

/// Room without end.
struct Endless;

impl Room for Endless {
    fn take(&mut self, _bytes: usize) -> bool {
        true
    }
}

/// A target that sends `answer` to each request as it is, and then ends the connection if it says so; the requests it has
/// got, and how many connections.
struct Server {
    target: Target,
    requests: Arc<std::sync::Mutex<Vec<String>>>,
    connections: Arc<AtomicUsize>,
}

impl Server {
    async fn with(answer: Vec<u8>, closes: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = Target {
            key: TargetKey { uid: "u".into(), port: 1, path: "/m?a=b".into() },
            scheme: Scheme::Http,
            address: listener.local_addr().unwrap(),
            interval: Duration::from_secs(15),
            honor_labels: false,
            labels: Vec::new(),
        };
        let server = Server { target, requests: Arc::default(), connections: Arc::default() };
        let (requests, connections) = (server.requests.clone(), server.connections.clone());
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                connections.fetch_add(1, Ordering::SeqCst);
                let (answer, requests) = (answer.clone(), requests.clone());
                tokio::spawn(async move {
                    let mut request = Vec::new();
                    while stream.read_buf(&mut request).await.is_ok_and(|read| read > 0) {
                        if request.ends_with(b"\r\n\r\n") {
                            requests
                                .lock()
                                .unwrap()
                                .push(String::from_utf8(std::mem::take(&mut request)).unwrap());
                            let _ = stream.write_all(&answer).await;
                            if closes {
                                return;
                            }
                        }
                    }
                });
            }
        });
        server
    }

    fn client(&self) -> Client {
        Client::new(Duration::from_millis(500), LIMIT, any_certificate().unwrap())
    }

    /// One scrape by a new client: the page and its content type, or the error.
    async fn scrape(&self) -> Result<(Vec<u8>, Option<String>), String> {
        let mut page = b"of an earlier target".to_vec();
        let content_type = self
            .client()
            .scrape(&self.target, Formats::Text, &mut page, &mut Endless)
            .await
            .map_err(|error| error.to_string())?;
        Ok((page, content_type))
    }
}

fn answer(head: &str, body: &[u8]) -> Vec<u8> {
    [format!("HTTP/1.1 {head}\r\ncontent-length: {}\r\n\r\n", body.len()).as_bytes(), body].concat()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[tokio::test]
async fn a_page_comes_over_a_connection_that_is_kept() {
    let server =
        Server::with(answer("200 OK\r\ncontent-type: text/plain; version=0.0.4", b"a 1\n"), false).await;
    let (mut client, mut page) = (server.client(), Vec::new());
    for _ in 0..3 {
        let content_type =
            client.scrape(&server.target, Formats::Text, &mut page, &mut Endless).await.unwrap();
        assert_eq!(
            (page.as_slice(), content_type.as_deref()),
            (&b"a 1\n"[..], Some("text/plain; version=0.0.4"))
        );
    }
    assert_eq!(server.connections.load(Ordering::SeqCst), 1);
    let request = server.requests.lock().unwrap()[0].to_ascii_lowercase();
    assert!(request.starts_with("get /m?a=b http/1.1\r\n"), "{request}");
    for header in [
        &format!("host: {}", server.target.address),
        "x-prometheus-scrape-timeout-seconds: 0.5",
        "user-agent: sidelight/",
    ] {
        assert!(request.contains(header), "{request}");
    }
}

#[tokio::test]
async fn a_server_that_closes_the_kept_connection_is_asked_again() {
    let server = Server::with(answer("200 OK", b"a 1\n"), true).await;
    let (mut client, mut page) = (server.client(), Vec::new());
    for scrapes in 1..4 {
        assert_eq!(
            client.scrape(&server.target, Formats::Text, &mut page, &mut Endless).await.unwrap(),
            None
        );
        assert_eq!(server.connections.load(Ordering::SeqCst), scrapes);
    }
}

#[tokio::test]
async fn a_packed_page_is_unpacked_and_no_bomb_goes_off() {
    let head = "200 OK\r\ncontent-encoding: gzip";
    let server = Server::with(answer(head, &gzip(b"a 1\n")), false).await;
    assert_eq!(server.scrape().await.unwrap().0, b"a 1\n");
    let bomb = Server::with(answer(head, &gzip(&vec![b'a'; 2 << 20])), false).await;
    assert!(bomb.scrape().await.unwrap_err().contains("longer than metrics.body_limit"));
    let whole = gzip(b"a 1\n");
    let torn = Server::with(answer(head, &whole[..whole.len() - 4]), false).await;
    assert!(torn.scrape().await.unwrap_err().contains("cannot be unpacked"));
    let other = Server::with(answer("200 OK\r\ncontent-encoding: br", b"?"), false).await;
    assert!(other.scrape().await.unwrap_err().contains("br was not asked for"));
}

#[tokio::test]
async fn a_target_that_misbehaves_costs_a_timeout_and_a_limit_and_no_more() {
    let hangs = Server::with(Vec::new(), false).await;
    assert_eq!(hangs.scrape().await.unwrap_err(), "no whole page within the timeout of 0.5");
    let drips = Server::with(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\na".to_vec(), false).await;
    assert!(drips.scrape().await.unwrap_err().contains("timeout"));
    let endless = Server::with(answer("200 OK", &vec![b'a'; LIMIT + 1]), false).await;
    assert_eq!(
        endless.scrape().await.unwrap_err(),
        "the page is longer than metrics.body_limit (65536 bytes)"
    );
    let half = Server::with(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\na".to_vec(), true).await;
    assert!(half.scrape().await.is_err());
    let none = Server::with(b"what?\r\n\r\n".to_vec(), true).await;
    assert!(none.scrape().await.is_err());
    let mut gone = Server::with(Vec::new(), false).await;
    gone.target.address.set_port(1);
    assert!(gone.scrape().await.unwrap_err().starts_with("cannot connect: "));
}

#[tokio::test]
async fn redirects_are_not_followed() {
    let elsewhere = Server::with(answer("200 OK", b"secret 1\n"), false).await;
    let head = format!("302 Found\r\nlocation: http://{}/", elsewhere.target.address);
    let server = Server::with(answer(&head, b""), false).await;
    assert!(server.scrape().await.unwrap_err().starts_with("the answer is 302 Found"));
    assert_eq!(elsewhere.connections.load(Ordering::SeqCst), 0);
}
