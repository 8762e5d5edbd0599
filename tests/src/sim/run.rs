//! One run: set up, load and faults, quiet, and everything is checked.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use firebrick_partition::maps::{Intent, Replicas};

use super::clock::{MS, Ns};
use super::entries;
use super::level::{Due, Level, Sim};
use super::net::Weather;
use super::plan::Plan;
use super::trace::{Coverage, lines_wanted};
use super::world::World;
use crate::check::{Call, Checked, Violation, check};

/// What came of a run.
#[derive(Debug)]
pub struct Outcome {
    /// The plan.
    pub plan: Plan,
    /// Equal for two runs that went the same way.
    pub hash: u64,
    /// What happened in it.
    pub cover: Coverage,
    /// How much was checked.
    pub checked: Checked,
    /// What was wrong.
    pub failure: Option<Failure>,
}

/// Something was wrong.
#[derive(Clone, Debug)]
pub struct Failure {
    /// What.
    pub what: String,
    /// The end of the trace.
    pub trace: String,
}

/// Lines of the trace that are shown, unless `$FIREBRICK_SIM_LINES` says otherwise.
const SHOWN: usize = 160;

/// Runs a plan. `verbose`: the trace has every message.
pub fn run(plan: &Plan, verbose: bool) -> Outcome {
    outcome(plan, World::new(plan.clone()), verbose, whole)
}

/// What comes of a plan in a world of either level.
pub fn outcome<L: Level>(
    plan: &Plan,
    mut world: L,
    verbose: bool,
    run: impl FnOnce(&mut L) -> Result<Checked, String>,
) -> Outcome {
    world.sim_mut().trace.verbose = verbose;
    let ran = catch_unwind(AssertUnwindSafe(|| run(&mut world)));
    let (checked, wrong) = match ran {
        Ok(Ok(checked)) => (checked, None),
        Ok(Err(wrong)) => (Checked::default(), Some(wrong)),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or(panic.downcast_ref::<&str>().map(|s| (*s).to_owned()));
            (Checked::default(), Some(format!("panic: {}", text.unwrap_or_default())))
        }
    };
    let Sim { trace, cover, .. } = world.sim();
    let tail = || trace.tail(lines_wanted().unwrap_or(SHOWN));
    let failure = wrong.map(|what| Failure { what, trace: tail() });
    let (plan, cover) = (plan.clone(), cover.clone());
    Outcome { plan, hash: trace.hash(), cover, checked, failure }
}

fn whole(world: &mut World) -> Result<Checked, String> {
    set_up(world)?;
    begin_load(world);
    run_to(world, world.sim.load_until)?;
    heal(world);
    conclude(world)
}

/// Until every group is whole, then everything is read at every member and the history is checked.
pub(super) fn conclude(world: &mut World) -> Result<Checked, String> {
    let rest = come_to_rest(world);
    // What is read then says more about what is wrong.
    let read = rest.clone().and_then(|()| read_everything(world));
    if rest.is_err() && world.sim.failure.is_none() {
        read_everything(world)?;
    }
    both(rest.and(read), check(&world.sim.history))
}

/// What is wrong with the end of a run, and with its history.
pub fn both(
    rest: Result<(), String>,
    checked: Result<Checked, Violation>,
) -> Result<Checked, String> {
    match (rest, checked) {
        (Ok(()), checked) => checked.map_err(|violation| violation.to_string()),
        (Err(wrong), Ok(_)) => Err(wrong),
        (Err(wrong), Err(violation)) => Err(format!("{wrong}\n{violation}")),
    }
}

/// Runs until a time; an error when something is wrong by then.
pub fn run_to<L: Level>(world: &mut L, until: Ns) -> Result<(), String> {
    world.run_until(until);
    world.sim().failure.clone().map_or(Ok(()), Err)
}

/// Runs for so long.
pub fn run_for<L: Level>(world: &mut L, for_ns: Ns) -> Result<(), String> {
    run_to(world, world.sim().now + for_ns)
}

