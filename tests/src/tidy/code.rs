//! Rules about Rust source.

use super::mask::{is_word, line_of, mask, words};
use super::{Exceptions, Source};

/// Lines that a file may have.
pub const FILE_LINES_MAX: usize = 500;
/// Lines that a function may have, signature and closing brace included.
pub const FUNCTION_LINES_MAX: usize = 60;

/// Every `unsafe` block and impl has a `// SAFETY:` comment just above.
pub fn check_unsafe(source: &Source) -> Vec<String> {
    let code = mask(&source.text);
    let lines: Vec<&str> = source.text.lines().collect();
    let mut problems = Vec::new();
    for at in words(&code, "unsafe") {
        let rest = code[at + "unsafe".len()..].trim_start();
        if !rest.starts_with('{') && !words(rest, "impl").any(|offset| offset == 0) {
            continue;
        }
        let line = line_of(&code, at);
        if !has_safety_above(&lines, line - 1) {
            problems
                .push(format!("{}:{line}: `unsafe` without `// SAFETY:` just above", source.path));
        }
    }
    problems
}

/// Looks upward from the line of the `unsafe`, through its own statement and then its comment.
fn has_safety_above(lines: &[&str], line: usize) -> bool {
    for above in lines[..line].iter().rev() {
        let text = above.trim();
        if text.starts_with("//") {
            if text.starts_with("// SAFETY:") {
                return true;
            }
        } else if text.is_empty() || text.ends_with([';', '{', '}', ',']) && !text.starts_with("#[")
        {
            return false;
        }
    }
    false
}

/// One function: its name, first line and length.
#[derive(Debug, PartialEq, Eq)]
pub struct Function {
    /// Name.
    pub name: String,
    /// Number of its first line, from 1.
    pub line: usize,
    /// Lines from `fn` to the closing brace.
    pub lines: usize,
}

/// The functions with a body.
pub fn functions(text: &str) -> Vec<Function> {
    let code = mask(text);
    let bytes = code.as_bytes();
    let mut found = Vec::new();
    for at in words(&code, "fn") {
        let name_at = at + 2 + code[at + 2..].len() - code[at + 2..].trim_start().len();
        let name: String =
            bytes[name_at..].iter().take_while(|&&b| is_word(b)).map(|&b| b as char).collect();
        if name.is_empty() {
            continue; // the type `fn(..)`
        }
        if let Some(end) = body_end(bytes, name_at) {
            let line = line_of(&code, at);
            found.push(Function { name, line, lines: line_of(&code, end) - line + 1 });
        }
    }
    found
}

/// The offset of the brace that closes the body; `None` when a `;` ends the declaration first.
fn body_end(code: &[u8], from: usize) -> Option<usize> {
    let (mut brackets, mut braces) = (0_i32, 0_i32);
    for (at, &byte) in code.iter().enumerate().skip(from) {
        match byte {
            b'(' | b'[' => brackets += 1,
            b')' | b']' => brackets -= 1,
            b'{' => braces += 1,
            b'}' => {
                braces -= 1;
                if braces == 0 && brackets == 0 {
                    return Some(at);
                }
            }
            b';' if braces == 0 && brackets == 0 => return None,
            _ => {}
        }
    }
    None
}

