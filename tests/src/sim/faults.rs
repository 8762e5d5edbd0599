//! What goes wrong in the world.

use firebrick_partition::keeper::Entry;
use firebrick_partition::maps::Durability;

use super::clock::{MS, Ns};
use super::entries::propose;
use super::level::{Due, Level};
use super::machine::Crash;
use super::message::Node;
use super::plan::{Fault, storm};

/// Something goes wrong.
pub fn fault<L: Level>(world: &mut L, fault: Fault) {
    let sim = world.sim_mut();
    let now = sim.now;
    sim.trace.line(now, format_args!("fault: {fault:?}"));
    match fault {
        Fault::Cut { a, b, both, for_ns } => {
            world.cut(a, b, for_ns);
            if both {
                world.cut(b, a, for_ns);
            }
        }
        Fault::CutKeeper { a, to, from, for_ns } => cut_keeper(world, a, (to, from), for_ns),
        Fault::Isolate { a, for_ns } => world.cut_off(a, for_ns, true),
        Fault::CutOff { a, for_ns } => world.cut_off(a, for_ns, false),
        Fault::Sever { a, b } => world.sever(a, b),
        Fault::Pause { a, for_ns } => world.pause(a, now + for_ns),
        Fault::Stuck { a, core, for_ns } => world.stick(a, core, now + for_ns),
        Fault::Drift { a } => {
            sim.cover.saw("a clock changes its rate");
            world.drift(a);
        }
        Fault::Crash { a, how, for_ns } => crash(world, a, how, for_ns),
        Fault::PowerOff { for_ns } => power_fails(world, for_ns),
        Fault::KeeperFalls { for_ns, entries_lost } => keeper_falls(world, for_ns, entries_lost),
        Fault::Storm { for_ns } => {
            let weather = storm(&mut sim.random);
            world.set_weather(weather);
            world.after(for_ns, Due::Calm);
        }
        Fault::SlowDisk { a, for_ns } => {
            sim.disk_slow_until.insert(a, now + for_ns);
        }
        Fault::Drain { a, on, for_ns } => drain_for(world, a, on, for_ns),
        Fault::HandOver { partition } => {
            if let Some(entry) = sim.keeper.hand_over(now, partition) {
                propose(world, entry);
            }
        }
        Fault::Move { partition } => {
            if let Some(entry) = sim.keeper.wish_a_move(partition, &mut sim.random) {
                propose(world, entry);
            }
        }
        Fault::HalfHeard { partition, for_ns } => half_heard(world, partition, for_ns),
        Fault::ClientEnds { client, calls, after_ns } => {
            client_ends(world, client, calls, after_ns);
        }
    }
}

/// Nothing gets from a machine to the keepers, or from them to it.
pub fn cut_keeper<L: Level>(world: &mut L, at: usize, (to, from): (bool, bool), for_ns: Ns) {
    let sim = world.sim_mut();
    let (node, until) = (Node::Brick(at), sim.now + for_ns);
    if to {
        sim.net.cut(node, Node::Keeper, until);
    }
    if from {
        sim.net.cut(Node::Keeper, node, until);
    }
}

/// The keepers have no leader for a while, then another.
fn keeper_falls<L: Level>(world: &mut L, for_ns: Ns, entries_lost: bool) {
    let sim = world.sim_mut();
    sim.keeper.fall(sim.now + for_ns, &mut sim.random);
    if entries_lost {
        sim.keeper.flying.clear();
    }
    let term = sim.keeper.term;
    world.after(for_ns, Due::Lead { term });
}

/// All machines lose their memory.
fn power_fails<L: Level>(world: &mut L, for_ns: Ns) {
    world.sim_mut().cover.saw("all power fails");
    for a in 0..world.sim().plan.machines {
        let apart = world.sim_mut().random.below(5 * MS);
        crash(world, a, Crash::Power, for_ns + apart);
    }
}

/// A primary and one of its backups hear each other; nobody else but clients hears the primary.
fn half_heard<L: Level>(world: &mut L, partition: usize, for_ns: Ns) {
    let sim = world.sim_mut();
    let pair = sim.keeper.primary_and_backup(partition, &mut sim.random);
    let machine = |brick| sim.ids.get(&brick).copied();
    let pair = pair.and_then(|(a, b)| machine(a).zip(machine(b)));
    let Some((primary, backup)) = pair else { return };
    for other in (0..sim.plan.machines).filter(|at| ![primary, backup].contains(at)) {
        world.cut(primary, other, for_ns);
        world.cut(other, primary, for_ns);
    }
    cut_keeper(world, primary, (true, true), for_ns);
    world.sim_mut().cover.saw("a primary is heard by one backup only");
}

/// A client's last calls, then its end.
fn client_ends<L: Level>(world: &mut L, client: usize, calls: usize, after_ns: Ns) {
    // (A smaller plan may have fewer.)
    let client = client % world.sim().plan.clients;
    if calls == 0 {
        world.sim_mut().cover.saw("a client's process ends");
        return world.restart_client(client);
    }
    world.call_at_once(client, calls);
    world.after(after_ns, Due::Fault(Fault::ClientEnds { client, calls: 0, after_ns }));
}

/// A process ends, and is started again after a while. No machine loses what is promised to be somewhere.
pub fn crash<L: Level>(world: &mut L, a: usize, how: Crash, for_ns: Ns) {
    let how = if how == Crash::Kill || may_lose(world, a, how) { how } else { Crash::Kill };
    if world.runs(a) {
        let sim = world.sim_mut();
        sim.cover.saw(match how {
            Crash::Kill => "a process is killed",
            Crash::Lost if L::LOSES_DISKS => "a machine loses everything",
            Crash::Power | Crash::Lost => "a machine loses its memory",
        });
        sim.trace.line(sim.now, format_args!("brick{} crashes: {how:?}", a + 1));
    }
    world.crash(a, how);
    world.after(for_ns, Due::Start { at: a });
}

/// What is promised outlives the loss of this machine.
fn may_lose<L: Level>(world: &L, a: usize, how: Crash) -> bool {
    let sim = world.sim();
    let keeps_disk = how == Crash::Power || !L::LOSES_DISKS;
    if keeps_disk && sim.plan.durability == Durability::Sync {
        return true;
    }
    let machine = |brick: u32| sim.ids.get(&brick).copied();
    let has_memory = |brick| machine(brick).is_some_and(|at| at != a && !world.is_lost(at));
    sim.keeper.has_others(has_memory)
}

fn brick_of<L: Level>(world: &L, at: usize) -> Option<u32> {
    world.sim().ids.iter().find(|(_, machine)| **machine == at).map(|(brick, _)| *brick)
}

/// A machine's brick is to be emptied, or not any more.
pub fn drain<L: Level>(world: &mut L, at: usize, on: bool) {
    if let Some(brick) = brick_of(world, at)
        && world.sim().keeper.is_up(world.sim().now)
    {
        propose(world, Entry::Drain { brick, on });
    }
}

/// Empties a brick for a while; then it takes replicas again, whatever becomes of the keepers' leader meanwhile.
fn drain_for<L: Level>(world: &mut L, a: usize, on: bool, for_ns: Ns) {
    if on || brick_of(world, a).is_some_and(|brick| world.sim().keeper.is_emptied(brick)) {
        drain(world, a, on);
        let for_ns = if on { for_ns } else { 100 * MS };
        world.after(for_ns, Due::Fault(Fault::Drain { a, on: false, for_ns }));
    }
}