/// Bricks register, the table is made, its groups are active.
pub fn set_up<L: Level>(world: &mut L) -> Result<(), String> {
    entries::configure(world);
    let mut made = Err("no brick is there".to_owned());
    for _ in 0..500 {
        run_for(world, 20 * MS)?;
        if world.sim().ids.len() == world.sim().plan.machines && made.is_err() {
            made = entries::create_table(world);
        }
        if made.is_ok() && unfinished(world).is_empty() {
            return Ok(());
        }
    }
    made?;
    Err(format!("the cluster does not start: {}", unfinished(world).join("; ")))
}

/// Clients begin, and the plan's faults are scheduled from now on.
pub fn begin_load<L: Level>(world: &mut L) {
    let plan = world.sim().plan.clone();
    world.set_weather(plan.weather);
    let sim = world.sim_mut();
    sim.load_until = sim.now + plan.load_ns;
    for (after, fault) in plan.faults {
        world.after(after, Due::Fault(fault));
    }
    for at in 0..plan.clients + plan.redis {
        world.after(0, Due::Think { at });
    }
}

/// Everything is repaired: what is cut, paused or down comes back.
pub fn heal<L: Level>(world: &mut L) {
    world.mend();
    world.set_weather(Weather::CALM);
    let sim = world.sim_mut();
    (sim.plan.weather, sim.plan.stumbles) = (Weather::CALM, 0);
    sim.disk_slow_until.clear();
    for at in 0..sim.plan.machines {
        world.start(at);
    }
}

/// Until every group is whole.
pub fn come_to_rest<L: Level>(world: &mut L) -> Result<(), String> {
    let end = world.sim().now + L::HEAL_NS;
    let mut differ = 0;
    loop {
        run_for(world, 100 * MS)?;
        let (idle, unfinished) = (world.is_idle(), unfinished(world));
        if unfinished.is_empty() && idle {
            return Ok(());
        }
        differ = if idle && unfinished.iter().any(|u| u.contains(DIFFER)) { differ + 1 } else { 0 };
        if world.sim().now >= end || differ > 50 {
            let (unfinished, rooms) = (unfinished.join("; "), world.rooms());
            return Err(format!("does not heal: {unfinished} (clients idle: {idle})\n{rooms}"));
        }
    }
}

/// With nothing to do, this mends by itself never or soon.
const DIFFER: &str = "members differ";

/// The group has all its members, and nothing is asked of it.
fn is_whole(plan: &Plan, replicas: &Replicas) -> bool {
    replicas.is_active()
        && replicas.learners.is_empty()
        && replicas.members.len() == usize::from(plan.replicas).min(plan.machines)
        && replicas.intent == Intent::None
}

/// What keeps the cluster from being whole and quiet.
fn unfinished<L: Level>(world: &L) -> Vec<String> {
    let sim = world.sim();
    let state = &sim.keeper.state;
    let mut all = Vec::new();
    if state.groups().next().is_none() {
        all.push("there is no table".to_owned());
    }
    for (partition, group) in state.groups() {
        let replicas = &group.replicas;
        if !is_whole(&sim.plan, replicas) {
            all.push(format!("partition {partition} is {replicas:?}"));
            continue;
        }
        let mut tails = Vec::new();
        for member in &replicas.members {
            let at = sim.ids.get(&member.brick).copied();
            let replica = at
                .filter(|at| world.is_running(*at, member.incarnation))
                .and_then(|at| world.replica(at, partition))
                .filter(|r| r.route().epoch == replicas.epoch && !r.is_busy());
            match replica {
                Some(r) => tails.push((r.log().tail(), r.log().commit(), r.keys())),
                None => {
                    all.push(format!("partition {partition}: brick {} is behind", member.brick));
                }
            }
        }
        if tails.windows(2).any(|w| w[0] != w[1]) {
            all.push(format!("partition {partition}: {DIFFER}: {tails:?}"));
        }
        let primary = replicas.primary().and_then(|member| sim.ids.get(&member.brick));
        if !primary.is_some_and(|at| world.leads(*at, partition)) {
            all.push(format!("partition {partition}: its primary does not serve"));
        }
    }
    all
}

