use firebrick_partition::log::storage::{Done, Job, Storage};
use firebrick_partition::maps::RouteTable;

use super::{incarnation, remove_dropped};
use crate::catalog::{BRICK, Catalog};
use crate::config::Durability;
use crate::lock::{BrickLock, Identity};

#[test]
fn files_of_a_table_that_was_dropped_before_a_kill_go_at_the_next_start() {
    let (memory, data) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let boot = "0e4e9312-eca7-27a5-4710-5dd9f5edf858";
    let lock = BrickLock::take("b", data.path(), memory.path()).unwrap();
    let identity = Identity::begin(&lock, "b", boot).unwrap();
    let mut catalog = Catalog::open(data.path(), 1, 1, Durability::Sync).unwrap();
    catalog.create("carts", 1, Durability::Sync).unwrap();
    let mut storage = Storage::start(memory.path().into(), data.path().into()).unwrap();
    let routes = catalog.routes();
    for entry in routes.tables().iter().flat_map(RouteTable::entries) {
        assert_eq!(entry.replicas.members[0].brick, BRICK);
        let (table, partition) = (entry.route.table, entry.route.partition);
        let incarnation = incarnation(&identity, boot);
        let open = Job::Open { table, partition, incarnation, disk: true, create: true };
        assert!(matches!(storage.perform(open), Done::Opened { result: Ok(_), .. }));
    }
    // Dropped, and killed before any core removed the files.
    let dropped = catalog.drop_table("carts").unwrap();
    drop(catalog);
    let folder = |side: &tempfile::TempDir, id: u32| side.path().join(format!("p{id}"));
    assert!(dropped.iter().all(|&id| folder(&memory, id).exists() && folder(&data, id).exists()));

    let mut catalog = Catalog::open(data.path(), 1, 1, Durability::Sync).unwrap();
    remove_dropped(&mut storage, &mut catalog).unwrap();
    assert!(!dropped.iter().any(|&id| folder(&memory, id).exists() || folder(&data, id).exists()));
    assert!(catalog.dropped().is_empty());
    let kept = storage.partitions().unwrap();
    assert_eq!(kept.len(), 1, "the default table's files stay");
}
