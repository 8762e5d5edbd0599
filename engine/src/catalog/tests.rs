use std::collections::HashSet;
use std::fs;

use firebrick_partition::hash_key;

use super::*;

fn open(folder: &Path, cores: u16) -> Catalog {
    Catalog::open(folder, cores, 4, Durability::Async { behind_ms: 1000 }).unwrap()
}

#[test]
fn a_new_brick_has_the_default_table_spread_over_its_cores() {
    let folder = tempfile::tempdir().unwrap();
    let catalog = open(folder.path(), 2);
    let routes = catalog.routes();
    let table = routes.table_named("default").unwrap();
    assert_eq!((table.id, table.entries().len()), (1, 8));
    assert_eq!(table.durability(), maps::Durability::Async { ms: 1000 });
    let on = |core| table.entries().iter().filter(|entry| entry.core == core).count();
    assert_eq!((on(0), on(1)), (4, 4));
    assert!(table.entries().iter().all(|entry| entry.mine == Some(0)));
    let used: HashSet<u16> =
        (0..100u32).map(|n| table.route(hash_key(&n.to_le_bytes())).core).collect();
    assert_eq!(used.len(), 2, "keys of one table use both cores");
}

#[test]
fn three_cores_get_a_power_of_two() {
    let folder = tempfile::tempdir().unwrap();
    let routes = open(folder.path(), 3).routes();
    let table = routes.table_named("default").unwrap();
    assert_eq!(table.entries().len(), 16);
    for core in 0..3 {
        assert!(table.entries().iter().filter(|entry| entry.core == core).count() >= 5);
    }
}

#[test]
fn tables_outlive_the_brick_and_a_restart_raises_epoch_and_version() {
    let folder = tempfile::tempdir().unwrap();
    let mut first = open(folder.path(), 2);
    first.create("orders", 1, Durability::Sync).unwrap();
    let before = first.routes();
    drop(first);
    // One core fewer, and another default: the tables stay as they were made.
    let again = Catalog::open(folder.path(), 1, 64, Durability::Memory).unwrap();
    let after = again.routes();
    assert!(after.version() > before.version());
    for (old, new) in before.tables().iter().zip(after.tables()) {
        assert_eq!((old.id, &old.name, old.options), (new.id, &new.name, new.options));
        for (old, new) in old.entries().iter().zip(new.entries()) {
            assert_eq!((old.route.partition, old.leaf), (new.route.partition, new.leaf));
            assert!(new.route.epoch > old.route.epoch && new.core == 0);
            assert_ne!(old.route.fingerprint, new.route.fingerprint);
        }
    }
    assert_eq!(after.tables().len(), 2);
}

#[test]
fn ids_are_never_used_twice_not_even_after_a_drop_and_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let (mut tables, mut partitions) = (HashSet::new(), HashSet::new());
    for round in 0..5 {
        let mut catalog = open(folder.path(), 2);
        assert!(tables.insert(catalog.create("t", 2, Durability::Memory).unwrap()));
        let routes = catalog.routes();
        for entry in routes.table_named("t").unwrap().entries() {
            assert!(partitions.insert(entry.route.partition), "round {round}");
        }
        assert_eq!(catalog.drop_table("t").unwrap().len(), 4);
        assert!(catalog.routes().table_named("t").is_none());
    }
}

#[test]
fn dropped_partitions_are_remembered_until_their_files_are_gone() {
    let folder = tempfile::tempdir().unwrap();
    let mut catalog = open(folder.path(), 1);
    catalog.create("t", 2, Durability::Memory).unwrap();
    let gone = catalog.drop_table("t").unwrap();
    assert_eq!(open(folder.path(), 1).dropped(), gone);
    let mut catalog = open(folder.path(), 1);
    catalog.forget_dropped(&gone[..1]).unwrap();
    assert_eq!(open(folder.path(), 1).dropped(), &gone[1..]);
}

#[test]
fn what_cannot_be_done_is_said_and_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut catalog = open(folder.path(), 1);
    let version = catalog.routes().version();
    let told = |result: Result<u32, BrickError>| result.unwrap_err().to_string();
    assert!(told(catalog.create("default", 1, Durability::Sync)).contains("already"));
    assert!(
        told(catalog.create("a b", 1, Durability::Sync)).contains("\"a b\" cannot name a table")
    );
    assert!(told(catalog.create(&"x".repeat(129), 1, Durability::Sync)).contains("1 to 128"));
    let told = catalog.drop_table("nope").unwrap_err().to_string();
    assert_eq!(told, "no table \"nope\"; the tables are default");
    assert!(catalog.drop_table("default").unwrap_err().to_string().contains("FLUSHALL"));
    assert_eq!(catalog.routes().version(), version);
    // A write that fails leaves the old tables, in memory and on disk.
    fs::create_dir(folder.path().join("tables.tmp")).unwrap();
    catalog.create("t", 1, Durability::Sync).unwrap_err();
    assert!(catalog.routes().table_named("t").is_none());
    fs::remove_dir(folder.path().join("tables.tmp")).unwrap();
    assert!(open(folder.path(), 1).routes().table_named("t").is_none());
    // Tables are bounded by their partitions.
    let mut made = 0;
    while catalog.create(&format!("t{made}"), 64, Durability::Memory).is_ok() {
        made += 1;
    }
    assert_eq!(made, (PARTITIONS_MAX - 4) / 64);
}

#[test]
fn damaged_newer_and_missing_catalogs_are_refused_and_kept() {
    let folder = tempfile::tempdir().unwrap();
    drop(open(folder.path(), 1));
    let path = folder.path().join("tables");
    let good = fs::read_to_string(&path).unwrap();
    let refused = |text: &str, expected: &str| {
        fs::write(&path, text).unwrap();
        let told = Catalog::open(folder.path(), 1, 4, Durability::Sync).unwrap_err().to_string();
        assert!(told.contains(expected) && told.contains("/tables "), "{told}");
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
    };
    refused(&good.replace("\"epoch\": 1", "\"epoch\": 0"), "checksum does not match");
    refused(&good.replacen("tables 1 ", "tables 7 ", 1), "has format 7");
    refused(&good[..good.len() - 9], "bytes, its header says");
    refused("", "has no header");
    refused("firebrick brick 1 00000000 0\n", "is not a firebrick tables file");

    // A good checksum over contents that disagree with themselves.
    let body =
        good.split_once('\n').unwrap().1.replace("\"next_partition\": 5", "\"next_partition\": 3");
    let crc = crc32fast::hash(body.as_bytes());
    let forged = format!("firebrick tables 1 {crc:08x} {}\n{body}", body.len());
    refused(&forged, "has ids that were never given");

    fs::remove_file(&path).unwrap();
    fs::create_dir(folder.path().join("p3")).unwrap();
    let told = Catalog::open(folder.path(), 1, 4, Durability::Sync).unwrap_err().to_string();
    assert!(told.contains("is missing") && told.contains("\"p3\""), "{told}");
    assert!(!path.exists());
}
