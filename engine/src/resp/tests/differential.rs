//! The same commands to this front over real replicas and to a real Redis: the replies are equal byte for byte, but for
//! what docs/resp.md says.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use firebrick_partition::Now;

use super::replicas::Replicas;
use super::{Peer, Random, command, wall_clock};
use crate::resp::limits;
use crate::resp::table::COMMANDS;

/// A command of the generator.
pub struct Words(pub Vec<Vec<u8>>);

impl Words {
    pub fn encode(&self) -> Vec<u8> {
        let words: Vec<&[u8]> = self.0.iter().map(Vec::as_slice).collect();
        command(&words)
    }

    fn name(&self) -> String {
        String::from_utf8_lossy(&self.0[0]).to_ascii_lowercase()
    }

    fn show(&self) -> String {
        self.0.iter().map(|w| w.escape_ascii().to_string()).collect::<Vec<_>>().join(" ")
    }
}

/// `k` a key, `v` a value, `i` an integer, `f` a number, `t` a time option, `s` seconds from now, `a`
/// an absolute time in seconds, `e` an EXPIRE option, `o` options of SET; anything else stands for itself.
const SHAPES: &[&str] = &[
    "GET k",
    "GET k",
    "SET k v",
    "SET k v",
    "SET k i",
    "SET k v o",
    "SET k v o o",
    "SET k v o o o",
    "SET k v t",
    "SET k v t o",
    "SET k v t t",
    "SETNX k v",
    "SETEX k s v",
    "PSETEX k 900000 v",
    "SETEX k i v",
    "GETSET k v",
    "GETDEL k",
    "GETEX k",
    "GETEX k PERSIST",
    "GETEX k t",
    "GETEX k t o",
    "GETEX k t t",
    "GETEX k PERSIST t",
    "MGET k k k",
    "MGET k",
    "MSET k v k v",
    "MSET k v k",
    "APPEND k v",
    "STRLEN k",
    "GETRANGE k i i",
    "SUBSTR k i i",
    "SETRANGE k 3 v",
    "SETRANGE k i v",
    "SETRANGE k 0 ",
    "INCR k",
    "DECR k",
    "INCRBY k i",
    "DECRBY k i",
    "INCRBYFLOAT k f",
    "SET k f",
    "DEL k",
    "DEL k k k",
    "UNLINK k k",
    "EXISTS k",
    "EXISTS k k k",
    "TYPE k",
    "TOUCH k k",
    "EXPIRE k s",
    "EXPIRE k s e",
    "EXPIRE k s e e",
    "PEXPIRE k 900000 e",
    "PEXPIRE k 1499",
    "PEXPIRE k 1500 e",
    "EXPIREAT k a e",
    "PEXPIREAT k 99999999999999 e",
    "PEXPIREAT k 99999999999499",
    "EXPIRE k i",
    "PEXPIRE k i",
    "EXPIREAT k i",
    "TTL k",
    "PTTL k",
    "EXPIRETIME k",
    "PEXPIRETIME k",
    "PERSIST k",
    "KEYS *",
    "KEYS k[0-2]*",
    "KEYS ?1",
    "KEYS k[^0]*",
    "KEYS k[]1]",
    "KEYS [^",
    "KEYS k\\",
    "RANDOMKEY",
    "DBSIZE",
    "PING",
    "PING v",
    "ECHO v",
    "SELECT 0",
    "SELECT 1x",
    "SELECT 99",
    "SELECT x",
    "SELECT 2147483648",
    "SELECT -2147483649",
    "FLUSHDB",
    "FLUSHALL ASYNC",
    "FLUSHALL NOW",
    "WAIT 0 10",
    "WAIT x 10",
    "WAIT 0 x",
    "WAIT 0 -1",
    "CLIENT GETNAME",
    "CLIENT SETNAME me",
    "CLIENT SETNAME v",
    "CLIENT NOPE",
    "CLIENT",
    "CONFIG",
    "CONFIG NOPE x",
    "CONFIG GET",
    "COMMAND NOPE",
    "CLIENT ID x",
    "CLIENT LIST x",
    "CLIENT LIST TYPE x",
    "CLIENT LIST ID x",
    "CLIENT LIST ID 0 -1",
    "NOPE",
    "NOPE v v v",
    "GET",
    "GET k k",
    "SET k",
    "MGET",
    "DEL",
    "EXPIRE k",
    "TTL k k",
    "SCAN x",
    "SCAN 0 COUNT 0",
    "SCAN 0 COUNT x",
    "SCAN 0 NOPE 1",
    "SCAN 0 COUNT",
    "SCAN -1 COUNT 0",
    "SCAN  NOPE 1",
    "SCAN i NOPE 1",
    "SCAN",
    "EXPIRE k 10 NOPE",
    "EXPIRE k x",
    "EXPIRE k 9223372036854775807",
    "SETEX k 0 v",
    "SETEX k -1 v",
    "PSETEX k 9223372036854775807 v",
    "PING v v",
    "ECHO",
    "HELLO 9",
    "HELLO x",
    "HELLO 2 NOPE",
    "HELLO 2 SETNAME",
    "HELLO 2 AUTH x y",
    "HELLO x1",
    "COMMAND INFO nope",
    "COMMAND DOCS nope",
    "COMMAND LIST FILTERBY x y",
    "COMMAND COUNT x",
    "CONFIG GET no-such-*",
    "TIME x",
    "RESET x",
    "DBSIZE x",
    "TYPE",
    "INCRBYFLOAT k v",
];

