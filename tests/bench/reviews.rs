//! What admission reviews take: CPU time against a bare echo of the same bodies, latency at a given rate, by the size of a pod.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde_json::{Value, json};
use sidelight_tests::caller::{Caller, review};
use sidelight_tests::control_plane::{ControlPlane, SERVER_NAME};
use sidelight_tests::injector::Injector;
use sidelight_tests::tls::Authority;
use tempfile::TempDir;

use crate::process::{Cost, Memory, Process};
use crate::stats::{interval, median, quantile};
use crate::step;

/// Environment variables of the pod: few, as most have; many; and as many as brought an injector down that compared two pods.
const SIZES: [usize; 3] = [15, 150, 1_500];
/// Connections of API servers.
const CONNECTIONS: u32 = 4;
/// Reviews on each connection before it counts.
const WARM_UP: u64 = 200;

/// What to run.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// The injector.
    #[arg(long, default_value = "target/release/sidelight-injector")]
    injector: PathBuf,
    /// Reviews of the small pod in each round; of larger ones fewer, for the same number of bytes.
    #[arg(long, default_value_t = 20_000)]
    reviews: u64,
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// For latency: reviews a second.
    #[arg(long, default_value_t = 500)]
    rate: u32,
    /// For latency: how long in each round.
    #[arg(long, default_value_t = 10)]
    seconds: u32,
}

/// Who answers.
#[derive(Clone, Copy, PartialEq)]
enum Subject {
    Injector,
    Echo,
}

/// One that runs.
struct Server {
    address: SocketAddr,
    process: u32,
    /// It ends with what is in here.
    _held: Held,
}

enum Held {
    Injector { _injector: Injector, _plane: ControlPlane, _directory: TempDir },
    Echo { _process: Process },
}

/// A certificate that all of them show.
struct Certificate {
    directory: TempDir,
    bundle: String,
}

/// One measurement.
#[derive(Clone, Copy, Default)]
struct Measured {
    /// Microseconds of CPU time for one review.
    cpu: f64,
    /// Milliseconds.
    p50: f64,
    p99: f64,
    /// MiB.
    peak_rss: f64,
}

/// Runs both subjects in turn, several rounds, and prints the medians.
///
/// # Errors
/// When a subject ends or an answer is not one.
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let certificate = Certificate::new()?;
    let bodies = SIZES.map(|variables| review("u-1", "shop", &pod(variables), false));
    let answers = {
        let server = certificate.start(Subject::Injector, options, 0, &[])?;
        let caller = certificate.caller(&server);
        bodies.each_ref().map(|body| caller.review(body).map_or(0, |reply| reply.body.len()))
    };
    let mut throughput = vec![Vec::new(); SIZES.len() * 2];
    let mut latency = vec![Vec::new(); 2];
    for round in 1..=options.rounds {
        step(&format!("round {round}"));
        for (index, (body, answer)) in bodies.iter().zip(answers).enumerate() {
            let reviews = options.reviews * bodies[0].len() as u64 / body.len() as u64;
            for (offset, subject) in [Subject::Injector, Subject::Echo].into_iter().enumerate() {
                let server = certificate.start(subject, options, answer, &[])?;
                let measured = saturate(&certificate.caller(&server), &server, body, answer, reviews)?;
                throughput[index * 2 + offset].push(measured);
            }
        }
        for (subject, measured) in [Subject::Injector, Subject::Echo].into_iter().zip(&mut latency) {
            let server = certificate.start(subject, options, answers[0], &["taskset", "-c", "0"])?;
            measured.push(pace(&certificate.caller(&server), &server, &bodies[0], options)?);
        }
    }
    print_throughput(&bodies, answers, &throughput);
    print_latency(options, &latency);
    Ok(())
}

fn of(rounds: &[Measured], value: fn(&Measured) -> f64) -> f64 {
    median(rounds.iter().map(value))
}

