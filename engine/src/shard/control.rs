//! What comes from the control thread: routes, answers to rare requests, the word to stop.

use std::collections::BTreeSet;
use std::sync::Arc;

use firebrick_net::{Ep, Fabric};
use firebrick_partition::keeper::{CopyFigure, Figure, Lack};
use firebrick_partition::maps::Routes;
use firebrick_partition::replica::{Replica, Report};
use firebrick_partition::wire;
use rtrb::{Consumer, Producer, RingBuffer};

use super::Shard;
use super::asker::Asker;
use crate::control::{ControlAnswer, ControlPort};
use crate::counters::{CoreState, Published, Taken};

/// A stop waits at most this long for the disk, and for the other cores.
const FLUSH_NS: u64 = 60_000_000_000;
/// A backup waits this long to hear what became of the records that it voted for: the primary may be stopping too, and
/// needs the vote.
const HEAR_NS: u64 = 1_000_000_000;
/// A stop waits this long for clients to take their answers.
const CLOSE_NS: u64 = 1_000_000_000;

/// How far a stop is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stopping {
    /// Requests in flight are being answered and the log flushed; new ones are refused.
    Answering {
        /// When it began.
        since_ns: u64,
    },
    /// Connections are being closed behind their last answers.
    Closing {
        /// When it began.
        since_ns: u64,
    },
    /// Nothing is left to do.
    Stopped,
}

/// Messages to one core that may wait; the control thread waits when there are more.
const MESSAGES_MAX: usize = 1024;

/// From the control thread to a data core, in order.
#[derive(Debug)]
pub enum FromControl {
    /// The routes are these from now on.
    Routes(Arc<Routes>),
    /// Clients may be answered until then, by these routes or newer ones: comes behind them in the ring.
    Lease {
        /// `CLOCK_BOOTTIME`; `u64::MAX`: no end.
        end_ns: u64,
    },
    /// An answer to a rare request.
    Answer(ControlAnswer),
    /// Take no more requests, answer those in flight, flush, end.
    Stop,
}

/// A core's end.
pub struct ControlEnd {
    messages: Consumer<FromControl>,
    port: ControlPort,
}

/// The ring to one core: the control thread's end and the core's.
pub fn control_rings(port: ControlPort) -> (Producer<FromControl>, ControlEnd) {
    let (to, messages) = RingBuffer::new(MESSAGES_MAX);
    (to, ControlEnd { messages, port })
}

impl ControlEnd {
    /// Passes a client's rare request on. `false`: there is too much to do.
    pub fn ask(&self, core: u16, token: u64, json: &str) -> bool {
        self.port.ask(core, token, json.as_bytes()).is_ok()
    }

    /// Tells the keepers. Replicas say it again while it has no effect, so one that is refused is not lost.
    pub fn report(&self, report: Report) {
        let _ = self.port.report(report);
    }

    /// Gives the keepers figures of replicas. `false`: not now.
    pub fn figures(&self, figures: Vec<Figure>) -> bool {
        self.port.figures(figures).is_ok()
    }

    /// Tells the keepers which bricks this core cannot reach. `false`: not now.
    pub fn unreachable(&self, core: u16, bricks: Vec<u32>) -> bool {
        self.port.unreachable(core, bricks).is_ok()
    }

    /// Tells what this core has no room for. `false`: not now.
    pub fn lack(&self, core: u16, lack: Option<Lack>) -> bool {
        self.port.lack(core, lack).is_ok()
    }

    /// Tells how far all copies to this core's replicas are. Said again soon, so one that is refused is no loss.
    pub fn copies(&self, core: u16, copies: Vec<CopyFigure>) {
        let _ = self.port.copies(core, copies);
    }

    /// Says that the files of dropped partitions are gone.
    pub fn removed(&self, partitions: Vec<u32>) {
        // Refused: the next start removes them anew.
        let _ = self.port.removed(partitions);
    }
}

impl<F: Fabric> Shard<F> {
    /// Takes what the control thread sent.
    pub(super) fn take_control(&mut self) -> usize {
        let mut taken = 0;
        while let Ok(message) = self.control.messages.pop() {
            taken += 1;
            match message {
                FromControl::Routes(routes) => self.take_routes(routes),
                FromControl::Lease { end_ns } => self.take_lease(end_ns),
                FromControl::Answer(answer) => self.on_control_answer(&answer),
                FromControl::Stop => self.begin_stop(),
            }
        }
        taken
    }

    fn on_control_answer(&mut self, answer: &ControlAnswer) {
        let Asker::Native { conn, slot } = Asker::from_token(answer.token) else { return };
        let mut frame = Vec::new();
        wire::control_answer(&mut frame, slot, &answer.json);
        self.answer_native_frame(conn, &frame);
    }