/// A command of any family, over few keys.
pub fn any_command(random: &mut Random) -> Words {
    let shape = random.pick(SHAPES);
    let now = wall_clock().unix_ms / 1000;
    let mut words = Vec::new();
    for (at, part) in shape.split(' ').enumerate() {
        let part = match part {
            "k" => format!("k{}", random.below(5)).into_bytes(),
            "v" => value(random),
            "i" => random.pick(INTEGERS).into(),
            "f" => random
                .pick(&["1.5", "-0.25", "3", "0", "1e3", "x", "", "nan", "10.0", "-inf"])
                .into(),
            "s" => random.pick(&["100", "5000", "70000"]).into(),
            "a" => (now + random.pick(&[1000, 90_000])).to_string().into_bytes(),
            "e" => random.pick(&["NX", "xx", "GT", "LT"]).into(),
            "o" => random.pick(&["NX", "XX", "get", "KEEPTTL", "PERSIST", "nope"]).into(),
            "t" => {
                let (word, value) = match random.below(6) {
                    0 => ("EX", "100".to_owned()),
                    1 => ("px", "90000000".to_owned()),
                    2 => ("EXAT", (now + 1000).to_string()),
                    3 => ("PXAT", (now * 1000 + 1_000_000).to_string()),
                    4 => ("EX", random.pick(INTEGERS).to_owned()),
                    _ => ("EXAT", "1".to_owned()),
                };
                words.push(word.into());
                value.into_bytes()
            }
            word if at == 0 && random.below(8) == 0 => word.to_ascii_lowercase().into_bytes(),
            word => word.into(),
        };
        words.push(part);
    }
    Words(words)
}

const INTEGERS: &[&str] = &[
    "0",
    "1",
    "-1",
    "5",
    "-3",
    "12",
    "2000",
    "-100",
    "9223372036854775807",
    "-9223372036854775808",
    "9223372036854775808",
    "01",
    "+1",
    " 1",
    "1.0",
    "x",
    "",
];

fn value(random: &mut Random) -> Vec<u8> {
    match random.below(6) {
        0 => Vec::new(),
        1 => random.pick(INTEGERS).into(),
        2 => b"a b\r\n\0\xff\"'".to_vec(),
        3 => vec![b'x'; random.below(300)],
        _ => b"hello world".to_vec(),
    }
}

/// A Redis of our own, ended with the test.
struct Redis {
    process: Child,
    folder: PathBuf,
}

