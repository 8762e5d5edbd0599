//! Who takes changes from bricks that skip versions ends with the maps that it would have fetched whole.

use proptest::prelude::*;

use super::*;
use crate::maps::{Maps, Routes};

const BRICKS: usize = 2;
const CLIENTS: usize = 3;

#[derive(Clone, Debug)]
enum Step {
    Create(u32),
    Drop(usize),
    Restart(u64),
    Active(usize),
    /// A brick hears of what is newest.
    Hear(usize),
    /// A brick starts anew: it remembers nothing.
    Forget(usize),
    /// A client asks a brick.
    Ask(usize, usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => (0u32..4).prop_map(|depth| Step::Create(1 << depth)),
        2 => (0usize..8).prop_map(Step::Drop),
        2 => (1u64..4).prop_map(Step::Restart),
        3 => (0usize..32).prop_map(Step::Active),
        4 => (0..BRICKS).prop_map(Step::Hear),
        1 => (0..BRICKS).prop_map(Step::Forget),
        4 => (0..CLIENTS, 0..BRICKS).prop_map(|(client, brick)| Step::Ask(client, brick)),
    ]
}

/// What the keepers decide. Names of tables come again: their ids do not.
fn decide(keepers: &mut Keepers, step: &Step) {
    let entry = match *step {
        Step::Create(partitions) => {
            let name = format!("t{partitions}");
            if keepers.table_named(&name).is_some() {
                return;
            }
            let on = keepers.bricks().map(|b| (b.id, b.incarnation)).collect();
            let placement = vec![on; partitions as usize];
            Entry::CreateTable { name, options: options(partitions, 3), placement }
        }
        Step::Drop(n) => {
            let Some(table) = keepers.tables().nth(n) else { return };
            Entry::DropTable { name: table.name.clone() }
        }
        Step::Restart(n) => restart(keepers, n, true),
        Step::Active(n) => {
            let Some((partition, group)) = keepers.groups().nth(n) else { return };
            let Some(primary) = group.replicas.primary() else { return };
            let groups = vec![(partition, group.replicas.epoch)];
            Entry::Active { brick: primary.brick, incarnation: primary.incarnation, groups }
        }
        Step::Hear(_) | Step::Forget(_) | Step::Ask(..) => return,
    };
    keepers.apply(&entry);
}

proptest! {
    #[test]
    fn changes_of_bricks_lead_to_the_whole_maps(steps in prop::collection::vec(step(), 1..120)) {
        let mut keepers = group_of(3);
        let mut bricks = [const { None::<Routes> }; BRICKS];
        let mut clients = [const { None::<Maps> }; CLIENTS].map(Option::unwrap_or_default);
        // What each version was.
        let mut history = std::collections::BTreeMap::new();
        history.insert(0, Maps::default());
        for step in &steps {
            decide(&mut keepers, step);
            history.insert(keepers.version(), keepers.maps());
            match *step {
                Step::Hear(at) => {
                    let before = bricks[at].take().unwrap_or_default();
                    let delta = keepers.changes_since(before.version());
                    bricks[at] = Some(before.after(&keepers.maps(), &delta, 1).unwrap());
                }
                Step::Forget(at) => bricks[at] = None,
                Step::Ask(client, brick) => {
                    let Some(routes) = &bricks[brick] else { continue };
                    let maps = &mut clients[client];
                    let before = maps.version;
                    let delta = routes.changes_since(before);
                    delta.apply_to(maps).unwrap();
                    prop_assert_eq!(maps.version, before.max(routes.version()));
                    prop_assert_eq!(&*maps, &history[&maps.version]);
                }
                _ => {}
            }
        }
    }
}

/// A failover of one partition costs its group, however many partitions the table has.
#[test]
fn one_change_is_told_as_one_change() {
    let mut keepers = group_of(3);
    let on: Vec<(u32, u64)> = keepers.bricks().map(|b| (b.id, b.incarnation)).collect();
    let placement = vec![on; 256];
    let entry = Entry::CreateTable { name: "big".into(), options: options(256, 3), placement };
    done(&mut keepers, &entry);
    let routes = Routes::new(&keepers.maps(), 1).unwrap();
    let known = routes.version();
    done(&mut keepers, &Entry::Active { brick: 1, incarnation: 100, groups: vec![(2, 1)] });
    let delta = keepers.changes_since(known);
    let routes = routes.after(&keepers.maps(), &delta, 1).unwrap();
    let delta = routes.changes_since(known);
    let groups: Vec<u32> = delta.groups.iter().map(|g| g.partition).collect();
    assert_eq!((groups, delta.tables.len(), delta.bricks), (vec![2], 0, None));
    // From a brick that was not there then: all of it, since it cannot know less.
    let late = Routes::new(&keepers.maps(), 1).unwrap();
    assert_eq!(late.changes_since(known).since, None);
}
