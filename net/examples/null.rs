//! What the fabric alone costs: a responder without a store behind it.
//!
//! * `null resp [MODE] [ADDRESS]`: answers every RESP command with a 64-byte value. Aim redis-benchmark at it; on each
//!   line it says what a command cost.
//! * `null frames [MODE] [SECONDS]`: 64-byte frames over loopback, 1 and 64 in flight, server on CPU 0, client on CPU 1.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use firebrick_net::poll::{Mode, Next, Poller};
use firebrick_net::{Config, Ep, Event, Fabric, Port, Tcp, Token};

type Failure = Box<dyn std::error::Error + Send + Sync>;

const VALUE: &[u8] = b"$64\r\n0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\r\n";

fn main() -> Result<(), Failure> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let arg = |n: usize, default: &str| args.get(n).map_or(default.to_owned(), Clone::clone);
    let mode = match arg(1, "park").as_str() {
        "busy" => Mode::Busy,
        "adaptive" => Mode::default(),
        "park" => Mode::Park,
        other => return Err(format!("there is no poll mode `{other}`").into()),
    };
    match arg(0, "").as_str() {
        "resp" => resp(mode, arg(2, "127.0.0.1:7379").parse()?),
        "frames" => frames(mode, Duration::from_secs_f64(arg(2, "2").parse()?)),
        _ => Err("use: null resp|frames [busy|adaptive|park] [ADDRESS|SECONDS]".into()),
    }
}

fn clock(id: libc::clockid_t) -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` lives through the call.
    unsafe { libc::clock_gettime(id, &raw mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
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
    let now = clock(libc::CLOCK_BOOTTIME);
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

/// Length of the first whole command, if there is one.
fn command(bytes: &[u8]) -> Option<usize> {
    let (count, mut at) = number(bytes, 0, b'*')?;
    for _ in 0..count {
        let (len, next) = number(bytes, at, b'$')?;
        at = next + len + 2;
    }
    (at <= bytes.len()).then_some(at)
}

fn number(bytes: &[u8], at: usize, mark: u8) -> Option<(usize, usize)> {
    if *bytes.get(at)? != mark {
        return None;
    }
    let mut value = 0;
    for (n, byte) in bytes[at + 1..].iter().enumerate() {
        match byte {
            b'0'..=b'9' => value = value * 10 + usize::from(byte - b'0'),
            _ => return Some((value, at + n + 3)),
        }
    }
    None
}

fn answer(mut bytes: &[u8], out: &mut Vec<u8>, ops: &mut u64) -> usize {
    let all = bytes.len();
    while let Some(len) = command(bytes) {
        out.extend_from_slice(VALUE);
        *ops += 1;
        bytes = &bytes[len..];
    }
    all - bytes.len()
}

fn resp(mode: Mode, address: SocketAddr) -> Result<(), Failure> {
    pin(0);
    let mut tcp = Tcp::new(Config::default())?;
    eprintln!("null RESP on {}, {mode}", tcp.listen(address, Port::Stream)?);
    let (mut poller, mut events) = (Poller::new(mode), Vec::new());
    let mut rests: HashMap<Ep, Vec<u8>> = HashMap::new();
    let (mut ops, mut turns) = (0, 0u64);
    let mut reply = Vec::new();
    let mut seen = (0, 0, 0, 0, clock(libc::CLOCK_MONOTONIC));
    loop {
        turns += 1;
        turn(&mut tcp, &mut poller, &mut events, |tcp, event| {
            match event {
                Event::Bytes { ep, rx } => {
                    reply.clear();
                    let bytes = tcp.bytes(&rx);
                    if let Some(mut rest) = rests.remove(&ep) {
                        rest.extend_from_slice(bytes);
                        let used = answer(&rest, &mut reply, &mut ops);
                        rest.drain(..used);
                        if !rest.is_empty() {
                            rests.insert(ep, rest);
                        }
                    } else {
                        let used = answer(bytes, &mut reply, &mut ops);
                        if used < bytes.len() {
                            rests.insert(ep, bytes[used..].to_vec());
                        }
                    }
                    tcp.release(rx);
                    if let Some(out) = tcp.out(ep) {
                        out.extend_from_slice(&reply);
                    }
                }
                Event::Finished { ep } => tcp.close(ep),
                Event::Closed { ep, .. } => drop(rests.remove(&ep)),
                _ => {}
            }
            Ok(())
        })?;
        let wall = clock(libc::CLOCK_MONOTONIC);
        if wall - seen.4 > 1_000_000_000 {
            let (cpu, enters) = (clock(libc::CLOCK_THREAD_CPUTIME_ID), tcp.counters().enters);
            let n = (ops - seen.0) as f64;
            if n > 1000.0 {
                println!(
                    "{:.0} ops/s, {:.3} us CPU an op, {:.1} ops a turn, {:.2} enters a turn",
                    n * 1e9 / (wall - seen.4) as f64,
                    (cpu - seen.1) as f64 / 1000.0 / n,
                    n / (turns - seen.2) as f64,
                    (enters - seen.3) as f64 / (turns - seen.2) as f64,
                );
            }
            seen = (ops, cpu, turns, enters, wall);
        }
    }
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
            head[..8].copy_from_slice(&clock(libc::CLOCK_MONOTONIC).to_le_bytes());
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
                        nanos.push(clock(libc::CLOCK_MONOTONIC) - u64::from_le_bytes(at));
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
