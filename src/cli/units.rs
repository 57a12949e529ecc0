//! Sizes and times as people write them.

use std::ops::RangeInclusive;
use std::time::Duration;

/// `1500000000`, `1.5GB`, `512MiB`: decimal units of a thousand, binary ones of 1,024. The unit's case does not matter.
pub fn bytes(text: &str) -> Result<u64, String> {
    let scale = |unit: &str| match unit {
        "" | "b" => Some(1.0),
        "k" | "kb" => Some(1e3),
        "m" | "mb" => Some(1e6),
        "g" | "gb" => Some(1e9),
        "t" | "tb" => Some(1e12),
        "kib" => Some(1024.0),
        "mib" => Some(1024.0 * 1024.0),
        "gib" => Some(1024.0 * 1024.0 * 1024.0),
        "tib" => Some(1024.0 * 1024.0 * 1024.0 * 1024.0),
        _ => None,
    };
    let bytes = scaled(text, scale).ok_or("expected bytes, or a number with kB, MB, GB, KiB, MiB or GiB")?;
    Ok(bytes.round() as u64)
}

/// `90`, `90s`, `1500ms`, `30m`, `24h`, `2d`.
pub fn time(text: &str) -> Result<Duration, String> {
    let scale = |unit: &str| match unit {
        "ms" => Some(1e-3),
        "" | "s" => Some(1.0),
        "m" | "min" => Some(60.0),
        "h" => Some(3_600.0),
        "d" => Some(86_400.0),
        _ => None,
    };
    let seconds =
        scaled(text, scale).filter(|&s| s > 0.0).ok_or("expected seconds, or a number with ms, s, m, h or d")?;
    Duration::try_from_secs_f64(seconds).map_err(|e| e.to_string())
}

/// A number in a range, for a flag.
pub fn within(range: RangeInclusive<f64>) -> impl Fn(&str) -> Result<f64, String> + Clone {
    move |text| {
        let number = text.parse::<f64>().ok().filter(|number| range.contains(number));
        number.ok_or_else(|| format!("expected a number from {} to {}", range.start(), range.end()))
    }
}

fn scaled(text: &str, scale: impl Fn(&str) -> Option<f64>) -> Option<f64> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let value = number.parse::<f64>().ok()? * scale(&unit.trim().to_ascii_lowercase())?;
    (value < 1e18).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_people_write_them() {
        let sizes = [
            ("0", 0),
            ("1500", 1_500),
            ("1.5GB", 1_500_000_000),
            ("512MiB", 512 << 20),
            ("2 gib", 2 << 30),
            ("3k", 3_000),
        ];
        for (text, expected) in sizes {
            assert_eq!(bytes(text), Ok(expected), "{text}");
        }
        for text in ["", "GB", "-1", "1e9", "1.2.3", "5 elephants", "99999999999TB"] {
            assert!(bytes(text).is_err(), "{text}");
        }
    }

    #[test]
    fn times_are_read_as_people_write_them() {
        let times = [
            ("90", 90_000),
            ("90s", 90_000),
            ("250ms", 250),
            ("30m", 1_800_000),
            ("24h", 86_400_000),
            ("2d", 172_800_000),
        ];
        for (text, ms) in times {
            assert_eq!(time(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for text in ["", "0", "h", "-3s", "3 weeks"] {
            assert!(time(text).is_err(), "{text}");
        }
    }
}
