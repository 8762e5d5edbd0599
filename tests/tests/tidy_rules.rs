//! Each rule of the tidy test, on a small text that breaks it and on one that keeps it.

use firebrick_tests::tidy::docs::Command;
use firebrick_tests::tidy::mask::mask;
use firebrick_tests::tidy::{Exceptions, Source, code, docs, edges};

const TABLE: &str = "a `x -> y` in text\n```\ncli -> engine, client, bench          client -> partition, net\n\
    bench -> client, net                  log, net -> nothing of ours.\n```\n";

#[test]
fn the_table_of_edges_is_read_from_the_text() {
    let table = edges::parse_table(TABLE);
    assert_eq!(table.keys().collect::<Vec<_>>(), ["bench", "cli", "client", "log", "net"]);
    assert!(table["cli"].contains("bench") && table["client"].contains("net"));
    assert!(table["log"].is_empty() && table["net"].is_empty());
}

#[test]
fn an_edge_outside_the_table_is_found_in_every_section() {
    let table = edges::parse_table(TABLE);
    let check = |manifest: &str| edges::check("client", manifest, &table);
    assert!(check("[dependencies]\nfirebrick-net.workspace = true\nlibc = \"1\"").is_empty());
    assert!(check("[dependencies]\nfirebrick-log.workspace = true")[0].contains("client -> log"));
    assert!(check("[build-dependencies]\nx = { package = \"firebrick-log\" }").len() == 1);
    assert!(check("[target.'cfg(unix)'.dependencies]\nfirebrick-log = \"1\"").len() == 1);
    assert!(check("[dev-dependencies]\nfirebrick-engine.workspace = true").len() == 1);
    assert_eq!(edges::check("unknown", "", &table).len(), 1);
}

#[test]
fn comments_and_literals_are_not_code() {
    let text = "a /* { /* */ } */ \"{\\\"\" r#\"{\"}\"# '{' '\\'' b'{' 'life // {\nb";
    assert_eq!(mask(text).chars().filter(|c| "{}".contains(*c)).count(), 0);
    assert!(mask(text).contains("'life"));
    assert_eq!(mask(text).lines().count(), 2);
    assert_eq!(mask("/* § */ x").len(), "/* § */ x".len());
}

#[test]
fn an_unsafe_block_needs_its_line() {
    let check = |text: &str| code::check_unsafe(&Source::new("a.rs", text)).len();
    assert_eq!(check("fn f() {\n    unsafe { g() }\n}"), 1);
    assert_eq!(check("// unsafe { }\nunsafe fn f();\n"), 0);
    assert_eq!(check("fn f() {\n    // SAFETY: it is mapped.\n    unsafe { g() }\n}"), 0);
    assert_eq!(
        check("fn f() {\n    // SAFETY: a\n    // and b\n    let x =\n        unsafe { g() };\n}"),
        0
    );
    assert_eq!(check("// SAFETY: of another\nstruct A;\nunsafe impl Send for A {}"), 1);
    assert_eq!(check("// SAFETY: no state.\n#[allow(x)]\nunsafe impl Send for A {}"), 0);
    assert_eq!(check("// SAFETY: far\n\nunsafe impl Send for A {}"), 1);
}

#[test]
fn long_functions_and_files_are_found_and_needless_exceptions_too() {
    let body = "    let x = \"}\";\n".repeat(60);
    let long =
        Source::new("a/b.rs", &format!("fn f<T: Fn() -> u8>(x: [u8; 3]) {{\n{body}}}\nfn g();\n"));
    let found = code::functions(&long.text);
    assert_eq!((found.len(), found[0].lines), (1, 62));
    let none = Exceptions::default();
    assert_eq!(code::check_lengths(std::slice::from_ref(&long), &none).len(), 1);
    let excepted = Exceptions::parse(
        "[[function]]\npath = 'a/b.rs'\nname = 'f'\nlines = 62\nwhy = 'w'\n[[file]]\npath = 'c'\nlines = 9\nwhy = 'w'",
    )
    .unwrap();
    let problems = code::check_lengths(&[long], &excepted);
    assert!(problems.len() == 1 && problems[0].contains("needs no exception"));
    let file = Source::new("a.rs", &"\n".repeat(501));
    assert_eq!(code::check_lengths(&[file], &none).len(), 1);
    assert!(Exceptions::parse("[[file]]\npath = 'c'\nlines = 9").unwrap_err().contains("why"));
}

