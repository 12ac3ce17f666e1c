//! Lines of CRI and Docker log files, one behind the other.

use std::sync::LazyLock;

use regex::bytes::{Captures, Regex};
use serde::Deserialize;
use sidelight_agent::logs::split::{Splitter, Stream, Time};

/// A head that is whole, and its content: as the agent reads it, or as it is read here.
type Read = (Time, Stream, bool, Vec<u8>);

static CRI: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"(?s-u)\A([^ ]+) (stdout|stderr) (F|P)(?::[^ ]*)? (.*)\z").expect("a valid regex")
});
static TIME: LazyLock<Regex> = LazyLock::new(|| {
    let pattern = r"(?-u)\A([0-9]{4})-([0-9]{2})-([0-9]{2})T([0-9]{2}):([0-9]{2}):([0-9]{2})(?:\.([0-9]{1,9}))?(?:Z|([+-])([0-9]{2}):([0-9]{2}))\z";
    Regex::new(pattern).expect("a valid regex")
});

/// A line is read as a slow reader, a regex or serde_json, reads it, whatever stood before it; and a time that was printed
/// is read as the same.
pub fn heads(data: &[u8]) {
    let mut splitter = Splitter::default();
    for line in data.split(|byte| *byte == b'\n') {
        let read = splitter
            .split(line)
            .map(|line| (line.time, line.stream, line.partial, line.content.into_owned()));
        let expected = if line.starts_with(b"{") { docker(line) } else { cri(line) };
        assert_eq!(read, expected, "{:?}", String::from_utf8_lossy(line));
        if let Some((time, ..)) = read {
            printed_again(time);
        }
    }
}

fn cri(line: &[u8]) -> Option<Read> {
    let found = CRI.captures(line)?;
    Some((time(&found[1])?, stream(&found[2])?, &found[3] == b"P", found[4].to_vec()))
}

fn docker(line: &[u8]) -> Option<Read> {
    #[derive(Deserialize)]
    struct Entry {
        log: String,
        stream: String,
        time: String,
    }
    let entry: Entry = serde_json::from_slice(line).ok()?;
    let content = entry.log.strip_suffix('\n');
    let text = content.unwrap_or(&entry.log).as_bytes().to_vec();
    Some((time(entry.time.as_bytes())?, stream(entry.stream.as_bytes())?, content.is_none(), text))
}

fn stream(name: &[u8]) -> Option<Stream> {
    [Stream::Stdout, Stream::Stderr].into_iter().find(|stream| stream.name().as_bytes() == name)
}

/// RFC 3339 without leap seconds: the days are counted one by one.
fn time(text: &[u8]) -> Option<Time> {
    let found = TIME.captures(text)?;
    let (year, month, day) = (number(&found, 1), number(&found, 2), number(&found, 3));
    let (hour, minute, second) = (number(&found, 4), number(&found, 5), number(&found, 6));
    let fraction = found.get(7).map_or(&b"0"[..], |digits| digits.as_bytes());
    let (offset_hour, offset_minute) = match found.get(8) {
        Some(_) => (number(&found, 9), number(&found, 10)),
        None => (0, 0),
    };
    let is_in_range = (1..=12).contains(&month)
        && (1..=days_of(year, month)).contains(&day)
        && hour < 24
        && minute < 60
        && second < 60
        && offset_hour < 24
        && offset_minute < 60;
    if !is_in_range {
        return None;
    }
    let years: i64 = if year < 1970 {
        -(year..1970).map(days_of_year).sum::<i64>()
    } else {
        (1970..year).map(days_of_year).sum()
    };
    let days = years + (1..month).map(|month| days_of(year, month)).sum::<i64>() + day - 1;
    let offset = offset_hour * 3600 + offset_minute * 60;
    let offset = if found.get(8).is_some_and(|sign| sign.as_bytes() == b"-") { -offset } else { offset };
    let nanos = format!("{:0<9}", String::from_utf8_lossy(fraction)).parse().expect("nine digits");
    Some(Time { seconds: days * 86_400 + hour * 3600 + minute * 60 + second - offset, nanos })
}

fn number(found: &Captures<'_>, group: usize) -> i64 {
    found[group].iter().fold(0, |sum, digit| sum * 10 + i64::from(digit - b'0'))
}

fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

fn days_of_year(year: i64) -> i64 {
    if is_leap(year) { 366 } else { 365 }
}

fn days_of(year: i64, month: i64) -> i64 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// What a time prints is a time that every reader of RFC 3339 takes, and the same.
fn printed_again(read: Time) {
    let printed = read.to_string();
    // An offset may lead out of the years that have four digits.
    if TIME.is_match(printed.as_bytes()) {
        assert_eq!(time(printed.as_bytes()), Some(read), "{printed}");
    } else {
        assert!(!(-62_167_219_200..253_402_300_800).contains(&read.seconds), "{printed}");
    }
}
