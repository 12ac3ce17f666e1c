//! Durations as users write them.

use std::time::Duration;

/// Units and their milliseconds, shortest first.
pub const UNITS: [(&str, u64); 4] = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000)];

/// Reads a duration such as `100ms`, `5s`, `10m` or `1h`.
pub fn parse(text: &str) -> Option<Duration> {
    let millis = UNITS
        .iter()
        .find_map(|(unit, millis)| text.strip_suffix(unit)?.parse::<u64>().ok()?.checked_mul(*millis));
    millis.map(Duration::from_millis)
}
