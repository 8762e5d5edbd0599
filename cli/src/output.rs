//! What a command prints, and where: one place, so that `--json` is one object and nothing else.

use std::cell::Cell;
use std::io::{self, IsTerminal as _, Write as _};

use serde_json::{Map, Value, json};

use crate::error::CliError;

/// What a finished command says.
#[derive(Debug, Default)]
pub struct Output {
    /// For `--json`.
    pub json: Map<String, Value>,
    /// For people, or the raw bytes of a value.
    pub text: Vec<u8>,
    /// The command ran to its end and the answer is "no": what it found is printed all the same.
    pub error: Option<CliError>,
}

impl Output {
    /// An object for `--json`, a text for people.
    pub fn new(json: Value, text: impl Into<Vec<u8>>) -> Self {
        let json = match json {
            Value::Object(map) => map,
            other => Map::from_iter([("result".to_owned(), other)]),
        };
        Self { json, text: text.into(), error: None }
    }

    /// The same, with an exit code other than 0.
    pub fn failed(mut self, error: CliError) -> Self {
        self.error = Some(error);
        self
    }
}

/// Where to print.
pub struct Out {
    json: bool,
    json_printed: Cell<bool>,
}

impl Out {
    /// As the command line says.
    pub fn new(json: bool) -> Self {
        Self { json, json_printed: Cell::new(false) }
    }

    /// Somebody reads JSON.
    pub fn is_json(&self) -> bool {
        self.json
    }

    /// Progress is worth drawing: a person is watching.
    pub fn draws(&self) -> bool {
        !self.json && io::stderr().is_terminal()
    }

    /// Prints before the end of the command: for those that go on running.
    pub fn print(&self, output: &Output) -> Result<(), CliError> {
        if self.json {
            return self.print_json(&Value::Object(output.json.clone()));
        }
        write_all(&output.text)
    }

    /// A remark for people, on standard error.
    pub fn note(&self, text: &str) {
        if !self.json {
            // A closed standard error is nobody's loss.
            let _ = writeln!(io::stderr(), "{text}");
        }
    }

    /// Prints the end of the command and says the exit code.
    pub fn finish(&self, result: Result<Output, CliError>) -> u8 {
        let (output, error) = match result {
            Ok(output) => {
                let error = output.error.clone();
                (Some(output), error)
            }
            Err(error) => (None, Some(error)),
        };
        let printed = if self.json {
            self.finish_json(output, error.as_ref())
        } else {
            output.map_or(Ok(()), |o| write_all(&o.text))
        };
        if let Err(error) = printed {
            return report(&error);
        }
        match error {
            None => 0,
            Some(error) if self.json => error.exit_code(),
            Some(error) => report(&error),
        }
    }

    fn finish_json(
        &self,
        output: Option<Output>,
        error: Option<&CliError>,
    ) -> Result<(), CliError> {
        let mut object = output.map(|o| o.json).unwrap_or_default();
        if let Some(error) = error {
            if *error == CliError::BrokenPipe {
                return Ok(());
            }
            if let Value::Object(fields) = error.to_json() {
                object.extend(fields);
            }
        }
        if self.json_printed.get() {
            // The one object is out (`up`, `brick`): what came later is for the log.
            if let Some(error) = error {
                report(error);
            }
            return Ok(());
        }
        self.print_json(&Value::Object(object))
    }

    fn print_json(&self, value: &Value) -> Result<(), CliError> {
        assert!(!self.json_printed.replace(true), "one JSON object a run");
        let mut text = value.to_string();
        text.push('\n');
        write_all(text.as_bytes())
    }
}

/// What goes wrong while a command goes on, on standard error: also when programs read, whose one object is printed by
/// then or says something else.
pub fn warn(text: &str) {
    // A closed standard error is nobody's loss.
    let _ = writeln!(io::stderr(), "firebrick: {text}");
}

/// Says an error to a person and gives its exit code. A reader that left is told nothing.
pub fn report(error: &CliError) -> u8 {
    if *error != CliError::BrokenPipe {
        let _ = writeln!(io::stderr(), "firebrick: {error}");
    }
    error.exit_code()
}

fn write_all(bytes: &[u8]) -> Result<(), CliError> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(bytes).and_then(|()| stdout.flush()).map_err(|e| match e.kind() {
        io::ErrorKind::BrokenPipe => CliError::BrokenPipe,
        _ => CliError::io("cannot write to standard output", &e),
    })
}

/// Adds bytes to an object: as text when they are UTF-8, else in base64 under `NAME_base64`.
pub fn put_bytes(object: &mut Map<String, Value>, name: &str, bytes: &[u8]) {
    match std::str::from_utf8(bytes) {
        Ok(text) => object.insert(name.to_owned(), json!(text)),
        Err(_) => object.insert(format!("{name}_base64"), json!(base64(bytes))),
    };
}

/// Standard base64 with padding (RFC 4648).
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let word = chunk.iter().fold(0_u32, |word, byte| word << 8 | u32::from(*byte))
            << (8 * (3 - chunk.len()));
        for i in 0..4 {
            let symbol = ALPHABET[(word >> (18 - 6 * i) & 63) as usize];
            out.push(if i <= chunk.len() { symbol as char } else { '=' });
        }
    }
    out
}

/// A key for a person: escaped when it would not print.
pub fn show_key(key: &[u8]) -> String {
    let mut out = String::with_capacity(key.len());
    for chunk in key.utf8_chunks() {
        for c in chunk.valid().chars() {
            if c.is_control() || c == '\\' {
                out.extend(c.escape_default());
            } else {
                out.push(c);
            }
        }
        for byte in chunk.invalid() {
            use std::fmt::Write as _;
            let _ = write!(out, "\\x{byte:02x}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_the_standard_one() {
        for (bytes, text) in [
            (&b""[..], ""),
            (b"f", "Zg=="),
            (b"fo", "Zm8="),
            (b"foo", "Zm9v"),
            (b"foob", "Zm9vYg=="),
            (b"\xff\xfe\xfd", "//79"),
        ] {
            assert_eq!(base64(bytes), text);
        }
    }

    #[test]
    fn bytes_are_text_when_they_can_be() {
        let mut object = Map::new();
        put_bytes(&mut object, "key", "grüß\n".as_bytes());
        put_bytes(&mut object, "value", b"\xff\x00");
        assert_eq!(Value::Object(object), json!({ "key": "grüß\n", "value_base64": "/wA=" }));
    }

    #[test]
    fn keys_are_shown_on_one_line() {
        assert_eq!(show_key(b"a/b c"), "a/b c");
        assert_eq!(show_key("ü".as_bytes()), "ü");
        assert_eq!(show_key(b"a\nb\\\xff\x1b"), "a\\nb\\\\\\xff\\u{1b}");
    }

    #[test]
    fn an_error_is_one_object_with_its_exit_code() {
        let error = CliError::NotFound("no value under `a`".to_owned());
        assert_eq!(
            error.to_json(),
            json!({ "error": { "kind": "not_found", "message": "no value under `a`", "exit": 3 } })
        );
    }
}
