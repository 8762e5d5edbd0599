//! Blanks out what is not code, so that the other checks can search for words and count braces.

/// The text with comments and the insides of string and character literals turned into spaces. Lines
/// and byte offsets stay the same.
pub fn mask(text: &str) -> String {
    let mut masker = Masker { bytes: text.as_bytes(), at: 0, out: Vec::with_capacity(text.len()) };
    while masker.at < masker.bytes.len() {
        masker.step();
    }
    String::from_utf8(masker.out).expect("only ASCII was written over whole characters")
}

struct Masker<'a> {
    bytes: &'a [u8],
    at: usize,
    out: Vec<u8>,
}

impl Masker<'_> {
    fn rest(&self) -> &[u8] {
        &self.bytes[self.at..]
    }

    fn step(&mut self) {
        let word_before = self.at > 0 && is_word(self.bytes[self.at - 1]);
        let rest = self.rest();
        if rest.starts_with(b"//") {
            let end = rest.iter().position(|&b| b == b'\n').unwrap_or(rest.len());
            self.blank(end);
        } else if rest.starts_with(b"/*") {
            let end = block_comment_len(rest);
            self.blank(end);
        } else if let Some(end) = (!word_before).then(|| raw_string_len(rest)).flatten() {
            self.blank(end);
        } else if rest[0] == b'"' {
            let end = quoted_len(rest, b'"');
            self.blank(end);
        } else if rest[0] == b'\'' && is_char_literal(rest) {
            let end = quoted_len(rest, b'\'');
            self.blank(end);
        } else {
            let byte = rest[0];
            self.out.push(if byte.is_ascii() { byte } else { b' ' });
            self.at += 1;
        }
    }

    fn blank(&mut self, len: usize) {
        for &byte in &self.bytes[self.at..self.at + len] {
            self.out.push(if byte == b'\n' { b'\n' } else { b' ' });
        }
        self.at += len;
    }
}

/// A byte that may be in an identifier.
pub fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

fn block_comment_len(text: &[u8]) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < text.len() {
        if text[at..].starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if text[at..].starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    text.len()
}

fn raw_string_len(text: &[u8]) -> Option<usize> {
    let prefix = [&b"br"[..], b"cr", b"r"].into_iter().find(|p| text.starts_with(p))?.len();
    let hashes = text[prefix..].iter().take_while(|&&b| b == b'#').count();
    let open = prefix + hashes;
    if text.get(open) != Some(&b'"') {
        return None;
    }
    let mut close = vec![b'"'];
    close.resize(1 + hashes, b'#');
    let inside = &text[open + 1..];
    let end = inside.windows(close.len()).position(|window| window == close);
    Some(end.map_or(text.len(), |end| open + 1 + end + close.len()))
}

fn quoted_len(text: &[u8], quote: u8) -> usize {
    let mut at = 1;
    while at < text.len() {
        match text[at] {
            b'\\' => at += 2,
            byte if byte == quote => return at + 1,
            _ => at += 1,
        }
    }
    text.len()
}

/// `'a'` and `'\n'`, but not the lifetime `'a`.
fn is_char_literal(text: &[u8]) -> bool {
    if text.get(1) == Some(&b'\\') {
        return true;
    }
    let Ok(head) = std::str::from_utf8(&text[1..text.len().min(6)])
        .or_else(|error| std::str::from_utf8(&text[1..=error.valid_up_to()]))
    else {
        return false;
    };
    head.chars().next().is_some_and(|c| text.get(1 + c.len_utf8()) == Some(&b'\''))
}

/// Byte offsets at which `word` stands alone in `text`.
pub fn words<'a>(text: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    let bytes = text.as_bytes();
    text.match_indices(word).map(|(at, _)| at).filter(move |&at| {
        let end = at + word.len();
        let before = at > 0 && is_word(bytes[at - 1]) && is_word(word.as_bytes()[0]);
        let after = end < bytes.len() && is_word(bytes[end]) && is_word(bytes[end - 1]);
        !before && !after
    })
}

/// The number, from 1, of the line that holds this offset.
pub fn line_of(text: &str, offset: usize) -> usize {
    1 + text[..offset].matches('\n').count()
}
