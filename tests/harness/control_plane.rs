//! A strict Kubernetes API server for the injector: its Secret, the webhooks' configuration, profiles, events.
//!
//! Every request is checked: a path that nobody may ask, a write without a version, a patch that changes more than it should
//! are violations, and they fail the test when the server goes.

mod objects;

use std::collections::BTreeMap;
use std::io::{self, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::http::{Request, read};

/// The injector's namespace.
pub const NAMESPACE: &str = "sidelight";
/// Its Service, and the `MutatingWebhookConfiguration` that calls it.
pub const SERVICE: &str = "sidelight-injector";
/// Where it keeps its certificate.
pub const SECRET: &str = "sidelight-injector-tls";
/// The name by which the API server calls it.
pub const SERVER_NAME: &str = "sidelight-injector.sidelight.svc";

/// How it answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mood {
    /// As it should.
    #[default]
    Serves,
    /// It closes every connection unanswered, those that are open too.
    Away,
    /// It reads and never answers.
    Hangs,
    /// Every answer comes so much later.
    Slow(Duration),
}

/// The server. Its port stays the same while it is away.
pub struct ControlPlane {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    mood: Mood,
    /// Goes up when open watches are to end.
    epoch: u64,
    version: u64,
    secret: Option<Value>,
    webhooks: Value,
    /// Every bundle that our webhooks had, and since when.
    bundles: Vec<(Instant, String)>,
    /// By namespace and name.
    profiles: BTreeMap<String, Value>,
    hides_profiles: bool,
    history: Vec<(u64, Value)>,
    events: Vec<Value>,
    requests: Vec<String>,
    violations: Vec<String>,
}

/// What a request gets: a status and an object.
type Answer = (u16, Value);

// === impl ControlPlane ===

impl Default for ControlPlane {
    fn default() -> Self {
        Self::new()
    }
}

impl ControlPlane {
    /// Listens on a free port of the loopback interface.
    pub fn new() -> Self {
        Self::start(Mood::Serves)
    }

    /// The same in another mood.
    pub fn start(mood: Mood) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state = State { mood, version: 100, webhooks: objects::webhooks(), ..State::default() };
        let shared = Arc::new(Shared { state: Mutex::new(state), ..Shared::default() });
        let accepting = shared.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = accepting.clone();
                std::thread::spawn(move || shared.serve(stream));
            }
        });
        ControlPlane { address, shared }
    }

    /// Writes a kubeconfig for it.
    pub fn kubeconfig(&self, directory: &Path) -> PathBuf {
        let path = directory.join("kubeconfig");
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "test",
            "clusters": [{"name": "test", "cluster": {"server": format!("http://{}", self.address)}}],
            "users": [{"name": "test", "user": {}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test", "namespace": NAMESPACE}}],
        });
        std::fs::write(&path, config.to_string()).unwrap();
        path
    }

    /// From now on it answers so; open watches end.
    pub fn set_mood(&self, mood: Mood) {
        let mut state = self.shared.lock();
        state.mood = mood;
        state.epoch += 1;
        self.shared.changed.notify_all();
    }

    /// The entries of the Secret, decoded; empty while there is none.
    pub fn secret(&self) -> BTreeMap<String, String> {
        let secret = self.shared.lock().secret.clone().unwrap_or_default();
        let entries = secret["data"].as_object().cloned().unwrap_or_default();
        entries.into_iter().map(|(name, value)| (name, decode(&value))).collect()
    }

    /// Somebody writes an entry of the Secret.
    pub fn set_secret_entry(&self, name: &str, text: &str) {
        let mut state = self.shared.lock();
        state.version += 1;
        let version = state.version.to_string();
        let secret = state.secret.as_mut().unwrap();
        secret["data"][name] = json!(STANDARD.encode(text));
        secret["metadata"]["resourceVersion"] = json!(version);
    }

    /// An empty Secret, as a chart has it.
    pub fn make_empty_secret(&self) {
        let mut state = self.shared.lock();
        state.version += 1;
        let version = state.version.to_string();
        state.secret = Some(json!({
            "apiVersion": "v1", "kind": "Secret", "type": "Opaque",
            "metadata": { "name": "sidelight-injector-tls", "resourceVersion": version },
        }));
    }

    /// Somebody deletes the Secret.
    pub fn delete_secret(&self) {
        self.shared.lock().secret = None;
    }

    /// The `MutatingWebhookConfiguration`.
    pub fn webhooks(&self) -> Value {
        self.shared.lock().webhooks.clone()
    }

    /// Somebody writes the webhooks' configuration as it stood before the injector came.
    pub fn reset_webhooks(&self) {
        self.shared.lock().webhooks = objects::webhooks();
    }

    /// Whom an API server believes that is so far behind: PEM, none while it has been told of nobody.
    pub fn ca_bundle(&self, behind: Duration) -> Option<String> {
        let state = self.shared.lock();
        let seen = state.bundles.iter().rfind(|(since, _)| since.elapsed() >= behind);
        seen.or(state.bundles.first()).map(|(_, bundle)| bundle.clone())
    }

    /// How many bundles there have been.
    pub fn bundles(&self) -> usize {
        self.shared.lock().bundles.len()
    }

    /// Creates a profile, or changes what it says.
    pub fn apply_profile(&self, namespace: &str, name: &str, spec: &Value) {
        let mut state = self.shared.lock();
        let key = format!("{namespace}/{name}");
        let mut profile = state.profiles.get(&key).cloned().unwrap_or_else(|| {
            json!({ "apiVersion": "sidelight.dev/v1alpha1", "kind": "SidecarProfile",
                "metadata": { "name": name, "namespace": namespace, "uid": format!("uid-{name}"), "generation": 0 } })
        });
        profile["spec"] = spec.clone();
        profile["metadata"]["generation"] =
            json!(profile["metadata"]["generation"].as_u64().unwrap_or_default() + 1);
        state.put_profile(&key, profile);
        self.shared.changed.notify_all();
    }

    /// A profile as it stands.
    pub fn profile(&self, namespace: &str, name: &str) -> Value {
        self.shared.lock().profiles.get(&format!("{namespace}/{name}")).cloned().unwrap_or_default()
    }

    /// Whether lists of profiles fail.
    pub fn hide_profiles(&self, hides: bool) {
        self.shared.lock().hides_profiles = hides;
    }

    /// What was written about pods, the oldest first; one that came again has a `series`.
    pub fn events(&self) -> Vec<Value> {
        self.shared.lock().events.clone()
    }

    /// What was asked for so far, method and path, that begins so.
    pub fn count(&self, request: &str) -> usize {
        self.shared.lock().requests.iter().filter(|one| one.starts_with(request)).count()
    }
}

