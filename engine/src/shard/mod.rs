//! A data core without its thread: everything between the fabric and the replicas.
//!
//! [`Shard::turn`] is the hot loop's body. It knows no executor, no ring and no clock: time comes in,
//! the fabric is a type parameter, so tests run the same shard on the fake one.
//!
//! * `conns`, `native`, `resp`: what endpoints carry, and how answers reach them;
//! * `burden`: how much all of that is for RESP, and who has waited for too long;
//! * `store`: the partitions of this core and the way to the others;
//! * `hopping`: requests of other cores, answers from them;
//! * `peers`, `peering`: the other bricks: messages between replicas, requests that they must answer;
//! * `files`: opening, recovering, flushing: what replicas ask of disks and of the storage thread;
//! * `telling`: what the keepers hear of this core's replicas and of its way to other bricks;
//! * `control`: routes that change, rare requests, stopping.

mod asker;
mod burden;
mod conns;
mod control;
mod files;
mod hopping;
mod hops;
mod native;
mod peering;
mod peers;
mod resp;
mod store;
mod telling;
#[cfg(test)]
mod tests;

use std::io;
use std::sync::Arc;

use firebrick_net::{Ep, Event, Fabric, Port, Waker};
use firebrick_partition::hash_key;
use firebrick_partition::maps::Routes;
use firebrick_partition::replica::{Action, Me, Replica};
use firebrick_partition::wire::{self, Message};
use firebrick_partition::{Answer, Now};

use crate::brick::Info;
use crate::counters::CoreState;
use crate::mesh::Mesh;
use asker::Asker;
use burden::Burden;
use conns::{Conns, Kind, Native};
use control::Stopping;
use peers::{Holder, Peers};
use store::{Store, count_failure};

pub use control::{ControlEnd, FromControl, control_rings};
pub(crate) use files::is_over;
pub use files::{Files, FilesSetup};

/// Events after which an eager core sends what it has: its clients begin while it goes on, and a system call is
/// paid for by this many.
const EAGER_EVENTS: usize = 32;
/// Between two publications of the core's figures.
const PUBLISH_NS: u64 = 20_000_000;
/// Between two looks at how far a stop is.
const STOP_LOOK_NS: u64 = 1_000_000;

/// What a turn found, for the poller.
#[derive(Clone, Copy, Debug, Default)]
pub struct Turn {
    /// Events, hops and answers handled.
    pub work: usize,
    /// When the next turn must be at the latest, `CLOCK_BOOTTIME`; 0: at once.
    pub next_ns: u64,
    /// There is background work.
    pub background: bool,
    /// Clients wait for the disk: the next completion is worth waking for.
    pub awaits_disk: bool,
    /// Everything is answered and flushed: leave the loop.
    pub stopped: bool,
}

/// See the module's text.
pub struct Shard<F: Fabric> {
    fabric: F,
    conns: Conns,
    store: Store,
    files: Files,
    control: ControlEnd,
    info: Arc<Info>,
    /// How to wake the other cores, by number.
    wakers: Vec<Waker>,
    events: Vec<Event>,
    /// RESP connections that go on in the next turn.
    resume: Vec<Ep>,
    burden: Burden,
    /// Send answers while the rest of the batch is executed: a busy core has the time.
    eager: bool,
    clock: Box<dyn Fn() -> u64>,
    /// Partition and hash of the frames of this turn.
    near: Vec<(u32, u64)>,
    /// Where answers to native clients are built.
    reply: Vec<u8>,
    last_client: u64,
    published_ns: u64,
    /// When another brick is dialled or asked again.
    peers_ns: u64,
    told: telling::Told,
    stopping: Option<Stopping>,
}

/// What a shard is made of.
pub struct Parts<F> {
    /// The interconnect, listening.
    pub fabric: F,
    /// Rings to the other cores.
    pub mesh: Mesh,
    /// The routes at start.
    pub routes: Arc<Routes>,
    /// Disks and the storage thread.
    pub files: Files,
    /// The control thread.
    pub control: ControlEnd,
    /// What the brick is.
    pub info: Arc<Info>,
    /// How to wake the other cores.
    pub wakers: Vec<Waker>,
    /// The core never sleeps, so a system call more costs nothing.
    pub eager: bool,
    /// `CLOCK_BOOTTIME`, read again before anything leaves: a pause in between may have cost the lease.
    pub clock: Box<dyn Fn() -> u64>,
}

impl<F: Fabric> Shard<F> {
    /// A shard that opens its partitions.
    pub fn new(parts: Parts<F>) -> Self {
        let Parts { fabric, mesh, routes, files, control, info, wakers, eager, clock } = parts;
        let me = Me { brick: info.brick, incarnation: info.incarnation };
        let peers = Peers::new(me);
        info.board.core(usize::from(mesh.core())).set_state(CoreState::Opening);
        let mut shard = Self {
            fabric,
            conns: Conns::default(),
            store: Store::new(mesh, Arc::clone(&routes), peers),
            files,
            control,
            info,
            wakers,
            events: Vec::new(),
            resume: Vec::new(),
            burden: Burden::default(),
            eager,
            clock,
            near: Vec::new(),
            reply: Vec::new(),
            last_client: 0,
            published_ns: 0,
            peers_ns: 0,
            told: telling::Told::default(),
            stopping: None,
        };
        shard.take_routes(routes);
        shard
    }

