//! Redis's glob patterns over bytes: `*`, `?`, `[a-z]`, `[^x]` and backslash.

/// Whether `text` matches `pattern`. Only the last `*` is ever gone back to, so the worst case is
/// pattern x text and there is no recursion to run away.
pub fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        if p < pattern.len() && pattern[p] == b'*' {
            star = Some((p, t));
            p += 1;
            continue;
        }
        if p < pattern.len()
            && let (true, used) = one(&pattern[p..], text[t])
        {
            p += used;
            t += 1;
            continue;
        }
        let Some((at, from)) = star else { return false };
        star = Some((at, from + 1));
        p = at + 1;
        t = from + 1;
    }
    pattern[p..].iter().all(|&b| b == b'*')
}

/// Whether the first element of `pattern` takes `byte`, and how many bytes of the pattern it is.
fn one(pattern: &[u8], byte: u8) -> (bool, usize) {
    match pattern {
        [b'?', ..] => (true, 1),
        [b'\\', escaped, ..] => (*escaped == byte, 2),
        [b'[', rest @ ..] => {
            let (hit, used) = class(rest, byte);
            (hit, used + 1)
        }
        [plain, ..] => (*plain == byte, 1),
        [] => (false, 0),
    }
}

/// A class after its `[`; one that is never closed ends with the pattern, as in Redis.
fn class(body: &[u8], byte: u8) -> (bool, usize) {
    let negated = body.first() == Some(&b'^');
    let mut at = usize::from(negated);
    let mut hit = false;
    loop {
        match &body[at.min(body.len())..] {
            [] => break,
            [b']', ..] => {
                at += 1;
                break;
            }
            [b'\\', escaped, ..] => {
                hit |= *escaped == byte;
                at += 2;
            }
            [a, b'-', b, ..] => {
                hit |= (*a.min(b)..=*a.max(b)).contains(&byte);
                at += 3;
            }
            [plain, ..] => {
                hit |= *plain == byte;
                at += 1;
            }
        }
    }
    (hit != negated, at)
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn patterns_of_the_redis_manual() {
        for (pattern, text, want) in [
            ("*", "", true),
            ("h?llo", "hello", true),
            ("h?llo", "hllo", false),
            ("h*llo", "heeeello", true),
            ("h[ae]llo", "hallo", true),
            ("h[ae]llo", "hillo", false),
            ("h[^e]llo", "hello", false),
            ("h[a-b]llo", "hbllo", true),
            ("h[b-a]llo", "hallo", true),
            ("a\\*b", "a*b", true),
            ("a\\*b", "axb", false),
            ("[abc", "c", true),
            ("a*b*c", "a__b__b__c", true),
            ("a*b*c", "a__b__b__", false),
            ("", "", true),
            ("", "x", false),
            ("[\\]]", "]", true),
            ("x\\", "x\\", true),
        ] {
            assert_eq!(matches(pattern.as_bytes(), text.as_bytes()), want, "{pattern} {text}");
        }
    }

    #[test]
    fn many_stars_do_not_explode() {
        let pattern = b"*a".repeat(500);
        let text = b"a".repeat(499);
        assert!(!matches(&pattern, &text));
    }
}
