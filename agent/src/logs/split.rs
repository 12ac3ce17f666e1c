//! One line of a log file: its head (time, stream, whether it is whole) and its content.
//!
//! Two formats, told apart by the first byte of each line: CRI (containerd, CRI-O) and Docker's json-file. In files that an
//! app writes by itself, lines have no head.

use std::borrow::Cow;
use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Deserialize;

/// A point in time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time {
    /// Seconds since the epoch.
    pub seconds: i64,
    /// Nanoseconds of that second.
    pub nanos: u32,
}

impl Time {
    /// Now.
    pub fn now() -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Time { seconds: i64::try_from(now.as_secs()).unwrap_or(i64::MAX), nanos: now.subsec_nanos() }
    }

    /// Time since `earlier`; nothing where that is later.
    pub fn since(self, earlier: Time) -> Duration {
        let nanos = |time: Time| i128::from(time.seconds) * 1_000_000_000 + i128::from(time.nanos);
        u64::try_from(nanos(self) - nanos(earlier)).map_or(Duration::ZERO, Duration::from_nanos)
    }
}

/// Where the container wrote the line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// A line without its newline.
#[derive(Debug, PartialEq, Eq)]
pub struct Line<'a> {
    /// When the runtime read it.
    pub time: Time,
    /// Its stream.
    pub stream: Stream,
    /// Whether more of the same line follows.
    pub partial: bool,
    /// What the container wrote.
    pub content: Cow<'a, [u8]>,
}

/// Reads heads; keeps the last minute, since the lines of a file share it.
#[derive(Debug)]
pub struct Splitter {
    /// `YYYY-MM-DDTHH:MM:`
    minute: [u8; 17],
    /// Seconds from the epoch to that minute.
    begun: i64,
    /// Lines have no head: the time that each gets.
    plain: Option<Time>,
}

// === impl Time ===

impl fmt::Display for Time {
    /// RFC 3339 in UTC with nanoseconds.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (days, second) = (self.seconds.div_euclid(86_400), self.seconds.rem_euclid(86_400));
        // Howard Hinnant's `civil_from_days`.
        let shifted = days + 719_468;
        let (era, day_of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
        let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * month + 2) / 5 + 1;
        let month = if month < 10 { month + 3 } else { month - 9 };
        let year = year_of_era + era * 400 + i64::from(month <= 2);
        let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:09}Z", self.nanos)
    }
}

// === impl Stream ===

impl Stream {
    /// As the record names it.
    pub fn name(self) -> &'static str {
        match self {
            Stream::Stdout => "stdout",
            Stream::Stderr => "stderr",
        }
    }
}

// === impl Splitter ===

impl Default for Splitter {
    fn default() -> Self {
        Splitter { minute: *b"1970-01-01T00:00:", begun: 0, plain: None }
    }
}

impl Splitter {
    /// For lines without a head, which are read at this time.
    pub fn plain(time: Time) -> Self {
        Splitter { plain: Some(time), ..Splitter::default() }
    }