    /// The fabric, for the loop around. What leaves goes through [`Shard::flush`] or [`Shard::wait`].
    pub fn fabric(&mut self) -> &mut F {
        &mut self.fabric
    }

    /// The partitions that are open here, for the simulator's checks.
    pub fn replicas(&self) -> &[Replica] {
        self.store.all()
    }

    /// The maps that it serves by, likewise.
    pub fn routes(&self) -> &Arc<Routes> {
        &self.store.routes
    }

    /// Until when clients are answered, likewise.
    pub fn lease_end_ns(&self) -> u64 {
        self.store.lease_end_ns
    }

    /// Submits all that was queued.
    pub fn flush(&mut self) -> io::Result<()> {
        self.hold_back();
        self.fabric.flush()
    }

    /// Submits, then blocks until `want` completions or `timeout_ns`.
    pub fn wait(&mut self, want: u32, timeout_ns: u64) -> io::Result<()> {
        self.hold_back();
        self.fabric.wait(want, timeout_ns)
    }

    /// The lease is checked after the reads of a batch and before anything leaves: when it has run out in
    /// between (the process was paused), what was read may be old, so no client is told. Their connections
    /// end, and whoever asked asks again elsewhere.
    pub(super) fn hold_back(&mut self) {
        let end_ns = self.store.lease_end_ns;
        if self.store.now.boot_ns >= end_ns || end_ns == u64::MAX || (self.clock)() < end_ns {
            return;
        }
        self.store.counts.leases_lost += 1;
        for (ep, _) in self.conns.iter() {
            self.fabric.abort(ep);
        }
    }

    /// One turn: take what arrived, execute it, queue what leaves. The caller flushes.
    pub fn turn(&mut self, now: Now) -> Turn {
        self.store.now = now;
        Files::begin_turn(&mut self.store);
        let mut work = self.poll();
        work += self.take_hops();
        work += self.take_control();
        work += self.forward_some();
        work += self.files.take_done(&mut self.fabric, &mut self.store);
        self.look_after_resp();
        work += self.resume_waiting();
        self.files.turn(&mut self.fabric, &mut self.store, work > 0);
        work += self.perform();
        self.change_state();
        let wakers = &self.wakers;
        self.store.mesh().flush(|core| wakers[usize::from(core)].wake());
        self.finish_turn(work)
    }

    fn poll(&mut self) -> usize {
        let mut events = std::mem::take(&mut self.events);
        self.fabric.poll(self.store.now.boot_ns, &mut events);
        let work = events.len();
        self.prefetch(&events);
        for (n, event) in events.drain(..).enumerate() {
            self.on_event(event);
            if self.eager && n % EAGER_EVENTS == EAGER_EVENTS - 1 {
                // An error is the next flush's to tell.
                let _ = self.flush();
            }
        }
        self.events = events;
        work
    }

    /// Fetches what the frames of this turn will look at: all their index buckets, then all their
    /// records, so that the misses overlap. Streams do the same within a chunk.
    fn prefetch(&mut self, events: &[Event]) {
        let mut near = std::mem::take(&mut self.near);
        near.clear();
        for event in events {
            if let Event::Frame { rx, .. } = event
                && let Ok(Message::Request { request, .. }) = wire::decode(self.fabric.bytes(rx))
                && let Some(replica) = self.store.at(request.route.partition)
            {
                let hash = hash_key(request.key);
                replica.prefetch_bucket(hash);
                near.push((request.route.partition, hash));
            }
        }
        for &(partition, hash) in &near {
            if let Some(replica) = self.store.at(partition) {
                replica.prefetch_record(hash);
            }
        }
        self.near = near;
    }

    fn on_event(&mut self, event: Event) {
        match event {
            Event::Frame { ep, rx } => self.on_frame(ep, rx),
            Event::Bytes { ep, rx } => self.on_bytes(ep, rx),
            Event::Finished { ep } => self.finish_resp(ep),
            Event::Drained { ep } => self.on_drained(ep),
            Event::Opened { ep, port } => self.on_opened(ep, port),
            Event::Closed { ep, .. } => self.on_closed(ep),
            Event::Done { token, .. } if self.on_shipped(token) => {}
            Event::Done { token, result } => {
                self.files.on_written(&mut self.fabric, &mut self.store, token, result);
            }
            Event::Woken => {}
        }
    }

    fn on_opened(&mut self, ep: Ep, port: Port) {
        if self.on_peer_opened(ep) {
            return;
        }
        match port {
            Port::Frames => self.conns.insert(ep, Kind::Native(Box::<Native>::default())),
            Port::Stream => self.open_resp(ep),
        }
    }

