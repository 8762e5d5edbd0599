//! Every brick's heartbeats: a lease and the maps, from the keepers to the data cores.
//!
//! The lease counts from before the request. Routes go into a core's ring before the lease that rests on them. A
//! core that has not taken its last lease has not turned its loop since: it gets no further one, so a stuck core's lease
//! ends whatever this thread does.

use std::sync::Arc;
use std::time::{Duration, Instant};

use firebrick_partition::keeper::{DEFAULT_TABLE, Heartbeat, LeaseAnswer, MapDelta, Room};
use firebrick_partition::maps::{Maps, Routes, TableOptions};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::ask::Finder;
use super::net::{Admin, Answer, Ask};
use super::news::News;
use super::node::Node;
use crate::clock::boot_ns;
use crate::control::Cores;
use crate::counters::{Board, Taken};
use crate::error::BrickError;

/// Between two heartbeats.
const EVERY: Duration = Duration::from_millis(100);
/// Between two that something urgent asks for.
const URGENT_EVERY: Duration = Duration::from_millis(5);
/// Before another keeper is asked when one did not answer.
const AGAIN: Duration = Duration::from_millis(20);
/// For one answer.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(250);
/// Between two looks at a core that had not taken its lease yet.
const LATE_EVERY: Duration = Duration::from_millis(2);
/// A core that is late for so long is not waited for.
const LATE_MAX: Duration = Duration::from_millis(500);

/// What the heartbeats are made with.
pub(crate) struct BeatSetup {
    pub(crate) node: Arc<Node>,
    pub(crate) finder: Finder,
    pub(crate) founder: bool,
    pub(crate) cores: Arc<dyn Cores>,
    pub(crate) board: Arc<Board>,
    pub(crate) news: Arc<News>,
    pub(crate) memory_bytes: u64,
    /// The table that a founder makes.
    pub(crate) default_table: (TableOptions, u32),
}

/// See the module's text.
pub(crate) struct Beats {
    setup: BeatSetup,
    maps: Maps,
    routes: Arc<Routes>,
    /// Ask for all maps: the changes did not fit.
    whole: bool,
    end_ns: u64,
    pushed: Vec<Pushed>,
    shown: watch::Sender<u64>,
}

/// What one core was given last.
#[derive(Clone, Copy)]
struct Pushed {
    what: Taken,
    at: Instant,
}

/// Why the heartbeats end.
pub(crate) enum Ended {
    /// The keepers say that another process acts for its brick.
    Superseded,
    /// Its brick was removed.
    Removed,
}

impl Beats {
    pub(crate) fn new(setup: BeatSetup) -> Self {
        let none = Pushed { what: Taken::default(), at: Instant::now() };
        let pushed = vec![none; setup.board.cores().len()];
        let (maps, routes) = (Maps::default(), Arc::default());
        let shown = watch::Sender::new(0);
        Self { setup, maps, routes, whole: true, end_ns: 0, pushed, shown }
    }

    /// Tells the version of the maps that the cores have been given.
    pub(crate) fn shown(&self) -> watch::Receiver<u64> {
        self.shown.subscribe()
    }

    /// The first maps, with the default table, for cores that are not there yet.
    pub(crate) async fn first(&mut self) -> Result<Arc<Routes>, BrickError> {
        loop {
            match self.ask().await {
                Ok(None) if self.maps.table(DEFAULT_TABLE).is_some() || !self.setup.founder => {
                    break;
                }
                Ok(None) => self.create_default().await?,
                Ok(Some(Ended::Superseded)) => return Err(superseded()),
                Ok(Some(Ended::Removed)) => return Err(removed()),
                Err(_) => sleep(AGAIN).await,
            }
        }
        Ok(Arc::clone(&self.routes))
    }

    async fn create_default(&mut self) -> Result<(), BrickError> {
        let (options, per_core) = self.setup.default_table;
        let name = DEFAULT_TABLE.into();
        let admin = Admin::CreateTable { name, options, per_core, exact: false };
        match self.setup.finder.ask(&Ask::Admin(admin), Duration::from_secs(5)).await {
            // Another keeper may have been quicker.
            Ok(Answer::Refused(why)) if !why.contains("already") => Err(BrickError::Cluster(why)),
            _ => Ok(()),
        }
    }

    /// Beats until this process is not its brick's any more.
    pub(crate) async fn run(mut self) -> Ended {
        let mut changed = self.setup.node.watch_maps();
        let news = Arc::clone(&self.setup.news);
        // What the first answer granted, for the cores that are there now.
        self.push();
        loop {
            let began = Instant::now();
            changed.borrow_and_update();
            let wait = match self.ask().await {
                Ok(None) => EVERY,
                Ok(Some(ended)) => return ended,
                Err(_) => AGAIN,
            };
            self.push();
            while began.elapsed() < wait {
                let left = wait.saturating_sub(began.elapsed());
                if self.is_late() {
                    sleep(LATE_EVERY.min(left)).await;
                    self.push();
                    continue;
                }
                let woken = async {
                    tokio::select! {
                        () = news.urgent.notified() => true,
                        // This brick's keeper has applied something: a leader knows it first.
                        changed = changed.changed() => changed.is_ok(),
                    }
                };
                if timeout(left, woken).await == Ok(true) {
                    sleep(URGENT_EVERY.saturating_sub(began.elapsed())).await;
                    break;
                }
            }
        }
    }

