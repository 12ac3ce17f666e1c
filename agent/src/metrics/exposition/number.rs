//! Numbers of a page.

/// A value: decimal, with or without exponent, or an infinity or NaN in any case. No hexadecimal, no underscores, as in
/// Prometheus and in OpenMetrics's `realnumber`.
pub(super) fn float(text: &[u8]) -> Option<f64> {
    let text = std::str::from_utf8(text).ok()?;
    let value: f64 = text.parse().ok()?;
    // One NaN for all: other bits are stale markers.
    Some(if value.is_nan() { f64::NAN } else { value })
}

/// OpenMetrics's time, seconds since the epoch, in milliseconds.
pub(super) fn seconds(text: &[u8]) -> Option<i64> {
    let milliseconds = (float(text)? * 1_000.0).round();
    milliseconds.is_finite().then_some(milliseconds as i64)
}

/// The text format's time, milliseconds since the epoch.
pub(super) fn milliseconds(text: &[u8]) -> Option<i64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_decimal_infinite_or_not_a_number() {
        for (text, value) in [
            ("1", 1.0),
            ("-0.5e-3", -0.5e-3),
            ("+7.", 7.0),
            (".25", 0.25),
            ("0000000000000000000000000001.2e-1", 0.12),
            ("+Inf", f64::INFINITY),
            ("-inf", f64::NEG_INFINITY),
            ("1e999", f64::INFINITY),
        ] {
            assert_eq!(float(text.as_bytes()), Some(value), "{text}");
        }
        assert_eq!(float(b"NaN").map(f64::to_bits), Some(f64::NAN.to_bits()));
        for text in ["", " 1", "1 ", "0x1", "0x1p-3", "1_000", "one", "1.1.1", "\u{ff11}"] {
            assert_eq!(float(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn times_are_milliseconds_in_text_and_seconds_in_open_metrics() {
        assert_eq!(milliseconds(b"1395066363000"), Some(1_395_066_363_000));
        assert_eq!(milliseconds(b"-1"), Some(-1));
        assert_eq!(seconds(b"1520879607.789"), Some(1_520_879_607_789));
        assert_eq!(seconds(b"-0.0015"), Some(-2));
        assert_eq!(seconds(b"1e300"), Some(i64::MAX));
        assert!(["NaN", "Inf", ""].iter().all(|text| seconds(text.as_bytes()).is_none()));
        assert!(["1.5", "", "1e3"].iter().all(|text| milliseconds(text.as_bytes()).is_none()));
    }
}