impl Redis {
    fn start(name: &str) -> Option<Self> {
        let folder = std::env::temp_dir().join(format!("firebrick-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let process = Command::new("redis-server")
            .args(["--port", "0", "--save", "", "--appendonly", "no", "--daemonize", "no"])
            .args(["--unixsocket", folder.join("s").to_str().unwrap()])
            .args(["--dir", folder.to_str().unwrap()])
            .stdout(Stdio::null())
            .spawn();
        match process {
            Ok(process) => Some(Self { process, folder }),
            Err(error) => {
                // Not by `eprintln!`: of a test that passes nobody would see it.
                let _ = writeln!(
                    std::io::stderr(),
                    "SKIPPED, NOTHING WAS COMPARED: redis-server does not start: {error}"
                );
                None
            }
        }
    }

    fn connect(&self) -> UnixStream {
        for _ in 0..200 {
            if let Ok(stream) = UnixStream::connect(self.folder.join("s")) {
                return stream;
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        panic!("redis-server did not open its socket within 4 s");
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
        std::fs::remove_dir_all(&self.folder).unwrap();
    }
}

/// The length of the reply at the start of `bytes`, if it is whole.
pub fn reply_len(bytes: &[u8]) -> Option<usize> {
    let line = bytes.windows(2).position(|w| w == b"\r\n")?;
    let number = std::str::from_utf8(&bytes[1..line]).ok().and_then(|n| n.parse::<i64>().ok());
    let mut at = line + 2;
    let children = match (bytes[0], number) {
        (b'$' | b'=', Some(n)) if n >= 0 => {
            at += n as usize + 2;
            0
        }
        (b'*' | b'~', Some(n)) => n.max(0),
        (b'%', Some(n)) => 2 * n,
        _ => 0,
    };
    for _ in 0..children {
        at += reply_len(bytes.get(at..)?)?;
    }
    (at <= bytes.len()).then_some(at)
}

fn ask_redis(stream: &mut UnixStream, bytes: &[u8], replies: usize) -> Vec<Vec<u8>> {
    stream.write_all(bytes).unwrap();
    let (mut got, mut all) = (Vec::new(), Vec::new());
    let mut piece = [0; 8192];
    while all.len() < replies {
        let n = stream.read(&mut piece).unwrap();
        assert!(n > 0, "redis closed the connection");
        got.extend_from_slice(&piece[..n]);
        while !got.is_empty()
            && let Some(len) = reply_len(&got)
        {
            all.push(got.drain(..len).collect());
        }
    }
    all
}

fn split(mut bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    while !bytes.is_empty() {
        let (reply, rest) = bytes.split_at(reply_len(bytes).expect("whole replies"));
        all.push(reply.to_vec());
        bytes = rest;
    }
    all
}

/// The replies to commands that Redis executed within one millisecond of its clock, and that moment. It reads the
/// clock for each command, and on a busy machine one may come many milliseconds after another: then GT and LT compare other
/// times than here, where a turn has one. Such a batch is asked again.
fn ask_redis_at_once(stream: &mut UnixStream, bytes: &[u8], replies: usize) -> (Now, Vec<Vec<u8>>) {
    let time = command(&[b"TIME"]);
    let bytes = [&time, bytes, &time].concat();
    for _ in 0..1000 {
        let mut theirs = ask_redis(stream, &bytes, replies + 2);
        let (end, begin) = (theirs.pop().map(unix_ms), theirs.remove(0));
        if end == Some(unix_ms(begin)) {
            return (Now { unix_ms: end.unwrap(), ..wall_clock() }, theirs);
        }
    }
    panic!("redis did not execute {replies} commands within a millisecond, 1000 times in a row");
}

/// What TIME answered, in milliseconds.
fn unix_ms(reply: Vec<u8>) -> u64 {
    let text = String::from_utf8(reply).unwrap();
    let number = |line: usize| text.lines().nth(line).unwrap().parse::<u64>().unwrap();
    number(2) * 1000 + number(4) / 1000
}

/// Takes away what may differ: the order of keys, and the choice of a key.
fn normal(words: &Words, reply: &[u8]) -> Vec<u8> {
    match words.name().as_str() {
        "keys" if reply.starts_with(b"*") => {
            let keys: BTreeSet<String> =
                reply.split(|&b| b == b'\n').map(|l| l.escape_ascii().to_string()).collect();
            format!("{keys:?}").into_bytes()
        }
        "randomkey" if reply.starts_with(b"$2") => b"a key".to_vec(),
        _ => reply.to_vec(),
    }
}

/// Redis allows what our limits or our own words do not.
fn documented(words: &Words, ours: &[u8], redis: &[u8]) -> bool {
    let too_large = ours.starts_with(b"-ERR TooLarge");
    let float = words.name() == "incrbyfloat" && ours.starts_with(b"$") && redis.starts_with(b"$");
    too_large && redis.starts_with(b"-ERR string exceeds") || float && close(ours, redis)
}

fn close(a: &[u8], b: &[u8]) -> bool {
    let number = |reply: &[u8]| {
        let text = reply.split(|&b| b == b'\n').nth(1).unwrap_or(b"").to_vec();
        String::from_utf8_lossy(&text).trim().parse::<f64>().unwrap_or(f64::NAN)
    };
    (number(a) - number(b)).abs() <= 1e-9 * number(a).abs()
}

fn compare(protocol: u8, seeds: std::ops::Range<u64>) {
    let Some(redis) = Redis::start(&format!("resp{protocol}")) else { return };
    let mut stream = redis.connect();
    let mut core = Replicas::new(wall_clock());
    for seed in seeds {
        let mut random = Random(seed * 7919 + 1);
        let mut all: Vec<Words> = (0..120).map(|_| any_command(&mut random)).collect();
        if seed % 2 == 0 {
            // Redis's DBSIZE counts what has expired until it happens to look at it.
            all.retain(|words| !words.0.windows(2).any(|w| w == [&b"EXAT"[..], b"1"]));
        } else {
            all.retain(|words| words.name() != "dbsize");
        }
        // Each time it is asked, from the same state.
        let words = |line: &[&[u8]]| Words(line.iter().map(|word| word.to_vec()).collect());
        all.splice(..0, [words(&[b"FLUSHALL"]), words(&[b"CLIENT", b"SETNAME", b""])]);
        let bytes: Vec<u8> = all.iter().flat_map(Words::encode).collect();

        let hello = command(&[b"HELLO", protocol.to_string().as_bytes()]);
        ask_redis(&mut stream, &hello, 1);
        let (now, theirs) = ask_redis_at_once(&mut stream, &bytes, all.len());
        core.set_now(now);
        core.remote = seed % 16;
        let mut peer = Peer::new(core);
        peer.send(&hello);
        peer.out.clear();
        peer.send(&bytes);
        let ours = split(&peer.out);
        core = peer.store;
        assert_eq!(ours.len(), theirs.len());
        for (at, words) in all.iter().enumerate() {
            if documented(words, &ours[at], &theirs[at]) {
                break; // from here on the values differ
            }
            assert_eq!(
                normal(words, &ours[at]).escape_ascii().to_string(),
                normal(words, &theirs[at]).escape_ascii().to_string(),
                "ours (left) and redis's reply to {} (command {at} of seed {seed}, RESP{protocol}) after\n{}",
                words.show(),
                all[at.saturating_sub(40)..at].iter().map(|w| w.show() + "\n").collect::<String>(),
            );
        }
    }
}

#[test]
fn replies_are_those_of_redis_in_resp2() {
    compare(2, 1..150);
}

#[test]
fn replies_are_those_of_redis_in_resp3() {
    compare(3, 150..300);
}

/// Client libraries take from COMMAND where the keys of a command are.
#[test]
fn arity_and_keys_of_every_command_are_those_of_redis() {
    let Some(redis) = Redis::start("command") else { return };
    let mut stream = redis.connect();
    let mut peer = Peer::new(Replicas::new(wall_clock()));
    for known in COMMANDS {
        let ask = [&b"COMMAND"[..], b"INFO", known.name.as_bytes()];
        // Name, arity, (flags;) first key, last key, step.
        let shape = |reply: &[u8]| {
            let text = String::from_utf8(reply.to_vec()).unwrap();
            let lines: Vec<&str> = text.split("\r\n").filter(|l| !l.starts_with('+')).collect();
            [3, 4, 6, 7, 8].map(|n| lines[n].to_owned())
        };
        let ours = shape(&peer.ask(&ask));
        assert_eq!(ours, shape(&ask_redis(&mut stream, &command(&ask), 1)[0]), "{}", known.name);
    }
}

/// Malformed input, too, ends as it does with Redis.
#[test]
fn protocol_errors_are_those_of_redis() {
    let Some(redis) = Redis::start("errors") else { return };
    for bytes in [
        &b"*1\r\n$-1\r\n"[..],
        b"*1\r\n$x\r\n",
        b"*x\r\n",
        b"*2147483648\r\n",
        b"*1\r\nPING\r\n",
        b"*1\r\n\x01\r\n",
        b"SET \"a\r\n",
        b"*-1\r\n*0\r\n\r\n  \r\nPING\r\nset 'a b' \"\\x41\\n\"\nget 'a b'\r\n*1\r\n$+4\r\n",
        &b"x".repeat(70_000),
        &b"*".repeat(70_000),
    ] {
        let mut stream = redis.connect();
        stream.write_all(bytes).unwrap();
        let mut theirs = Vec::new();
        stream.read_to_end(&mut theirs).unwrap();
        let mut peer = Peer::new(Replicas::new(wall_clock()));
        assert_eq!(peer.send(bytes), crate::resp::Progress::Close);
        assert_eq!(peer.out.escape_ascii().to_string(), theirs.escape_ascii().to_string());
    }
    const { assert!(limits::ARGUMENTS_MAX < 2_147_483_648) };
}
