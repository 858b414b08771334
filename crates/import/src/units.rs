//! Sizes, times and shares of processors, in the spellings of the formats.

/// Bytes as Docker writes them: `512m`, `1.5gb`, `64KiB`; every unit is a power of 1024.
pub(crate) fn docker_bytes(text: &str) -> Option<u64> {
    let (number, unit) = split(text)?;
    let unit = unit.to_ascii_lowercase();
    let power = match unit.trim_end_matches("ib").trim_end_matches('b') {
        "" => 0,
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        _ => return None,
    };
    whole(number * 1024_f64.powi(power))
}

/// A Kubernetes quantity in thousandths: `500m`, `1.5`, `1e3`.
pub(crate) fn quantity_milli(text: &str) -> Option<u64> {
    let text = text.trim();
    match text.strip_suffix('m') {
        Some(milli) => whole(number(milli)?),
        None => whole(quantity(text)? * 1000.0),
    }
}

/// A Kubernetes quantity in units: `128Mi` is binary, `128M` decimal.
pub(crate) fn quantity_bytes(text: &str) -> Option<u64> {
    let text = text.trim();
    match text.strip_suffix('m') {
        Some(milli) => whole(number(milli)? / 1000.0),
        None => whole(quantity(text)?),
    }
}

fn quantity(text: &str) -> Option<f64> {
    const UNITS: [(&str, f64); 12] = [
        ("Ki", 1024.0),
        ("Mi", 1_048_576.0),
        ("Gi", 1_073_741_824.0),
        ("Ti", 1_099_511_627_776.0),
        ("Pi", 1_125_899_906_842_624.0),
        ("k", 1e3),
        ("K", 1e3),
        ("M", 1e6),
        ("G", 1e9),
        ("T", 1e12),
        ("P", 1e15),
        ("", 1.0),
    ];
    let (digits, factor) = UNITS.iter().find_map(|(unit, factor)| {
        let digits = text.strip_suffix(unit)?;
        digits.ends_with(|c: char| c.is_ascii_digit() || c == '.').then_some((digits, factor))
    })?;
    Some(number(digits)? * factor)
}

/// Bytes as systemd writes them: `K`, `M`, `G`, `T` are powers of 1024.
pub(crate) fn systemd_bytes(text: &str) -> Option<u64> {
    docker_bytes(text)
}

/// Milliseconds of a time as Go writes it: `1m30s`, `500ms`, `1.5h`; a number alone is in nanoseconds there, and seconds here.
pub(crate) fn go_ms(text: &str) -> Option<u64> {
    spans(
        text,
        &[
            ("ms", 1.0),
            ("us", 0.001),
            ("µs", 0.001),
            ("ns", 0.000_001),
            ("h", 3.6e6),
            ("m", 6e4),
            ("s", 1e3),
            ("d", 8.64e7),
        ],
    )
}

/// Milliseconds of a time as systemd writes it: `5min 20s`, `90`, `2h`.
pub(crate) fn systemd_ms(text: &str) -> Option<u64> {
    const UNITS: [(&str, f64); 24] = [
        ("msec", 1.0),
        ("ms", 1.0),
        ("usec", 0.001),
        ("us", 0.001),
        ("seconds", 1e3),
        ("second", 1e3),
        ("sec", 1e3),
        ("s", 1e3),
        ("minutes", 6e4),
        ("minute", 6e4),
        ("min", 6e4),
        ("months", 2.6298e9),
        ("month", 2.6298e9),
        ("m", 6e4),
        ("hours", 3.6e6),
        ("hour", 3.6e6),
        ("hr", 3.6e6),
        ("h", 3.6e6),
        ("days", 8.64e7),
        ("day", 8.64e7),
        ("d", 8.64e7),
        ("weeks", 6.048e8),
        ("week", 6.048e8),
        ("w", 6.048e8),
    ];
    spans(text, &UNITS)
}

/// A sum of numbers with units; the unit that the letters are is looked up whole.
fn spans(text: &str, units: &[(&str, f64)]) -> Option<u64> {
    let mut rest = text.trim();
    if rest.is_empty() {
        return None;
    }
    let mut sum = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(rest.len());
        let value = number(&rest[..digits])?;
        rest = rest[digits..].trim_start();
        let letters = rest.find(|c: char| !c.is_alphabetic()).unwrap_or(rest.len());
        let factor = match &rest[..letters] {
            "" => 1e3,
            unit => units.iter().find(|(name, _)| *name == unit)?.1,
        };
        sum += value * factor;
        rest = rest[letters..].trim_start();
    }
    whole(sum)
}

fn split(text: &str) -> Option<(f64, &str)> {
    let text = text.trim();
    let digits = text.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(text.len());
    Some((number(&text[..digits])?, text[digits..].trim()))
}

/// A number as people write it; no `inf`, no `nan`, no sign but a minus, which no size has.
fn number(text: &str) -> Option<f64> {
    let fits = !text.is_empty()
        && text.len() <= 40
        && text.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'e' | b'E'));
    text.parse().ok().filter(|number: &f64| fits && number.is_finite())
}

fn whole(number: f64) -> Option<u64> {
    (0.0..=9e18).contains(&number).then(|| number.round() as u64)
}

/// Thousandths of a core: `0.5`, `2`.
pub(crate) fn cores_milli(text: &str) -> Option<u64> {
    whole(number(text.trim())? * 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_each_format_means_them() {
        assert_eq!(docker_bytes("512m"), Some(512 << 20));
        assert_eq!(docker_bytes("1.5GB"), Some(3 << 29));
        assert_eq!(docker_bytes("64KiB"), Some(64 << 10));
        assert_eq!(docker_bytes("100"), Some(100));
        assert_eq!(quantity_bytes("128Mi"), Some(128 << 20));
        assert_eq!(quantity_bytes("128M"), Some(128_000_000));
        assert_eq!(quantity_bytes("1e3"), Some(1000));
        assert_eq!(quantity_bytes("1500m"), Some(2));
        assert_eq!(quantity_milli("500m"), Some(500));
        assert_eq!(quantity_milli("1.5"), Some(1500));
        for bad in ["", "m", "x", "-1", "inf", "nan", "1x", "1 2", "1e999", "Mi", "."] {
            assert_eq!((docker_bytes(bad), quantity_bytes(bad), quantity_milli(bad)), (None, None, None), "{bad}");
        }
    }

    #[test]
    fn times_are_read_as_each_format_means_them() {
        for (text, ms) in [("1m30s", 90_000), ("500ms", 500), ("1.5h", 5_400_000), ("10", 10_000), ("0s", 0)] {
            assert_eq!(go_ms(text), Some(ms), "{text}");
        }
        for (text, ms) in [("5min 20s", 320_000), ("90", 90_000), ("2h", 7_200_000), ("100ms", 100), ("1m", 60_000)] {
            assert_eq!(systemd_ms(text), Some(ms), "{text}");
        }
        for bad in ["", "s", "1x", "-1s", "infinity", "1..2s"] {
            assert_eq!((go_ms(bad), systemd_ms(bad)), (None, None), "{bad}");
        }
    }
}