    fn on_closed(&mut self, ep: Ep) {
        self.on_peer_closed(ep);
        match self.conns.remove(ep) {
            Some(Kind::Native(mut native)) => {
                for rx in native.held.drain(..) {
                    self.fabric.release(rx);
                }
                if native.is_brick() {
                    self.lose_forwards(ep);
                }
            }
            Some(Kind::Resp(Some(resp))) => self.burden.bytes -= resp.bytes,
            Some(Kind::Resp(None)) | None => {}
        }
    }

    fn on_drained(&mut self, ep: Ep) {
        if self.conns.native(ep).is_some() {
            self.drain_native(ep);
        } else {
            self.resume_resp(ep);
        }
    }

    fn resume_waiting(&mut self) -> usize {
        let resume = std::mem::take(&mut self.resume);
        let work = resume.len();
        for ep in resume {
            self.resume_resp(ep);
        }
        work
    }

    /// Does what replicas asked for; answers may set replies free, which ask for nothing further.
    fn perform(&mut self) -> usize {
        let mut actions = std::mem::take(&mut self.store.actions.list);
        let work = actions.len();
        for action in actions.drain(..) {
            match action {
                Action::Reply { token, answer } => {
                    let answer = answer.get();
                    count_failure(&mut self.store.counts, &answer);
                    self.deliver(Asker::from_token(token), answer);
                }
                Action::Corrupt(corrupt) => self.info.notices.say(corrupt.to_string()),
                Action::Unanswered { token } => self.leave_unanswered(Asker::from_token(token)),
                Action::Send { to, message } => {
                    self.store.peers.send(&mut self.fabric, to, &message);
                }
                Action::Report(report) => self.control.report(report),
                Action::Ship { .. } => unreachable!("a request ships nothing by itself"),
                // Taken by `files` right after the call that made it.
                Action::Log(_) => unreachable!("a request asks for nothing by itself"),
            }
        }
        debug_assert!(self.store.actions.list.is_empty());
        self.store.actions.list = actions;
        work
    }

    /// An answer that was not ready when its request came.
    fn deliver(&mut self, asker: Asker, answer: Answer<'_>) {
        match asker {
            Asker::Native { conn, slot } => self.answer_native(conn, slot, &answer),
            Asker::Resp { conn, part } => self.answer_resp(conn, part, answer),
            Asker::Hop { entry } => self.answer_hop(entry, &answer),
            Asker::Forward { slot } => self.answer_forward(slot, Holder::Here, answer),
        }
    }

    fn finish_turn(&mut self, work: usize) -> Turn {
        let counts = &mut self.store.counts;
        counts.turns += 1;
        counts.idle_turns += u64::from(work == 0);
        let background = self.files.wants_background();
        let pressing = background || !self.resume.is_empty() || !self.store.mesh().is_idle();
        let mut next_ns = if pressing { 0 } else { self.files.next_ns(&mut self.store) };
        next_ns = next_ns.min(self.peers_ns).min(self.burden.look_ns);
        if let Some(at) = self.store.peers.forwards.wake_at() {
            next_ns = next_ns.min(at);
        }
        if self.stopping.is_some() {
            // Nobody wakes this core when another one is through.
            next_ns = next_ns.min(self.store.now.boot_ns + STOP_LOOK_NS);
        }
        if self.store.now.boot_ns >= self.published_ns + PUBLISH_NS {
            self.publish();
        }
        let awaits_disk =
            !self.files.is_gathering() && self.store.replicas().iter().any(Replica::awaits_disk);
        Turn { work, next_ns, background, awaits_disk, stopped: self.is_stopped() }
    }

    /// One bounded slice of what may wait: recovery, cleaning.
    pub fn background(&mut self, now: Now) {
        self.store.now = now;
        self.files.background(&mut self.fabric, &mut self.store);
        self.perform();
    }

    /// The core is about to sleep.
    pub fn count_park(&mut self) {
        self.store.counts.parks += 1;
    }

    /// Tells how long a turn took.
    pub fn note_turn(&mut self, ns: u64) {
        self.files.note_turn(ns);
        self.info.board.core(usize::from(self.store.core())).note_turn(ns);
    }

    /// Copies the core's figures to where the control thread reads them.
    pub fn publish(&mut self) {
        self.published_ns = self.store.now.boot_ns;
        self.store.counts.connections = self.conns.len() as u64;
        self.files.count(&mut self.store);
        let mut counts = self.store.counts.clone();
        let fabric = self.fabric.counters();
        counts.accepted = fabric.accepted;
        counts.connections_refused = fabric.refused;
        counts.bytes_in = fabric.bytes_in;
        counts.bytes_out = fabric.bytes_out;
        // Those that sent no frame at all, and those that sent frames without a meaning.
        counts.malformed += fabric.malformed;
        self.info.board.core(usize::from(self.store.core())).publish(&counts);
        self.tell_keepers();
    }
}