#[test]
fn glommio_clocks_and_threads_are_found_where_they_do_not_belong() {
    let import = "use glommio::Task;";
    assert_eq!(code::check_glommio(&Source::new("engine/src/shard.rs", import)).len(), 1);
    assert!(code::check_glommio(&Source::new("engine/src/runtime/a.rs", import)).is_empty());
    assert!(code::check_glommio(&Source::new("net/src/a.rs", "// glommio")).is_empty());
    for bad in
        ["Instant::now()", "async fn f() {}", "use std::thread;", "std::net::TcpStream", "x.await"]
    {
        assert!(!code::check_pure(&Source::new("partition/src/a.rs", bad)).is_empty(), "{bad}");
        assert!(!code::check_pure(&Source::new("log/src/a.rs", bad)).is_empty(), "{bad}");
        assert!(code::check_pure(&Source::new("engine/src/a.rs", bad)).is_empty());
        assert!(code::check_pure(&Source::new("log/src/storage/a.rs", bad)).is_empty());
    }
    let unfinished = ["todo", "unimplemented", "dbg"].map(|name| format!("fn f() {{ {name}!() }}"));
    for text in unfinished {
        assert_eq!(code::check_finished(&Source::new("a.rs", &text)).len(), 1, "{text}");
    }
}

#[test]
fn a_folder_of_the_machine_is_found() {
    let check = |text: &str| code::check_paths(&Source::new("a", text)).len();
    assert_eq!(check(&format!("see /{}/x", "work")), 1);
    assert_eq!(check(&format!("x=\"/{}/y\"", "root")), 1);
    assert_eq!(check(&format!("target/{}/x and $DIR/{0}/x", "work")), 0);
}

#[test]
fn commands_are_found_in_shell_blocks_only() {
    let text = "`scripts/a x`\n```rust\nfirebrick no\n```\n```sh\n$ FOO=1 sudo firebrick put k 'a b' | cat # c\n\
        cargo run --release -- demo --json > out; scripts/b && ./target/release/firebrick up \\\n  --bricks 1\n```\n";
    let commands: Vec<_> = docs::commands(&Source::new("README.md", text))
        .into_iter()
        .map(|shown| shown.command)
        .collect();
    let firebrick =
        |args: &[&str]| Command::Firebrick(args.iter().map(|&a| a.to_owned()).collect());
    assert_eq!(
        commands,
        [
            Command::Script("scripts/a".to_owned()),
            firebrick(&["put", "k", "a b"]),
            firebrick(&["demo", "--json"]),
            Command::Script("scripts/b".to_owned()),
            firebrick(&["up", "--bricks", "1"]),
        ]
    );
}

#[test]
fn missing_scripts_links_headings_and_versions_are_found() {
    let root = tempfile::tempdir().unwrap();
    std::fs::write(root.path().join("a.md"), "# The Title, here\n").unwrap();
    assert!(docs::check_script(root.path(), "scripts/none").is_err());
    assert!(docs::check_script(root.path(), "a.md").unwrap_err().contains("not executable"));
    let check = |text: &str| docs::check_links(root.path(), &Source::new("b.md", text)).len();
    std::fs::write(root.path().join("b.md"), "").unwrap();
    assert_eq!(check("[x](a.md) [y](https://example.org) [z](a.md#the-title-here) `[q](r)`"), 0);
    assert_eq!(check("[x](c.md)"), 1);
    assert_eq!(check("[x](a.md#other)"), 1);
    let manifest = "[workspace.package]\nversion = \"0.2.0\"";
    assert!(docs::check_changelog("# Changes\n## [0.2.0] soon\n", manifest).is_empty());
    assert_eq!(docs::check_changelog("## 0.1.0\nbefore 0.2.0", manifest).len(), 1);
}
