//! Durations and sizes as a person writes them.

use std::time::Duration;

const DURATION_UNITS: [(&str, u64); 5] = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

const SIZE_UNITS: [(&str, u64); 7] = [
    ("B", 1),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("kB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
];

/// Reads `500ms`, `1s`, `10m`, `1h30m`, `30d`.
pub(super) fn parse_duration(text: &str) -> Result<Duration, String> {
    let expected = || "not a duration such as \"500ms\", \"30s\" or \"1h30m\"".to_owned();
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err(expected());
    }
    let mut total: u64 = 0;
    while !rest.is_empty() {
        let (number, after) = split_number(rest).ok_or_else(expected)?;
        let after = after.trim_start();
        let letters = after.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(after.len());
        let (unit, after) = after.split_at(letters);
        if unit.is_empty() {
            return Err("a duration needs a unit: ms, s, m, h or d".to_owned());
        }
        let unit = DURATION_UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(expected)?;
        total = number
            .checked_mul(unit.1)
            .and_then(|ms| total.checked_add(ms))
            .ok_or_else(|| "the duration is too long".to_owned())?;
        rest = after.trim_start();
    }
    Ok(Duration::from_millis(total))
}

/// The shortest form that [`parse_duration`] reads back, down to milliseconds.
pub(super) fn format_duration(duration: Duration) -> String {
    let ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let (unit, size) =
        DURATION_UNITS.iter().rev().find(|(_, size)| ms != 0 && ms.is_multiple_of(*size)).unwrap_or(&DURATION_UNITS[0]);
    format!("{}{unit}", ms / size)
}

/// Reads `512MiB`, `64KiB`, `1GB`, `100B`.
pub(super) fn parse_size(text: &str) -> Result<u64, String> {
    let expected = || "not a size such as \"512MiB\" or \"1GiB\"".to_owned();
    let (number, unit) = split_number(text.trim()).ok_or_else(expected)?;
    let unit = unit.trim_start();
    if unit.is_empty() {
        return Err("a size needs a unit: B, KiB, MiB, GiB, kB, MB or GB".to_owned());
    }
    let (_, factor) = SIZE_UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(expected)?;
    number.checked_mul(*factor).ok_or_else(|| "the size is too large".to_owned())
}

/// The shortest form that [`parse_size`] reads back.
pub(super) fn format_size(bytes: u64) -> String {
    let (unit, factor) = SIZE_UNITS[..4]
        .iter()
        .rev()
        .find(|(_, factor)| bytes != 0 && bytes.is_multiple_of(*factor))
        .unwrap_or(&SIZE_UNITS[0]);
    format!("{}{unit}", bytes / factor)
}

/// The whole number at the front, and what follows it.
fn split_number(text: &str) -> Option<(u64, &str)> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, rest) = text.split_at(digits);
    Some((number.parse().ok()?, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_with_their_units_and_written_back() {
        for (text, ms, back) in [
            ("500ms", 500, "500ms"),
            ("1s", 1_000, "1s"),
            ("90s", 90_000, "90s"),
            ("60s", 60_000, "1m"),
            ("1h30m", 5_400_000, "90m"),
            ("1h 30 m", 5_400_000, "90m"),
            ("30d", 2_592_000_000, "30d"),
            ("0ms", 0, "0ms"),
        ] {
            let duration = parse_duration(text).unwrap();
            assert_eq!(duration.as_millis(), ms, "{text}");
            assert_eq!(format_duration(duration), back, "{text}");
            assert_eq!(parse_duration(back).unwrap(), duration);
        }
        for text in [
            "",
            " ",
            "5",
            "s",
            "5 parsecs",
            "-1s",
            "1.5s",
            "1S",
            "99999999999999999999s",
            "18446744073709551615d",
            "1s x",
        ] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_are_read_with_their_units_and_written_back() {
        for (text, bytes, back) in [
            ("512MiB", 512 << 20, "512MiB"),
            ("64 KiB", 64 << 10, "64KiB"),
            ("1GB", 1_000_000_000, "1000000000B"),
            ("2048MiB", 2 << 30, "2GiB"),
            ("7B", 7, "7B"),
            ("0B", 0, "0B"),
        ] {
            assert_eq!(parse_size(text).unwrap(), bytes, "{text}");
            assert_eq!(format_size(bytes), back, "{text}");
        }
        for text in ["", "512", "512mib", "MiB", "-1B", "1.5GiB", "99999999999GiB", "1e3B"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }
}