    /// Reads a line; none when it is torn.
    pub fn split<'a>(&mut self, line: &'a [u8]) -> Option<Line<'a>> {
        if let Some(time) = self.plain {
            // Who does not append, and has the file truncated, leaves a hole in front of the next line.
            let hole = line.iter().take_while(|byte| **byte == 0).count();
            let content = Cow::Borrowed(&line[hole..]);
            return Some(Line { time, stream: Stream::Stdout, partial: false, content });
        }
        if line.first() == Some(&b'{') { self.docker(line) } else { self.cri(line) }
    }

    /// `TIME SP (stdout|stderr) SP TAG[:TAG…] SP CONTENT`; the first tag is `P` or `F`, further ones are reserved
    /// (kubelet, `pkg/kubelet/kuberuntime/logs/logs.go`, `parseCRILog`).
    fn cri<'a>(&mut self, line: &'a [u8]) -> Option<Line<'a>> {
        let (time, rest) = self.time(line)?;
        let (stream, rest) = match rest.split_first_chunk()? {
            (b" stdout ", rest) => (Stream::Stdout, rest),
            (b" stderr ", rest) => (Stream::Stderr, rest),
            _ => return None,
        };
        let (partial, rest) = match rest.split_first()? {
            (b'F', rest) => (false, rest),
            (b'P', rest) => (true, rest),
            _ => return None,
        };
        let content = match rest.split_first()? {
            (b' ', content) => content,
            (b':', tags) => &tags[memchr::memchr(b' ', tags)? + 1..],
            _ => return None,
        };
        Some(Line { time, stream, partial, content: Cow::Borrowed(content) })
    }

    /// `{"log":"…\n","stream":"stdout","time":"…"}`: a `log` without a newline at its end is partial.
    fn docker<'a>(&mut self, line: &'a [u8]) -> Option<Line<'a>> {
        #[derive(Deserialize)]
        struct Entry<'a> {
            #[serde(borrow)]
            log: Cow<'a, str>,
            #[serde(borrow)]
            stream: Cow<'a, str>,
            #[serde(borrow)]
            time: Cow<'a, str>,
        }
        let entry: Entry<'a> = serde_json::from_slice(line).ok()?;
        let mut log = entry.log.into_owned().into_bytes();
        let partial = log.pop_if(|last| *last == b'\n').is_none();
        let stream = match &*entry.stream {
            "stdout" => Stream::Stdout,
            "stderr" => Stream::Stderr,
            _ => return None,
        };
        let (time, b"") = self.time(entry.time.as_bytes())? else { return None };
        Some(Line { time, stream, partial, content: Cow::Owned(log) })
    }

    /// RFC 3339 with `Z` or an offset, and 0 to 9 digits of a second; and what follows it.
    fn time<'a>(&mut self, text: &'a [u8]) -> Option<(Time, &'a [u8])> {
        let (minute, rest) = text.split_first_chunk()?;
        if self.minute != *minute {
            self.begun = start_of_minute(minute)?;
            self.minute = *minute;
        }
        let ([s1, s2], rest) = rest.split_first_chunk()?;
        let (nanos, rest) = match rest.split_first()? {
            (b'.', fraction) => nanoseconds(fraction)?,
            _ => (0, rest),
        };
        let (offset, rest) = match rest.split_first()? {
            (b'Z', rest) => (0, rest),
            (b'+', zone) => zone_offset(zone)?,
            (b'-', zone) => zone_offset(zone).map(|(offset, rest)| (-offset, rest))?,
            _ => return None,
        };
        Some((Time { seconds: self.begun + below(60, *s1, *s2)? - offset, nanos }, rest))
    }
}

fn digit(byte: u8) -> Option<i64> {
    byte.is_ascii_digit().then(|| i64::from(byte - b'0'))
}

fn two(tens: u8, ones: u8) -> Option<i64> {
    Some(digit(tens)? * 10 + digit(ones)?)
}

fn below(limit: i64, tens: u8, ones: u8) -> Option<i64> {
    two(tens, ones).filter(|number| *number < limit)
}

/// 1 to 9 digits of a second, and what follows them.
fn nanoseconds(text: &[u8]) -> Option<(u32, &[u8])> {
    let (mut nanos, mut unit) = (0, 1_000_000_000);
    let mut rest = text;
    while let Some((digit @ b'0'..=b'9', after)) = rest.split_first() {
        unit /= 10;
        if unit == 0 {
            return None;
        }
        nanos += u32::from(digit - b'0') * unit;
        rest = after;
    }
    (rest.len() < text.len()).then_some((nanos, rest))
}

/// Seconds of `HH:MM`, and what follows it.
fn zone_offset(text: &[u8]) -> Option<(i64, &[u8])> {
    let ([h1, h2, b':', m1, m2], rest) = text.split_first_chunk()? else { return None };
    Some((below(24, *h1, *h2)? * 3600 + below(60, *m1, *m2)? * 60, rest))
}

/// Seconds from the epoch to a minute, `YYYY-MM-DDTHH:MM:`.
fn start_of_minute(text: &[u8; 17]) -> Option<i64> {
    let (date, [b'T', h1, h2, b':', m1, m2, b':']) = text.split_first_chunk()? else { return None };
    Some(midnight(date)? + below(24, *h1, *h2)? * 3600 + below(60, *m1, *m2)? * 60)
}

