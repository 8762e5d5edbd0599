//! What comes from the control thread: routes, answers to rare requests, the word to stop.

use std::sync::Arc;

use firebrick_net::Fabric;
use firebrick_partition::maps::Routes;
use firebrick_partition::wire;
use rtrb::{Consumer, Producer, RingBuffer};

use super::Shard;
use super::asker::Asker;
use crate::control::{ControlAnswer, ControlPort};
use crate::counters::CoreState;

/// Messages to one core that may wait; the control thread waits when there are more.
const MESSAGES_MAX: usize = 1024;

/// From the control thread to a data core, in order.
#[derive(Debug)]
pub enum FromControl {
    /// The routes are these from now on.
    Routes(Arc<Routes>),
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

    /// Takes over partitions that are new here and gives up those that left.
    pub(super) fn take_routes(&mut self, routes: Arc<Routes>) {
        self.store.routes = routes;
        self.files.take_routes(&mut self.store);
    }

    /// Everything is recovered.
    pub(super) fn begin_serving(&mut self) {
        if !self.stopping {
            self.store.serving = true;
            self.set_state(CoreState::Serving);
        }
    }

    fn begin_stop(&mut self) {
        if self.stopping {
            return;
        }
        self.stopping = true;
        self.store.serving = false;
        self.set_state(CoreState::Stopping);
        self.fabric.stop_listening();
        self.files.flush_all(&mut self.store);
    }

    fn set_state(&self, state: CoreState) {
        self.info.board.core(usize::from(self.store.core())).set_state(state);
    }

    /// Stopping, and nothing is owed any more.
    pub(super) fn is_stopped(&mut self) -> bool {
        self.stopping && self.store.hops.len() == 0 && self.files.is_flushed(&mut self.store)
    }
}