fn print_throughput(bodies: &[Vec<u8>; 3], answers: [usize; 3], throughput: &[Vec<Measured>]) {
    println!("{CONNECTIONS} kept connections over TLS 1.3, each asking again as soon as it is answered\n");
    println!(
        "| pod | review, answer | injector: reviews per CPU-second | bare echo | ratio | 95 % | peak RSS MiB | echo's |\n\
         |---|---|---|---|---|---|---|---|"
    );
    for (index, variables) in SIZES.into_iter().enumerate() {
        let (injector, echo) = (&throughput[index * 2], &throughput[index * 2 + 1]);
        let ratios: Vec<f64> = injector.iter().zip(echo).map(|(one, other)| other.cpu / one.cpu).collect();
        let certain =
            interval(&ratios).map_or(String::new(), |found| format!("{:.2} to {:.2}", found.low, found.high));
        println!(
            "| {variables} variables | {} B, {} B | {:.0} | {:.0} | {:.2} | {certain} | {:.1} | {:.1} |",
            bodies[index].len(),
            answers[index],
            1e6 / of(injector, |measured| measured.cpu),
            1e6 / of(echo, |measured| measured.cpu),
            median(ratios.iter().copied()),
            of(injector, |measured| measured.peak_rss),
            of(echo, |measured| measured.peak_rss),
        );
    }
    let cpu = |index: usize| of(&throughput[index * 2], |measured| measured.cpu);
    println!(
        "\none review takes {:.0}, {:.0} and {:.0} us: {:.1} times as much with 150 variables as with 15, {:.1} times with 1,500 as with 150\n",
        cpu(0),
        cpu(1),
        cpu(2),
        cpu(1) / cpu(0),
        cpu(2) / cpu(1),
    );
}

fn print_latency(options: &Options, latency: &[Vec<Measured>]) {
    println!(
        "{} reviews a second, the server on one core; from when a review was to be sent\n",
        options.rate
    );
    println!("| server | p50 ms | p99 ms | cores | peak RSS MiB |\n|---|---|---|---|---|");
    for (title, rounds) in ["injector", "bare echo"].into_iter().zip(latency) {
        println!(
            "| {title} | {:.2} | {:.2} | {:.3} | {:.1} |",
            of(rounds, |measured| measured.p50),
            of(rounds, |measured| measured.p99),
            of(rounds, |measured| measured.cpu) * f64::from(options.rate) / 1e6,
            of(rounds, |measured| measured.peak_rss),
        );
    }
}