/// Seconds from the epoch to the first of the day `YYYY-MM-DD` (proleptic Gregorian calendar; the algorithm is
/// Howard Hinnant's `days_from_civil`).
fn midnight(date: &[u8; 10]) -> Option<i64> {
    let [y1, y2, y3, y4, b'-', m1, m2, b'-', d1, d2] = date else { return None };
    let (year, month, day) = (two(*y1, *y2)? * 100 + two(*y3, *y4)?, two(*m1, *m2)?, two(*d1, *d2)?);
    let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days = match month {
        2 if is_leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    };
    if !(1..=12).contains(&month) || !(1..=days).contains(&day) {
        return None;
    }
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    Some((era * 146_097 + day_of_era - 719_468) * 86_400)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(line: &[u8]) -> Option<Line<'_>> {
        Splitter::default().split(line)
    }

    fn cri(seconds: i64, nanos: u32, stream: Stream, partial: bool, content: &[u8]) -> Option<Line<'_>> {
        Some(Line { time: Time { seconds, nanos }, stream, partial, content: Cow::Borrowed(content) })
    }

    #[test]
    fn lines_of_containerd_and_of_cri_o_are_read() {
        let line = b"2026-11-24T10:00:00.5Z stdout F hello world";
        assert_eq!(split(line), cri(1_795_514_400, 500_000_000, Stream::Stdout, false, b"hello world"));
        let line = b"2026-11-24T12:00:00.123456789+02:00 stderr P part";
        assert_eq!(split(line), cri(1_795_514_400, 123_456_789, Stream::Stderr, true, b"part"));
        let line = b"2026-11-24T10:00:00Z stdout F ";
        assert_eq!(split(line), cri(1_795_514_400, 0, Stream::Stdout, false, b""));
        let line = b"2026-11-24T10:00:00Z stdout P:reserved:more x";
        assert_eq!(split(line), cri(1_795_514_400, 0, Stream::Stdout, true, b"x"));
        let line = b"1969-12-31T23:59:59-00:00 stdout F x";
        assert_eq!(split(line), cri(-1, 0, Stream::Stdout, false, b"x"));
    }

    #[test]
    fn lines_of_docker_are_read_and_partial_without_their_newline() {
        let line = br#"{"log":"a \"b\"\n","stream":"stderr","time":"2026-11-24T10:00:00.000000001Z"}"#;
        let read = split(line).unwrap();
        assert_eq!(
            (read.content.as_ref(), read.stream, read.partial),
            (&b"a \"b\""[..], Stream::Stderr, false)
        );
        assert_eq!(read.time, Time { seconds: 1_795_514_400, nanos: 1 });
        let line = br#"{"log":"a","stream":"stdout","time":"2026-11-24T10:00:00Z"}"#;
        assert!(split(line).unwrap().partial);
        let line = br#"{"log":"a\n","stream":"std\u006fut","time":"2026-11-24T10\u003a00:00Z"}"#;
        assert_eq!(split(line).unwrap().time.seconds, 1_795_514_400);
    }

    #[test]
    fn torn_lines_are_none() {
        let torn: [&[u8]; 14] = [
            b"",
            b"half a line",
            b"2026-11-24T10:00:00.5Z stdout",
            b"2026-11-24T10:00:00.5Z stdout X y",
            b"2026-11-24T10:00:00.5Z stdxxx F y",
            b"2026-03-10T15:48:15.2+08:00 stdout 2026-03-10T16:03:15.2+08:00 stdout F + true",
            b"2026-13-24T10:00:00.5Z stdout F y",
            b"2026-11-24T10:00:00.1234567890Z stdout F y",
            b"2026-02-29T10:00:00.5Z stdout F y",
            b"2026-11-24T24:00:00.5Z stdout F y",
            b"2026-11-24T10:60:00.5Z stdout F y",
            b"2026-11-24T10:00:00+00:60 stdout F y",
            b"\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x0000Z stdout F y",
            b"{\"log\":\"x\"",
        ];
        for line in torn {
            assert_eq!(split(line), None, "{:?}", String::from_utf8_lossy(line));
        }
    }
}
