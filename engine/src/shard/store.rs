//! The partitions of a data core, and the way to the others: one request in, an answer now or later.

use std::collections::BTreeMap;
use std::sync::Arc;

use firebrick_partition::maps::Routes;
use firebrick_partition::op::Route;
use firebrick_partition::replica::{Actions, Outcome, Reads, Replica};
use firebrick_partition::wire;
use firebrick_partition::{Answer, Failure, Now, Op, Request};

use super::asker::{Asker, ConnId};
use super::hops::Hops;
use super::peers::Peers;
use crate::counters::Counts;
use crate::mesh::Mesh;
use firebrick_partition::keeper::DEFAULT_TABLE;

/// The core's replicas, and the way to the other cores'.
pub struct Store {
    /// The turn's clock.
    pub now: Now,
    /// What replicas asked for and the shard has not performed yet.
    pub actions: Actions,
    /// Requests of other cores that wait for a commit.
    pub hops: Hops,
    /// Requests of this core that another one has and has not answered.
    pub relayed: usize,
    /// Counted, published once a turn.
    pub counts: Counts,
    /// All routes of the brick.
    pub routes: Arc<Routes>,
    /// The table that RESP serves.
    pub resp_table: u32,
    /// Requests are served: everything is recovered and the brick is not stopping.
    pub serving: bool,
    /// Partitions that could not be opened: `NoSpace`, or `DiskFailed` when their files are no good.
    pub unopened: BTreeMap<u32, Failure>,
    /// Until when this core may answer clients, `CLOCK_BOOTTIME`.
    pub lease_end_ns: u64,
    /// The way to the other bricks.
    pub peers: Peers,
    mesh: Mesh,
    replicas: Vec<Replica>,
    /// By partition id (ids are small): index into `replicas`, or `NOT_HERE`.
    local: Vec<u16>,
    /// For frames that leave this core.
    scratch: Vec<u8>,
}

const NOT_HERE: u16 = u16::MAX;

impl Store {
    /// No replicas yet.
    pub fn new(mesh: Mesh, routes: Arc<Routes>, peers: Peers) -> Self {
        let mut store = Self {
            now: Now::default(),
            actions: Actions::default(),
            hops: Hops::default(),
            relayed: 0,
            counts: Counts::default(),
            routes: Arc::default(),
            resp_table: 0,
            serving: false,
            unopened: BTreeMap::new(),
            lease_end_ns: 0,
            peers,
            mesh,
            replicas: Vec::new(),
            local: Vec::new(),
            scratch: Vec::new(),
        };
        store.set_routes(routes);
        store
    }

    /// The routes are these from now on.
    pub fn set_routes(&mut self, routes: Arc<Routes>) {
        self.resp_table = routes.table_named(DEFAULT_TABLE).map_or(0, |t| t.id);
        self.routes = routes;
        let route = |hash| Some(self.routes.route(self.resp_table, hash)?.route);
        self.peers.forwards.find_strays(self.now.boot_ns, route);
    }

    /// This core has a lease: what it knows is what holds.
    #[inline]
    pub fn is_leased(&self) -> bool {
        self.now.boot_ns < self.lease_end_ns
    }

    /// The partition is here.
    pub fn has(&self, partition: u32) -> bool {
        self.index_of(partition).is_some()
    }

    /// This core's number.
    pub fn core(&self) -> u16 {
        self.mesh.core()
    }

    /// The rings to the other cores.
    pub fn mesh(&mut self) -> &mut Mesh {
        &mut self.mesh
    }

    /// Takes over a partition.
    pub fn add(&mut self, mut replica: Replica) {
        // As a source it sends what the way takes, once a turn knows that.
        replica.let_copy(0);
        let at = replica.partition() as usize;
        if self.local.len() <= at {
            self.local.resize(at + 1, NOT_HERE);
        }
        self.local[at] = self.replicas.len() as u16;
        self.replicas.push(replica);
    }