    fn take_lease(&mut self, end_ns: u64) {
        // What was read in this turn came under the lease until now.
        self.hold_back();
        self.store.lease_end_ns = end_ns;
        // The control thread moves no lease of a core that did not take the one before.
        let taken = Taken { version: self.store.routes.version(), end_ns };
        self.info.board.core(usize::from(self.store.core())).took(taken);
    }

    /// Takes over partitions that are new here and gives up those that left.
    pub(super) fn take_routes(&mut self, routes: Arc<Routes>) {
        let core = self.store.core();
        let groups = routes.here().filter(|entry| entry.core == core).map(|entry| &entry.replicas);
        let members = groups.flat_map(|group| group.members.iter().chain(&group.learners));
        let sharing: BTreeSet<u32> = members.map(|member| member.brick).collect();
        self.store.peers.set_bricks(&mut self.fabric, routes.bricks(), &sharing);
        let before = self.store.routes.version();
        self.store.set_routes(routes);
        self.files.take_routes(&mut self.fabric, &mut self.store, before);
    }

    /// Opening ends when every partition serves; stopping goes on in steps.
    pub(super) fn change_state(&mut self) {
        if let Some(stopping) = self.stopping {
            self.go_on_stopping(stopping);
        } else if !self.store.serving && self.files.is_open(&mut self.store) {
            self.store.serving = true;
            // What was recovered is told as soon as the state is seen.
            self.publish();
            self.set_state(CoreState::Serving);
        } else if let Some(why) = self.files.failed.take() {
            self.info.board.fail(why);
            self.set_state(CoreState::Failed);
            self.begin_stop();
        }
        let removed = std::mem::take(&mut self.files.removed);
        if !removed.is_empty() {
            self.control.removed(removed);
        }
    }

    fn begin_stop(&mut self) {
        if self.stopping.is_some() {
            return;
        }
        self.stopping = Some(Stopping::Answering { since_ns: self.store.now.boot_ns });
        self.store.serving = false;
        self.set_state(CoreState::Stopping);
        self.fabric.stop_listening();
    }

    fn go_on_stopping(&mut self, stopping: Stopping) {
        let now = self.store.now.boot_ns;
        self.stopping = Some(match stopping {
            Stopping::Answering { since_ns } => {
                self.store.replicas().iter_mut().for_each(Replica::hasten);
                // Who left its group never hears what became of the last records, and may not know yet that it left.
                let hears = now < since_ns + HEAR_NS;
                let waits = |r: &Replica| {
                    r.is_busy() && !r.log().is_sick() && (r.is_serving() || (hears && !r.is_out()))
                };
                let owed = self.store.hops.len() > 0
                    || self.store.relayed > 0
                    || self.store.replicas().iter().any(waits);
                if (owed || !self.files.is_flushed(&mut self.store)) && now < since_ns + FLUSH_NS {
                    return;
                }
                let open: Vec<Ep> = self.conns.iter().map(|(ep, _)| ep).collect();
                for ep in open {
                    self.fabric.close(ep);
                }
                self.info.board.core(usize::from(self.store.core())).settle();
                Stopping::Closing { since_ns: now }
            }
            Stopping::Closing { since_ns } => {
                if self.conns.len() > 0 && now < since_ns + CLOSE_NS {
                    return;
                }
                // Another core's requests may still come, and somebody must refuse them.
                let alone = self.info.board.cores().iter().all(Published::is_settled);
                if !(alone && self.store.mesh().is_idle()) && now < since_ns + FLUSH_NS {
                    return;
                }
                Stopping::Stopped
            }
            Stopping::Stopped => Stopping::Stopped,
        });
    }

    fn set_state(&self, state: CoreState) {
        let core = self.info.board.core(usize::from(self.store.core()));
        // A core that failed stops as any other does, but whoever waits for it must see why.
        if core.state() != CoreState::Failed {
            core.set_state(state);
        }
    }

    /// Nothing is owed any more.
    pub(super) fn is_stopped(&self) -> bool {
        matches!(self.stopping, Some(Stopping::Stopped))
    }

    /// The loop has panicked: the others must not wait for this core.
    pub fn panicked(&self) {
        let core = self.store.core();
        self.info.board.fail(format!("data core {core} met a bug in firebrick and ended"));
        self.set_state(CoreState::Failed);
        self.info.board.core(usize::from(core)).settle();
    }

    /// The loop has ended.
    pub fn ended(&mut self) {
        self.publish();
        // (Now, because a backup stores what its primary sends until the last turn.)
        if self.files.has_kept_all(&mut self.store) {
            self.info.board.core(usize::from(self.store.core())).set_flushed();
        }
        self.set_state(CoreState::Stopped);
    }
}
