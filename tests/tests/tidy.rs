//! The repository keeps its own rules. What each rule finds is shown in `tidy_rules.rs`.

use std::process::{Command as Process, Stdio};

use firebrick_tests::binary::firebrick;
use firebrick_tests::tidy::docs::Command;
use firebrick_tests::tidy::{Exceptions, Source, code, docs, edges, root, sources};

fn none(problems: &[String]) {
    assert!(problems.is_empty(), "\n{}\n", problems.join("\n"));
}

fn each(check: impl Fn(&Source) -> Vec<String>) {
    none(&sources(&root()).iter().flat_map(check).collect::<Vec<_>>());
}

fn text(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn exceptions() -> Exceptions {
    Exceptions::parse(&text("tests/tidy-exceptions.toml")).expect("tidy-exceptions.toml")
}

/// README, the architecture and what is in docs/.
fn documents() -> Vec<Source> {
    let mut all = sources(&root());
    all.retain(|source| source.has_extension("md"));
    all
}

#[test]
fn crates_know_only_whom_the_architecture_lets_them_know() {
    let table = edges::parse_table(&text("ARCHITECTURE.md"));
    assert!(table.len() >= 7, "ARCHITECTURE.md's table was not understood: {table:?}");
    let manifest: toml::Table = text("Cargo.toml").parse().expect("Cargo.toml");
    let members = manifest["workspace"]["members"].as_array().expect("members");
    let mut problems = Vec::new();
    for member in members.iter().filter_map(toml::Value::as_str) {
        let manifest = text(&format!("{member}/Cargo.toml"));
        problems.extend(edges::check(member, &manifest, &table));
    }
    none(&problems);
}

#[test]
fn every_unsafe_block_has_a_safety_line() {
    each(|source| if source.is_rust() { code::check_unsafe(source) } else { Vec::new() });
}

#[test]
fn files_and_functions_are_short() {
    none(&code::check_lengths(&sources(&root()), &exceptions()));
}

#[test]
fn glommio_is_known_to_one_module() {
    each(code::check_glommio);
}

#[test]
fn partition_and_log_are_pure() {
    each(code::check_pure);
}

#[test]
fn nothing_unfinished_is_committed() {
    each(code::check_finished);
}

#[test]
fn no_file_names_the_machine_it_was_written_on() {
    let fixtures = exceptions().fixtures;
    each(
        |source| {
            if fixtures.contains(&source.path) { Vec::new() } else { code::check_paths(source) }
        },
    );
}

#[test]
fn links_lead_somewhere() {
    let root = root();
    none(&documents().iter().flat_map(|doc| docs::check_links(&root, doc)).collect::<Vec<_>>());
}

#[test]
fn the_changelog_has_the_current_version() {
    none(&docs::check_changelog(&text("CHANGELOG.md"), &text("Cargo.toml")));
}

#[test]
fn commands_in_the_documents_exist() {
    let shown: Vec<_> = documents().iter().flat_map(docs::commands).collect();
    let readme = |shown: &docs::Shown| shown.place.starts_with("README.md");
    assert!(shown.iter().any(readme), "README.md shows no command");
    let mut problems = Vec::new();
    for docs::Shown { place, command } in &shown {
        let result = match command {
            Command::Script(script) => docs::check_script(&root(), script),
            Command::Firebrick(args) => check_arguments(args),
        };
        problems.extend(result.err().map(|error| format!("{place}: {error}")));
    }
    none(&problems);
}

/// With `--help` at its end a command line is parsed up to there and nothing is run.
fn check_arguments(args: &[String]) -> Result<(), String> {
    let output = Process::new(firebrick())
        .args(args)
        .arg("--help")
        .stdin(Stdio::null())
        .output()
        .expect("the binary starts");
    if output.status.success() {
        return Ok(());
    }
    let error = String::from_utf8_lossy(&output.stderr);
    Err(format!("`firebrick {}`: {}", args.join(" "), error.lines().next().unwrap_or("fails")))
}
