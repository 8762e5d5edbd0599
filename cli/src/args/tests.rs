//! The command line as people type it.

use std::time::Duration;

use clap::CommandFactory as _;

use super::*;
use crate::commands::put::VersionArg;

fn parse(line: &str) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(line.split_whitespace())
}

fn refused(line: &str) -> String {
    match parse(line) {
        Ok(cli) => panic!("`{line}` was accepted: {cli:?}"),
        Err(error) => {
            assert_eq!(error.exit_code(), 2, "{line}");
            error.to_string()
        }
    }
}

#[test]
fn the_definition_is_sound() {
    Cli::command().debug_assert();
}

#[test]
fn every_command_has_a_help_text() {
    fn visit(command: &clap::Command, path: &str) {
        assert!(command.get_about().is_some(), "{path} has no description");
        for arg in command.get_arguments() {
            let id = arg.get_id();
            assert!(arg.get_help().is_some() || id == "help", "{path} {id} has no help");
        }
        for sub in command.get_subcommands() {
            visit(sub, &format!("{path} {}", sub.get_name()));
        }
    }
    visit(&Cli::command(), "firebrick");
}

/// A flattened group's heading is that of every flag behind it.
#[test]
fn only_what_says_where_to_connect_is_under_that_heading() {
    fn visit(command: &clap::Command) {
        for argument in command.get_arguments() {
            let is_there = argument.get_help_heading() == Some("Connection");
            let belongs = ["connect", "timeout", "table"].contains(&argument.get_id().as_str());
            assert!(!is_there || belongs, "{} {}", command.get_name(), argument.get_id());
        }
        command.get_subcommands().for_each(visit);
    }
    visit(&Cli::command());
}

#[test]
fn json_goes_anywhere() {
    for line in ["firebrick --json get k", "firebrick get --json k", "firebrick get k --json"] {
        assert!(parse(line).unwrap().json, "{line}");
    }
    assert!(parse("firebrick table list --json").unwrap().json);
    assert!(!parse("firebrick get k").unwrap().json);
    assert!(!parse("firebrick put k -- --json").unwrap().json, "a value may look like a flag");
}

#[test]
fn a_brick_takes_its_flags_and_passes_them_on_unchanged() {
    let line = "firebrick brick --name a --config c.toml --listen 127.0.0.1:1 --control 127.0.0.1:3 \
                --join 127.0.0.1:4,[::1]:5 --host h --rack r --resp [::1]:2 \
                --http off --memory-dir /m --data-dir /d --cores 0,2-3 --poll park --spin-us 9 --memory 512m \
                --durability async(20ms)";
    let Command::Brick(args) = parse(line).unwrap().command else { panic!() };
    let flags: Vec<_> = line.split_whitespace().skip(2).map(str::to_owned).collect();
    let mut passed: Vec<_> =
        args.to_args().into_iter().map(|arg| arg.into_string().unwrap()).collect();
    passed.sort();
    let mut wanted = flags.clone();
    wanted.sort();
    assert_eq!(passed, wanted);
    let overrides = args.overrides();
    assert_eq!(overrides.poll.as_deref(), Some("park"));
    assert_eq!(overrides.memory_dir.as_deref(), Some("/m".as_ref()));
    let Command::Brick(args) = parse("firebrick brick").unwrap().command else { panic!() };
    assert_eq!(args.overrides(), firebrick_engine::config::Overrides::default());
    assert_eq!(args.to_args(), Vec::<std::ffi::OsString>::new());
}

/// docs/config.md has the keys by name and default; that is the engine's test.
#[test]
fn the_flags_of_a_brick_are_those_of_the_manual() {
    let manual = include_str!("../../../docs/config.md").lines();
    let rows = manual.filter_map(|line| line.strip_prefix("| `")?.split("` | `--").nth(1));
    let mut told: Vec<_> = rows.filter_map(|row| row.split('`').next()).collect();
    told.extend(["config", "json"]);
    let command = Cli::command();
    let flags = command.find_subcommand("brick").unwrap().get_arguments();
    let mut flags: Vec<_> =
        flags.chain(command.get_arguments()).filter_map(|a| a.get_long()).collect();
    told.sort_unstable();
    flags.sort_unstable();
    assert_eq!(flags, told);
}

