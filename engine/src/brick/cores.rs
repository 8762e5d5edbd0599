//! The data cores' threads, and their ports: each core makes its ring on its own thread and listens,
//! then waits for the rest of what it is made of.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use firebrick_net::poll::{Mode, Poller};
use firebrick_net::{Port, Tcp, Waker};
use firebrick_partition::log::storage::{Done, Job};
use firebrick_partition::maps::Routes;

use super::Info;
use crate::check::Plan;
use crate::config::BrickConfig;
use crate::core::DataCore;
use crate::error::BrickError;
use crate::mesh::Mesh;
use crate::runtime::CoreThread;
use crate::shard::{ControlEnd, Files, FilesSetup, Parts, Shard};
use crate::storage::Desk;

/// What a core's thread says when its ring is made and it listens.
pub(super) struct Ready {
    pub(super) waker: Waker,
    pub(super) listen: SocketAddr,
    pub(super) resp: Option<SocketAddr>,
}

/// What it is given then.
pub(super) struct Rest {
    pub(super) mesh: Mesh,
    pub(super) routes: Arc<Routes>,
    pub(super) files: FilesSetup,
    pub(super) desk: Desk<Job, Done>,
    pub(super) control: ControlEnd,
    pub(super) info: Arc<Info>,
    pub(super) wakers: Vec<Waker>,
    pub(super) poller: Poller,
}

/// A core's thread that waits for the rest.
pub(super) struct Waiting {
    thread: CoreThread,
    rest: SyncSender<Rest>,
    pub(super) ready: Ready,
}

impl Waiting {
    /// Gives the thread what it waits for.
    pub(super) fn begin(self, rest: Rest) -> CoreThread {
        // If it has died, its join says why.
        let _ = self.rest.send(rest);
        self.thread
    }
}

fn start_core(
    number: usize,
    cpu: usize,
    listen: SocketAddr,
    resp: Option<SocketAddr>,
    connections_max: usize,
) -> Result<Waiting, BrickError> {
    let (say_ready, ready) = sync_channel::<Result<Ready, BrickError>>(1);
    let (rest, take_rest) = sync_channel::<Rest>(1);
    let make = move || {
        let made = open_fabric(listen, resp, connections_max);
        let (tcp, ready) = match made {
            Ok(made) => made,
            Err(error) => {
                let _ = say_ready.send(Err(error));
                return Err("it could not begin".to_owned());
            }
        };
        let _ = say_ready.send(Ok(ready));
        let rest: Rest = take_rest.recv().map_err(|_| "the start was given up".to_owned())?;
        Ok(finish_core(tcp, rest))
    };
    let failed = |what| BrickError::Thread { name: format!("data core {number}"), what };
    let thread = CoreThread::spawn(&format!("core-{number}"), cpu, make).map_err(failed)?;
    match receive(&ready) {
        Some(Ok(ready)) => Ok(Waiting { thread, rest, ready }),
        Some(Err(error)) => {
            let _ = thread.join();
            Err(error)
        }
        None => {
            let what = thread.join().err().unwrap_or_else(|| "it ended at once".into());
            Err(BrickError::Thread { name: format!("data core {number}"), what })
        }
    }
}

fn receive<T>(from: &Receiver<T>) -> Option<T> {
    from.recv().ok()
}

fn open_fabric(
    listen: SocketAddr,
    resp: Option<SocketAddr>,
    connections_max: usize,
) -> Result<(Tcp, Ready), BrickError> {
    let config = firebrick_net::Config { endpoints_max: connections_max, ..Default::default() };
    let mut tcp = Tcp::new(config).map_err(BrickError::Ring)?;
    let bound =
        tcp.listen(listen, Port::Frames).map_err(|e| BrickError::listen("listen", listen, e))?;
    let resp = match resp {
        Some(address) => Some(
            tcp.listen(address, Port::Stream)
                .map_err(|e| BrickError::listen("resp", address, e))?,
        ),
        None => None,
    };
    let ready = Ready { waker: tcp.waker(), listen: bound, resp };
    Ok((tcp, ready))
}

fn finish_core(tcp: Tcp, rest: Rest) -> DataCore {
    let Rest { mesh, routes, files, desk, control, info, wakers, poller } = rest;
    let files = Files::new(mesh.core(), files, desk);
    let eager = poller.mode() == Mode::Busy;
    let clock = Box::new(crate::clock::boot_ns);
    let parts = Parts { fabric: tcp, mesh, routes, files, control, info, wakers, eager, clock };
    DataCore::new(Shard::new(parts), poller)
}

pub(super) fn start_cores(plan: &Plan) -> Result<Vec<Waiting>, BrickError> {
    let (mut listen, mut resp) = (plan.config.listen, plan.config.resp);
    // The kernel shares connections out evenly, by their addresses.
    let share = (plan.config.limits.connections_max as usize).div_ceil(plan.cores.len());
    let share = share.min(firebrick_net::limits::ENDPOINTS_MAX);
    let mut waiting: Vec<Waiting> = Vec::new();
    for (number, &cpu) in plan.cores.iter().enumerate() {
        let core = start_core(number, cpu, listen, resp, share)?;
        // The first core's ports, when any were asked for: all cores share them.
        (listen, resp) = (core.ready.listen, core.ready.resp);
        waiting.push(core);
    }
    Ok(waiting)
}

/// How long the kernel may take to close the sockets of a brick that was killed.
const DYING_RING: Duration = Duration::from_secs(5);

/// The cores share their ports among themselves, which the kernel would extend to any other brick of
/// the same user. A killed process's ring keeps its sockets for a moment after the process is gone;
/// nobody holds such a port, and waiting is all that helps.
fn port_is_free(key: &'static str, address: Option<SocketAddr>) -> Result<(), BrickError> {
    let Some(address) = address.filter(|a| a.port() != 0) else { return Ok(()) };
    let begin = Instant::now();
    loop {
        let Err(error) = std::net::TcpListener::bind(address) else { return Ok(()) };
        let refusal = BrickError::listen(key, address, error);
        // The sockets of a killed brick stay open until the kernel has taken its rings apart, which
        // goes on after the process is gone: the port is taken, and by nobody.
        let by_nobody = matches!(refusal, BrickError::PortTaken { holder: None, .. });
        if !by_nobody || begin.elapsed() > DYING_RING {
            return Err(refusal);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

pub(super) fn ports_are_free(config: &BrickConfig) -> Result<(), BrickError> {
    port_is_free("listen", Some(config.listen))?;
    port_is_free("resp", config.resp)?;
    port_is_free("http", config.http)?;
    port_is_free("control", Some(config.control))
}
