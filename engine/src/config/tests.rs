use std::fs;

use super::*;

const ANNOTATED: &str = include_str!("../../../docs/firebrick.toml");
const MANUAL: &str = include_str!("../../../docs/config.md");

fn mistakes(text: &str) -> Vec<String> {
    match BrickConfig::from_toml(text) {
        Err(BrickError::Config(mistakes)) => mistakes,
        other => panic!("{text:?} should be refused, got {other:?}"),
    }
}

#[test]
fn the_annotated_file_has_every_key_with_its_default() {
    let defaults = BrickConfig::default();
    assert_eq!(BrickConfig::from_toml(ANNOTATED).unwrap(), defaults);
    let mut section = String::new();
    let mut seen = Vec::new();
    let mut above = "";
    for line in ANNOTATED.lines() {
        if let Some(name) = line.strip_prefix('[') {
            section = format!("{}.", name.trim_end_matches(']'));
        } else if let Some((key, value)) = line.split_once(" = ").filter(|_| !line.starts_with('#'))
        {
            let name = format!("{section}{key}");
            let known = KEYS.iter().find(|k| k.name == name).expect("a known key");
            assert_eq!(value.trim_matches('"'), known.value(&defaults), "default of {name}");
            assert!(above.starts_with('#'), "{name} has no explanation above it");
            seen.push(name);
        }
        above = line;
    }
    let keys: Vec<_> = KEYS.iter().map(|k| k.name).collect();
    assert_eq!(seen, keys, "the file has the keys in the order of KEYS, each once");
}

#[test]
fn the_manual_has_every_key_with_its_default() {
    for key in KEYS {
        let row = MANUAL.lines().find(|line| line.starts_with(&format!("| `{}` |", key.name)));
        let row = row.unwrap_or_else(|| panic!("docs/config.md has no row for {}", key.name));
        let default = format!("| `{}` |", key.value(&BrickConfig::default()));
        assert!(row.contains(&default), "{row} should have the default {default}");
    }
}

#[test]
fn an_unknown_key_is_refused_with_its_line_and_the_nearest_key() {
    assert_eq!(
        mistakes("name = \"a\"\n\nmemory-dir = \"/x\"\n"),
        ["line 3: unknown key \"memory-dir\"; did you mean \"memory_dir\"?"]
    );
    assert_eq!(
        mistakes("[limits]\nconections_max = 5\n"),
        ["line 2: unknown key \"limits.conections_max\"; did you mean \"limits.connections_max\"?"]
    );
    // A key in the wrong place is found by its own name.
    assert_eq!(
        mistakes("in_flight_max = 20"),
        ["line 1: unknown key \"in_flight_max\"; did you mean \"limits.in_flight_max\"?"]
    );
    let far = &mistakes("[limits]\nfoo = 1")[0];
    assert!(far.contains("the keys of [limits] are connections_max, in_flight_max, "), "{far}");
    assert!(
        mistakes("naem = 1")[0].contains("did you mean \"name\"?"),
        "two letters changed places"
    );
    let far = &mistakes("replication_factor_of_tables = 3")[0];
    assert!(far.contains("the keys are name, cores, "), "{far}");
    assert!(mistakes("[elephants]\nbig = 1")[0].contains("line 1: unknown key \"elephants\""));
}

#[test]
fn a_bad_value_is_refused_with_the_value_and_what_is_allowed() {
    let cases = [
        ("name = \"two words\"", "name = \"two words\" is not allowed: give 1 to 64 letters"),
        ("cores = \"1-0\"", "give \"auto\" or CPU numbers"),
        ("cores = \"0,0\"", "CPU 0 is named twice"),
        ("cores = \"0-99999999999\"", "give \"auto\" or CPU numbers"),
        ("poll = \"sometimes\"", "give \"busy\", \"adaptive\" or \"park\""),
        ("spin_us = 10001", "spin_us = \"10001\" is not allowed: give a number from 0 to 10000"),
        ("spin_us = -1", "give a number from 0 to 10000"),
        ("listen = \"localhost\"", "give an IP address and a port"),
        ("listen = \"off\"", "give an IP address and a port"),
        ("resp = \"7379\"", ", or \"off\""),
        ("memory = \"1 gigabyte\"", "give a whole number of bytes with a unit"),
        ("memory = \"1MiB\"", "from 64MiB to 16TiB"),
        ("memory = \"99999999999999999999\"", "give a whole number of bytes"),
        ("memory = \"99999999TiB\"", "give a whole number of bytes"),
        ("partitions = 0", "give a number from 1 to 64"),
        ("durability = \"async(0ms)\"", "give \"memory\", \"async\""),
        ("durability = \"async(99999999s)\"", "give \"memory\", \"async\""),
        ("durability = \"async(4294968s)\"", "give \"memory\", \"async\""),
        ("data_dir = \"\"", "give the path of a folder"),
        ("poll = true", "line 1: poll is a boolean; give a string or a number"),
        ("limits = 3", "unknown key \"limits\""),
        ("name = ", "line 1: not TOML"),
        ("\n\nname = \"a\"\nname = \"b\"", "line 4: not TOML"),
    ];
    for (text, expected) in cases {
        let told = mistakes(text).join("\n");
        assert!(told.contains(expected), "{text}: {told}");
    }
    // All mistakes at once, not one a start, from the first line to the last.
    let all = mistakes("poll = \"x\"\n\nspin_us = 99999\nnam = 1");
    let lines: Vec<&str> = all.iter().map(|m| m.split_once(':').unwrap().0).collect();
    assert_eq!(lines, ["line 1", "line 3", "line 4"]);
}

