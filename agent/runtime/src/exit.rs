//! How the process ends: the codes it ends with, and what a panic means.
//!
//! A panic ends the process, because a thread that is gone while the others go on looks alive and does nothing. Code that works on input
//! from outside runs inside [`catching`] instead, where one bad input is not the end.

use std::any::Any;
use std::cell::Cell;
use std::panic::{self, AssertUnwindSafe, PanicHookInfo};

/// All went well.
pub const SUCCESS: u8 = 0;
/// The answer is no: a failed check, a parse error, something lost or unknown.
pub const NEGATIVE: u8 = 1;
/// The command line or the configuration is wrong (`EX_USAGE`).
pub const USAGE: u8 = 64;
/// The process to be asked cannot be reached (`EX_UNAVAILABLE`).
pub const UNAVAILABLE: u8 = 69;
/// A panic (`EX_SOFTWARE`).
pub const PANIC: u8 = 70;
/// The data directory cannot be used (`EX_CANTCREAT`).
pub const DATA_DIR: u8 = 73;

thread_local! {
    /// How many calls of [`catching`] this thread is in.
    static CATCHING: Cell<usize> = const { Cell::new(0) };
}

/// From now on a panic is logged, and outside of [`catching`] it ends the process with [`PANIC`].
pub fn install_panic_hook() {
    panic::set_hook(Box::new(|info| {
        let caught = CATCHING.get() > 0;
        let thread = std::thread::current();
        tracing::error!(
            thread = thread.name().unwrap_or("unnamed"),
            location = info.location().map(tracing::field::display),
            panic = text(info),
            caught,
            "panic"
        );
        if !caught {
            std::process::exit(PANIC.into());
        }
    }));
}

/// Runs `f`; a panic in it is the error that comes back. What `f` has changed may then be half done: the caller throws it away.
///
/// # Errors
/// The panic's payload.
pub fn catching<T>(f: impl FnOnce() -> T) -> std::thread::Result<T> {
    CATCHING.set(CATCHING.get() + 1);
    let result = panic::catch_unwind(AssertUnwindSafe(f));
    CATCHING.set(CATCHING.get() - 1);
    result
}

fn text<'a>(info: &'a PanicHookInfo<'_>) -> &'a str {
    let payload: &(dyn Any + Send) = info.payload();
    let text = payload.downcast_ref::<&str>().copied();
    text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("not a text")
}

#[cfg(test)]
pub(crate) mod tests {
    use std::process::{Command, Stdio};

    use super::*;
    use crate::logging::{self, LogFormat};

    pub(crate) struct Ended {
        pub(crate) code: Option<i32>,
        pub(crate) stderr: String,
    }

    const ALONE: &str = "TEST_RUNS_ALONE";

    /// Whether [`run_alone`] has started this process. The tests for it do nothing else where somebody runs all ignored ones.
    pub(crate) fn is_alone() -> bool {
        std::env::var_os(ALONE).is_some()
    }

    /// Runs one ignored test of this crate in a process of its own: hooks and loggers are for a whole process.
    pub(crate) fn run_alone(test: &str, rust_log: Option<&str>) -> Ended {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["--ignored", "--exact", "--nocapture", test])
            .env_remove("RUST_LOG")
            .env(ALONE, "1")
            .stdin(Stdio::null());
        if let Some(level) = rust_log {
            command.env("RUST_LOG", level);
        }
        let output = command.output().unwrap();
        let stdout = String::from_utf8_lossy(&output.stdout);
        assert!(stdout.contains("running 1 test"), "no test is called {test}: {stdout}");
        Ended { code: output.status.code(), stderr: String::from_utf8_lossy(&output.stderr).into_owned() }
    }

    #[test]
    #[ignore = "the process that other tests start"]
    fn panic_in_another_thread() {
        if !is_alone() {
            return;
        }
        logging::init(LogFormat::Text);
        install_panic_hook();
        let _ = std::thread::Builder::new()
            .name("reader".to_owned())
            .spawn(|| panic!("out of {}", "luck"))
            .unwrap()
            .join();
    }

    #[test]
    #[ignore = "the process that other tests start"]
    fn panic_while_catching() {
        if !is_alone() {
            return;
        }
        logging::init(LogFormat::Text);
        install_panic_hook();
        assert!(catching(|| catching(|| panic!("inner"))).unwrap().is_err());
        assert!(catching(|| panic!("outer")).is_err());
    }

    #[test]
    #[ignore = "the process that other tests start"]
    fn panic_after_catching() {
        if !is_alone() {
            return;
        }
        install_panic_hook();
        let _ = catching(|| panic!("caught"));
        panic!("not caught");
    }

    #[test]
    fn a_panic_in_any_thread_ends_the_process_and_is_logged() {
        let ended = run_alone("exit::tests::panic_in_another_thread", None);
        assert_eq!(ended.code, Some(70));
        for part in ["out of luck", "reader", "exit.rs:"] {
            assert!(ended.stderr.contains(part), "{part:?} is missing in {}", ended.stderr);
        }
    }

    #[test]
    fn a_panic_that_is_caught_is_logged_and_ends_nothing() {
        let ended = run_alone("exit::tests::panic_while_catching", None);
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        assert!(ended.stderr.contains("inner") && ended.stderr.contains("caught=true"), "{}", ended.stderr);
    }

    #[test]
    fn a_panic_after_one_that_was_caught_ends_the_process() {
        assert_eq!(run_alone("exit::tests::panic_after_catching", None).code, Some(70));
    }

    #[test]
    fn what_does_not_panic_comes_back() {
        assert_eq!(catching(|| 42).ok(), Some(42));
    }
}
