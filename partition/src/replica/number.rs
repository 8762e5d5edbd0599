//! Numbers as text, as Redis reads and writes them.

/// A decimal integer: no sign but one minus, no leading zero, no space (Redis's `string2ll`).
pub(super) fn parse_integer(text: &[u8]) -> Option<i64> {
    let (negative, digits) = match text {
        [b'-', rest @ ..] => (true, rest),
        all => (false, all),
    };
    match digits {
        [b'0'] if !negative => return Some(0),
        [b'1'..=b'9', rest @ ..] if rest.len() < 19 => {}
        _ => return None,
    }
    let mut value: u64 = 0;
    for digit in digits {
        if !digit.is_ascii_digit() {
            return None;
        }
        value = value.checked_mul(10)?.checked_add(u64::from(digit - b'0'))?;
    }
    if negative { 0i64.checked_sub_unsigned(value) } else { i64::try_from(value).ok() }
}

/// A longer text is no number, as in Redis. What `format_float` writes has up to 341 bytes.
const FLOAT_BYTES_MAX: usize = 5 << 10;

/// A decimal number; no space around it, no "nan".
pub(super) fn parse_float(text: &[u8]) -> Option<f64> {
    let first = *text.first()?;
    if text.len() > FLOAT_BYTES_MAX
        || !(first.is_ascii_digit() || matches!(first, b'-' | b'+' | b'.' | b'i' | b'I'))
    {
        return None;
    }
    let value: f64 = std::str::from_utf8(text).ok()?.parse().ok()?;
    (!value.is_nan()).then_some(value)
}

/// Digits without an exponent and without trailing zeros. Redis computes with 64 bits of mantissa and
/// prints 17 digits, so that 0.1 + 0.2 is 0.3; with 53 bits the same is had by printing 15.
pub(super) fn format_float(value: f64, out: &mut Vec<u8>) {
    use std::io::Write;
    out.clear();
    let whole = value.fract() == 0.0 && value.abs() < 1e17;
    let rounded = if whole { value } else { format!("{value:.14e}").parse().unwrap_or(value) };
    let rounded = if rounded == 0.0 { 0.0 } else { rounded };
    let _ = write!(out, "{rounded}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_are_read_strictly() {
        let good: [(&[u8], i64); 6] = [
            (b"0", 0),
            (b"-1", -1),
            (b"10", 10),
            (b"9223372036854775807", i64::MAX),
            (b"-9223372036854775808", i64::MIN),
            (b"99", 99),
        ];
        for (text, value) in good {
            assert_eq!(parse_integer(text), Some(value));
        }
        let bad: [&[u8]; 12] = [
            b"",
            b"-",
            b"-0",
            b"01",
            b"+1",
            b" 1",
            b"1 ",
            b"1.0",
            b"0x1",
            b"9223372036854775808",
            b"-9223372036854775809",
            b"18446744073709551617",
        ];
        for text in bad {
            assert_eq!(parse_integer(text), None, "{text:?}");
        }
    }

    #[test]
    fn floats_are_written_as_redis_writes_them() {
        let cases: [(f64, &str); 8] = [
            (10.5 + 0.1, "10.6"),
            (0.1 + 0.2, "0.3"),
            (0.1 + 0.7, "0.8"),
            (5.0e3 + 200.0, "5200"),
            (-3.0 + 3.0, "0"),
            (-0.0, "0"),
            (1e20, "100000000000000000000"),
            (9_007_199_254_740_993.0, "9007199254740992"),
        ];
        for (value, text) in cases {
            let mut out = Vec::new();
            format_float(value, &mut out);
            assert_eq!(String::from_utf8(out).unwrap(), text);
        }
        assert_eq!(parse_float(b"3.0e3"), Some(3000.0));
        for extreme in [f64::MAX, f64::MIN, f64::MIN_POSITIVE, 5e-324] {
            let mut out = Vec::new();
            format_float(extreme, &mut out);
            assert!(parse_float(&out).is_some(), "what was written is read again");
        }
        assert_eq!(parse_float(&[b'1'; FLOAT_BYTES_MAX + 1]), None);
        for bad in [&b""[..], b" 1", b"1 ", b"nan", b"abc", b"1,5"] {
            assert_eq!(parse_float(bad), None);
        }
    }
}