impl Drop for ControlPlane {
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
        while let Ok(Some(request)) = read(&mut reader) {
            let mut state = self.lock();
            match state.mood {
                Mood::Away => return,
                Mood::Hangs => {
                    drop(state);
                    // Only its end ends it: a server that is better again does not remember.
                    while read(&mut reader).is_ok_and(|request| request.is_some()) {}
                    return;
                }
                Mood::Slow(pause) => {
                    drop(state);
                    std::thread::sleep(pause);
                    state = self.lock();
                }
                Mood::Serves => {}
            }
            let path = request.path.split('?').next().unwrap_or_default();
            state.requests.push(format!("{} {path}", request.method));
            let answered = if request.path.contains("watch=true") {
                self.watch(&mut stream, &request, state)
            } else {
                let (code, body) = state.answer(&request);
                drop(state);
                self.changed.notify_all();
                respond(&mut stream, code, &body)
            };
            if answered.is_err() {
                return;
            }
        }
    }

    /// Sends what happens to profiles behind a version until watches are to end.
    fn watch(
        &self,
        stream: &mut TcpStream,
        request: &Request,
        mut state: MutexGuard<'_, State>,
    ) -> io::Result<()> {
        let number = |name| {
            request.path.split(['?', '&']).find_map(|pair| pair.strip_prefix(name)?.parse::<u64>().ok())
        };
        let (Some(mut from), Some(seconds)) = (number("resourceVersion="), number("timeoutSeconds=")) else {
            state.violations.push(format!("a watch without a version or an end: {}", request.path));
            drop(state);
            return respond(stream, 400, &failure(400, "BadRequest", "no version"));
        };
        write!(
            stream,
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
        )?;
        let epoch = state.epoch;
        let end = Instant::now() + Duration::from_secs(seconds);
        while state.epoch == epoch {
            for (_, event) in state.history.iter().filter(|(version, _)| *version > from) {
                let line = format!("{event}\n");
                write!(stream, "{:x}\r\n{line}\r\n", line.len())?;
            }
            from = from.max(state.version);
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                drop(state);
                return stream.write_all(b"0\r\n\r\n");
            }
            state = self.changed.wait_timeout(state, left).unwrap().0;
        }
        Err(io::ErrorKind::ConnectionAborted.into())
    }
}

/// What the API server says when it does not do a thing.
fn failure(code: u16, reason: &str, message: &str) -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": message, "reason": reason, "code": code})
}

fn respond(stream: &mut TcpStream, code: u16, body: &Value) -> io::Result<()> {
    let body = body.to_string();
    write!(
        stream,
        "HTTP/1.1 {code} Status\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

fn decode(value: &Value) -> String {
    let bytes = STANDARD.decode(value.as_str().unwrap_or_default()).unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}
