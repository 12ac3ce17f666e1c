use std::cell::RefCell;
use std::io::{Read, Write};
use std::net;

use super::*;

/// A hang guard, no promise.
const PATIENCE: Duration = Duration::from_secs(30);

fn serve_on_loopback(handler: impl Fn(&Request) -> Response + Send + Sync + 'static) -> (SocketAddr, Handle) {
    let server = Server::bind("127.0.0.1:0").unwrap();
    (server.local_addr().unwrap(), server.spawn("admin", Arc::new(handler)).unwrap())
}

fn connect(addr: SocketAddr) -> net::TcpStream {
    let stream = net::TcpStream::connect_timeout(&addr, PATIENCE).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Sends `head` and reads until the server closes; returns the answer's head and body.
fn exchange(addr: SocketAddr, head: &str) -> (String, String) {
    let mut stream = connect(addr);
    stream.write_all(head.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no head in {answer:?}"));
    (head.to_ascii_lowercase(), body.to_owned())
}

fn request(addr: SocketAddr, method: &str, target: &str) -> (String, String) {
    exchange(addr, &format!("{method} {target} HTTP/1.1\r\nhost: admin\r\n\r\n"))
}

#[test]
fn a_handler_answers_by_path() {
    let (addr, _handle) = serve_on_loopback(|request| match request.path.as_str() {
        "/livez" => Response::text("ok\n"),
        "/api" => Response::json("{}"),
        "/" => Response::html("<p>"),
        "/readyz" => Response::text("no\n").with_status(StatusCode::SERVICE_UNAVAILABLE),
        _ => Response::not_found(),
    });
    for (path, status, content_type, body) in [
        ("/livez", "200 ok", "text/plain; charset=utf-8", "ok\n"),
        ("/api", "200 ok", "application/json", "{}"),
        ("/", "200 ok", "text/html; charset=utf-8", "<p>"),
        ("/readyz", "503 service unavailable", "text/plain; charset=utf-8", "no\n"),
        ("/else", "404 not found", "text/plain; charset=utf-8", "not found\n"),
    ] {
        let (head, got) = request(addr, "GET", path);
        assert!(head.starts_with(&format!("http/1.1 {status}")), "{path}: {head}");
        assert!(head.contains(&format!("content-type: {content_type}")), "{path}: {head}");
        assert!(head.contains("x-content-type-options: nosniff"), "{path}: {head}");
        assert_eq!(got, body, "{path}");
    }
}

#[test]
fn a_query_is_decoded_and_a_path_is_not() {
    let (addr, _handle) = serve_on_loopback(|request| Response::text(format!("{request:?}")));
    let (_, body) = request(addr, "GET", "/explain%2Fx?pod=shop%2Fweb-0&all&a+b=%C3%A9&bad=%zz%ff&pod=2");
    let query = [("pod", "shop/web-0"), ("all", ""), ("a b", "é"), ("bad", "%zz\u{fffd}"), ("pod", "2")];
    let expected = Request {
        path: "/explain%2Fx".to_owned(),
        query: query.map(|(key, value)| (key.to_owned(), value.to_owned())).to_vec(),
    };
    assert_eq!(body, format!("{expected:?}"));
    assert_eq!(expected.param("pod"), Some("shop/web-0"));
    assert_eq!(expected.param("namespace"), None);
}

#[test]
fn head_is_get_without_a_body() {
    let (addr, _handle) = serve_on_loopback(|_| Response::text("ok\n"));
    let (head, body) = request(addr, "HEAD", "/");
    assert!(head.starts_with("http/1.1 200") && head.contains("content-length: 3"), "{head}");
    assert_eq!(body, "");
}

#[test]
fn other_methods_never_reach_the_handler() {
    let (addr, _handle) = serve_on_loopback(|_| Response::text("reached"));
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "PATCH"] {
        let (head, body) = request(addr, method, "/");
        assert!(head.starts_with("http/1.1 405") && head.contains("allow: get, head"), "{method}: {head}");
        assert_ne!(body, "reached", "{method}");
    }
}

#[test]
fn what_is_no_request_is_refused_and_the_next_one_answered() {
    let (addr, _handle) = serve_on_loopback(|request| {
        assert_eq!(request.path, "/good", "the only one that a handler is to see");
        Response::text("ok")
    });
    assert!(exchange(addr, "hello\r\n\r\n").0.starts_with("http/1.1 400"));
    let mut too_long = connect(addr);
    // The server closes before all of it is sent.
    let _ = too_long.write_all(format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(1 << 20)).as_bytes());
    let mut answer = Vec::new();
    let _ = too_long.read_to_end(&mut answer);
    assert!(!answer.starts_with(b"HTTP/1.1 200"));
    assert_eq!(request(addr, "GET", "/good").1, "ok");
}

