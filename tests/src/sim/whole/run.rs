//! One run: set up, load and faults, quiet, and everything is checked.

use super::world::World;
use crate::check::{Checked, check_what_can_be};
use crate::sim::plan::Plan;
use crate::sim::run::{Outcome, begin_load, both, come_to_rest, heal, outcome, run_to, set_up};

/// Runs a plan. `verbose`: the trace has every turn.
pub fn run(plan: &Plan, verbose: bool) -> Outcome {
    outcome(plan, World::new(plan.clone()), verbose, whole)
}

fn whole(world: &mut World) -> Result<Checked, String> {
    set_up(world)?;
    begin_load(world);
    run_to(world, world.sim.load_until)?;
    heal(world);
    let rest = make_room(world);
    let rest = rest.and_then(|()| come_to_rest(world)).and_then(|()| world.read_everything());
    (0..world.bricks.len()).for_each(|at| world.note_seen(at));
    let rest = rest.and(world.sim.failure.clone().map_or(Ok(()), Err));
    // What a Redis client has in doubt stays so for ever, and too much of it leaves a key undecided.
    let checked = check_what_can_be(&world.sim.history);
    if checked.as_ref().is_ok_and(|checked| checked.undecided > 0) {
        world.sim.cover.saw("a key with too many open calls to decide about");
    }
    both(rest, checked)
}

/// A store that is full is emptied, and then it must go on as ever.
fn make_room(world: &mut World) -> Result<(), String> {
    if world.sim.plan.small.is_none() {
        return Ok(());
    }
    world.empty()?;
    come_to_rest(world)?;
    world.fill_again()
}