/// A pod as a ReplicaSet makes it, with so many variables.
fn pod(variables: usize) -> Value {
    let variable =
        |number| json!({ "name": format!("SETTING_{number}"), "value": format!("value-{number}") });
    let env: Vec<Value> = (0..variables).map(variable).collect();
    let token = json!({ "name": "kube-api-access-x7k2p", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount", "readOnly": true });
    json!({
        "kind": "Pod", "apiVersion": "v1",
        "metadata": { "generateName": "checkout-5d4f8c7b9-", "namespace": "shop",
            "labels": { "app": "checkout", "pod-template-hash": "5d4f8c7b9" },
            "annotations": { "sidelight.dev/inject": "true", "sidelight.dev/inject.logs": "/var/log/checkout/*.log",
                "sidelight.dev/metrics": "true", "sidelight.dev/metrics.port": "9090" },
            "ownerReferences": [{ "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "checkout-5d4f8c7b9",
                "uid": "0b6a9c1e-6f0e-4a53-9d43-2f1f1c0a8b7d", "controller": true, "blockOwnerDeletion": true }] },
        "spec": {
            "volumes": [{ "name": "logs", "emptyDir": {} },
                { "name": "kube-api-access-x7k2p", "projected": { "sources": [{ "serviceAccountToken": { "path": "token" } }] } }],
            "containers": [{ "name": "app", "image": "registry.example/checkout:1.42.0", "env": env,
                "ports": [{ "name": "http", "containerPort": 8080, "protocol": "TCP" }, { "name": "metrics", "containerPort": 9090, "protocol": "TCP" }],
                "resources": { "requests": { "cpu": "100m", "memory": "128Mi" }, "limits": { "memory": "256Mi" } },
                "volumeMounts": [{ "name": "logs", "mountPath": "/var/log/checkout" }, token], "imagePullPolicy": "IfNotPresent" }],
            "restartPolicy": "Always", "terminationGracePeriodSeconds": 30, "dnsPolicy": "ClusterFirst",
            "serviceAccountName": "checkout", "securityContext": {}, "schedulerName": "default-scheduler",
        },
        "status": {},
    })
}

/// As many reviews as they come.
fn saturate(
    caller: &Caller,
    server: &Server,
    body: &[u8],
    answer: usize,
    reviews: u64,
) -> anyhow::Result<Measured> {
    let ask = |reviews: u64| {
        let mut line = caller.connect()?;
        for _ in 0..reviews {
            let reply = line.review(body)?;
            ensure!(reply.status == 200 && reply.body.len() == answer, "not the answer: {}", reply.status);
        }
        Ok(())
    };
    on_all(|_| ask(WARM_UP))?;
    let before = Cost::of_process(server.process)?;
    let each = reviews / u64::from(CONNECTIONS);
    on_all(|_| ask(each))?;
    let cpu = Cost::of_process(server.process)?.cpu() - before.cpu();
    let peak_rss = Memory::of_process(server.process)?.peak_rss;
    Ok(Measured { cpu: cpu * 1e6 / (each * u64::from(CONNECTIONS)) as f64, peak_rss, ..Measured::default() })
}

/// A given number of reviews a second.
fn pace(caller: &Caller, server: &Server, body: &[u8], options: &Options) -> anyhow::Result<Measured> {
    let before = Cost::of_process(server.process)?;
    let begun = Instant::now() + Duration::from_millis(100);
    let (step, total) = (Duration::from_secs(1) / options.rate, options.rate * options.seconds);
    let times = on_all(|connection| {
        let mut line = caller.connect()?;
        let mut times = Vec::new();
        for number in (connection..total).step_by(CONNECTIONS as usize) {
            let due = begun + step * number;
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            ensure!(line.review(body)?.status == 200, "not an answer");
            times.push(due.elapsed().as_secs_f64() * 1e3);
        }
        Ok(times)
    })?;
    let mut times = times.concat();
    times.sort_by(f64::total_cmp);
    let cpu = Cost::of_process(server.process)?.cpu() - before.cpu();
    Ok(Measured {
        cpu: cpu * 1e6 / f64::from(total),
        p50: quantile(&times, 0.5).unwrap_or_default(),
        p99: quantile(&times, 0.99).unwrap_or_default(),
        peak_rss: Memory::of_process(server.process)?.peak_rss,
    })
}

/// Does the same for each connection, at the same time.
fn on_all<T: Send>(act: impl Fn(u32) -> anyhow::Result<T> + Sync) -> anyhow::Result<Vec<T>> {
    std::thread::scope(|scope| {
        let act = &act;
        let threads: Vec<_> = (0..CONNECTIONS).map(|number| scope.spawn(move || act(number))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

// === impl Certificate ===

impl Certificate {
    fn new() -> anyhow::Result<Self> {
        let directory = tempfile::tempdir()?;
        let at = |name| directory.path().join(name);
        let authority = Authority::new();
        authority.write(&at("ca.crt"));
        authority.issue(SERVER_NAME).write(&at("tls.crt"), &at("tls.key"));
        let bundle = std::fs::read_to_string(at("ca.crt"))?;
        Ok(Certificate { directory, bundle })
    }

    fn caller(&self, server: &Server) -> Caller {
        Caller::new(server.address, SERVER_NAME, &self.bundle)
    }

    /// Starts a subject by way of a command that executes what stands behind it.
    fn start(
        &self,
        subject: Subject,
        options: &Options,
        answer: usize,
        through: &[&str],
    ) -> anyhow::Result<Server> {
        let [certificate, key] = ["tls.crt", "tls.key"].map(|name| self.directory.path().join(name));
        match subject {
            Subject::Injector => injector(&options.injector, &certificate, &key, through),
            Subject::Echo => echo(&certificate, &key, answer, through),
        }
    }
}

fn injector(program: &Path, certificate: &Path, key: &Path, through: &[&str]) -> anyhow::Result<Server> {
    let (plane, directory) = (ControlPlane::new(), tempfile::tempdir()?);
    let config = format!(
        "certificate: {{ source: files, cert_file: '{}', key_file: '{}' }}\n\
         sidecar:\n  logs: {{ outputs: [{{ forward: {{ upstreams: ['fluentd:24224'], shared_key: {{ secret: fluentd, key: shared }} }} }}] }}\n  \
         metrics: {{ outputs: [{{ remote_write: {{ url: 'http://prometheus/api/v1/write' }} }}] }}\n",
        certificate.display(),
        key.display()
    );
    let program = program.to_str().context("the injector's path is no text")?;
    let command: Vec<&str> = through.iter().copied().chain([program]).collect();
    let injector = Injector::start_through(&command, directory.path(), &plane, &config).ready();
    let (address, process) = (injector.address(), injector.id());
    let held = Held::Injector { _injector: injector, _plane: plane, _directory: directory };
    Ok(Server { address, process, _held: held })
}

fn echo(certificate: &Path, key: &Path, answer: usize, through: &[&str]) -> anyhow::Result<Server> {
    let program = std::env::current_exe()?;
    let program = program.to_str().context("the program's path is no text")?;
    let words: Vec<&str> = through.iter().copied().chain([program, "echo"]).collect();
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).arg(certificate).arg(key).arg(answer.to_string()).stdout(Stdio::piped());
    let mut process = Process::start(&mut command, tempfile::tempdir()?)?;
    let address = process.first_line()?.trim().parse()?;
    Ok(Server { address, process: process.id(), _held: Held::Echo { _process: process } })
}
