use proptest::prelude::*;

use super::world::World;
use super::*;

#[derive(Clone, Debug)]
enum Fault {
    Run(u64),
    Crash(usize, bool),
    Start(usize),
    Pause(usize),
    Resume(usize),
    CutOff(usize, bool),
    Cut(usize, usize),
    Stuck(usize),
    Mend,
    NewLeader(bool),
    LeaderSleeps(u64),
    Add,
    Create(u32, u8),
    Drop,
    Drain(usize, bool),
    Lease(u64),
    Move(u32, usize, usize),
    Lead(u32, usize),
    Unwish(u32),
}

fn fault() -> impl Strategy<Value = Fault> {
    prop_oneof![
        6 => (50u64..3000).prop_map(Fault::Run),
        3 => (0usize..5, any::<bool>()).prop_map(|(at, lose)| Fault::Crash(at, lose)),
        3 => (0usize..5).prop_map(Fault::Start),
        2 => (0usize..5).prop_map(Fault::Pause),
        2 => (0usize..5).prop_map(Fault::Resume),
        2 => (0usize..5, any::<bool>()).prop_map(|(at, cut)| Fault::CutOff(at, cut)),
        2 => (0usize..5, 0usize..5).prop_map(|(a, b)| Fault::Cut(a.min(b), a.max(b))),
        1 => (0usize..5).prop_map(Fault::Stuck),
        1 => Just(Fault::Mend),
        1 => any::<bool>().prop_map(Fault::NewLeader),
        1 => (50u64..5000).prop_map(Fault::LeaderSleeps),
        1 => Just(Fault::Add),
        1 => (0u32..4, 1u8..4).prop_map(|(depth, replicas)| Fault::Create(1 << depth, replicas)),
        1 => Just(Fault::Drop),
        1 => (0usize..5, any::<bool>()).prop_map(|(at, on)| Fault::Drain(at, on)),
        1 => (100u64..1000).prop_map(Fault::Lease),
        2 => (1u32..9, 0usize..5, 0usize..5).prop_map(|(p, a, b)| Fault::Move(p, a, b)),
        2 => (1u32..9, 0usize..5).prop_map(|(p, at)| Fault::Lead(p, at)),
        1 => (1u32..9).prop_map(Fault::Unwish),
    ]
}

fn inject(world: &mut World, fault: &Fault, n: usize) {
    let at = |at: usize| at % world.machines.len();
    match *fault {
        Fault::Run(ms) => _ = world.run(ms),
        Fault::Crash(m, lose) => world.crash(at(m), lose),
        Fault::Start(m) => world.start(at(m)),
        Fault::Pause(m) => {
            let at = at(m);
            world.machines[at].paused = true;
        }
        Fault::Resume(m) => {
            let at = at(m);
            world.machines[at].paused = false;
        }
        Fault::CutOff(m, cut) => {
            let at = at(m);
            world.machines[at].cut_off = cut;
        }
        Fault::Cut(a, b) => {
            if a != b && b < world.machines.len() {
                world.cuts.insert((a, b));
            }
        }
        Fault::Stuck(m) => {
            let at = at(m);
            world.machines[at].stuck = true;
        }
        Fault::Mend => world.cuts.clear(),
        Fault::NewLeader(lost) => world.new_leader(lost),
        Fault::LeaderSleeps(ms) => world.now += ms * MS,
        Fault::Add if world.machines.len() < 5 => world.add(|_| {}),
        Fault::Create(partitions, replicas) => {
            world.create(&format!("t{n}"), options(partitions, replicas));
        }
        Fault::Drop => {
            let name = world.keepers.tables().next().map(|t| t.name.clone());
            if let Some(name) = name.filter(|_| world.keepers.tables().count() > 1) {
                world.propose(&Entry::DropTable { name });
            }
        }
        Fault::Drain(m, on) => {
            let id = world.machines[at(m)].id;
            if let Some(brick) = id {
                world.propose(&Entry::Drain { brick, on });
            }
        }
        Fault::Lease(lease_ms) => {
            let settings = Settings { lease_ms, ..*world.keepers.settings() };
            world.propose(&Entry::Settings(settings));
        }
        Fault::Move(..) | Fault::Lead(..) | Fault::Unwish(_) => wish(world, fault),
        Fault::Add => {}
    }
    // The snapshot is the state.
    if n.is_multiple_of(8) {
        let text = serde_json::to_string(&world.keepers).unwrap();
        assert_eq!(serde_json::from_str::<Keepers>(&text).unwrap(), world.keepers);
    }
}

fn wish(world: &mut World, fault: &Fault) {
    let id = |at: usize| world.machines[at % world.machines.len()].id;
    let (partition, wish) = match *fault {
        Fault::Move(partition, from, to) => {
            let (Some(from), Some(to)) = (id(from), id(to)) else { return };
            (partition, Some(Wish::Move { from, to }))
        }
        Fault::Lead(partition, to) => {
            let Some(to) = id(to) else { return };
            (partition, Some(Wish::Lead { to }))
        }
        Fault::Unwish(partition) => (partition, None),
        _ => return,
    };
    world.propose(&Entry::Wish { partition, wish });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, max_shrink_iters: 200, ..ProptestConfig::default() })]

    /// Whatever fails and in which order: nobody who may serve loses its place, who leads has every acknowledged
    /// write (unless a loss was said), epochs rise, ids are new; and when the faults end, all is whole and even.
    #[test]
    fn faults_in_any_order_lose_nothing_and_end_well(
        bricks in 1usize..5,
        faults in proptest::collection::vec(fault(), 1..60),
    ) {
        let mut world = World::new(bricks);
        world.create("first", options(4, 3));
        world.run(1_000);
        for (n, fault) in faults.iter().enumerate() {
            inject(&mut world, fault, n);
        }
        world.converge();
    }
}
