//! The rules of ARCHITECTURE.md and STYLE that a compiler does not check. Each check is a function from
//! text to a list of problems, so that `tests/tidy.rs` can run it on the repository and on a small
//! broken example.

pub mod code;
pub mod docs;
pub mod edges;
pub mod mask;

use std::path::{Path, PathBuf};

/// One text file of the repository.
#[derive(Debug, Clone)]
pub struct Source {
    /// Path from the repository's root, with `/`.
    pub path: String,
    /// Its text.
    pub text: String,
}

impl Source {
    /// A source from a path and its text.
    pub fn new(path: &str, text: &str) -> Self {
        Self { path: path.to_owned(), text: text.to_owned() }
    }

    /// Rust code.
    pub fn is_rust(&self) -> bool {
        self.has_extension("rs")
    }

    /// The file name ends in `.extension`.
    pub fn has_extension(&self, extension: &str) -> bool {
        Path::new(&self.path).extension().is_some_and(|found| found == extension)
    }
}

/// The root of the repository that this crate was built in.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("tests/ lies in the repository")
        .to_owned()
}

/// Every text file of the repository, sorted by path; build output is left out.
pub fn sources(root: &Path) -> Vec<Source> {
    let mut found = Vec::new();
    walk(root, root, &mut found);
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

fn walk(root: &Path, dir: &Path, found: &mut Vec<Source>) {
    let built = dir != root && dir.join("CACHEDIR.TAG").exists();
    if built {
        return;
    }
    let entries = std::fs::read_dir(dir).expect("a readable folder");
    for entry in entries.map(|entry| entry.expect("a readable entry")) {
        let path = entry.path();
        let name = entry.file_name();
        if name == ".git" || name == "target" || name == "__pycache__" {
            continue;
        }
        let kind = entry.file_type().expect("a file type");
        if kind.is_dir() {
            walk(root, &path, found);
        } else if kind.is_file()
            && let Ok(text) = std::fs::read_to_string(&path)
        {
            let relative = path.strip_prefix(root).expect("below the root");
            found.push(Source { path: relative.to_string_lossy().into_owned(), text });
        }
    }
}

/// What `tests/tidy-exceptions.toml` lets pass.
#[derive(Debug, Default)]
pub struct Exceptions {
    /// Path and the length it may have.
    pub files: Vec<(String, usize)>,
    /// Path, function and the length it may have.
    pub functions: Vec<(String, String, usize)>,
    /// Files whose fixtures are paths that look like a machine's.
    pub fixtures: Vec<String>,
}

impl Exceptions {
    /// Reads the list; an entry without a reason is an error.
    pub fn parse(text: &str) -> Result<Self, String> {
        let table: toml::Table = text.parse().map_err(|error| format!("not TOML: {error}"))?;
        let mut exceptions = Self::default();
        for (kind, entries) in &table {
            let entries = entries.as_array().ok_or(format!("[[{kind}]] is not a list"))?;
            for entry in entries {
                let word = |key: &str| {
                    let value = entry.get(key).and_then(toml::Value::as_str).unwrap_or("");
                    let missing = format!("an entry of [[{kind}]] has no `{key}`");
                    if value.is_empty() { Err(missing) } else { Ok(value.to_owned()) }
                };
                let lines = || {
                    let value = entry.get("lines").and_then(toml::Value::as_integer);
                    value
                        .map(|n| n as usize)
                        .ok_or(format!("an entry of [[{kind}]] has no `lines`"))
                };
                word("why")?;
                match kind.as_str() {
                    "fixture" => exceptions.fixtures.push(word("path")?),
                    "file" => exceptions.files.push((word("path")?, lines()?)),
                    "function" => {
                        exceptions.functions.push((word("path")?, word("name")?, lines()?));
                    }
                    other => return Err(format!("unknown kind of exception [[{other}]]")),
                }
            }
        }
        Ok(exceptions)
    }
}