/// Reads every key at every member, after all else.
fn read_everything(world: &mut World) -> Result<(), String> {
    run_for(world, 300 * MS)?;
    let mut reads = 0;
    for key in world.keys() {
        for _ in 0..10 {
            if world.clients[0].members(&key).is_empty() {
                // It heard of no table in all this time, as when the keepers were down for most of it.
                world.fetch_maps(0);
                run_for(world, 20 * MS)?;
            }
        }
        for brick in world.clients[0].members(&key) {
            world.call(0, &key, Call::Get, Some(brick));
            reads += 1;
            run_for(world, 20 * MS)?;
            if !world.clients[0].is_idle() {
                run_for(world, super::client::DEADLINE_NS)?;
            }
        }
    }
    if reads == 0 { Err("nothing was read in the end".to_owned()) } else { Ok(()) }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(failure) = &self.failure else {
            return write!(f, "seed {}: nothing wrong", self.plan.seed);
        };
        writeln!(f, "{}", failure.trace)?;
        writeln!(f, "plan: {:#?}", self.plan)?;
        writeln!(
            f,
            "seed {} (FIREBRICK_SIM_SEED={} runs it again):",
            self.plan.seed, self.plan.seed
        )?;
        write!(f, "{}", failure.what)
    }
}

/// A failure is made smaller for so long at most.
const SHRINK_MAX: std::time::Duration = std::time::Duration::from_mins(1);

/// A run of a level.
pub type Run = fn(&Plan, bool) -> Outcome;

/// The same failure with less: fewer faults, a shorter load, fewer clients, for as long as it fails.
pub fn shrink(run: Run, plan: &Plan, tries: usize) -> Outcome {
    let begun = std::time::Instant::now();
    let mut best = run(plan, false);
    let mut left = tries;
    let mut progress = true;
    while progress && left > 0 {
        progress = false;
        for candidate in smaller(&best.plan) {
            if left == 0 || begun.elapsed() > SHRINK_MAX {
                break;
            }
            left -= 1;
            let outcome = run(&candidate, false);
            if outcome.failure.is_some() {
                best = outcome;
                progress = true;
                break;
            }
        }
    }
    run(&best.plan, true)
}

fn smaller(plan: &Plan) -> Vec<Plan> {
    let mut all = Vec::new();
    let half = plan.faults.len() / 2;
    for keep in [&plan.faults[..half], &plan.faults[half..]] {
        if plan.faults.len() > 1 {
            all.push(Plan { faults: keep.to_vec(), ..plan.clone() });
        }
    }
    for at in 0..plan.faults.len() {
        let mut fewer = plan.clone();
        fewer.faults.remove(at);
        all.push(fewer);
    }
    let last = plan.faults.last().map_or(0, |f| f.0);
    for load_ns in [plan.load_ns / 2, plan.load_ns * 3 / 4] {
        if load_ns > last && load_ns > 50 * MS {
            all.push(Plan { load_ns, ..plan.clone() });
        }
    }
    if plan.clients > 1 {
        all.push(Plan { clients: plan.clients - 1, ..plan.clone() });
    }
    if plan.redis > 0 {
        all.push(Plan { redis: plan.redis - 1, ..plan.clone() });
    }
    if plan.small.is_some() {
        all.push(Plan { small: None, ..plan.clone() });
    }
    if plan.keys > 1 {
        all.push(Plan { keys: 1, ..plan.clone() });
    }
    if plan.stumbles > 0 {
        all.push(Plan { stumbles: 0, ..plan.clone() });
    }
    all
}