#[test]
fn a_put_takes_its_value_from_one_place() {
    let Command::Put(args) = parse("firebrick put k -v").unwrap().command else { panic!() };
    assert_eq!(args.value.as_deref(), Some("-v".as_ref()));
    let Command::Put(args) = parse("firebrick put k -").unwrap().command else { panic!() };
    assert_eq!(args.value.as_deref(), Some("-".as_ref()));
    let Command::Put(args) = parse("firebrick put k --file f").unwrap().command else { panic!() };
    assert_eq!(args.file.as_deref(), Some("f".as_ref()));
    refused("firebrick put k");
    refused("firebrick put k v --file f");
    refused("firebrick put k v --if-absent --if-version 1.2");
    let line = "firebrick put k v --if-version 3.17";
    let Command::Put(args) = parse(line).unwrap().command else { panic!() };
    assert_eq!(args.if_version, Some(VersionArg { epoch: 3, seq: 17 }));
    assert!(refused("firebrick put k v --if-version 17").contains("1.17"));
}

#[test]
fn an_increment_may_be_negative() {
    let Command::Increment(args) = parse("firebrick increment k -5").unwrap().command else {
        panic!()
    };
    assert_eq!(args.by, -5);
    let Command::Increment(args) = parse("firebrick increment k").unwrap().command else {
        panic!()
    };
    assert_eq!(args.by, 1);
    refused("firebrick increment k 9223372036854775808");
}

#[test]
fn defaults_are_the_documented_ones() {
    let Command::Get(args) = parse("firebrick get k").unwrap().command else { panic!() };
    assert_eq!(args.target.connect.connect, "127.0.0.1:7400");
    assert_eq!(args.target.connect.timeout, Duration::from_secs(10));
    assert_eq!(args.target.table, "default");
    let Command::Up(args) = parse("firebrick up").unwrap().command else { panic!() };
    assert_eq!((args.port, args.resp_port, args.http_port, args.bricks), (7400, 7379, 7480, 1));
    let Command::Demo(args) = parse("firebrick demo").unwrap().command else { panic!() };
    assert_eq!((args.max_file, args.max_total), (1 << 20, 256 << 20));
    assert_eq!(args.tree, std::path::Path::new("/usr/share"));
}

#[test]
fn nonsense_is_refused_with_the_value_and_the_remedy() {
    for (line, word) in [
        ("firebrick brick --poll sometimes", "adaptive"),
        ("firebrick load --tree d --max-file big", "1GiB"),
        ("firebrick status --every never", "250ms"),
        ("firebrick load", "--tree"),
        ("firebrick load --tree d --in-flight 0", "1..=1024"),
        ("firebrick up --http-port 0", "1..=65535"),
        ("firebrick up --port 0 --bricks 3", "1..=65535"),
        ("firebrick frobnicate", "frobnicate"),
    ] {
        let error = refused(line);
        assert!(error.contains(word), "{line}: {error}");
    }
}

#[test]
fn addresses_have_a_host_and_a_port() {
    let connect = |text: &str| Connect { connect: text.to_owned(), timeout: Duration::ZERO };
    for text in ["127.0.0.1:7", "[::1]:7400", "brick-1.local:7400"] {
        assert_eq!(connect(text).addresses(), Ok(vec![text]));
    }
    let three = "127.0.0.1:7400, b:7400,[::1]:7402";
    let each = vec!["127.0.0.1:7400", "b:7400", "[::1]:7402"];
    assert_eq!(connect(three).addresses(), Ok(each));
    for text in ["nowhere", "7400", ":7400", "host:", "host:70000", "", "a:1,,b:2", "a:1,b"] {
        let error = connect(text).addresses().unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert!(error.to_string().contains("127.0.0.1:7400"), "{error}");
    }
}
