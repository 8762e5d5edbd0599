use std::collections::BTreeSet;

use super::*;
use crate::maps::Maps;

fn create(keepers: &mut Keepers, name: &str, options: TableOptions) -> Applied {
    let bricks: Vec<(u32, u64)> = keepers.bricks().map(|b| (b.id, b.incarnation)).collect();
    let n = usize::from(options.replicas).min(bricks.len());
    let place = |p: u32| {
        let mut all = bricks.clone();
        all.rotate_left(p as usize % bricks.len());
        all.truncate(n);
        all
    };
    let placement = (0..options.partitions).map(place).collect();
    keepers.apply(&Entry::CreateTable { name: name.into(), options, placement })
}

#[test]
fn partitions_of_a_table_are_spread_over_the_data_cores() {
    assert_eq!([1, 2, 3, 8].map(|cores| partitions_for(cores, 4)), [4, 8, 16, 32]);
    assert_eq!(partitions_for(4, 1000), 256);
    let mut keepers = Keepers::default();
    join(&mut keepers, 1);
    create(&mut keepers, "default", options(16, 1));
    assert_eq!(keepers.core_loads(1), [(0, 8), (1, 8)]);
    // Started again with three cores: all are used, and nothing else changes.
    let old = keepers.maps();
    let registration = Box::new(Registration { cores: 3, ..process(1, 101) });
    let proof = Proof::SameLock;
    done(&mut keepers, &Entry::Register { registration, replaces: Some(100), proof });
    assert_eq!(keepers.core_loads(1), [(0, 6), (1, 5), (2, 5)]);
    let new = keepers.maps();
    assert!(new.version > old.version);
    assert_eq!(
        (new.tables[0].id, &new.tables[0].leaves),
        (old.tables[0].id, &old.tables[0].leaves)
    );
    for (_, group) in new.tables[0].groups.iter() {
        assert_eq!(group.epoch, 2);
    }
}

/// A brick that was taken out while its process went on has its replicas still, each open on one core: another core
/// must not open the same files. What was found by the simulator of whole bricks.
#[test]
fn a_replica_comes_back_to_the_core_that_may_have_it_still() {
    let mut keepers = Keepers::default();
    (1..=2).for_each(|n| join(&mut keepers, n));
    create(&mut keepers, "t", options(2, 2));
    let core = |keepers: &Keepers, partition| {
        keepers.group(partition).unwrap().replicas.of(2).map(|member| member.core)
    };
    let before = [1, 2].map(|partition| core(&keepers, partition));
    assert_ne!(before[0], before[1]);
    let name = |keepers: &mut Keepers, partition, incarnation| {
        let epoch = keepers.group(partition).unwrap().replicas.epoch;
        done(keepers, &Entry::NameLearner { partition, epoch, brick: 2, incarnation });
    };
    done(&mut keepers, &Entry::TakeOut { brick: 2, incarnation: 200 });
    for partition in [2, 1] {
        name(&mut keepers, partition, 200);
    }
    assert_eq!([1, 2].map(|partition| core(&keepers, partition)), before);
    // A new process has nothing open: there the cores are filled evenly.
    done(&mut keepers, &Entry::TakeOut { brick: 2, incarnation: 200 });
    let registration = Box::new(process(2, 201));
    let proof = Proof::SameLock;
    done(&mut keepers, &Entry::Register { registration, replaces: Some(200), proof });
    for partition in [2, 1] {
        name(&mut keepers, partition, 201);
    }
    assert_eq!([2, 1].map(|partition| core(&keepers, partition)), [Some(0), Some(1)]);
}