    /// One heartbeat and what its answer says.
    async fn ask(&mut self) -> Result<Option<Ended>, String> {
        let beat = self.beat();
        let since = boot_ns();
        match self.setup.finder.ask(&Ask::Heartbeat(beat), ANSWER_TIMEOUT).await? {
            Answer::Lease(LeaseAnswer::Granted { lease_ms, delta }) => {
                self.take_maps(&delta)?;
                let end_ns = lease_ms.map_or(u64::MAX, |ms| since + ms * 1_000_000);
                // An older answer cannot come behind a newer one: one is asked for at a time. But a lease without
                // end ends only by one that ends.
                self.end_ns = end_ns;
                Ok(None)
            }
            Answer::Lease(LeaseAnswer::Register) => Ok(Some(Ended::Superseded)),
            Answer::Lease(LeaseAnswer::Removed) => Ok(Some(Ended::Removed)),
            Answer::Refused(why) => Err(why),
            _ => Err("a keeper answered something else than was asked".into()),
        }
    }

    fn beat(&self) -> Heartbeat {
        let setup = &self.setup;
        let taken = || setup.board.cores().iter().map(crate::counters::Published::taken);
        let version = taken().map(|taken| taken.version).min().unwrap_or(0);
        let endless = taken().map(|taken| taken.end_ns).any(|end| end == u64::MAX)
            || self.pushed.iter().any(|pushed| pushed.what.end_ns == u64::MAX);
        let news = setup.news.take();
        let counts = setup.board.cores().iter().map(crate::counters::Published::read);
        let used: u64 = counts.map(|counts| counts.log_used_bytes).sum();
        let total_bytes = setup.memory_bytes;
        Heartbeat {
            brick: setup.node.brick,
            incarnation: setup.node.incarnation,
            version: if self.whole { 0 } else { version },
            endless,
            reports: news.reports,
            unreachable: news.unreachable,
            room: Room { total_bytes, free_bytes: total_bytes.saturating_sub(used) },
            figures: news.figures,
            copies: news.copies,
            pid: std::process::id(),
        }
    }

    fn take_maps(&mut self, delta: &MapDelta) -> Result<(), String> {
        let before = self.maps.version;
        if delta.version < before && delta.since.is_none() && !self.whole {
            return Err(format!("the maps of version {} are older than {before}", delta.version));
        }
        if let Err(what) = delta.apply_to(&mut self.maps) {
            self.whole = true;
            return Err(what);
        }
        self.whole = false;
        if self.maps.version != before {
            let routes = Routes::new(&self.maps, self.setup.node.brick);
            let routes = routes.map_err(|error| {
                // These maps must not be built upon.
                self.whole = true;
                self.maps = Maps::default();
                error.to_string()
            })?;
            let places: Vec<String> = self.maps.bricks.iter().map(|b| b.control.clone()).collect();
            self.setup.finder.add(places);
            self.routes = Arc::new(routes);
        }
        Ok(())
    }

    /// Gives the newest routes and lease to every core that has taken what it was given before.
    fn push(&mut self) {
        let version = self.routes.version();
        if version < self.maps.version {
            return;
        }
        let next = Taken { version, end_ns: self.end_ns };
        for (core, pushed) in self.pushed.iter_mut().enumerate() {
            let taken = self.setup.board.core(core).taken();
            let is_first = pushed.what.end_ns == 0;
            if pushed.what == next || !(is_first || pushed.what == taken) {
                continue;
            }
            let routes = (pushed.what.version < version).then(|| Arc::clone(&self.routes));
            self.setup.cores.give(core as u16, routes, next.end_ns);
            *pushed = Pushed { what: next, at: Instant::now() };
        }
        let is_stuck = |p: &&Pushed| p.what.version < version && p.at.elapsed() >= LATE_MAX;
        let given = self.pushed.iter().filter(|pushed| !is_stuck(pushed));
        if let Some(shown) = given.map(|pushed| pushed.what.version).min()
            && shown > *self.shown.borrow()
        {
            self.shown.send_replace(shown);
        }
    }

    /// Some core has not been given the newest yet, and is not late for long.
    fn is_late(&self) -> bool {
        let next = Taken { version: self.routes.version(), end_ns: self.end_ns };
        self.pushed.iter().any(|pushed| pushed.what != next && pushed.at.elapsed() < LATE_MAX)
    }
}

pub(crate) fn superseded() -> BrickError {
    BrickError::Cluster(
        "the keepers say that another process acts for this brick: it ends here; see status on another brick"
            .into(),
    )
}

pub(crate) fn removed() -> BrickError {
    BrickError::Removed(
        "this brick was removed from its cluster: it ends here; to let it join again as a new brick, delete \
         its data_dir and its folder in memory_dir, and start it with --join"
            .into(),
    )
}