#[test]
fn values_mean_what_they_say() {
    let config = BrickConfig::from_toml(
        "cores = \"0-2,7\"\npoll = \"park\"\nmemory = \"1 GiB\"\nresp = \"off\"\n\
         durability = \"async(2s)\"\nmemory_dir = \"/mnt/huge\"\n[limits]\nin_flight_max = 16\n",
    )
    .unwrap();
    assert_eq!(config.cores, Cores::List(vec![0, 1, 2, 7]));
    assert_eq!(config.poll, Poll::Park);
    assert_eq!(config.memory, Some(1 << 30));
    assert_eq!(config.resp, None);
    assert_eq!(config.durability, Durability::Async { ms: 2000 });
    assert_eq!(config.memory_dir, Some("/mnt/huge".into()));
    assert_eq!(config.limits.in_flight_max, 16);
    assert_eq!(BrickConfig::from_toml("memory = 500000000").unwrap().memory, Some(500_000_000));
    let sizes =
        [("64 MiB", 64 << 20), ("2GB", 2_000_000_000), ("7", 7), ("3k", 3072), ("1tib", 1 << 40)];
    for (text, bytes) in sizes {
        assert_eq!(parse_bytes(text), Ok(bytes));
    }
    for text in ["", "m", "-1", "1.5g", "3 x", "99999999999999t", "16777216t"] {
        assert!(parse_bytes(text).is_err(), "{text}");
    }
    for (bytes, text) in [(1 << 30, "1 GiB"), (1536 << 20, "1.5 GiB"), (900, "900 B")] {
        assert_eq!(bytes_text(bytes), text);
    }
    for durability in ["memory", "async(7ms)", "sync"] {
        assert_eq!(durability.parse::<Durability>().unwrap().to_string(), durability);
    }
}

#[test]
fn flags_go_before_the_file_and_the_file_before_the_defaults() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("firebrick.toml");
    fs::write(&file, "name = \"from-file\"\nspin_us = 7\n").unwrap();
    let flags = Overrides {
        name: Some("from-flag".into()),
        memory_dir: Some("auto".into()),
        data_dir: Some("/somewhere".into()),
        ..Overrides::default()
    };
    let config = BrickConfig::load(Some(&file), &flags).unwrap();
    assert_eq!((config.name.as_str(), config.spin_us, config.partitions), ("from-flag", 7, None));
    assert_eq!((config.memory_dir, config.data_dir), (None, "/somewhere".into()));

    fs::write(&file, "spinus = 7\n").unwrap();
    let flags = Overrides { poll: Some("x".into()), ..Overrides::default() };
    let told = BrickConfig::load(Some(&file), &flags).unwrap_err().to_string();
    assert!(
        told.contains(&format!("{}: line 1: unknown key \"spinus\"", file.display())),
        "{told}"
    );
    assert!(told.contains("--poll \"x\" is not allowed"), "{told}");

    let missing = folder.path().join("none.toml");
    let told = BrickConfig::load(Some(&missing), &flags).unwrap_err().to_string();
    assert!(told.contains("cannot read the configuration") && told.contains("none.toml"), "{told}");
}

#[test]
fn two_uses_of_one_port_or_folder_are_refused() {
    let told = mistakes("listen = \"127.0.0.1:9\"\nhttp = \"127.0.0.1:9\"");
    assert_eq!(told, ["listen and http are both 127.0.0.1:9; give each its own port"]);
    BrickConfig::from_toml("listen = \"127.0.0.1:0\"\nhttp = \"127.0.0.1:0\"").unwrap();
    assert!(mistakes("memory_dir = \"/a\"\ndata_dir = \"/a\"")[0].contains("both /a"));
}
