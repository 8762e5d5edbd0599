//! The little JSON that control requests need. Answers go to the application as they came.

use std::fmt::Write;

use crate::client::CreateTable;
use crate::error::{Declined, Error, Result};

/// `{"do": ..., "name": ...}`, as the engine's control thread reads it.
pub(crate) fn command(command: &str, name: Option<&str>) -> String {
    let mut out = format!("{{\"do\":{}", quoted(command));
    if let Some(name) = name {
        out.push_str(",\"name\":");
        out.push_str(&quoted(name));
    }
    out.push('}');
    out
}

pub(crate) fn create_table(name: &str, options: CreateTable) -> String {
    let mut out = command("table-create", Some(name));
    out.pop();
    if let Some(durability) = options.durability {
        let _ = write!(out, ",\"durability\":\"{durability}\"");
    }
    if let Some(partitions) = options.partitions {
        let _ = write!(out, ",\"partitions\":{partitions}");
    }
    if let Some(replicas) = options.replicas {
        let _ = write!(out, ",\"replicas\":{replicas}");
    }
    out.push('}');
    out
}

/// The answer itself, or the sentence in `{"error": "..."}`.
pub(crate) fn check(answer: &str) -> Result<String> {
    let inside = answer.trim_start().strip_prefix('{').map_or("", str::trim_start);
    let Some(value) = inside.strip_prefix("\"error\"") else { return Ok(answer.to_owned()) };
    let sentence = value.trim_start().strip_prefix(':').map(str::trim_start).and_then(unquoted);
    let text = sentence.as_deref().unwrap_or(answer).into();
    Err(Error::Control { kind: kind(answer), text })
}

/// (Quotes within a sentence are escaped, so this is no part of one.)
fn kind(answer: &str) -> Declined {
    let behind = answer.split_once("\"kind\":\"").and_then(|(_, behind)| behind.split_once('"'));
    match behind.map(|(kind, _)| kind) {
        Some("not-found") => Declined::NotFound,
        Some("exists") => Declined::Exists,
        Some("not-now") => Declined::NotNow,
        Some("in-doubt") => Declined::InDoubt,
        _ => Declined::Refused,
    }
}

fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c < ' ' => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// The string that `text` begins with; `None` when it is not one.
fn unquoted(text: &str) -> Option<String> {
    let mut out = String::new();
    let mut chars = text.strip_prefix('"')?.chars();
    loop {
        match chars.next()? {
            '"' => return Some(out),
            '\\' => match chars.next()? {
                'n' => out.push('\n'),
                't' => out.push('\t'),
                'r' => out.push('\r'),
                'b' | 'f' => {}
                'u' => {
                    let hex: String = chars.by_ref().take(4).collect();
                    let code = u32::from_str_radix(&hex, 16).ok()?;
                    out.push(char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER));
                }
                c => out.push(c),
            },
            c => out.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use firebrick_partition::maps::Durability;

    use super::*;

    #[test]
    fn names_with_quotes_stay_one_string() {
        assert_eq!(
            command("table-drop", Some("a\"b\\c\n")),
            r#"{"do":"table-drop","name":"a\"b\\c\u000a"}"#
        );
        let options = CreateTable {
            durability: Some(Durability::Async { ms: 50 }),
            partitions: Some(8),
            replicas: Some(2),
        };
        assert_eq!(
            create_table("t", options),
            r#"{"do":"table-create","name":"t","durability":"async(50ms)","partitions":8,"replicas":2}"#
        );
    }

    #[test]
    fn an_error_is_its_sentence_and_anything_else_the_answer() {
        assert_eq!(check("{\"tables\":[]}").unwrap(), "{\"tables\":[]}");
        let error = |kind, text: &str| Err(Error::Control { kind, text: text.into() });
        let told = check(r#" { "error" : "there is \"t\" already\n" }"#);
        assert_eq!(told, error(Declined::Refused, "there is \"t\" already\n"));
        // Damaged: the whole answer is better than nothing.
        assert_eq!(check("{\"error\":7}"), error(Declined::Refused, "{\"error\":7}"));
        let told = r#"{"error":"no \"kind\":\"exists\" here","kind":"not-found","ok":false}"#;
        assert_eq!(check(told), error(Declined::NotFound, "no \"kind\":\"exists\" here"));
    }
}
