//! One run: set up, load and faults, quiet, and everything is checked.

use super::client::Client;
use super::process::Process;
use super::redis::Redis;
use super::world::World;
use crate::check::{Checked, check_what_can_be};
use crate::sim::clock::MS;
use crate::sim::plan::Plan;
use crate::sim::run::{Outcome, outcome};

/// Virtual time that a cluster may take to be whole again.
/// (Pairs of bricks that were cut off from each other are kept apart for minutes.)
const HEAL_NS: u64 = 600_000 * MS;

/// Runs a plan. `verbose`: the trace has every turn.
pub fn run(plan: &Plan, verbose: bool) -> Outcome {
    let mut world = World::new(plan.clone());
    world.trace.verbose = verbose;
    let plan = plan.clone();
    outcome(plan, &mut world, whole, |world| (&world.trace, &world.cover))
}

fn whole(world: &mut World) -> Result<Checked, String> {
    set_up(world)?;
    world.begin_load();
    run_to(world, world.load_until)?;
    world.heal();
    let rest = make_room(world);
    let rest = rest.and_then(|()| come_to_rest(world)).and_then(|()| world.read_everything());
    (0..world.bricks.len()).for_each(|at| world.note_seen(at));
    let rest = rest.and(world.failure.clone().map_or(Ok(()), Err));
    // What a Redis client has in doubt stays so for ever, and too much of it leaves a key undecided.
    let checked = check_what_can_be(&world.history).map_err(|violation| violation.to_string());
    if checked.as_ref().is_ok_and(|checked| checked.undecided > 0) {
        world.cover.saw("a key with too many open calls to decide about");
    }
    match (rest, checked) {
        (Ok(()), checked) => checked,
        (Err(wrong), Ok(_)) => Err(wrong),
        (Err(wrong), Err(violation)) => Err(format!("{wrong}\n{violation}")),
    }
}

pub fn run_to(world: &mut World, until: u64) -> Result<(), String> {
    world.run_until(until);
    world.failure.clone().map_or(Ok(()), Err)
}

/// A store that is full is emptied, and then it must go on as ever.
fn make_room(world: &mut World) -> Result<(), String> {
    if world.plan.small.is_none() {
        return Ok(());
    }
    world.empty()?;
    come_to_rest(world)?;
    world.fill_again()
}

/// Bricks register, the table is made, its groups are active, clients know it.
fn set_up(world: &mut World) -> Result<(), String> {
    world.configure();
    let mut made = Err("no brick is there".to_owned());
    for _ in 0..500 {
        run_to(world, world.now + 20 * MS)?;
        if world.ids.len() == world.bricks.len() && made.is_err() {
            made = world.create_table();
        }
        if made.is_ok() && unfinished(world).is_empty() {
            return Ok(());
        }
    }
    made?;
    Err(format!("the cluster does not start: {}", unfinished(world).join("; ")))
}

/// Until every group is whole.
fn come_to_rest(world: &mut World) -> Result<(), String> {
    let end = world.now + HEAL_NS;
    let mut differ = 0;
    loop {
        run_to(world, world.now + 100 * MS)?;
        let idle =
            world.clients.iter().all(Client::is_idle) && world.redis.iter().all(Redis::is_idle);
        let unfinished = unfinished(world);
        if unfinished.is_empty() && idle {
            return Ok(());
        }
        differ = if idle && unfinished.iter().any(|u| u.contains(DIFFER)) { differ + 1 } else { 0 };
        if world.now >= end || differ > 50 {
            let (unfinished, rooms) = (unfinished.join("; "), world.rooms());
            return Err(format!("does not heal: {unfinished} (clients idle: {idle})\n{rooms}"));
        }
    }
}

/// With nothing to do, this mends by itself never or soon.
const DIFFER: &str = "members differ";

/// What keeps the cluster from being whole and quiet.
fn unfinished(world: &World) -> Vec<String> {
    let state = &world.keeper.state;
    let mut all = Vec::new();
    if state.groups().next().is_none() {
        all.push("there is no table".to_owned());
    }
    for (partition, group) in state.groups() {
        let replicas = &group.replicas;
        if !crate::sim::run::is_whole(&world.plan, replicas) {
            all.push(format!("partition {partition} is {replicas:?}"));
            continue;
        }
        let process = |brick: u32| -> Option<&Process> {
            world.bricks[*world.ids.get(&brick)?].process.as_ref()
        };
        let mut tails = Vec::new();
        for member in &replicas.members {
            let of = process(member.brick).filter(|p| p.incarnation == member.incarnation);
            let replica = of.and_then(|p| p.replica(partition));
            let current = replica.filter(|r| r.route().epoch == replicas.epoch && !r.is_busy());
            if let Some(r) = current {
                tails.push((r.log().tail(), r.log().commit(), r.keys()));
            } else {
                all.push(format!("partition {partition}: brick {} is behind", member.brick));
            }
        }
        if tails.windows(2).any(|w| w[0] != w[1]) {
            all.push(format!("partition {partition}: {DIFFER}: {tails:?}"));
        }
        let leads = replicas.primary().and_then(|p| world.ids.get(&p.brick)).is_some_and(|&at| {
            let now = world.bricks[at].now(world.now);
            world.bricks[at].process.as_ref().is_some_and(|p| p.leads(now, partition))
        });
        if !leads {
            all.push(format!("partition {partition}: its primary does not serve"));
        }
    }
    all
}
