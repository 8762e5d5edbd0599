//! Inline commands: words on a line, as typed into telnet, with Redis's quoting rules.

/// The words of `line`. `None`: a quote is not closed, or not followed by a space.
pub fn split(line: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut words = Vec::new();
    let mut rest = line;
    loop {
        while let [b, tail @ ..] = rest
            && is_space(*b)
        {
            rest = tail;
        }
        if rest.is_empty() {
            return Some(words);
        }
        let (word, tail) = word(rest)?;
        words.push(word);
        rest = tail;
    }
}

/// C's `isspace`, and NUL, at which Redis's C string would end.
fn is_space(b: u8) -> bool {
    matches!(b, b' ' | b'\t'..=b'\r' | 0)
}

fn word(mut rest: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let mut word = Vec::new();
    loop {
        match rest {
            [] => return Some((word, rest)),
            [b, ..] if is_space(*b) => return Some((word, rest)),
            [quote @ (b'"' | b'\''), tail @ ..] => {
                rest = quoted(*quote, tail, &mut word)?;
                if rest.first().is_some_and(|&b| !is_space(b)) {
                    return None;
                }
            }
            [b, tail @ ..] => {
                word.push(*b);
                rest = tail;
            }
        }
    }
}

/// Undoes the quotes up to the closing one; what follows it is returned.
fn quoted<'a>(quote: u8, mut rest: &'a [u8], word: &mut Vec<u8>) -> Option<&'a [u8]> {
    loop {
        rest = match rest {
            [] => return None,
            [b, tail @ ..] if *b == quote => return Some(tail),
            [b'\\', b'\'', tail @ ..] if quote == b'\'' => {
                word.push(b'\'');
                tail
            }
            [b'\\', b'x', high, low, tail @ ..]
                if quote == b'"' && high.is_ascii_hexdigit() && low.is_ascii_hexdigit() =>
            {
                word.push(hex(*high) << 4 | hex(*low));
                tail
            }
            [b'\\', escaped, tail @ ..] if quote == b'"' => {
                word.push(match escaped {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'b' => 8,
                    b'a' => 7,
                    other => *other,
                });
                tail
            }
            [b, tail @ ..] => {
                word.push(*b);
                tail
            }
        };
    }
}

fn hex(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        _ => (digit | 0x20) - b'a' + 10,
    }
}

#[cfg(test)]
mod tests {
    use super::split;

    #[test]
    fn quotes_are_undone() {
        let words = split(b"  SET \"a\\x00b\\n\" 'it\\'s' plain ").unwrap();
        assert_eq!(words, [b"SET".to_vec(), b"a\0b\n".to_vec(), b"it's".to_vec(), b"plain".into()]);
        assert_eq!(split(b" \t ").unwrap(), Vec::<Vec<u8>>::new());
        assert_eq!(split(b"\"\"").unwrap(), [b"".to_vec()]);
        for bad in [&b"\"open"[..], b"'open", b"\"a\"b", b"'a'b"] {
            assert_eq!(split(bad), None);
        }
    }
}
