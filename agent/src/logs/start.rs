//! Where an output begins in files that exist at its first start.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::config::READ_WINDOW;
use crate::logs::generation::Generation;
use crate::logs::split::Splitter;

/// Behind the last whole line.
pub fn at_end(generation: &Generation) -> u64 {
    let Some(source) = generation.source() else { return 0 };
    let mut window = vec![0; READ_WINDOW];
    let mut end = generation.size();
    while end > 0 {
        let from = end.saturating_sub(READ_WINDOW as u64);
        let wanted = usize::try_from(end - from).unwrap_or(READ_WINDOW);
        let read = source.read_at(&mut window[..wanted], from).unwrap_or(0);
        if let Some(newline) = memchr::memrchr(b'\n', &window[..read]) {
            return from + newline as u64 + 1;
        }
        end = from;
    }
    0
}

/// At the first record that is younger than `age`; at the end when there is none.
pub fn since(generation: &Generation, age: Duration) -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let oldest = i64::try_from(now.saturating_sub(age).as_secs()).unwrap_or(i64::MAX);
    let Some(source) = generation.source() else { return 0 };
    let mut splitter = Splitter::default();
    let mut window = vec![0; READ_WINDOW];
    let mut offset = 0;
    loop {
        let read = source.read_at(&mut window, offset).unwrap_or(0);
        let mut start = 0;
        for newline in memchr::memchr_iter(b'\n', &window[..read]) {
            if splitter.split(&window[start..newline]).is_some_and(|line| line.time.seconds >= oldest) {
                return offset + start as u64;
            }
            start = newline + 1;
        }
        if start == 0 {
            // The end, or one line longer than the window: read it rather than guess.
            return offset;
        }
        offset += start as u64;
    }
}
