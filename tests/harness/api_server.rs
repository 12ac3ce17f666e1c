//! A strict Kubernetes API server for one node: it lists and watches pods, has namespaces, and can be unkind.
//!
//! Every request is checked: an unexpected path, a list that would go to etcd, a watch without the node's selector are
//! violations, and they fail the test when the server goes.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

use serde_json::{Value, json};

/// How it answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mood {
    /// As it should.
    #[default]
    Serves,
    /// It closes every connection unanswered, those that are open too.
    Away,
    /// Every request gets this status.
    Fails(u16),
    /// Every answer, and every event of a watch, comes so much later.
    Slow(Duration),
}

/// What happens to one watch instead of what should.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WatchFault {
    /// HTTP 410: the version is too old.
    GoneStatus,
    /// HTTP 200, then an ERROR event with 410.
    GoneEvent,
    /// HTTP 200 and the end.
    EndsAtOnce,
    /// The next event stops in the middle, and the connection with it.
    Cut,
}

/// The server. Its port stays the same while it is away.
pub struct ApiServer {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    node: String,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    mood: Mood,
    version: u64,
    pods: BTreeMap<String, Value>,
    namespaces: BTreeMap<String, Value>,
    history: Vec<(u64, Value)>,
    faults: VecDeque<WatchFault>,
    requests: Vec<String>,
    violations: Vec<String>,
    /// Goes up when open watches are to end.
    epoch: u64,
}

type Query = BTreeMap<String, String>;

// === impl ApiServer ===

impl ApiServer {
    /// Listens on a free port of the loopback interface, for the pods of this node.
    pub fn start(node: &str, mood: Mood) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state = Mutex::new(State { mood, version: 100, ..State::default() });
        let shared = Arc::new(Shared { node: node.to_owned(), state, changed: Condvar::new() });
        let accepting = shared.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = accepting.clone();
                std::thread::spawn(move || shared.serve(stream));
            }
        });
        ApiServer { address, shared }
    }

    /// Writes a kubeconfig for it.
    pub fn kubeconfig(&self, directory: &Path) -> PathBuf {
        let path = directory.join("kubeconfig");
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "test",
            "clusters": [{"name": "test", "cluster": {"server": format!("http://{}", self.address)}}],
            "users": [{"name": "test", "user": {}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
        });
        std::fs::write(&path, config.to_string()).unwrap();
        path
    }

    /// Creates or changes a pod; `metadata.uid` says which.
    pub fn apply(&self, mut pod: Value) {
        let mut state = self.shared.lock();
        state.version += 1;
        let version = state.version;
        pod["metadata"]["resourceVersion"] = json!(version.to_string());
        let uid = pod["metadata"]["uid"].as_str().unwrap().to_owned();
        let kind = if state.pods.insert(uid, pod.clone()).is_none() { "ADDED" } else { "MODIFIED" };
        state.history.push((version, json!({"type": kind, "object": pod})));
        self.shared.changed.notify_all();
    }

    /// Deletes a pod.
    pub fn delete(&self, uid: &str) {
        let mut state = self.shared.lock();
        state.version += 1;
        let version = state.version;
        let mut pod = state.pods.remove(uid).unwrap();
        pod["metadata"]["resourceVersion"] = json!(version.to_string());
        state.history.push((version, json!({"type": "DELETED", "object": pod})));
        self.shared.changed.notify_all();
    }

    /// Tells watchers the version, and nothing else.
    pub fn bookmark(&self) {
        let mut state = self.shared.lock();
        state.version += 1;
        let version = state.version;
        let object =
            json!({"kind": "Pod", "apiVersion": "v1", "metadata": {"resourceVersion": version.to_string()}});
        state.history.push((version, json!({"type": "BOOKMARK", "object": object})));
        self.shared.changed.notify_all();
    }

    /// Creates or changes a namespace.
    pub fn label_namespace(&self, name: &str, labels: Value) {
        let namespace =
            json!({"kind": "Namespace", "apiVersion": "v1", "metadata": {"name": name, "labels": labels}});
        self.shared.lock().namespaces.insert(name.to_owned(), namespace);
    }

    /// From now on it answers so; open watches end.
    pub fn set_mood(&self, mood: Mood) {
        let mut state = self.shared.lock();
        state.mood = mood;
        state.epoch += 1;
        self.shared.changed.notify_all();
    }

    /// Ends the open watches; what the next ones meet.
    pub fn end_watches(&self, next: &[WatchFault]) {
        let mut state = self.shared.lock();
        state.faults.extend(next);
        state.epoch += 1;
        self.shared.changed.notify_all();
    }

    /// What was asked for so far: `list`, `watch VERSION`, `namespace NAME`.
    pub fn requests(&self) -> Vec<String> {
        self.shared.lock().requests.clone()
    }

    /// The newest version.
    pub fn version(&self) -> u64 {
        self.shared.lock().version
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        self.set_mood(Mood::Away);
        let violations = self.shared.lock().violations.clone();
        if !std::thread::panicking() {
            assert!(violations.is_empty(), "the API server was asked wrongly: {violations:#?}");
        }
    }
}