/// The last member comes back without what it had: its new process opens what is left, where the stopped group names it.
/// (The simulator of whole bricks, seed 165512672565751: two cores had the same files open, and both took part.)
#[test]
fn a_member_of_a_stopped_group_comes_back_to_the_core_that_the_map_named() {
    let mut keepers = Keepers::default();
    (1..=2).for_each(|n| join(&mut keepers, n));
    create(&mut keepers, "t", options(2, 2));
    let of = |keepers: &Keepers, partition| keepers.group(partition).unwrap().replicas.clone();
    let core = |keepers: &Keepers, partition| of(keepers, partition).of(2).map(|m| m.core);
    let before = [1, 2].map(|partition| core(&keepers, partition));
    assert_ne!(before[0], before[1]);
    done(&mut keepers, &Entry::TakeOut { brick: 1, incarnation: 100 });
    let groups = [1, 2].map(|partition| (partition, of(&keepers, partition).epoch)).to_vec();
    done(&mut keepers, &Entry::Active { brick: 2, incarnation: 200, groups });
    let registration = Box::new(Registration { memory_intact: false, ..process(2, 201) });
    let proof = Proof::SameLock;
    let entry = Entry::Register { registration, replaces: Some(200), proof };
    assert_eq!(done(&mut keepers, &entry), Applied::Registered { brick: 2, stopped: vec![1, 2] });
    for partition in [1, 2] {
        let epoch = of(&keepers, partition).epoch;
        let (brick, incarnation, accept_loss) = (1, 100, true);
        done(&mut keepers, &Entry::Lead { partition, epoch, brick, incarnation, accept_loss });
    }
    // The first one would go to core 0.
    let order = if before[0] == Some(0) { [2, 1] } else { [1, 2] };
    for partition in order {
        let epoch = of(&keepers, partition).epoch;
        done(&mut keepers, &Entry::NameLearner { partition, epoch, brick: 2, incarnation: 201 });
    }
    assert_eq!([1, 2].map(|partition| core(&keepers, partition)), before);
}

#[test]
fn ids_are_never_used_twice_and_what_cannot_be_done_is_said() {
    let mut keepers = Keepers::default();
    join(&mut keepers, 1);
    assert_eq!(create(&mut keepers, "default", options(4, 1)), Applied::Created { table: 1 });
    let (mut tables, mut partitions) = (BTreeSet::new(), BTreeSet::new());
    for _ in 0..5 {
        let Applied::Created { table } = create(&mut keepers, "t", options(4, 1)) else { panic!() };
        assert!(tables.insert(table));
        let gone = done(&mut keepers, &Entry::DropTable { name: "t".into() });
        let Applied::Dropped { partitions: gone } = gone else { panic!() };
        assert_eq!(gone.len(), 4);
        assert!(gone.iter().all(|p| partitions.insert(*p)));
        assert!(keepers.table_named("t").is_none());
    }
    let mut told = |name: &str, options| match create(&mut keepers, name, options) {
        Applied::Nothing(why) => why,
        other => panic!("{other:?}"),
    };
    assert!(
        told("default", options(1, 1)).contains("already; choose another name, or drop it first")
    );
    assert!(told("a b", options(1, 1)).contains("\"a b\" cannot name a table"));
    assert!(told(&"x".repeat(129), options(1, 1)).contains("1 to 128"));
    assert!(told("t", options(3, 1)).contains("3 groups are named for 3 partitions"));
    assert!(told("t", options(1, 0)).contains("0 replicas cannot be made: give 1 to 16"));
    let drop = |name: &str| Entry::DropTable { name: name.into() };
    refused(&mut keepers, &drop("nope"), "no table \"nope\"; the tables are default");
    refused(&mut keepers, &drop("default"), "empty it with FLUSHALL");
    // A place on a brick that restarted since, or that is not there, or twice on one.
    let entry = |at: &[(u32, u64)]| Entry::CreateTable {
        name: "t".into(),
        options: options(1, 2),
        placement: vec![at.to_vec()],
    };
    refused(&mut keepers, &entry(&[(1, 7)]), "this was decided for 7");
    refused(&mut keepers, &entry(&[(9, 7)]), "there is no brick 9");
    refused(&mut keepers, &entry(&[(1, 100), (1, 100)]), "cannot hold a partition");
    refused(&mut keepers, &entry(&[]), "cannot hold a partition");
    // Tables are bounded by the partitions of a brick.
    let mut made = 0;
    while create(&mut keepers, &format!("t{made}"), options(64, 1)).refusal().is_none() {
        made += 1;
    }
    assert_eq!(made, (PARTITIONS_MAX - 4) / 64);
    keepers.check().unwrap();
}

#[test]
fn dropped_partitions_are_remembered_until_all_their_files_are_gone() {
    let mut keepers = group_of(3);
    done(&mut keepers, &Entry::TakeOut { brick: 3, incarnation: 300 });
    active(&mut keepers);
    done(&mut keepers, &Entry::DropTable { name: "t".into() });
    // 3 was taken out and has files of it all the same.
    assert_eq!([1, 2, 3].map(|brick| keepers.dropped(brick)), [[1]; 3]);
    for brick in [1, 2] {
        done(&mut keepers, &Entry::Forgotten { brick, partitions: vec![1, 77] });
    }
    assert_eq!((keepers.dropped(1), keepers.dropped(3)), (vec![], vec![1]));
    done(&mut keepers, &Entry::Forgotten { brick: 3, partitions: vec![1] });
    assert_eq!(keepers.dropped, std::collections::BTreeMap::new());
}

