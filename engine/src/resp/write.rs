//! Writing replies. Everything goes straight to the end of a byte vector: the connection's out buffer,
//! or a reply slot when an earlier reply is still awaited.

use super::number::Digits;

/// The version of the protocol that a connection speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    /// The default.
    #[default]
    Resp2,
    /// After `HELLO 3`.
    Resp3,
}

/// `+OK`.
pub const OK: &[u8] = b"+OK\r\n";

/// Appends `mark`, a number and the line's end.
#[inline]
pub fn head(out: &mut Vec<u8>, mark: u8, number: u64) {
    let digits = Digits::of(number);
    let text = digits.text();
    out.reserve(text.len() + 3);
    out.push(mark);
    out.extend_from_slice(text);
    out.extend_from_slice(b"\r\n");
}

/// A bulk string. One reservation, so that a value is copied once.
#[inline]
pub fn bulk(out: &mut Vec<u8>, bytes: &[u8]) {
    out.reserve(bytes.len() + 26);
    if bytes.len() < 100 {
        // Most values: a two-digit length at the least cost.
        let n = bytes.len() as u8;
        if n < 10 {
            out.extend_from_slice(&[b'$', b'0' + n, b'\r', b'\n']);
        } else {
            out.extend_from_slice(&[b'$', b'0' + n / 10, b'0' + n % 10, b'\r', b'\n']);
        }
    } else {
        head(out, b'$', bytes.len() as u64);
    }
    out.extend_from_slice(bytes);
    out.extend_from_slice(b"\r\n");
}

/// No value.
#[inline]
pub fn null(out: &mut Vec<u8>, protocol: Protocol) {
    out.extend_from_slice(match protocol {
        Protocol::Resp2 => b"$-1\r\n",
        Protocol::Resp3 => b"_\r\n",
    });
}

/// An integer.
pub fn integer(out: &mut Vec<u8>, value: i64) {
    out.push(b':');
    out.extend_from_slice(Digits::of_signed(value).text());
    out.extend_from_slice(b"\r\n");
}

/// `+text`. The text is ours: no line ends in it.
pub fn simple(out: &mut Vec<u8>, text: &str) {
    debug_assert!(!text.contains(['\r', '\n']));
    out.push(b'+');
    out.extend_from_slice(text.as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// `-text`. Line ends, which can come from a client's own words, become spaces.
pub fn error(out: &mut Vec<u8>, text: &[u8]) {
    out.push(b'-');
    out.extend(text.iter().map(|&b| if b == b'\r' || b == b'\n' { b' ' } else { b }));
    out.extend_from_slice(b"\r\n");
}

/// The head of an array of `len` elements.
pub fn array(out: &mut Vec<u8>, len: usize) {
    head(out, b'*', len as u64);
}

/// The head of a map of `len` pairs; in RESP2 an array of twice as many.
pub fn map(out: &mut Vec<u8>, protocol: Protocol, len: usize) {
    match protocol {
        Protocol::Resp2 => head(out, b'*', 2 * len as u64),
        Protocol::Resp3 => head(out, b'%', len as u64),
    }
}

/// The head of a set of `len` elements; in RESP2 an array.
pub fn set(out: &mut Vec<u8>, protocol: Protocol, len: usize) {
    head(out, if protocol == Protocol::Resp3 { b'~' } else { b'*' }, len as u64);
}

/// A text for people; in RESP2 a bulk string.
pub fn verbatim(out: &mut Vec<u8>, protocol: Protocol, text: &str) {
    match protocol {
        Protocol::Resp2 => bulk(out, text.as_bytes()),
        Protocol::Resp3 => {
            head(out, b'=', text.len() as u64 + 4);
            out.extend_from_slice(b"txt:");
            out.extend_from_slice(text.as_bytes());
            out.extend_from_slice(b"\r\n");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bulk_heads_are_the_same_on_both_sides_of_the_short_form() {
        for len in [0, 1, 9, 10, 99, 100, 101, 12345] {
            let mut out = Vec::new();
            bulk(&mut out, &vec![b'x'; len]);
            assert_eq!(out, format!("${len}\r\n{}\r\n", "x".repeat(len)).into_bytes());
        }
    }

    #[test]
    fn an_error_stays_one_line() {
        let mut out = Vec::new();
        error(&mut out, b"ERR unknown command 'a\r\nb'");
        assert_eq!(out, b"-ERR unknown command 'a  b'\r\n");
    }
}