// === impl Shared ===

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// One connection: one request after the other, until either side is through.
    fn serve(&self, mut stream: TcpStream) {
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        while let Ok(Some(target)) = self.read_request(&mut reader) {
            let mood = self.lock().mood;
            let answered = match mood {
                Mood::Away => return,
                Mood::Fails(code) => {
                    self.log("refused").and_then(|()| respond(&mut stream, code, &status(code, "told to")))
                }
                Mood::Slow(pause) => {
                    std::thread::sleep(pause);
                    self.answer(&mut stream, &target)
                }
                Mood::Serves => self.answer(&mut stream, &target),
            };
            if answered.is_err() {
                return;
            }
        }
    }

    /// The target of the next request; `None` at the end of the connection.
    fn read_request(&self, reader: &mut impl BufRead) -> io::Result<Option<String>> {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        let Some(target) = line.strip_prefix("GET ").and_then(|rest| rest.split(' ').next()) else {
            self.violation(format!("not a GET: {line}"));
            return Ok(None);
        };
        loop {
            let mut header = String::new();
            reader.read_line(&mut header)?;
            let header = header.trim_end().to_ascii_lowercase();
            if header.is_empty() {
                return Ok(Some(target.to_owned()));
            }
            if header.starts_with("accept-encoding:") && header.contains("gzip") {
                self.violation(format!("asks for compression: {header}"));
            }
        }
    }

    fn answer(&self, stream: &mut TcpStream, target: &str) -> io::Result<()> {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let query = parse_query(query);
        if let Some(name) =
            path.strip_prefix("/api/v1/namespaces/").filter(|name| !name.is_empty() && !name.contains('/'))
        {
            self.log(&format!("namespace {name}"))?;
            let namespace = self.lock().namespaces.get(name).cloned();
            return match namespace {
                Some(namespace) => respond(stream, 200, &namespace),
                None => respond(stream, 404, &status(404, "no such namespace")),
            };
        }
        if path != "/api/v1/pods"
            || query.get("fieldSelector") != Some(&format!("spec.nodeName={}", self.node))
        {
            self.violation(format!("not the pods of {}: {target}", self.node));
            return respond(stream, 403, &status(403, "forbidden"));
        }
        if query.get("watch").is_some_and(|watch| watch == "true") {
            return self.watch(stream, target, &query);
        }
        if query.get("resourceVersion").map(String::as_str) != Some("0") || query.contains_key("limit") {
            self.violation(format!("a list that goes to etcd: {target}"));
        }
        self.log("list")?;
        let (version, items) = {
            let state = self.lock();
            (state.version, state.pods.values().cloned().collect::<Vec<_>>())
        };
        let metadata = json!({"resourceVersion": version.to_string()});
        respond(
            stream,
            200,
            &json!({"kind": "PodList", "apiVersion": "v1", "metadata": metadata, "items": items}),
        )
    }

    fn watch(&self, stream: &mut TcpStream, target: &str, query: &Query) -> io::Result<()> {
        let from = query
            .get("resourceVersion")
            .and_then(|version| version.parse().ok())
            .filter(|version| *version > 0);
        let has_timeout = query.get("timeoutSeconds").is_some_and(|seconds| seconds.parse::<u32>().is_ok());
        let (Some(from), true, true) = (from, has_timeout, query.contains_key("allowWatchBookmarks")) else {
            self.violation(format!("a watch without version, timeout or bookmarks: {target}"));
            return respond(stream, 400, &status(400, "bad watch"));
        };
        self.log(&format!("watch {from}"))?;
        let (fault, epoch) = {
            let mut state = self.lock();
            (state.faults.pop_front(), state.epoch)
        };
        if fault == Some(WatchFault::GoneStatus) {
            return respond(stream, 410, &status(410, "too old resource version"));
        }
        write!(
            stream,
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
        )?;
        match fault {
            Some(WatchFault::GoneEvent) => {
                let event = json!({"type": "ERROR", "object": status(410, "too old resource version")});
                chunk(stream, &format!("{event}\n"))?;
            }
            Some(WatchFault::EndsAtOnce) => {}
            _ => self.send_events(stream, from, epoch, fault == Some(WatchFault::Cut))?,
        }
        stream.write_all(b"0\r\n\r\n")
    }

    /// Sends what happens after a version until watches are to end.
    fn send_events(&self, stream: &mut TcpStream, mut from: u64, epoch: u64, cut: bool) -> io::Result<()> {
        let mut state = self.lock();
        while state.epoch == epoch {
            let events: Vec<(u64, Value)> =
                state.history.iter().filter(|(version, _)| *version > from).cloned().collect();
            if events.is_empty() {
                state = self.changed.wait_timeout(state, Duration::from_secs(1)).unwrap().0;
                continue;
            }
            let mood = state.mood;
            drop(state);
            if let Mood::Slow(pause) = mood {
                std::thread::sleep(pause);
            }
            for (version, event) in events {
                let line = format!("{event}\n");
                if cut {
                    chunk(stream, &line[..line.len() / 2])?;
                    return Err(io::ErrorKind::ConnectionAborted.into());
                }
                chunk(stream, &line)?;
                from = version;
            }
            state = self.lock();
        }
        // A server that goes away does not say goodbye.
        if state.mood == Mood::Away { Err(io::ErrorKind::ConnectionAborted.into()) } else { Ok(()) }
    }

    fn log(&self, request: &str) -> io::Result<()> {
        self.lock().requests.push(request.to_owned());
        Ok(())
    }

    fn violation(&self, what: String) {
        self.lock().violations.push(what);
    }
}

fn status(code: u16, message: &str) -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": message, "reason": "Test", "code": code})
}

fn respond(stream: &mut TcpStream, code: u16, body: &Value) -> io::Result<()> {
    let body = body.to_string();
    write!(
        stream,
        "HTTP/1.1 {code} Status\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

fn chunk(stream: &mut TcpStream, text: &str) -> io::Result<()> {
    write!(stream, "{:x}\r\n{text}\r\n", text.len())
}

fn parse_query(query: &str) -> Query {
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    pairs.map(|(key, value)| (key.to_owned(), value.replace("%3D", "=").replace("%2F", "/"))).collect()
}
