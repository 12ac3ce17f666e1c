//! One line of a log file: its head (time, stream, whether it is whole) and its content.
//!
//! Two formats, told apart by the first byte of each line: CRI (containerd, CRI-O) and Docker's json-file.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

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

/// Reads heads; keeps the last date, since the lines of a file share it.
#[derive(Debug, Default)]
pub struct Splitter {
    date: [u8; 10],
    midnight: i64,
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

impl Splitter {
    /// Reads a line; none when it is torn.
    pub fn split<'a>(&mut self, line: &'a [u8]) -> Option<Line<'a>> {
        if line.first() == Some(&b'{') { self.docker(line) } else { self.cri(line) }
    }

    /// `TIME SP (stdout|stderr) SP TAG[:TAG…] SP CONTENT`; the first tag is `P` or `F`, further ones are reserved
    /// (kubelet, `pkg/kubelet/kuberuntime/logs/logs.go`, `parseCRILog`).
    fn cri<'a>(&mut self, line: &'a [u8]) -> Option<Line<'a>> {
        // Every time is 20 to 35 bytes.
        let space = line.iter().take(36).skip(20).position(|byte| *byte == b' ')? + 20;
        let time = self.time(&line[..space])?;
        let (stream, rest) = match line.get(space + 1..space + 8)? {
            b"stdout " => (Stream::Stdout, &line[space + 8..]),
            b"stderr " => (Stream::Stderr, &line[space + 8..]),
            _ => return None,
        };
        let partial = match rest.first()? {
            b'F' => false,
            b'P' => true,
            _ => return None,
        };
        let content = match rest.get(1) {
            Some(b' ') => &rest[2..],
            Some(b':') => &rest[memchr::memchr(b' ', rest)? + 1..],
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
            stream: &'a str,
            time: &'a str,
        }
        let entry: Entry<'a> = serde_json::from_slice(line).ok()?;
        let mut log = entry.log.into_owned().into_bytes();
        let partial = log.pop_if(|last| *last == b'\n').is_none();
        let stream = match entry.stream {
            "stdout" => Stream::Stdout,
            "stderr" => Stream::Stderr,
            _ => return None,
        };
        Some(Line { time: self.time(entry.time.as_bytes())?, stream, partial, content: Cow::Owned(log) })
    }

    /// RFC 3339 with `Z` or an offset, and 0 to 9 digits of a second.
    fn time(&mut self, text: &[u8]) -> Option<Time> {
        let (date, clock) = text.split_at_checked(10)?;
        if self.date != date {
            self.midnight = midnight(date)?;
            self.date.copy_from_slice(date);
        }
        let [b'T', h1, h2, b':', m1, m2, b':', s1, s2, rest @ ..] = clock else { return None };
        let seconds = two(*h1, *h2)? * 3600 + two(*m1, *m2)? * 60 + two(*s1, *s2)?;
        let (nanos, zone) = match rest {
            [b'.', fraction @ ..] => fraction_and_zone(fraction)?,
            zone => (0, zone),
        };
        let offset = match zone {
            b"Z" => 0,
            [sign @ (b'+' | b'-'), h1, h2, b':', m1, m2] => {
                let offset = two(*h1, *h2)? * 3600 + two(*m1, *m2)? * 60;
                if *sign == b'+' { offset } else { -offset }
            }
            _ => return None,
        };
        Some(Time { seconds: self.midnight + seconds - offset, nanos })
    }
}

fn digit(byte: u8) -> Option<i64> {
    byte.is_ascii_digit().then(|| i64::from(byte - b'0'))
}

fn two(tens: u8, ones: u8) -> Option<i64> {
    Some(digit(tens)? * 10 + digit(ones)?)
}

fn fraction_and_zone(text: &[u8]) -> Option<(u32, &[u8])> {
    let digits = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    if !(1..=9).contains(&digits) {
        return None;
    }
    let number = text[..digits].iter().fold(0, |sum, byte| sum * 10 + u32::from(byte - b'0'));
    Some((number * 10u32.pow(9 - digits as u32), &text[digits..]))
}

/// Seconds from the epoch to the first of the day `YYYY-MM-DD` (proleptic Gregorian calendar; the algorithm is
/// Howard Hinnant's `days_from_civil`).
fn midnight(date: &[u8]) -> Option<i64> {
    let [y1, y2, y3, y4, b'-', m1, m2, b'-', d1, d2] = date else { return None };
    let (year, month, day) = (two(*y1, *y2)? * 100 + two(*y3, *y4)?, two(*m1, *m2)?, two(*d1, *d2)?);
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) {
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
    }

    #[test]
    fn torn_lines_are_none() {
        let torn: [&[u8]; 9] = [
            b"",
            b"half a line",
            b"2026-11-24T10:00:00.5Z stdout",
            b"2026-11-24T10:00:00.5Z stdout X y",
            b"2026-11-24T10:00:00.5Z stdxxx F y",
            b"2026-03-10T15:48:15.2+08:00 stdout 2026-03-10T16:03:15.2+08:00 stdout F + true",
            b"2026-13-24T10:00:00.5Z stdout F y",
            b"2026-11-24T10:00:00.1234567890Z stdout F y",
            b"{\"log\":\"x\"",
        ];
        for line in torn {
            assert_eq!(split(line), None, "{:?}", String::from_utf8_lossy(line));
        }
    }
}
