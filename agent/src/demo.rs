//! The main job on an embedded node: pods that write and count as real services do, the real pipeline, receivers that
//! acknowledge and count.

mod loopback;
mod node;
mod receiver;
mod samples;
mod view;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use sidelight_runtime::exit;
use sidelight_runtime::logging::{self, LogFormat};
use sidelight_runtime::signals::Signals;

use crate::app::{self, Origin, Start};
use crate::config::Config;
use crate::demo::node::Node;
use crate::demo::receiver::Receiver;
use crate::demo::samples::SampleReceiver;
use crate::demo::view::View;

/// How long the last lines and samples may take to arrive once the pods are silent.
const LAST_ONES: Duration = Duration::from_secs(20);

/// Runs the demo for `duration`, or until Ctrl-C; the exit code says whether every line arrived, and the newest sample of each pod.
///
/// # Errors
/// When the embedded node cannot be set up.
pub fn run(duration: Option<Duration>) -> anyhow::Result<u8> {
    if std::env::var_os("RUST_LOG").is_some() {
        logging::init(LogFormat::Text);
    }
    let receiver = Receiver::start().context("cannot start the embedded receiver")?;
    let node = Node::create().context("cannot create the embedded node")?;
    let samples = SampleReceiver::start().context("cannot start the embedded receiver of samples")?;
    let text = node.config(receiver.address(), &samples.url());
    let config = Config::parse(&text, &|_| None).map_err(|mistakes| anyhow::anyhow!(mistakes.join("; ")))?;
    let mut view = View::new();
    view.begin(node.directory(), receiver.address(), &samples.url());
    let stop = Arc::new(AtomicBool::new(false));
    let agent = std::thread::Builder::new().name("agent".to_owned()).spawn({
        let stop = stop.clone();
        move || {
            app::run_until(
                Start { origin: Origin::Memory, config, grace_period: Duration::from_secs(20) },
                &stop,
            )
        }
    })?;
    let interrupted = interruption()?;
    let begun = Instant::now();
    let mut is_read = true;
    let writers = node.start();
    while !agent.is_finished()
        && is_read
        && !interrupted.load(Ordering::Relaxed)
        && duration.is_none_or(|duration| begun.elapsed() < duration)
    {
        std::thread::sleep(Duration::from_millis(200));
        is_read = view.progress(writers.written(), &receiver.received(), &samples.samples());
    }
    let expected = writers.stop().context("a pod of the embedded node cannot write")?;
    let deadline = Instant::now() + LAST_ONES;
    let is_complete =
        || receiver.received().missing(&expected) == 0 && samples.samples().have_counted(&expected);
    while !is_complete() && Instant::now() < deadline && !agent.is_finished() {
        std::thread::sleep(Duration::from_millis(50));
    }
    stop.store(true, Ordering::Relaxed);
    let ended = agent.join().map_err(|_| anyhow::anyhow!("the agent panicked"))?;
    let complete = view.end(&expected, &receiver.received(), &samples.samples());
    Ok(if ended.is_ok_and(|code| code == exit::SUCCESS) && complete { exit::SUCCESS } else { exit::NEGATIVE })
}

/// Set at the first Ctrl-C, SIGTERM or SIGHUP: the directory is to be removed.
fn interruption() -> anyhow::Result<Arc<AtomicBool>> {
    let interrupted = Arc::new(AtomicBool::new(false));
    let flag = interrupted.clone();
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let next = runtime.map(|runtime| runtime.block_on(async { Some(Signals::new().ok()?.next().await) }));
        flag.store(matches!(next, Ok(Some(_))), Ordering::Relaxed);
    })?;
    Ok(interrupted)
}
