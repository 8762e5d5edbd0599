//! The keys, one row each, and the two ways to set them.

use firebrick_partition::maps::REPLICAS_MAX;
use toml::de::{DeTable, DeValue};

use super::parse;
use super::{BrickConfig, Overrides};

/// One key of the configuration.
pub struct Key {
    /// Its name; a dot separates a section.
    pub name: &'static str,
    set: fn(&mut BrickConfig, &str) -> Result<(), String>,
    show: fn(&BrickConfig) -> String,
}

impl Key {
    /// The key's value as the file would have it.
    pub fn value(&self, config: &BrickConfig) -> String {
        (self.show)(config)
    }
}

/// Smallest memory for records.
const MEMORY_MIN: u64 = 64 << 20;

fn parse_memory(text: &str) -> Result<Option<u64>, String> {
    if text.trim() == "auto" {
        return Ok(None);
    }
    let bytes = parse::parse_bytes(text)?;
    if !(MEMORY_MIN..=16 << 40).contains(&bytes) {
        return Err("give \"auto\" or from 64MiB to 16TiB".into());
    }
    Ok(Some(bytes))
}

fn or(value: Option<impl ToString>, none: &str) -> String {
    value.map_or_else(|| none.to_owned(), |v| v.to_string())
}

/// Every key there is.
pub static KEYS: &[Key] = &[
    Key {
        name: "name",
        set: |c, v| parse::parse_name(v).map(|v| c.name = v),
        show: |c| c.name.clone(),
    },
    Key {
        name: "cores",
        set: |c, v| parse::parse_cores(v).map(|v| c.cores = v),
        show: |c| match &c.cores {
            super::Cores::Auto => "auto".into(),
            super::Cores::List(cpus) => {
                cpus.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
            }
        },
    },
    Key {
        name: "poll",
        set: |c, v| parse::parse_poll(v).map(|v| c.poll = v),
        show: |c| format!("{:?}", c.poll).to_lowercase(),
    },
    Key {
        name: "spin_us",
        set: |c, v| parse::parse_number(v, 0, 10_000).map(|v| c.spin_us = v),
        show: |c| c.spin_us.to_string(),
    },
    Key {
        name: "listen",
        set: |c, v| parse::parse_address(v).map(|v| c.listen = v),
        show: |c| c.listen.to_string(),
    },
    Key {
        name: "control",
        set: |c, v| parse::parse_address(v).map(|v| c.control = v),
        show: |c| c.control.to_string(),
    },
    Key {
        name: "join",
        set: |c, v| parse::parse_peers(v).map(|v| c.join = v),
        show: |c| if c.join.is_empty() { "none".into() } else { c.join.join(",") },
    },
    Key {
        name: "host",
        set: |c, v| parse::parse_place(v).map(|v| c.host = Some(v).filter(|v| v != "auto")),
        show: |c| or(c.host.as_ref(), "auto"),
    },
    Key {
        name: "rack",
        set: |c, v| parse::parse_place(v).map(|v| c.rack = Some(v).filter(|v| v != "none")),
        show: |c| or(c.rack.as_ref(), "none"),
    },
    Key {
        name: "advertise",
        set: |c, v| parse::parse_advertise(v).map(|v| c.advertise = v),
        show: |c| or(c.advertise, "auto"),
    },
    Key {
        name: "resp",
        set: |c, v| parse::parse_address_or_off(v).map(|v| c.resp = v),
        show: |c| or(c.resp, "off"),
    },
    Key {
        name: "http",
        set: |c, v| parse::parse_address_or_off(v).map(|v| c.http = v),
        show: |c| or(c.http, "off"),
    },
    Key {
        name: "memory_dir",
        set: |c, v| {
            let folder = if v == "auto" { None } else { Some(parse::parse_folder(v)?) };
            c.memory_dir = folder;
            Ok(())
        },
        show: |c| or(c.memory_dir.as_ref().map(|d| d.display()), "auto"),
    },
    Key {
        name: "data_dir",
        set: |c, v| parse::parse_folder(v).map(|v| c.data_dir = v),
        show: |c| c.data_dir.display().to_string(),
    },
    Key {
        name: "memory",
        set: |c, v| parse_memory(v).map(|v| c.memory = v),
        show: |c| or(c.memory, "auto"),
    },
    Key {
        name: "partitions",
        set: |c, v| {
            let number = |v| parse::parse_number(v, 1, 64).map_err(|help| help + ", or \"auto\"");
            c.partitions = if v == "auto" { None } else { Some(number(v)?) };
            Ok(())
        },
        show: |c| or(c.partitions, "auto"),
    },
    Key {
        name: "durability",
        set: |c, v| v.parse().map(|v| c.durability = v),
        show: |c| c.durability.to_string(),
    },
    Key {
        name: "replicas",
        set: |c, v| parse::parse_number(v, 1, REPLICAS_MAX as u32).map(|v| c.replicas = v as u8),
        show: |c| c.replicas.to_string(),
    },
    Key {
        name: "limits.connections_max",
        set: |c, v| parse::parse_number(v, 1, 1_000_000).map(|v| c.limits.connections_max = v),
        show: |c| c.limits.connections_max.to_string(),
    },
    Key {
        name: "limits.in_flight_max",
        set: |c, v| parse::parse_number(v, 16, 65_000).map(|v| c.limits.in_flight_max = v),
        show: |c| c.limits.in_flight_max.to_string(),
    },
    Key {
        name: "limits.copy_wait_us",
        set: |c, v| parse::parse_number(v, 0, 10_000_000).map(|v| c.limits.copy_wait_us = v),
        show: |c| c.limits.copy_wait_us.to_string(),
    },
    Key {
        name: "limits.http_connections_max",
        set: |c, v| parse::parse_number(v, 1, 1024).map(|v| c.limits.http_connections_max = v),
        show: |c| c.limits.http_connections_max.to_string(),
    },
];

