//! How fast pages of metrics are read, without anything around it.
//!
//!     cargo run --release --example parse < PAGE
//!
//! Prints samples for each second of the processor: of a page whose series are known, as from the second scrape on; and of
//! the same page to a reader that knows none, which takes every series apart.

#![allow(clippy::print_stdout, reason = "it is what this is for")]

use std::io::Read;
use std::sync::Arc;

use anyhow::Context;
use rustix::time::{ClockId, clock_gettime};
use sidelight_agent::config::Config;
use sidelight_agent::metrics::exposition::{Dialect, Line, Series};
use sidelight_agent::metrics::series::{Limits, SeriesCache, TargetLabels};
use sidelight_agent::metrics::symbols::Symbols;

/// Seconds for each figure.
const SECONDS: f64 = 3.0;
const CONFIG: &str = "node: n\nlogs: { outputs: [ { stdout: {} } ] }";

fn main() -> anyhow::Result<()> {
    let mut page = Vec::new();
    std::io::stdin().read_to_end(&mut page)?;
    let dialect = Dialect::of_page(&page);
    let config = Config::parse(CONFIG, &|_| None).map_err(|mistakes| anyhow::anyhow!(mistakes.join("; ")))?;
    let labels = TargetLabels {
        labels: vec![("pod".to_owned(), "p".to_owned())],
        honor: false,
        pods: None,
        config: Arc::new(config),
        symbols: Symbols::default(),
    };
    let mut series = SeriesCache::new(labels, "ns", Arc::new(Limits::new(1 << 20, 1 << 20, 1 << 20)));
    let counts = series.read(&page, dialect).map_err(|fault| anyhow::anyhow!(fault.to_string()))?;
    series.end_vanished(true, |_, _| {});
    println!("{} samples, {} bytes, {dialect:?}", counts.scraped, page.len());
    let known = || {
        series.read(&page, dialect).map_err(|fault| anyhow::anyhow!(fault.to_string()))?;
        series.end_vanished(true, |_, _| {});
        Ok(())
    };
    report("series known", counts.scraped, known)?;
    report("every series taken apart", counts.scraped, || take_apart(&page, dialect))
}

fn take_apart(page: &[u8], dialect: Dialect) -> anyhow::Result<()> {
    for line in page.split(|byte| *byte == b'\n') {
        if let Line::Sample(sample) = Line::read(line, dialect).ok().context("a line is wrong")? {
            let series = Series::read(sample.series, dialect).ok().context("a series is wrong")?;
            std::hint::black_box((series, sample.value()));
        }
    }
    Ok(())
}

/// Repeats `read` for a while, and prints how many samples it has read for each second of the processor.
fn report(title: &str, samples: usize, mut read: impl FnMut() -> anyhow::Result<()>) -> anyhow::Result<()> {
    let (begun, mut pages) = (processor_seconds(), 0);
    while processor_seconds() - begun < SECONDS {
        read()?;
        pages += 1;
    }
    let seconds = processor_seconds() - begun;
    println!("{title}: {:.1} M samples/s", (pages * samples) as f64 / seconds / 1e6);
    Ok(())
}

fn processor_seconds() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}