    /// Gives up a partition.
    pub fn remove(&mut self, partition: u32) -> Option<Replica> {
        let at = self.index_of(partition)?;
        self.local[partition as usize] = NOT_HERE;
        let replica = self.replicas.swap_remove(at);
        if let Some(moved) = self.replicas.get(at) {
            self.local[moved.partition() as usize] = at as u16;
        }
        Some(replica)
    }

    /// The replicas of this core.
    pub fn replicas(&mut self) -> &mut [Replica] {
        &mut self.replicas
    }

    /// The same, to be looked at.
    pub fn all(&self) -> &[Replica] {
        &self.replicas
    }

    /// The replica of a partition.
    pub fn replica(&mut self, partition: u32) -> Option<&mut Replica> {
        let at = self.index_of(partition)?;
        Some(&mut self.replicas[at])
    }

    fn index_of(&self, partition: u32) -> Option<usize> {
        let at = *self.local.get(partition as usize)?;
        (at != NOT_HERE).then_some(usize::from(at))
    }

    /// The replica of a partition, and the way to the other bricks.
    pub fn replica_and_peers(&mut self, partition: u32) -> (Option<&mut Replica>, &mut Peers) {
        let at = self.index_of(partition);
        (at.map(|at| &mut self.replicas[at]), &mut self.peers)
    }

    /// The replica of a partition, to be looked at.
    #[inline]
    pub fn at(&self, partition: u32) -> Option<&Replica> {
        Some(&self.replicas[self.index_of(partition)?])
    }

    /// The replica that holds a hash of the RESP table, when it is here.
    #[inline]
    pub fn resp_holder(&self, hash: u64) -> Option<&Replica> {
        let partition = self.routes.route(self.resp_table, hash)?.route.partition;
        Some(&self.replicas[self.index_of(partition)?])
    }

