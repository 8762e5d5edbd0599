//! Numbers as Redis reads and writes them.

/// Exactly what Redis's `string2ll` takes: an optional minus, no plus, no leading zeros, no spaces.
pub fn parse_i64(text: &[u8]) -> Option<i64> {
    let (negative, digits) = match text {
        [b'-', rest @ ..] => (true, rest),
        _ => (false, text),
    };
    match digits {
        [] | [b'0', _, ..] => return None,
        [b'0'] => return (!negative).then_some(0),
        _ if digits.len() > 19 => return None,
        _ => {}
    }
    let mut value: u64 = 0;
    for &b in digits {
        if !b.is_ascii_digit() {
            return None;
        }
        value = value.checked_mul(10)?.checked_add(u64::from(b - b'0'))?;
    }
    if negative { 0i64.checked_sub_unsigned(value) } else { i64::try_from(value).ok() }
}

/// A decimal number of `INCRBYFLOAT`. "nan" is refused here; infinities by the partition.
pub fn parse_f64(text: &[u8]) -> Option<f64> {
    let value: f64 = std::str::from_utf8(text).ok()?.parse().ok()?;
    (!value.is_nan()).then_some(value)
}

/// A `SCAN` cursor, as C's `strtoul` takes it and Redis with it: nothing is 0, and a minus goes round.
pub fn parse_cursor(text: &[u8]) -> Option<u64> {
    let parse = |digits: &[u8]| std::str::from_utf8(digits).ok()?.parse::<u64>().ok();
    match text {
        [] => Some(0),
        [b'-', digits @ ..] if digits.first() != Some(&b'+') => {
            parse(digits).map(u64::wrapping_neg)
        }
        _ => parse(text),
    }
}

/// The decimal digits of a number, without an allocation.
pub struct Digits {
    bytes: [u8; 20],
    start: usize,
}

impl Digits {
    /// Of an unsigned number.
    pub fn of(mut value: u64) -> Self {
        let mut bytes = [0; 20];
        let mut start = bytes.len();
        loop {
            start -= 1;
            bytes[start] = b'0' + (value % 10) as u8;
            value /= 10;
            if value == 0 {
                return Self { bytes, start };
            }
        }
    }

    /// Of a signed number.
    pub fn of_signed(value: i64) -> Self {
        let mut digits = Self::of(value.unsigned_abs());
        if value < 0 {
            digits.start -= 1; // 19 digits at most, so there is room
            digits.bytes[digits.start] = b'-';
        }
        digits
    }

    /// The text.
    pub fn text(&self) -> &[u8] {
        &self.bytes[self.start..]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_are_read_as_redis_reads_them() {
        for good in ["0", "-1", "9", "10", "9223372036854775807", "-9223372036854775808"] {
            let value: i64 = good.parse().unwrap();
            assert_eq!(parse_i64(good.as_bytes()), Some(value));
            assert_eq!(Digits::of_signed(value).text(), good.as_bytes());
        }
        for bad in ["", "-", "-0", "+1", "01", " 1", "1 ", "1a", "9223372036854775808"] {
            assert_eq!(parse_i64(bad.as_bytes()), None, "{bad}");
        }
        for bad in ["-9223372036854775809", "99999999999999999999", "184467440737095516160"] {
            assert_eq!(parse_i64(bad.as_bytes()), None, "{bad}");
        }
        assert_eq!(Digits::of(u64::MAX).text(), b"18446744073709551615");
    }

    #[test]
    fn cursors_are_read_as_redis_reads_them() {
        let good: [(&[u8], u64); 5] = [
            (b"", 0),
            (b"007", 7),
            (b"+7", 7),
            (b"-1", u64::MAX),
            (b"18446744073709551615", u64::MAX),
        ];
        for (text, cursor) in good {
            assert_eq!(parse_cursor(text), Some(cursor), "{text:?}");
        }
        for bad in [&b"-"[..], b"+", b"-+1", b"--1", b" 1", b"1x", b"18446744073709551616"] {
            assert_eq!(parse_cursor(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn floats_are_not_nan() {
        assert_eq!(parse_f64(b"1.5e3"), Some(1500.0));
        assert_eq!(parse_f64(b"nan"), None);
        assert_eq!(parse_f64(b" 1"), None);
        assert_eq!(parse_f64(b""), None);
    }
}
