//! What frames alone cost: `frames [MODE] [SECONDS]` sends 64-byte frames over loopback and back, 1 and 64 in flight,
//! server on CPU 0, client on CPU 1. (`firebrick bench null` is a brick without a store.)

use std::net::SocketAddr;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use firebrick_net::poll::{Mode, Next, Poller};
use firebrick_net::{Config, Event, Fabric, Port, Tcp, Token, boot_ns};

type Failure = Box<dyn std::error::Error + Send + Sync>;

fn main() -> Result<(), Failure> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let arg = |n: usize, default: &str| args.get(n).map_or(default.to_owned(), Clone::clone);
    let mode = match arg(0, "park").as_str() {
        "busy" => Mode::Busy,
        "adaptive" => Mode::default(),
        "park" => Mode::Park,
        _ => return Err("use: frames [busy|adaptive|park] [SECONDS]".into()),
    };
    frames(mode, Duration::from_secs_f64(arg(1, "2").parse()?))
}

fn pin(cpu: usize) {
    // SAFETY: all zeroes is an empty set; CPU numbers here are small; the set lives through the call.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(cpu, &mut set);
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set);
    }
}

/// One turn: poll, handle, flush or wait.
fn turn(
    tcp: &mut Tcp,
    poller: &mut Poller,
    events: &mut Vec<Event>,
    mut handle: impl FnMut(&mut Tcp, Event) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let now = boot_ns();
    tcp.poll(now, events);
    let count = events.len();
    for event in events.drain(..) {
        handle(tcp, event)?;
    }
    match poller.after(now, count, tcp.load(), 1_000_000_000) {
        Next::Flush => tcp.flush()?,
        Next::Wait { want, timeout_ns } => tcp.wait(want, timeout_ns)?,
    }
    Ok(())
}

fn print_round_trips(mode: Mode, in_flight: usize, took: Duration, mut nanos: Vec<u64>) {
    nanos.sort_unstable();
    let at = |q: f64| nanos[((nanos.len() - 1) as f64 * q) as usize] as f64 / 1000.0;
    println!(
        "{mode}, {in_flight} in flight: {:.0} frames/s, round trip p50 {:.1} us, p99 {:.1} us",
        nanos.len() as f64 / took.as_secs_f64(),
        at(0.5),
        at(0.99)
    );
}

/// Sends each frame back, until its only client leaves.
fn echo(mode: Mode, tell: &mpsc::Sender<SocketAddr>) -> Result<(), Failure> {
    pin(0);
    let mut tcp = Tcp::new(Config::default())?;
    tell.send(tcp.listen("127.0.0.1:0".parse()?, Port::Frames)?)?;
    let (mut poller, mut events) = (Poller::new(mode), Vec::new());
    let mut open = true;
    while open {
        turn(&mut tcp, &mut poller, &mut events, |tcp, event| {
            match event {
                Event::Frame { ep, rx } => {
                    let mut head = [0; 64];
                    head.copy_from_slice(&tcp.bytes(&rx)[..64]);
                    tcp.release(rx);
                    let _ = tcp.send(ep, &head, None, Token::NONE);
                }
                Event::Closed { .. } => open = false,
                _ => {}
            }
            Ok(())
        })?;
    }
    Ok(())
}

fn frames(mode: Mode, time: Duration) -> Result<(), Failure> {
    let (tell, told) = mpsc::channel();
    let server = std::thread::spawn(move || echo(mode, &tell));
    pin(1);
    let mut tcp = Tcp::new(Config::default())?;
    let ep = tcp.dial(told.recv()?, Port::Frames)?;
    let (mut poller, mut events) = (Poller::new(mode), Vec::new());
    let mut open = false;
    while !open {
        turn(&mut tcp, &mut poller, &mut events, |_, event| {
            open |= matches!(event, Event::Opened { .. });
            Ok(())
        })?;
    }
    for in_flight in [1, 64] {
        let mut nanos = Vec::new();
        let start = Instant::now();
        let ask = |tcp: &mut Tcp| {
            let mut head = [0; 64];
            head[..8].copy_from_slice(&boot_ns().to_le_bytes());
            tcp.send(ep, &head, None, Token::NONE).map_err(|_| "64 small frames are too many")
        };
        for _ in 0..in_flight {
            ask(&mut tcp)?;
        }
        let mut waiting = in_flight;
        while waiting > 0 {
            turn(&mut tcp, &mut poller, &mut events, |tcp, event| {
                match event {
                    Event::Frame { rx, .. } => {
                        let mut at = [0; 8];
                        at.copy_from_slice(&tcp.bytes(&rx)[..8]);
                        tcp.release(rx);
                        nanos.push(boot_ns() - u64::from_le_bytes(at));
                        // Asked in the turn that was answered, as a parked core must.
                        if start.elapsed() < time {
                            ask(tcp)?;
                        } else {
                            waiting -= 1;
                        }
                    }
                    Event::Closed { reason, .. } => return Err(format!("{reason:?}").into()),
                    _ => {}
                }
                Ok(())
            })?;
        }
        print_round_trips(mode, in_flight, start.elapsed(), nanos);
    }
    tcp.close(ep);
    while open {
        turn(&mut tcp, &mut poller, &mut events, |_, event| {
            open &= !matches!(event, Event::Closed { .. });
            Ok(())
        })?;
    }
    server.join().map_err(|_| "the server panicked")?
}
