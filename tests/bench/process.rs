//! A process that is measured from outside, by what proc(5) says.

use std::fmt;
use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command};
use std::time::Instant;

use anyhow::{Context, ensure};
use tempfile::TempDir;

/// USER_HZ, in which Linux gives CPU times to programs on every architecture that we build for.
const TICKS_PER_SECOND: f64 = 100.0;

/// A child that does not outlive its run.
pub(crate) struct Process {
    child: Child,
    /// Its configuration and what it writes.
    _data: TempDir,
}

/// What a process has used.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cost {
    /// Seconds of CPU time in the program.
    pub(crate) user: f64,
    /// Seconds of CPU time in the kernel.
    pub(crate) system: f64,
    /// VmHWM in bytes.
    pub(crate) peak_rss: u64,
    /// RssAnon in bytes, now.
    pub(crate) anon: u64,
}

/// What the threads of a process have done so far, for differences that are too small for ticks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Activity {
    at: Instant,
    /// Seconds on a CPU.
    cpu: f64,
    /// Context switches, voluntary or not.
    switches: u64,
}

/// What they do in a second.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rates {
    /// Seconds on a CPU.
    pub(crate) cores: f64,
    /// Context switches, voluntary or not.
    pub(crate) switches: f64,
}

/// What a process has in memory, in MiB.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Memory {
    /// VmHWM: the most so far.
    pub(crate) peak_rss: f64,
    /// VmRSS.
    pub(crate) rss: f64,
    /// RssAnon.
    pub(crate) anon: f64,
}

// === impl Process ===

impl Process {
    /// Starts a program; `data` lives as long as it does.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn start(command: &mut Command, data: TempDir) -> anyhow::Result<Self> {
        let child = command.spawn().with_context(|| format!("{}", command.get_program().display()))?;
        Ok(Process { child, _data: data })
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// The first line of its standard output, which has to be a pipe; what follows is lost.
    ///
    /// # Errors
    /// When there is none.
    pub(crate) fn first_line(&mut self) -> anyhow::Result<String> {
        let mut line = String::new();
        BufReader::new(self.child.stdout.take().context("no pipe")?).read_line(&mut line)?;
        Ok(line)
    }

    /// # Errors
    /// When it has ended.
    pub(crate) fn check(&mut self) -> anyhow::Result<()> {
        let status = self.child.try_wait()?;
        ensure!(status.is_none(), "the program ended: {}", status.unwrap());
        Ok(())
    }

    /// What it has used so far.
    ///
    /// # Errors
    /// When it has ended.
    pub(crate) fn cost(&self) -> anyhow::Result<Cost> {
        Cost::of_process(self.id())
    }

    /// What its threads have done so far.
    ///
    /// # Errors
    /// When it has ended.
    pub(crate) fn activity(&self) -> anyhow::Result<Activity> {
        Activity::of_process(&self.id().to_string())
    }

    /// What it has in memory.
    ///
    /// # Errors
    /// When it has ended.
    pub(crate) fn memory(&self) -> anyhow::Result<Memory> {
        Memory::of_process(self.id())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

// === impl Cost ===

impl Cost {
    /// What a process has used so far, all its threads together.
    ///
    /// # Errors
    /// When there is no such process.
    pub(crate) fn of_process(id: u32) -> anyhow::Result<Self> {
        let stat = fs::read_to_string(format!("/proc/{id}/stat"))?;
        // The name, in parentheses, may hold spaces.
        let fields: Vec<&str> = stat.rsplit_once(')').context("no stat")?.1.split_whitespace().collect();
        let status = fs::read_to_string(format!("/proc/{id}/status"))?;
        Ok(Cost {
            user: fields[11].parse::<f64>()? / TICKS_PER_SECOND,
            system: fields[12].parse::<f64>()? / TICKS_PER_SECOND,
            peak_rss: field(&status, "VmHWM:")? << 10,
            anon: field(&status, "RssAnon:")? << 10,
        })
    }

    /// Seconds of CPU time.
    pub(crate) fn cpu(&self) -> f64 {
        self.user + self.system
    }

    /// Reads what `Display` wrote.
    ///
    /// # Errors
    /// When it is something else.
    pub(crate) fn parse(text: &str) -> anyhow::Result<Self> {
        let mut numbers = text.split_whitespace();
        let mut next = || numbers.next().context("too few numbers");
        Ok(Cost {
            user: next()?.parse()?,
            system: next()?.parse()?,
            peak_rss: next()?.parse()?,
            anon: next()?.parse()?,
        })
    }
}

impl fmt::Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {} {}", self.user, self.system, self.peak_rss, self.anon)
    }
}

// === impl Memory ===

impl Memory {
    /// What a process has in memory.
    ///
    /// # Errors
    /// When there is no such process.
    pub(crate) fn of_process(id: u32) -> anyhow::Result<Self> {
        let status = fs::read_to_string(format!("/proc/{id}/status"))?;
        let mib = |name| Ok::<_, anyhow::Error>(field(&status, name)? as f64 / 1024.0);
        Ok(Memory { peak_rss: mib("VmHWM:")?, rss: mib("VmRSS:")?, anon: mib("RssAnon:")? })
    }
}

// === impl Activity ===

impl Activity {
    /// Of this process.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn own() -> anyhow::Result<Self> {
        Self::of_process("self")
    }

    /// Between an earlier moment and this one.
    pub(crate) fn since(&self, before: &Activity) -> Rates {
        let seconds = (self.at - before.at).as_secs_f64();
        Rates {
            cores: (self.cpu - before.cpu) / seconds,
            switches: (self.switches - before.switches) as f64 / seconds,
        }
    }

    /// Threads that have ended do not count.
    fn of_process(id: &str) -> anyhow::Result<Self> {
        let mut activity = Activity { at: Instant::now(), cpu: 0.0, switches: 0 };
        for thread in fs::read_dir(format!("/proc/{id}/task"))? {
            let thread = thread?.path();
            let Ok(schedstat) = fs::read_to_string(thread.join("schedstat")) else { continue };
            activity.cpu += schedstat.split(' ').next().context("no schedstat")?.parse::<f64>()? / 1e9;
            let status = fs::read_to_string(thread.join("status"))?;
            activity.switches += field(&status, "voluntary_ctxt_switches:")?;
            activity.switches += field(&status, "nonvoluntary_ctxt_switches:")?;
        }
        Ok(activity)
    }
}

/// The number of a line of `status`.
fn field(status: &str, name: &str) -> anyhow::Result<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let value = line.with_context(|| format!("no {name}"))?.trim().trim_end_matches(" kB");
    Ok(value.parse()?)
}
