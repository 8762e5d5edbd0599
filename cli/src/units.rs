//! Sizes and durations as people write and read them.

use std::time::Duration;

/// Bytes, as the configuration has them: `64`, `64k`, `64 MiB`, `1GB`.
pub fn parse_size(text: &str) -> Result<u64, String> {
    firebrick_engine::config::parse_bytes(text)
}

/// A duration from `250ms`, `10s`, `2m`, `1h`; a bare number is seconds.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: u64 = number
        .parse()
        .map_err(|_| format!("`{text}` is not a duration: write it like 250ms, 10s or 5m"))?;
    let scale_ms = match unit.trim() {
        "ms" => 1,
        "" | "s" => 1_000,
        "m" | "min" => 60_000,
        "h" => 3_600_000,
        _ => return Err(format!("`{text}` is not a duration: a whole number and ms, s, m or h")),
    };
    number
        .checked_mul(scale_ms)
        .map(Duration::from_millis)
        .ok_or_else(|| format!("`{text}` is too long"))
}

/// `3.2 MiB`, `17 B`.
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

/// `1,234,567`.
pub fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// `17 us`, `3.4 ms`, `2.10 s`.
pub fn micros(us: u64) -> String {
    match us {
        0..1_000 => format!("{us} us"),
        1_000..1_000_000 => format!("{:.1} ms", us as f64 / 1e3),
        _ => format!("{:.2} s", us as f64 / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_means_what_it_means_in_the_configuration() {
        let memory = |text: &str| {
            let config = format!("memory = \"{text}\"");
            firebrick_engine::BrickConfig::from_toml(&config).unwrap().memory
        };
        for text in ["512MB", "512m", "512MiB", "1 GiB"] {
            assert_eq!(parse_size(text).ok(), memory(text), "{text}");
        }
    }

    #[test]
    fn durations_have_a_unit() {
        assert_eq!(parse_duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(parse_duration("3"), Ok(Duration::from_secs(3)));
        assert_eq!(parse_duration("2m"), Ok(Duration::from_mins(2)));
        for text in ["2 weeks", "1.5s"] {
            assert!(parse_duration(text).unwrap_err().starts_with(&format!("`{text}` is not a")));
        }
        assert!(parse_duration("99999999999999999h").is_err());
    }

    #[test]
    fn figures_are_short() {
        assert_eq!(size(17), "17 B");
        assert_eq!(size(3 << 20), "3.0 MiB");
        assert_eq!(count(7), "7");
        assert_eq!(count(1234), "1,234");
        assert_eq!(count(1_234_567), "1,234,567");
        assert_eq!(micros(999), "999 us");
        assert_eq!(micros(3_400), "3.4 ms");
        assert_eq!(micros(2_100_000), "2.10 s");
    }
}