/// Lines, and what is wrong there.
type Mistakes = Vec<(usize, String)>;

impl BrickConfig {
    /// Sets what the text names; answers a sentence for each mistake.
    pub(super) fn apply_toml(&mut self, text: &str) -> Vec<String> {
        let table = match DeTable::parse(text) {
            Ok(table) => table,
            Err(error) => {
                let line = error.span().map_or(1, |span| line_of(text, span.start));
                return vec![format!("line {line}: not TOML: {}", error.message())];
            }
        };
        let mut mistakes = Vec::new();
        self.apply_table(text, "", table.get_ref(), &mut mistakes);
        // A table is in the order of its keys.
        mistakes.sort();
        mistakes.into_iter().map(|(line, what)| format!("line {line}: {what}")).collect()
    }

    fn apply_table(&mut self, text: &str, section: &str, table: &DeTable, out: &mut Mistakes) {
        for (key, value) in table {
            let line = line_of(text, key.span().start);
            let name = format!("{section}{}", key.get_ref());
            let dotted = format!("{name}.");
            if let DeValue::Table(inner) = value.get_ref()
                && KEYS.iter().any(|k| k.name.starts_with(&dotted))
            {
                self.apply_table(text, &dotted, inner, out);
                continue;
            }
            let Some(known) = KEYS.iter().find(|k| k.name == name) else {
                out.push((line, format!("unknown key \"{name}\"; {}", suggestion(&name))));
                continue;
            };
            let given = match value.get_ref() {
                DeValue::String(text) => text.to_string(),
                DeValue::Integer(number) => number.to_string(),
                other => {
                    let kind = other.type_str();
                    out.push((line, format!("{name} is a {kind}; give a string or a number")));
                    continue;
                }
            };
            if let Err(help) = (known.set)(self, &given) {
                out.push((line, format!("{name} = \"{given}\" is not allowed: {help}")));
            }
        }
    }

    /// Sets what the flags give.
    pub(super) fn apply_flags(&mut self, flags: &Overrides) -> Vec<String> {
        let given = [
            ("name", flags.name.clone()),
            ("cores", flags.cores.clone()),
            ("poll", flags.poll.clone()),
            ("spin_us", flags.spin_us.clone()),
            ("listen", flags.listen.clone()),
            ("control", flags.control.clone()),
            ("join", flags.join.clone()),
            ("host", flags.host.clone()),
            ("rack", flags.rack.clone()),
            ("resp", flags.resp.clone()),
            ("http", flags.http.clone()),
            ("memory", flags.memory.clone()),
            ("partitions", flags.partitions.clone()),
            ("durability", flags.durability.clone()),
            ("replicas", flags.replicas.clone()),
            ("advertise", flags.advertise.clone()),
        ];
        // Paths need not be text, so they do not go through the keys' parsers.
        if let Some(folder) = &flags.memory_dir {
            self.memory_dir = (folder.as_os_str() != "auto").then(|| folder.clone());
        }
        if let Some(folder) = &flags.data_dir {
            self.data_dir.clone_from(folder);
        }
        let mut mistakes = Vec::new();
        for (name, value) in given {
            let (Some(value), Some(key)) = (value, KEYS.iter().find(|k| k.name == name)) else {
                continue;
            };
            if let Err(help) = (key.set)(self, &value) {
                let flag = name.replace('_', "-");
                mistakes.push(format!("--{flag} \"{value}\" is not allowed: {help}"));
            }
        }
        mistakes
    }
}

fn line_of(text: &str, offset: usize) -> usize {
    text.as_bytes().iter().take(offset).filter(|&&byte| byte == b'\n').count() + 1
}

/// The nearest known key, or all of its section.
fn suggestion(name: &str) -> String {
    let last = name.rsplit('.').next().unwrap_or(name);
    let distance = |key: &Key| {
        let short = key.name.rsplit('.').next().unwrap_or(key.name);
        edits(name, key.name).min(edits(last, short))
    };
    match KEYS.iter().min_by_key(|key| distance(key)) {
        Some(key) if distance(key) <= (last.len() / 3).max(last.len().min(4) / 2) => {
            format!("did you mean \"{}\"?", key.name)
        }
        _ => {
            let split = |name: &'static str| name.rsplit_once('.').unwrap_or(("", name));
            let section = name.rsplit_once('.').map_or("", |(section, _)| section);
            let there = KEYS.iter().map(|key| split(key.name)).filter(|(s, _)| *s == section);
            let names: Vec<_> = there.map(|(_, name)| name).collect();
            match section {
                _ if names.is_empty() => "the only section is [limits]".into(),
                "" => format!("the keys are {}, and those of [limits]", names.join(", ")),
                section => format!("the keys of [{section}] are {}", names.join(", ")),
            }
        }
    }
}

/// Levenshtein distance.
fn edits(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replace = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = replace.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}