#[test]
fn held_connections_do_not_keep_the_probes_out() {
    let (addr, _handle) = serve_on_loopback(|_| Response::text("ok"));
    let mut held: Vec<_> = (0..2 * MAX_CONNECTIONS).map(|_| connect(addr)).collect();
    assert_eq!(request(addr, "GET", "/").1, "ok");
    let newest = held.last_mut().unwrap();
    newest.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    let mut answer = String::new();
    newest.read_to_string(&mut answer).unwrap();
    assert!(answer.ends_with("ok"), "{answer:?}");
}

#[tokio::test]
async fn above_the_limit_only_the_oldest_connection_is_closed() {
    let mut connections = Connections::default();
    let mut open = Vec::new();
    for _ in 0..=MAX_CONNECTIONS {
        let (held, closed) = oneshot::channel::<()>();
        open.push(closed);
        connections.admit(tokio::spawn(async move {
            let _held = held;
            std::future::pending::<()>().await;
        }));
    }
    let oldest = timeout(PATIENCE, open.remove(0)).await;
    assert!(oldest.is_ok_and(|closed| closed.is_err()));
    assert!(open.iter_mut().all(|other| other.try_recv() == Err(oneshot::error::TryRecvError::Empty)));
    assert_eq!(connections.0.len(), MAX_CONNECTIONS);
}

#[tokio::test]
async fn connections_that_have_ended_do_not_count() {
    let mut connections = Connections::default();
    let (held, mut closed) = oneshot::channel::<()>();
    connections.admit(tokio::spawn(async move {
        let _held = held;
        std::future::pending::<()>().await;
    }));
    for _ in 0..2 * MAX_CONNECTIONS {
        connections.admit(tokio::spawn(async {}));
        tokio::task::yield_now().await;
    }
    assert_eq!(closed.try_recv(), Err(oneshot::error::TryRecvError::Empty));
}

#[test]
fn requests_are_served_on_a_thread_with_a_name() {
    let (addr, _handle) = serve_on_loopback(|_| Response::text(thread::current().name().unwrap_or_default()));
    assert_eq!(request(addr, "GET", "/").1, "admin");
}

#[test]
fn connections_made_before_it_is_served_are_answered() {
    let server = Server::bind("127.0.0.1:0").unwrap();
    let mut early = connect(server.local_addr().unwrap());
    early.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    let _handle = server.spawn("admin", Arc::new(|_| Response::text("ok"))).unwrap();
    let mut answer = String::new();
    early.read_to_string(&mut answer).unwrap();
    assert!(answer.ends_with("ok"), "{answer:?}");
}

#[test]
fn a_stopped_server_leaves_its_port() {
    let (addr, handle) = serve_on_loopback(|_| Response::text("ok"));
    let _open = connect(addr);
    handle.stop();
    assert!(Server::bind(&addr.to_string()).is_ok());

    let (addr, handle) = serve_on_loopback(|_| Response::text("ok"));
    drop(handle);
    assert!(Server::bind(&addr.to_string()).is_ok());
}

#[test]
fn a_port_in_use_is_an_error_that_names_it() {
    let server = Server::bind("localhost:0").unwrap();
    let addr = server.local_addr().unwrap().to_string();
    let error = Server::bind(&addr).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    assert!(error.to_string().contains(&addr), "{error}");
    assert!(Server::bind("nonsense").unwrap_err().to_string().contains("nonsense"));
}

#[test]
fn any_address_is_served_over_ipv4() {
    let server = Server::bind("[::]:0").unwrap();
    let port = server.local_addr().unwrap().port();
    let _handle = server.spawn("admin", Arc::new(|_| Response::text("ok"))).unwrap();
    assert_eq!(request((Ipv4Addr::LOCALHOST, port).into(), "GET", "/").1, "ok");
}

#[test]
fn without_ipv6_only_the_unspecified_address_falls_back() {
    let tried = RefCell::new(Vec::new());
    let bind = |failure: io::ErrorKind, addr: &str| {
        tried.borrow_mut().clear();
        let result = bind_with_fallback(addr.parse().unwrap(), |addr| {
            tried.borrow_mut().push(addr.to_string());
            if addr.is_ipv6() { Err(io::Error::from(failure)) } else { Ok(()) }
        });
        (result.is_ok(), tried.borrow().join(" "))
    };
    assert_eq!(bind(io::ErrorKind::Unsupported, "[::]:9"), (true, "[::]:9 0.0.0.0:9".to_owned()));
    assert_eq!(bind(io::ErrorKind::AddrNotAvailable, "[::]:9"), (true, "[::]:9 0.0.0.0:9".to_owned()));
    assert_eq!(bind(io::ErrorKind::AddrNotAvailable, "[::1]:9"), (false, "[::1]:9".to_owned()));
    assert_eq!(bind(io::ErrorKind::AddrInUse, "[::]:9"), (false, "[::]:9".to_owned()));
}
