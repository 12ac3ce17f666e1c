//! Quantities of resources.

/// Suffixes of a quantity, each with its factor.
const SUFFIXES: [(&str, f64); 16] = [
    ("Ki", 1024.0),
    ("Mi", 1_048_576.0),
    ("Gi", 1_073_741_824.0),
    ("Ti", 1_099_511_627_776.0),
    ("Pi", 1_125_899_906_842_624.0),
    ("Ei", 1_152_921_504_606_846_976.0),
    ("n", 1e-9),
    ("u", 1e-6),
    ("m", 1e-3),
    ("k", 1e3),
    ("M", 1e6),
    ("G", 1e9),
    ("T", 1e12),
    ("P", 1e15),
    ("E", 1e18),
    ("", 1.0),
];

/// The number of a quantity, in its base unit: cores, bytes. None when it is none. Source: `resource.Quantity` of
/// `k8s.io/apimachinery`.
pub fn parse(text: &str) -> Option<f64> {
    let (digits, factor) =
        SUFFIXES.iter().find_map(|(suffix, factor)| Some((text.strip_suffix(suffix)?, factor)))?;
    // `parse` takes names as well, "inf" for example.
    let number: f64 = digits.bytes().next_back()?.is_ascii_digit().then(|| digits.parse().ok())??;
    // A quantity has an exponent or a suffix.
    if !number.is_finite() || (*factor != 1.0 && digits.contains(['e', 'E'])) {
        return None;
    }
    // Divided, a thousandth is exact where it can be: 0.001 is none.
    Some(if *factor < 1.0 { number / (1.0 / factor).round() } else { number * factor })
}

/// Whether it is a quantity above nothing.
pub fn is_positive(text: &str) -> bool {
    parse(text).is_some_and(|number| number > 0.0)
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn quantities_are_read_as_the_api_writes_them() {
        for (text, number) in [
            ("2", 2.0),
            ("0.5", 0.5),
            ("100m", 0.1),
            ("1500m", 1.5),
            ("64Mi", 67_108_864.0),
            ("1.5Gi", 1_610_612_736.0),
            ("128974848", 128_974_848.0),
            ("129e6", 129e6),
            ("1E3", 1000.0),
            ("1E", 1e18),
            ("5k", 5000.0),
            ("250u", 0.000_25),
            ("-1", -1.0),
        ] {
            assert_eq!(parse(text), Some(number), "{text}");
        }
        for text in ["", "m", "1x", "inf", "NaN", "1 Gi", "Mi", "1e1Mi", "1e400"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
