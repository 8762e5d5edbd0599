//! What the data cores of a brick are given: maps, and the lease that rests on them. No clock, no I/O.
//!
//! Routes go into a core's ring before the lease that rests on them. A core that has not taken its last lease has not
//! turned its loop since: it gets no further one, so a stuck core's lease ends whatever the control thread does.

use std::sync::Arc;

use firebrick_partition::keeper::{Heartbeat, Room};
use firebrick_partition::maps::{MapDelta, Maps, Routes};

use super::news::Taken as News;
use crate::counters::{Board, Published, Taken};

/// A core that is late for so long is not waited for.
const LATE_NS_MAX: u64 = 500_000_000;

/// Who sends heartbeats.
#[derive(Clone, Copy, Debug)]
pub struct Sender {
    /// The brick.
    pub brick: u32,
    /// Its process.
    pub incarnation: u64,
    /// The same, for people.
    pub pid: u32,
    /// Memory for records.
    pub memory_bytes: u64,
}

/// See the module's text.
#[derive(Debug)]
pub struct Grants {
    maps: Maps,
    routes: Arc<Routes>,
    /// Ask for all maps: the changes did not fit.
    whole: bool,
    end_ns: u64,
    pushed: Vec<Pushed>,
}

/// What one core was given last, and when.
#[derive(Clone, Copy, Debug, Default)]
struct Pushed {
    what: Taken,
    at_ns: u64,
}

impl Grants {
    /// Nothing was given yet.
    pub fn new(cores: usize) -> Self {
        let (maps, routes) = (Maps::default(), Arc::default());
        Self { maps, routes, whole: true, end_ns: 0, pushed: vec![Pushed::default(); cores] }
    }

    /// The newest maps.
    pub fn maps(&self) -> &Maps {
        &self.maps
    }

    /// The same, as cores look them up.
    pub fn routes(&self) -> &Arc<Routes> {
        &self.routes
    }

    /// A heartbeat.
    pub fn heartbeat(&self, sender: Sender, board: &Board, news: News) -> Heartbeat {
        let taken = || board.cores().iter().map(Published::taken);
        let version = taken().map(|taken| taken.version).min().unwrap_or(0);
        // (Also one that no core has been given yet: this heartbeat's answer may be lost, and then some core is.)
        let endless = taken()
            .map(|taken| taken.end_ns)
            .chain(self.pushed.iter().map(|pushed| pushed.what.end_ns))
            .chain([self.end_ns])
            .any(|end| end == u64::MAX);
        let used: u64 = board.cores().iter().map(|core| core.read().log_used_bytes).sum();
        let paces = board.cores().iter().map(|core| core.read().copy_pace).filter(|pace| *pace > 0);
        let total_bytes = sender.memory_bytes;
        Heartbeat {
            brick: sender.brick,
            incarnation: sender.incarnation,
            version: if self.whole { 0 } else { version },
            endless,
            reports: news.reports,
            unreachable: news.unreachable,
            room: Room { total_bytes, free_bytes: total_bytes.saturating_sub(used) },
            figures: news.figures,
            copies: news.copies,
            copy_pace: paces.min().unwrap_or(0),
            pid: sender.pid,
            lack: board.lack(),
        }
    }

    /// A lease that was asked for at `since_ns`, behind the maps that came with it. Answers whether they are new.
    pub fn take(
        &mut self,
        brick: u32,
        since_ns: u64,
        lease_ms: Option<u64>,
        delta: &MapDelta,
    ) -> Result<bool, String> {
        let is_new = self.take_maps(brick, delta)?;
        // An older answer cannot come behind a newer one: one is asked for at a time. But a lease without end ends
        // only by one that ends.
        self.end_ns = lease_ms.map_or(u64::MAX, |ms| since_ns + ms * 1_000_000);
        Ok(is_new)
    }

    fn take_maps(&mut self, brick: u32, delta: &MapDelta) -> Result<bool, String> {
        let before = self.maps.version;
        if delta.version < before && delta.since.is_none() && !self.whole {
            return Err(format!("the maps of version {} are older than {before}", delta.version));
        }
        if let Err(what) = delta.apply_to(&mut self.maps) {
            self.whole = true;
            return Err(what);
        }
        self.whole = false;
        if self.maps.version == before {
            return Ok(false);
        }
        let routes = self.routes.after(&self.maps, delta, brick).map_err(|error| {
            // These maps must not be built upon.
            self.whole = true;
            self.maps = Maps::default();
            error.to_string()
        })?;
        self.routes = Arc::new(routes);
        Ok(true)
    }

    /// Gives the newest routes (where a core lacks them) and lease to every core that has taken what it was given before.
    pub fn push(
        &mut self,
        now_ns: u64,
        board: &Board,
        mut give: impl FnMut(u16, Option<Arc<Routes>>, u64),
    ) {
        let version = self.routes.version();
        if version < self.maps.version {
            return;
        }
        let next = Taken { version, end_ns: self.end_ns };
        for (core, pushed) in self.pushed.iter_mut().enumerate() {
            let taken = board.core(core).taken();
            let is_first = pushed.what.end_ns == 0;
            if pushed.what == next || !(is_first || pushed.what == taken) {
                continue;
            }
            let routes = (pushed.what.version < version).then(|| Arc::clone(&self.routes));
            give(core as u16, routes, next.end_ns);
            *pushed = Pushed { what: next, at_ns: now_ns };
        }
    }

    /// The version of the maps that all cores have been given, but for those that are stuck.
    pub fn shown(&self, now_ns: u64) -> Option<u64> {
        let version = self.routes.version();
        if version < self.maps.version {
            return None;
        }
        let is_stuck = |p: &&Pushed| p.what.version < version && now_ns >= p.at_ns + LATE_NS_MAX;
        let given = self.pushed.iter().filter(|pushed| !is_stuck(pushed));
        given.map(|pushed| pushed.what.version).min()
    }

    /// Some core has not been given the newest yet, and is not late for long.
    pub fn is_late(&self, now_ns: u64) -> bool {
        let next = Taken { version: self.routes.version(), end_ns: self.end_ns };
        self.pushed.iter().any(|pushed| pushed.what != next && now_ns < pushed.at_ns + LATE_NS_MAX)
    }
}
