//! The keepers' entries: planned, on their way through the log, applied.

use firebrick_partition::keeper::{Applied, Entry, Settings};
use firebrick_partition::maps::TableOptions;

use super::clock::{MS, US};
use super::keeper::{brief, kind};
use super::level::{Due, Level};

/// An entry is on its way through the keepers' log.
pub fn later<L: Level>(world: &mut L, id: u64) {
    if !world.holds(id) {
        let wait = 100 * US + world.sim_mut().random.below(6 * MS);
        world.after(wait, Due::Apply { id });
    }
}

/// Proposes an entry.
pub fn propose<L: Level>(world: &mut L, entry: Entry) {
    let sim = world.sim_mut();
    if let Some(id) = sim.keeper.propose(sim.now, entry, None) {
        later(world, id);
    }
}

/// The leader plans.
pub fn plan<L: Level>(world: &mut L, term: u64) {
    let sim = world.sim_mut();
    if term != sim.keeper.term || !sim.keeper.is_up(sim.now) {
        return;
    }
    for id in sim.keeper.plan(sim.now) {
        later(world, id);
    }
    let sim = world.sim_mut();
    let wait = 5 * MS + sim.random.below(sim.plan.lease_ms * MS / 6);
    world.after(wait, Due::Plan { term });
}

/// An entry is applied.
pub fn apply<L: Level>(world: &mut L, id: u64) {
    if world.forgets(id) {
        return world.sim_mut().keeper.forget(id);
    }
    let sim = world.sim_mut();
    let Some((flying, applied)) = sim.keeper.apply(id) else { return };
    let entry = &flying.entry;
    if let Some(why) = applied.refusal() {
        let line = format_args!("keepers: {entry:?} does nothing: {why}");
        return sim.trace.line(sim.now, line);
    }
    sim.trace.line(sim.now, format_args!("keepers: {}", brief(entry)));
    sim.cover.saw(kind(entry));
    if let Err(wrong) = sim.watch.look_at_keepers(&sim.keeper.state) {
        return sim.fail(wrong);
    }
    match (&applied, entry, flying.asked_by) {
        (Applied::Registered { brick, .. }, Entry::Register { registration, .. }, Some(at)) => {
            sim.ids.insert(*brick, at);
            if world.is_running(at, registration.incarnation) {
                world.registered(at, registration.incarnation, *brick);
            }
        }
        (Applied::Led { loss: Some(loss), .. }, ..) => {
            sim.fail(format!("the keepers gave up acked writes: {loss}"));
        }
        _ => {}
    }
    world.applied(entry);
}

/// A leader begins.
pub fn lead<L: Level>(world: &mut L, term: u64) {
    let keeper = &world.sim().keeper;
    if term != keeper.term {
        return;
    }
    // What is left is applied before, in its order.
    for id in keeper.flying.iter().map(|flying| flying.id).collect::<Vec<_>>() {
        apply(world, id);
    }
    let sim = world.sim_mut();
    sim.keeper.lead(sim.now);
    sim.trace.line(sim.now, format_args!("keepers: a new leader"));
    world.after(0, Due::Plan { term });
}

/// The keepers' settings, before anything else.
pub fn configure<L: Level>(world: &mut L) {
    let sim = world.sim_mut();
    let settings = Settings {
        lease_ms: sim.plan.lease_ms,
        repair_delay_ms: sim.plan.repair_delay_ms,
        ..Settings::default()
    };
    if let Some(id) = sim.keeper.propose(sim.now, Entry::Settings(settings), None) {
        apply(world, id);
    }
}

/// Makes the table; an error while bricks are still missing.
pub fn create_table<L: Level>(world: &mut L) -> Result<(), String> {
    let sim = world.sim_mut();
    let options = TableOptions {
        durability: sim.plan.durability,
        partitions: sim.plan.partitions,
        replicas: sim.plan.replicas,
    };
    let id = sim.keeper.create_table(sim.now, L::TABLE, options)?;
    let id = id.ok_or("the table cannot be proposed now")?;
    apply(world, id);
    Ok(())
}
