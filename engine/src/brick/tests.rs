use firebrick_partition::log::storage::{Done, Job, Storage};

use super::{incarnation, remove_dropped, settings};
use crate::check::{self, Host};
use crate::config::BrickConfig;
use crate::lock::{BrickLock, Identity};

#[test]
fn files_of_a_table_that_was_dropped_before_a_kill_go_at_the_next_start() {
    let (memory, data) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let boot = "0e4e9312-eca7-27a5-4710-5dd9f5edf858";
    let lock = BrickLock::take("b", data.path(), memory.path()).unwrap();
    let identity = Identity::begin(&lock, "b", boot).unwrap();
    let mut storage = Storage::start(memory.path().into(), data.path().into()).unwrap();
    for partition in 1..=3 {
        let incarnation = incarnation(&identity, boot);
        let open = Job::Open { table: 1, partition, incarnation, disk: true, create: true };
        assert!(matches!(storage.perform(open), Done::Opened { result: Ok(_), .. }));
    }
    // Two of them were dropped, and the brick was killed before any core removed the files; the keepers
    // remember which.
    remove_dropped(&mut storage, &[2, 3]).unwrap();
    let folder = |side: &tempfile::TempDir, id: u32| side.path().join(format!("p{id}"));
    assert!(![2, 3].iter().any(|&id| folder(&memory, id).exists() || folder(&data, id).exists()));
    assert_eq!(storage.partitions().unwrap().len(), 1, "the other table's files stay");
}

#[test]
fn config_get_shows_what_auto_came_to() {
    let config = BrickConfig { data_dir: "x".into(), ..BrickConfig::default() };
    let plan = check::settle(&config, &Host::read()).unwrap();
    let settings = settings(&plan);
    let value = |name: &str| &settings.iter().find(|(key, _)| key == name).unwrap().1;
    assert_eq!(value("memory_dir"), plan.memory_dir.to_str().unwrap());
    assert_eq!(value("data_dir"), std::env::current_dir().unwrap().join("x").to_str().unwrap());
    assert_eq!(*value("memory"), plan.memory_bytes.to_string());
    assert!(value("cores").parse::<usize>().is_ok());
}
