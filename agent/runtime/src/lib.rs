//! The shell around a process: how it logs, speaks to who has typed its command, answers its administrator, hears signals, says that it is alive and ends.
//! Knows nothing of what the process does.

pub mod admin;
pub mod exit;
pub mod logging;
pub mod process;
pub mod progress;
pub mod signals;
pub mod terminal;
