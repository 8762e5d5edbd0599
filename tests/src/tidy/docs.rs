//! Rules about the text that people read: its commands run, its links resolve, its version is right.

use std::path::Path;

use super::Source;

/// A command that a document shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// `path:line`.
    pub place: String,
    /// What it runs.
    pub command: Command,
}

/// The commands that can be checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// `firebrick ARGS`, `target/release/firebrick ARGS` or `cargo run .. -- ARGS`.
    Firebrick(Vec<String>),
    /// `scripts/NAME`.
    Script(String),
}

/// The commands in the shell blocks of a document, and the `scripts/..` in its running text.
pub fn commands(source: &Source) -> Vec<Shown> {
    let mut found = Vec::new();
    let mut block: Option<bool> = None;
    let mut continued = String::new();
    for (index, line) in source.text.lines().enumerate() {
        let place = format!("{}:{}", source.path, index + 1);
        if let Some(language) = line.trim_start().strip_prefix("```") {
            let shell = ["", "sh", "bash", "shell", "console"].contains(&language.trim());
            block = if block.is_some() { None } else { Some(shell) };
            continue;
        }
        match block {
            Some(true) => {
                continued.push_str(line.trim().trim_start_matches("$ "));
                if continued.ends_with('\\') {
                    continued.pop();
                    continue;
                }
                found.extend(in_line(&continued, &place));
                continued.clear();
            }
            Some(false) => {}
            None => found.extend(in_text(line, &place)),
        }
    }
    found
}

/// Each command of a shell line: it ends at a pipe, a redirection, a `;`, `&` or a comment.
fn in_line(line: &str, place: &str) -> Vec<Shown> {
    let tokens = tokens(line);
    let pieces = tokens.split(|token| matches!(token.as_str(), "|" | ";" | "&" | "&&" | "||"));
    pieces.filter_map(in_command).map(|command| shown(place, command)).collect()
}

fn shown(place: &str, command: Command) -> Shown {
    Shown { place: place.to_owned(), command }
}

fn in_command(tokens: &[String]) -> Option<Command> {
    // Words before the command: variables, and what runs other commands.
    let start = tokens.iter().position(|token| {
        !token.contains('=') && !["sudo", "exec", "time", "env"].contains(&token.as_str())
    })?;
    let (first, rest) = tokens[start..].split_first()?;
    let rest: Vec<String> =
        rest.iter().take_while(|token| !token.starts_with(['>', '<'])).cloned().collect();
    if first.starts_with("scripts/") || first.starts_with("./scripts/") {
        return Some(Command::Script(first.trim_start_matches("./").to_owned()));
    }
    if first == "firebrick" || first.ends_with("/firebrick") {
        return Some(Command::Firebrick(rest));
    }
    if first == "cargo" && rest.first().is_some_and(|word| word == "run") {
        let dashes = rest.iter().position(|token| token == "--")?;
        return Some(Command::Firebrick(rest[dashes + 1..].to_vec()));
    }
    None
}

/// Splits at blanks outside quotes; `#` begins a comment; operators are tokens of their own.
fn tokens(line: &str) -> Vec<String> {
    let mut tokens = vec![String::new()];
    let mut quote = None;
    let push = |tokens: &mut Vec<String>, c: char| tokens.last_mut().expect("never empty").push(c);
    for c in line.chars() {
        match (quote, c) {
            (Some(open), _) if c == open => quote = None,
            (None, '"' | '\'') => quote = Some(c),
            (None, '#') if tokens.last().is_some_and(String::is_empty) => break,
            (None, ';') => tokens.extend([";".to_owned(), String::new()]),
            (None, _) if c.is_whitespace() => tokens.push(String::new()),
            _ => push(&mut tokens, c),
        }
    }
    tokens.retain(|token| !token.is_empty());
    tokens
}

/// Inline code that begins with a script's path.
fn in_text(line: &str, place: &str) -> Vec<Shown> {
    let code = line.split('`').skip(1).step_by(2);
    let scripts = code.filter(|code| code.starts_with("scripts/") && !code.contains(['*', '<']));
    scripts
        .filter_map(|code| code.split_whitespace().next())
        .map(|script| shown(place, Command::Script(script.to_owned())))
        .collect()
}

/// The script is there and may be executed.
pub fn check_script(root: &Path, script: &str) -> Result<(), String> {
    use std::os::unix::fs::PermissionsExt;
    let metadata =
        std::fs::metadata(root.join(script)).map_err(|_| format!("there is no {script}"))?;
    if metadata.is_dir() || metadata.permissions().mode() & 0o111 != 0 {
        return Ok(());
    }
    Err(format!("{script} is not executable"))
}

/// The relative links of a Markdown document that lead nowhere.
pub fn check_links(root: &Path, source: &Source) -> Vec<String> {
    let folder = root.join(&source.path).parent().map(Path::to_owned).unwrap_or_default();
    let mut problems = Vec::new();
    let mut in_block = false;
    for (index, line) in source.text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            in_block = !in_block;
        }
        if in_block {
            continue;
        }
        for target in links(line) {
            let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
            let outside = file.contains("://") || file.starts_with("mailto:");
            let path = if file.is_empty() { root.join(&source.path) } else { folder.join(file) };
            if outside {
                continue;
            }
            if !path.exists() {
                problems.push(format!(
                    "{}:{}: link to {file} leads nowhere",
                    source.path,
                    index + 1
                ));
            } else if !anchor.is_empty() && !has_anchor(&path, anchor) {
                problems.push(format!("{}:{}: no heading for #{anchor}", source.path, index + 1));
            }
        }
    }
    problems
}

/// The targets of `[text](target)` in a line.
fn links(line: &str) -> Vec<&str> {
    let code_free = |at: usize| line[..at].matches('`').count().is_multiple_of(2);
    line.match_indices("](")
        .filter(|&(at, _)| code_free(at))
        .filter_map(|(at, _)| line[at + 2..].split(')').next())
        .map(|target| target.split_whitespace().next().unwrap_or(""))
        .collect()
}

/// A heading of the document has this anchor, as GitHub makes them.
fn has_anchor(path: &Path, anchor: &str) -> bool {
    let Ok(text) = std::fs::read_to_string(path) else { return true };
    text.lines().filter(|line| line.starts_with('#')).any(|line| slug(line) == anchor)
}

fn slug(heading: &str) -> String {
    let title = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = title.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

/// CHANGELOG.md has a heading for the workspace's version.
pub fn check_changelog(changelog: &str, workspace_manifest: &str) -> Vec<String> {
    let version = workspace_manifest.parse::<toml::Table>().ok().and_then(|manifest| {
        let package = manifest.get("workspace")?.get("package")?;
        Some(package.get("version")?.as_str()?.to_owned())
    });
    let Some(version) = version else {
        return vec!["Cargo.toml has no workspace.package.version".to_owned()];
    };
    let heading = |line: &str| {
        line.starts_with('#')
            && line
                .split([' ', '[', ']', '(', ','])
                .any(|word| word.trim_start_matches('v') == version)
    };
    if changelog.lines().any(heading) {
        return Vec::new();
    }
    vec![format!("CHANGELOG.md has no heading for the current version {version}")]
}
