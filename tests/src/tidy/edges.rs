//! Which crate may know which: ARCHITECTURE.md's table against the Cargo.tomls.

use std::collections::{BTreeMap, BTreeSet};

/// Crate -> the crates that it may use.
pub type Edges = BTreeMap<String, BTreeSet<String>>;

/// Reads the table: `a -> b, c` statements, several to a line, two spaces or more apart.
pub fn parse_table(architecture: &str) -> Edges {
    let mut edges = Edges::new();
    let statements = architecture.lines().flat_map(|line| line.split("   "));
    for (left, right) in statements.filter_map(|statement| statement.split_once("->")) {
        let Some(from) = names(left) else { continue };
        let right = right.trim().trim_end_matches('.');
        let to = if right == "nothing of ours" { Some(Vec::new()) } else { names(right) };
        let Some(to) = to else { continue };
        for crate_name in from {
            edges.entry(crate_name).or_default().extend(to.iter().cloned());
        }
    }
    edges
}

/// A comma-separated list of plain names; `None` for any other text.
fn names(list: &str) -> Option<Vec<String>> {
    let names: Vec<String> = list.split(',').map(|name| name.trim().to_owned()).collect();
    let plain = |name: &String| !name.is_empty() && name.bytes().all(|b| b.is_ascii_lowercase());
    names.iter().all(plain).then_some(names)
}

/// What one crate's Cargo.toml uses that the table does not allow. `tests` may use everything.
pub fn check(crate_name: &str, manifest: &str, table: &Edges) -> Vec<String> {
    if crate_name == "tests" {
        return Vec::new();
    }
    let Ok(manifest) = manifest.parse::<toml::Table>() else {
        return vec![format!("{crate_name}/Cargo.toml is not TOML")];
    };
    let Some(allowed) = table.get(crate_name) else {
        return vec![format!("ARCHITECTURE.md's table does not say what `{crate_name}` may use")];
    };
    let mut problems = Vec::new();
    for (section, to) in ours(&manifest) {
        if !allowed.contains(&to) {
            problems.push(format!(
                "{crate_name}/Cargo.toml [{section}]: `{crate_name} -> {to}` is not in ARCHITECTURE.md's \
                 table: a new edge is a design change"
            ));
        }
    }
    problems
}

/// The crates of this workspace in a manifest, with the section that names them.
fn ours(manifest: &toml::Table) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let targets = manifest.get("target").and_then(toml::Value::as_table);
    let targets = targets.into_iter().flat_map(|t| t.values()).filter_map(toml::Value::as_table);
    for level in std::iter::once(manifest).chain(targets) {
        for section in ["dependencies", "dev-dependencies", "build-dependencies"] {
            let Some(entries) = level.get(section).and_then(toml::Value::as_table) else {
                continue;
            };
            for (name, value) in entries {
                let package = value.get("package").and_then(toml::Value::as_str).unwrap_or(name);
                if let Some(ours) = package.strip_prefix("firebrick-") {
                    found.push((section.to_owned(), ours.to_owned()));
                }
            }
        }
    }
    found
}