/// Files and functions are short, or their exception says how long they may be and is needed.
pub fn check_lengths(sources: &[Source], exceptions: &Exceptions) -> Vec<String> {
    let mut problems = Vec::new();
    let mut needed_files = Vec::new();
    let mut needed_functions = Vec::new();
    for source in sources.iter().filter(|source| source.is_rust()) {
        let lines = source.text.lines().count();
        if lines > FILE_LINES_MAX {
            let exception = exceptions.files.iter().find(|(path, _)| *path == source.path);
            needed_files.extend(exception);
            if exception.is_none_or(|(_, allowed)| lines > *allowed) {
                problems.push(format!("{}: {lines} lines, over {FILE_LINES_MAX}", source.path));
            }
        }
        for function in functions(&source.text) {
            if function.lines <= FUNCTION_LINES_MAX {
                continue;
            }
            let Function { name, line, lines } = function;
            let exception =
                exceptions.functions.iter().find(|(path, f, _)| *path == source.path && *f == name);
            needed_functions.extend(exception);
            if exception.is_none_or(|(_, _, allowed)| lines > *allowed) {
                problems.push(format!(
                    "{}:{line}: fn {name} has {lines} lines, over {FUNCTION_LINES_MAX}",
                    source.path
                ));
            }
        }
    }
    for entry in exceptions.files.iter().filter(|entry| !needed_files.contains(entry)) {
        problems.push(format!("tidy-exceptions.toml: {} needs no exception any more", entry.0));
    }
    for entry in exceptions.functions.iter().filter(|entry| !needed_functions.contains(entry)) {
        problems.push(format!("tidy-exceptions.toml: {} in {} needs none", entry.1, entry.0));
    }
    problems
}

/// glommio is known to one module: `engine/src/runtime`.
pub fn check_glommio(source: &Source) -> Vec<String> {
    let home =
        source.path == "engine/src/runtime.rs" || source.path.starts_with("engine/src/runtime/");
    let code = mask(&source.text);
    let line = words(&code, "glommio").next().map(|at| line_of(&code, at));
    match line {
        Some(line) if source.is_rust() && !home => {
            vec![format!("{}:{line}: glommio outside engine/src/runtime", source.path)]
        }
        _ => Vec::new(),
    }
}

const IMPURE: [&str; 10] = [
    "Instant::now",
    "SystemTime::now",
    "async",
    "await",
    "std::thread",
    "thread::spawn",
    "std::net",
    "TcpStream",
    "UnixStream",
    "tokio",
];

/// `partition` and `log` read no clock and know no threads, sockets or async. (`log`'s `storage` does
/// blocking file calls, which are not in this list.)
pub fn check_pure(source: &Source) -> Vec<String> {
    let pure = ["partition/src/", "log/src/"].iter().any(|dir| source.path.starts_with(dir));
    if !pure || !source.is_rust() || source.path.starts_with("log/src/storage") {
        return Vec::new();
    }
    forbid(source, &IMPURE, "has no place in a pure crate")
}

/// Nothing unfinished is left.
pub fn check_finished(source: &Source) -> Vec<String> {
    if !source.is_rust() {
        return Vec::new();
    }
    forbid(source, &["todo!", "unimplemented!", "dbg!"], "must not be committed")
}

fn forbid(source: &Source, list: &[&str], why: &str) -> Vec<String> {
    let code = mask(&source.text);
    let mut problems = Vec::new();
    for word in list {
        for at in words(&code, word) {
            problems.push(format!("{}:{}: `{word}` {why}", source.path, line_of(&code, at)));
        }
    }
    problems
}

/// No file names a folder of the machine that it was written on.
pub fn check_paths(source: &Source) -> Vec<String> {
    // Built from pieces, so that this file does not name them itself.
    let folders = [["/wo", "rk/"], ["/ro", "ot/"], ["/ho", "me/"]].map(|pieces| pieces.concat());
    let mut problems = Vec::new();
    for (index, line) in source.text.lines().enumerate() {
        if let Some(folder) = folders.iter().find(|folder| names_folder(line, folder)) {
            problems.push(format!("{}:{}: names {folder} of a machine", source.path, index + 1));
        }
    }
    problems
}

/// The folder stands at the start of a path and not inside one (`a/work/b`).
fn names_folder(line: &str, folder: &str) -> bool {
    line.match_indices(folder).any(|(at, _)| {
        at == 0 || !is_word(line.as_bytes()[at - 1]) && !b".-}".contains(&line.as_bytes()[at - 1])
    })
}