    /// Executes a request of this brick's own front, which has no route of its own. What this core cannot
    /// answer itself goes where it can be: see `peers::forward`.
    pub fn submit(
        &mut self,
        (conn, part): (ConnId, u32),
        hash: u64,
        key: &[u8],
        op: Op<'_>,
        own: bool,
    ) -> Option<Answer<'_>> {
        let Some(entry) = self.routes.route(self.resp_table, hash) else {
            return Some(Answer::Failed(Failure::NoTable));
        };
        if !self.serving {
            return Some(Answer::Failed(Failure::Unavailable));
        }
        let (route, core, mine) = (entry.route, entry.core, entry.mine == Some(0));
        let asker = Asker::Resp { conn, part };
        let request = Request { route, numbered: None, key, op };
        let here = mine && core == self.mesh.core() && self.is_leased();
        if here && !self.peers.forwards.holds_up(conn) && self.serves(route) {
            return self.execute(asker, hash, &request, own);
        }
        let mut frame = std::mem::take(&mut self.scratch);
        frame.clear();
        wire::request(&mut frame, 0, &request);
        if mine && core != self.mesh.core() && self.routes.bricks().len() == 1 {
            // A brick alone: nobody else could answer, so there is nothing to try again.
            let refused = self.relay(core, asker, &frame);
            self.scratch = frame;
            return refused.map(Answer::Failed);
        }
        let now_ns = self.now.boot_ns;
        let taken = self.peers.forwards.begin((conn, part), hash, frame, own, now_ns);
        taken.err().map(Answer::Failed)
    }

    /// The replica of a partition of this core answers as its primary.
    #[inline]
    fn serves(&self, route: Route) -> bool {
        self.at(route.partition).is_some_and(|r| r.is_serving() && r.route() == route)
    }

    /// Executes a request that came in a frame, or relays the frame to the core that holds the
    /// partition.
    pub fn submit_frame(
        &mut self,
        asker: Asker,
        hash: u64,
        request: &Request<'_>,
        frame: &[u8],
        own: bool,
    ) -> Option<Answer<'_>> {
        // The path that is taken most: it is here, and the replica compares the rest of the route.
        if self.at(request.route.partition).is_some_and(|r| r.route().table == request.route.table)
        {
            return self.execute(asker, hash, request, own);
        }
        let core = match self.routes.partition(request.route.partition) {
            Some(entry) if !entry.here && entry.route != request.route => {
                return Some(Answer::StaleRoute { route: entry.route });
            }
            Some(entry) if entry.here && entry.route.table == request.route.table => entry.core,
            _ if self.routes.table(request.route.table).is_none() => {
                return Some(Answer::Failed(Failure::NoTable));
            }
            _ => return Some(Answer::Failed(Failure::WrongPartition)),
        };
        if core == self.mesh.core() {
            return self.execute(asker, hash, request, own);
        }
        self.relay(core, asker, frame).map(Answer::Failed)
    }

    /// Sends a request to the core that holds its partition; why not, when it cannot be sent.
    ///
    /// Not without a lease: the other core may be in the middle of a turn that began before this process stood
    /// still, and would answer with what was true then.
    pub fn relay(&mut self, core: u16, asker: Asker, frame: &[u8]) -> Option<Failure> {
        if !self.serving || !self.is_leased() {
            return Some(Failure::Unavailable);
        }
        self.counts.hops_out += 1;
        if self.mesh.request(core, asker.token(), frame).is_err() {
            return Some(Failure::Busy);
        }
        self.relayed += 1;
        None
    }

    /// Why a partition that is not open is not served.
    fn why_absent(&self, partition: u32) -> Failure {
        let Some(entry) = self.routes.partition(partition) else { return Failure::WrongPartition };
        match self.unopened.get(&partition).filter(|_| entry.mine == Some(0)) {
            // (Of a backup's partition another brick tells more, and in a moment of one that has backups.)
            Some(Failure::DiskFailed) if entry.replicas.members.len() > 1 => Failure::Unavailable,
            Some(failure) => *failure,
            // Routed here and still being opened: a table that was just made.
            None => Failure::Unavailable,
        }
    }

    /// Executes a request whose partition is here. `own`: its connection has writes in flight, which
    /// it must see.
    #[inline]
    pub fn execute(
        &mut self,
        asker: Asker,
        hash: u64,
        request: &Request<'_>,
        own: bool,
    ) -> Option<Answer<'_>> {
        if !self.serving || !self.is_leased() {
            return Some(Answer::Failed(Failure::Unavailable));
        }
        let Some(at) = self.index_of(request.route.partition) else {
            return Some(Answer::Failed(self.why_absent(request.route.partition)));
        };
        let (now, token) = (self.now, asker.token());
        let replica = &mut self.replicas[at];
        let outcome = if own {
            replica.execute_with(now, token, hash, request, Reads::Own, &mut self.actions)
        } else {
            replica.execute(now, token, hash, request, &mut self.actions)
        };
        match outcome {
            Outcome::Now(answer) => {
                count(&mut self.counts, &request.op, Some(&answer));
                Some(answer)
            }
            Outcome::Later => {
                count(&mut self.counts, &request.op, None);
                None
            }
        }
    }
}

#[inline]
fn count(counts: &mut Counts, op: &Op<'_>, answer: Option<&Answer<'_>>) {
    match op {
        Op::Get => counts.gets += 1,
        Op::Put { .. } => counts.puts += 1,
        Op::Remove { .. } => counts.removes += 1,
        _ => counts.others += 1,
    }
    match answer {
        Some(Answer::Value { .. }) => counts.hits += 1,
        Some(Answer::Absent) if op.is_read() => counts.misses += 1,
        Some(Answer::StaleRoute { .. }) => counts.stale_routes += 1,
        Some(answer) => count_failure(counts, answer),
        None => {}
    }
}

/// Counts an answer that is a refusal, by its reason.
pub fn count_failure(counts: &mut Counts, answer: &Answer<'_>) {
    let Answer::Failed(failure) = answer else { return };
    match failure {
        Failure::NoSpace => counts.no_space += 1,
        Failure::TooLarge => counts.too_large += 1,
        Failure::Unavailable => counts.unavailable += 1,
        Failure::Busy => counts.overloaded += 1,
        _ => counts.errors += 1,
    }
}
