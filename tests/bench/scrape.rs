//! What scraping takes: targets with a thousand series each, written by remote write to a receiver that counts.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::ensure;
use serde_json::json;
use sidelight_tests::http::{Answer, serve};
use sidelight_tests::remote_write_server::{samples_in, written};

use crate::peers::find;
use crate::process::Process;
use crate::stats::median;
use crate::step;

/// Scrapes before the measurement begins: every series is known, and memory has settled.
const WARM_UP: Duration = Duration::from_secs(10);
/// Versions of the page, one after the other: a fifth of the counters is higher in the next. No number of targets that is a
/// power of ten gets the same one in each round.
const VERSIONS: u64 = 7;

/// What to run.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Targets, each scraped once a second.
    #[arg(long, default_value_t = 100)]
    targets: u64,
    /// Series of each.
    #[arg(long, default_value_t = 1_000)]
    series: u64,
    /// How long to measure each subject in each round.
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Only subjects with this text in their title.
    #[arg(long, default_value = "")]
    only: String,
}

/// What scrapes.
enum Subject {
    /// With this version of remote write.
    Agent(&'static str),
    Vmagent,
    Prometheus,
}

/// One measurement.
struct Measured {
    /// Samples that the receiver has counted, for each second on a CPU.
    samples_per_cpu: f64,
    cores: f64,
    /// Of what was to be scraped in that time: what has arrived.
    arrived: f64,
    /// Of the bodies of requests.
    bytes_per_sample: f64,
    peak_rss: f64,
    anon: f64,
}

/// Measures one subject after the other, several rounds, and prints the medians.
///
/// # Errors
/// When a subject ends, or not nearly all samples of the agent arrive. Another's may be fewer: then it cannot scrape so much.
pub(crate) fn run(agent: &Path, options: &Options) -> anyhow::Result<()> {
    let pages = Arc::new((0..VERSIONS).map(|version| page(options.series, version)).collect::<Vec<_>>());
    let scrapes = AtomicU64::new(0);
    let exporter = serve(move |_| {
        let version = scrapes.fetch_add(1, Ordering::Relaxed) % VERSIONS;
        let headers = vec![("content-type", "text/plain; version=0.0.4".to_owned())];
        Answer { headers, body: pages[version as usize].clone(), ..Answer::status(200) }
    });
    let mut subjects = vec![
        ("sidelight, 2.0", agent.to_owned(), Subject::Agent("2.0")),
        ("sidelight, 1.0", agent.to_owned(), Subject::Agent("1.0")),
    ];
    subjects.extend(find("vmagent").map(|path| ("vmagent", path, Subject::Vmagent)));
    subjects.extend(find("prometheus").map(|path| ("Prometheus, agent mode", path, Subject::Prometheus)));
    subjects.retain(|(title, ..)| title.contains(&options.only));
    let mut rounds: Vec<Vec<Measured>> = subjects.iter().map(|_| Vec::new()).collect();
    for round in 1..=options.rounds {
        for ((title, program, subject), measured) in subjects.iter().zip(&mut rounds) {
            step(&format!("round {round}: {title}"));
            measured.push(measure(program, subject, exporter, options)?);
        }
    }
    println!("{} targets of {} series, scraped once a second\n", options.targets, options.series);
    println!(
        "| subject | samples per CPU-second | cores | arrived | bytes sent per sample | peak RSS MiB | RssAnon MiB |\n\
         |---|---|---|---|---|---|---|"
    );
    for ((title, ..), rounds) in subjects.iter().zip(&rounds) {
        let of = |value: fn(&Measured) -> f64| median(rounds.iter().map(value));
        println!(
            "| {title} | {:.2} M | {:.3} | {:.0} % | {:.1} | {:.1} | {:.1} |",
            of(|measured| measured.samples_per_cpu) / 1e6,
            of(|measured| measured.cores),
            of(|measured| measured.arrived) * 100.0,
            of(|measured| measured.bytes_per_sample),
            of(|measured| measured.peak_rss),
            of(|measured| measured.anon),
        );
    }
    Ok(())
}

fn measure(
    program: &Path,
    subject: &Subject,
    exporter: SocketAddr,
    options: &Options,
) -> anyhow::Result<Measured> {
    let (received, bytes) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let counters = (received.clone(), bytes.clone());
    let receiver = serve(move |request| match samples_in(&request.body) {
        Ok(samples) => {
            counters.0.fetch_add(samples, Ordering::Relaxed);
            counters.1.fetch_add(request.body.len() as u64, Ordering::Relaxed);
            written(request, samples as usize, 0, 0)
        }
        Err(_) => Answer::status(400),
    });
    let url = format!("http://{receiver}/api/v1/write");
    let mut process = subject.start(program, exporter, &url, options)?;
    std::thread::sleep(WARM_UP);
    process.check()?;
    let loaded = || (received.load(Ordering::Relaxed), bytes.load(Ordering::Relaxed));
    let (begun, before, (samples, bytes)) = (Instant::now(), process.cost()?, loaded());
    std::thread::sleep(Duration::from_secs(options.seconds));
    process.check()?;
    let (seconds, after) = (begun.elapsed().as_secs_f64(), process.cost()?);
    let (samples, bytes) = ((loaded().0 - samples) as f64, (loaded().1 - bytes) as f64);
    let wanted = (options.targets * options.series) as f64 * seconds;
    // Requests come in bursts, and may lie beyond either end; what a backlog has more was scraped before.
    let is_right = (0.8..1.2).contains(&(samples / wanted));
    ensure!(
        is_right || !matches!(subject, Subject::Agent(_)),
        "{samples} and not {wanted:.0} samples have arrived"
    );
    let (cpu, memory) = (after.cpu() - before.cpu(), process.memory()?);
    Ok(Measured {
        samples_per_cpu: samples / cpu,
        cores: cpu / seconds,
        arrived: samples / wanted,
        bytes_per_sample: bytes / samples,
        peak_rss: memory.peak_rss,
        anon: memory.anon,
    })
}

/// A page as a service in Rust serves it: counters of requests by method, route and status.
fn page(series: u64, version: u64) -> Vec<u8> {
    let mut page = String::new();
    for number in 0..series {
        let family = number / 50;
        if number % 50 == 0 {
            let _ = writeln!(page, "# HELP http_server_{family}_requests_total Requests that were answered.");
            let _ = writeln!(page, "# TYPE http_server_{family}_requests_total counter");
        }
        let value = number * 1_000 + (version + number % 5) / 5;
        let _ = writeln!(
            page,
            "http_server_{family}_requests_total{{method=\"GET\",route=\"/api/v1/orders/{}\",status=\"20{}\"}} {value}",
            number % 50,
            number % 5,
        );
    }
    page.into_bytes()
}

// === impl Subject ===

impl Subject {
    fn start(
        &self,
        program: &Path,
        exporter: SocketAddr,
        url: &str,
        options: &Options,
    ) -> anyhow::Result<Process> {
        let data = tempfile::tempdir()?;
        let directory = data.path().to_owned();
        let mut command = Command::new(program);
        match self {
            Subject::Agent(version) => {
                let config = agent_config(&directory, exporter, url, version, options)?;
                command.arg("agent").arg("--config").arg(config);
            }
            Subject::Vmagent => {
                let config = scrape_config(&directory, exporter, None, options)?;
                command.arg(format!("-promscrape.config={}", config.display()));
                command.arg(format!("-remoteWrite.url={url}"));
                command.arg(format!("-remoteWrite.tmpDataPath={}", directory.join("queue").display()));
                command.arg("-httpListenAddr=127.0.0.1:0");
            }
            Subject::Prometheus => {
                let config = scrape_config(&directory, exporter, Some(url), options)?;
                command.arg("--enable-feature=agent").arg(format!("--config.file={}", config.display()));
                command.arg(format!("--storage.agent.path={}", directory.join("wal").display()));
                command.arg("--web.listen-address=127.0.0.1:0");
            }
        }
        Process::start(command.stdout(Stdio::null()).stderr(Stdio::null()), data)
    }
}

/// One pod for each target, all at one address: the paths differ.
fn agent_config(
    directory: &Path,
    exporter: SocketAddr,
    url: &str,
    version: &str,
    options: &Options,
) -> anyhow::Result<PathBuf> {
    let pod = |number: u64| {
        json!({
            "metadata": {
                "name": format!("checkout-{number}"), "namespace": "shop", "uid": format!("uid-{number}"),
                "annotations": {
                    "sidelight.dev/metrics": "true", "sidelight.dev/metrics.port": exporter.port().to_string(),
                    "sidelight.dev/metrics.path": format!("/{number}"),
                },
                "ownerReferences": [{ "kind": "StatefulSet", "name": "checkout", "controller": true }],
            },
            "spec": { "nodeName": "bench", "containers": [{ "name": "app" }] },
            "status": { "phase": "Running", "podIP": "127.0.0.1" },
        })
    };
    let pods: Vec<_> = (0..options.targets).map(pod).collect();
    std::fs::write(directory.join("pods.json"), json!({ "kind": "List", "items": pods }).to_string())?;
    std::fs::create_dir(directory.join("pods"))?;
    let (at, file) = (directory.display(), directory.join("sidelight.yaml"));
    let config = format!(
        "node: bench\ndata_dir: {at}/data\nworkers: 1\nadmin: {{ listen: '127.0.0.1:0', api: '127.0.0.1:0' }}\n\
         kubernetes: {{ source: file, file: {at}/pods.json }}\n\
         logs: {{ root: {at}/pods, outputs: [ {{ stdout: {{}} }} ] }}\n\
         metrics: {{ interval: 1s, timeout: 1s, containers: false, series_limit_namespace: 100%, series_limit_total: 1000000, \
         outputs: [ {{ remote_write: {{ url: '{url}', protocol: '{version}' }} }} ] }}\n"
    );
    std::fs::write(&file, config)?;
    Ok(file)
}

/// The same targets with the same labels, for Prometheus and what reads its configuration.
fn scrape_config(
    directory: &Path,
    exporter: SocketAddr,
    url: Option<&str>,
    options: &Options,
) -> anyhow::Result<PathBuf> {
    let target = |number: u64| {
        json!({ "targets": [exporter.to_string()], "labels": {
            "__metrics_path__": format!("/{number}"), "job": "shop/checkout", "namespace": "shop", "container": "app",
            "node": "bench", "pod": format!("checkout-{number}"),
        }})
    };
    let targets: Vec<_> = (0..options.targets).map(target).collect();
    let mut config = json!({
        "global": { "scrape_interval": "1s", "scrape_timeout": "1s" },
        "scrape_configs": [{ "job_name": "bench", "static_configs": targets }],
    });
    if let Some(url) = url {
        config["remote_write"] = json!([{ "url": url }]);
    }
    let file = directory.join("prometheus.yml");
    std::fs::write(&file, config.to_string())?;
    Ok(file)
}