#[test]
fn changes_since_any_version_make_the_maps_of_today() {
    let mut keepers = Keepers::default();
    let mut all = vec![keepers.maps()];
    let mut note = |keepers: &Keepers| all.push(keepers.maps());
    for n in 1..=3 {
        join(&mut keepers, n);
        note(&keepers);
    }
    for round in 0..4 {
        create(&mut keepers, &format!("t{round}"), options(4, 3));
        note(&keepers);
        let entry = restart(&keepers, 1 + round % 3, round != 2);
        done(&mut keepers, &entry);
        note(&keepers);
        let groups: Vec<(u32, u32)> =
            keepers.groups().map(|(p, g)| (p, g.replicas.epoch)).collect();
        for n in 1..=3 {
            let incarnation = keepers.brick(n).unwrap().incarnation;
            let groups = groups.clone();
            keepers.apply(&Entry::Active { brick: n, incarnation, groups });
            note(&keepers);
        }
        if round % 2 == 1 {
            done(&mut keepers, &Entry::DropTable { name: format!("t{}", round - 1) });
            note(&keepers);
        }
    }
    let today = keepers.maps();
    for old in all {
        let mut maps = old.clone();
        let delta = keepers.changes_since(old.version);
        delta.apply_to(&mut maps).unwrap();
        assert_eq!(maps, today, "since {}", old.version);
        // Twice, and late, it does no harm.
        delta.apply_to(&mut maps).unwrap();
        assert_eq!(maps, today);
    }
    assert!(keepers.changes_since(keepers.version()).is_empty());
    let small = keepers.changes_since(keepers.version() - 1);
    assert!(small.since.is_some() && small.tables.is_empty());
    let told = small.apply_to(&mut Maps::default()).unwrap_err();
    assert!(told.contains("fetch the maps again"), "{told}");
}

#[test]
fn drops_that_are_long_past_are_told_by_whole_maps() {
    let mut keepers = Keepers::default();
    join(&mut keepers, 1);
    create(&mut keepers, "first", options(1, 1));
    let mut maps = keepers.maps();
    done(&mut keepers, &Entry::DropTable { name: "first".into() });
    for _ in 0..delta::GONE_MAX {
        create(&mut keepers, "t", options(1, 1));
        keepers.apply(&Entry::DropTable { name: "t".into() });
    }
    let delta = keepers.changes_since(maps.version);
    assert_eq!(delta.since, None);
    delta.apply_to(&mut maps).unwrap();
    assert_eq!(maps, keepers.maps());
}

#[test]
fn a_snapshot_that_contradicts_itself_is_found() {
    let good = serde_json::to_value(group_of(3)).unwrap();
    let bad = |pointer: &str, value: serde_json::Value, expected: &str| {
        let mut text = good.clone();
        *text.pointer_mut(pointer).unwrap() = value;
        let keepers: Keepers = serde_json::from_value(text).unwrap();
        let told = keepers.check().unwrap_err();
        assert!(told.contains(expected), "{told}");
    };
    bad("/next_partition", 1.into(), "never given");
    bad("/next_table", 1.into(), "never given");
    bad("/next_brick", 2.into(), "never given");
    bad("/bricks/2/name", "b1".into(), "share a name");
    bad("/groups/1/replicas/members/1/brick", 1.into(), "names a brick twice");
    bad("/groups/1/replicas/members/1/brick", 9.into(), "not there");
    bad("/groups/1/replicas/members/1/incarnation", 9.into(), "a process that is over");
    bad("/groups/1/replicas/active", 2.into(), "cannot be in this epoch");
    bad("/endless", true.into(), "lease without end");
    bad("/tables/1/leaves", serde_json::json!([]), "no partition");
    bad("/groups/1/table", 9.into(), "no replica group");
    let two = serde_json::json!([{ "depth": 1, "suffix": 0, "partition": 1 },
                                 { "depth": 1, "suffix": 1, "partition": 1 }]);
    bad("/tables/1/leaves", two, "2 leaves have 1 groups");
}
