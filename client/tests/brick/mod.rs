//! A small brick on a real socket: net's frames around [`store::Store`], a thread a connection.

pub mod replicas;
pub mod store;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use firebrick_net::frame::{self, Decoded, Decoder, HELLO_BYTES, Hello};
use store::Shared;

/// What is wrong with the brick.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    None,
    /// Accepts, and says nothing, not even hello.
    Mute,
    /// Shakes hands and reads, and never answers an operation.
    NeverAnswers,
    /// Shakes hands and answers until the first operation; from then on the connection is dead.
    FallsSilent,
    /// Of another version.
    Version,
    /// Each of the first so many connections breaks in the middle of an answer to an operation.
    DiesInMidFrame(u32),
    /// Sends garbage for an answer.
    Garbage,
}

pub struct Brick {
    /// As the maps name it.
    pub id: u32,
    pub address: SocketAddr,
    pub store: Shared,
    stop: Arc<AtomicBool>,
    streams: Arc<Mutex<Vec<TcpStream>>>,
    accepted: Arc<AtomicU32>,
}

impl Brick {
    pub fn start(fault: Fault) -> Self {
        Self::start_at("127.0.0.1:0".parse().unwrap(), fault, Shared::new(4))
    }

    pub fn start_at(address: SocketAddr, fault: Fault, store: Shared) -> Self {
        Self::start_as(1, address, fault, store)
    }

    /// Bricks of one store are a cluster without delay: what one has, all have.
    pub fn start_as(id: u32, address: SocketAddr, fault: Fault, store: Shared) -> Self {
        let listener = bind(address);
        let brick = Self {
            id,
            address: listener.local_addr().unwrap(),
            store,
            stop: Arc::default(),
            streams: Arc::default(),
            accepted: Arc::default(),
        };
        let (store, stop) = (brick.store.clone(), brick.stop.clone());
        let (streams, accepted) = (brick.streams.clone(), brick.accepted.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if stop.load(Ordering::SeqCst) {
                    return;
                }
                let stream = stream.unwrap();
                streams.lock().unwrap().push(stream.try_clone().unwrap());
                let nth = accepted.fetch_add(1, Ordering::SeqCst);
                let store = store.clone();
                std::thread::spawn(move || drop(serve(id, stream, nth, fault, &store)));
            }
        });
        brick
    }

    /// Connections so far.
    pub fn accepted(&self) -> u32 {
        self.accepted.load(Ordering::SeqCst)
    }

    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// As `kill -9`, with a store that survives.
    pub fn kill(self) -> Shared {
        self.store.clone()
    }
}

impl Drop for Brick {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        // Wakes the listener, which then closes.
        drop(TcpStream::connect(self.address));
        for stream in self.streams.lock().unwrap().drain(..) {
            drop(stream.shutdown(std::net::Shutdown::Both));
        }
    }
}

/// The one that was killed there may not have closed its socket yet.
fn bind(address: SocketAddr) -> TcpListener {
    for _ in 0..1000 {
        match TcpListener::bind(address) {
            Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
            bound => return bound.unwrap(),
        }
    }
    panic!("{address} is in use for seconds");
}

fn serve(
    id: u32,
    mut stream: TcpStream,
    nth: u32,
    fault: Fault,
    store: &Shared,
) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut theirs = [0; HELLO_BYTES];
    stream.read_exact(&mut theirs)?;
    Hello::decode(theirs).unwrap();
    if fault == Fault::Mute {
        // Until the client gives up.
        return stream.read(&mut theirs).map(drop);
    }
    let version = if fault == Fault::Version { 9 } else { Hello::OURS.version };
    stream.write_all(&Hello { version, ..Hello::OURS }.encode())?;
    let mut decoder = Decoder::new();
    let mut input = vec![0; 64 << 10];
    loop {
        let len = stream.read(&mut input)?;
        if len == 0 {
            return Ok(());
        }
        let mut payloads = Vec::new();
        let taken = decoder.feed(&input[..len], |decoded| {
            payloads.push(match decoded {
                Decoded::Whole { start, len } => input[start..start + len].to_vec(),
                Decoded::Assembled(bytes) => bytes,
            });
        });
        taken.unwrap();
        let mut out = Vec::new();
        for payload in payloads {
            let is_operation = payload[0] == 3;
            // Puts have code 3, appends 7: let the session open and the map come first.
            let is_write = is_operation && matches!(payload[1], 3 | 7);
            let mut answer = store.with(move |store| {
                let mut answer = Vec::new();
                store.handle(id, &payload, &mut answer);
                answer
            });
            match fault {
                Fault::NeverAnswers if is_operation => continue,
                Fault::FallsSilent if is_operation => return stream.read(&mut [0]).map(drop),
                Fault::Garbage if is_operation => answer = b"garbage!garbage".to_vec(),
                _ => {}
            }
            out.extend_from_slice(&frame::header(&answer, &[]));
            out.extend_from_slice(&answer);
            if is_write && matches!(fault, Fault::DiesInMidFrame(times) if nth < times) {
                let half = out.len() - answer.len() / 2;
                stream.write_all(&out[..half])?;
                return stream.shutdown(std::net::Shutdown::Both);
            }
        }
        stream.write_all(&out)?;
    }
}
