//! What a person sees at redis-cli: the words of replies and errors.

use super::replicas::Replicas;
use super::{Peer, command};
use crate::resp::{Progress, limits};
use firebrick_partition::{Failure, Now};

fn peer() -> Peer {
    Peer::new(Replicas::new(Now { boot_ns: 5, unix_ms: 1_700_000_000_000 }))
}

#[test]
fn protocol_errors_are_told_in_redis_words_and_close() {
    for (bytes, want) in [
        (&b"*1\r\n$-1\r\n"[..], "-ERR Protocol error: invalid bulk length\r\n"),
        (b"*1\r\n$536870913\r\n", "-ERR Protocol error: invalid bulk length\r\n"),
        (b"*1\r\n$x\r\n", "-ERR Protocol error: invalid bulk length\r\n"),
        (b"*2\r\n$3\r\nGET\r\n$\r\n\r\n", "-ERR Protocol error: invalid bulk length\r\n"),
        (b"*2\r\n$3\r\nGET\r\n$00\r\n\r\n", "-ERR Protocol error: invalid bulk length\r\n"),
        (b"*x\r\n", "-ERR Protocol error: invalid multibulk length\r\n"),
        (b"*1048577\r\n", "-ERR Protocol error: invalid multibulk length\r\n"),
        (b"*1\r\nPING\r\n", "-ERR Protocol error: expected '$', got 'P'\r\n"),
        (b"SET \"a\r\n", "-ERR Protocol error: unbalanced quotes in request\r\n"),
        (&b"x".repeat(70_000), "-ERR Protocol error: too big inline request\r\n"),
        (&b"*".repeat(70_000), "-ERR Protocol error: too big mbulk count string\r\n"),
    ] {
        let mut peer = peer();
        assert_eq!(peer.send(bytes), Progress::Close, "{want}");
        assert_eq!(String::from_utf8_lossy(&peer.out), want);
        assert_eq!(peer.send(b"PING\r\n"), Progress::Close, "nothing is executed any more");
    }
}

#[test]
fn too_large_is_an_error_and_the_connection_stays() {
    let mut peer = peer();
    let value = vec![b'v'; limits::VALUE_BYTES_MAX];
    assert_eq!(peer.ask(&[b"SET", b"k", &value]), b"+OK\r\n");
    let larger = vec![b'v'; limits::VALUE_BYTES_MAX + 1];
    let bytes = command(&[b"SET", b"k", &larger]);
    for piece in bytes.chunks(100_000) {
        peer.send(piece);
        assert!(peer.conn.held_bytes() < 300_000, "the bytes are dropped, not kept");
    }
    let reply = String::from_utf8(std::mem::take(&mut peer.out)).unwrap();
    assert!(reply.starts_with("-ERR TooLarge: an argument of 8388609 bytes"), "{reply}");
    peer.send(&bytes); // in one piece, too
    assert!(std::mem::take(&mut peer.out).starts_with(b"-ERR TooLarge"));
    let key = vec![b'k'; limits::KEY_BYTES_MAX + 1];
    for words in [&[b"GET", &key[..]][..], &[b"SET", &key, b"v"], &[b"DEL", b"a", &key]] {
        let reply = String::from_utf8(peer.ask(words)).unwrap();
        assert!(reply.starts_with("-ERR TooLarge: a key of 32769 bytes"), "{reply}");
    }
    assert_eq!(peer.say("STRLEN k"), format!(":{}\r\n", limits::VALUE_BYTES_MAX));
    assert_eq!(peer.say("SETRANGE k 8388608 x").split(':').next(), Some("-ERR TooLarge"));
    assert_eq!(peer.say("PING"), "+PONG\r\n");
}

#[test]
fn a_command_of_too_many_bytes_is_dropped_not_kept() {
    let mut peer = peer();
    let value = vec![b'v'; limits::VALUE_BYTES_MAX];
    let mut words: Vec<&[u8]> = vec![b"MSET"];
    for _ in 0..6 {
        words.extend([&b"k"[..], &value]);
    }
    for piece in command(&words).chunks(1 << 20) {
        peer.send(piece);
        assert!(peer.conn.held_bytes() <= limits::COMMAND_BYTES_MAX + (2 << 20));
    }
    assert!(peer.out.starts_with(b"-ERR TooLarge: a command of more than"));
    peer.out.clear();
    assert_eq!(peer.say("EXISTS k"), ":0\r\n");
    assert_eq!(peer.conn.held_bytes(), 0);
}

#[test]
fn failures_of_the_data_core_are_errors_a_library_understands() {
    for (failure, start) in [
        (Failure::NoSpace, "-OOM "),
        (Failure::Unavailable, "-LOADING "),
        (Failure::InDoubt, "-TRYAGAIN "),
        (Failure::Corrupt, "-ERR Corrupt"),
        (Failure::Busy, "-TRYAGAIN "),
    ] {
        let mut peer = peer();
        peer.store.fail = Some(failure);
        for line in ["SET k v", "GET k", "DEL a b c", "MGET a b", "DBSIZE", "FLUSHALL", "KEYS *"] {
            let reply = peer.say(line);
            assert!(reply.starts_with(start) && reply.ends_with("\r\n"), "{line}: {reply}");
            assert_eq!(reply.matches("\r\n").count(), 1, "{line}: {reply}");
        }
    }
}

/// As Redis: a health check that sends PING is not told that all is well by a brick that is loading.
#[test]
fn a_ping_is_answered_by_a_brick_that_serves() {
    let mut peer = peer();
    peer.store.fail = Some(Failure::Unavailable);
    for line in ["PING", "PING hello", "WAIT 0 0"] {
        assert!(peer.say(line).starts_with("-LOADING "), "{line}");
    }
    assert_eq!(peer.say("ECHO x"), "$1\r\nx\r\n");
    assert_eq!(peer.say("SELECT 0"), "+OK\r\n");
    peer.store.fail = Some(Failure::NoSpace);
    assert_eq!(peer.say("PING"), "+PONG\r\n");
}

#[test]
fn hello_switches_the_protocol_and_reset_switches_back() {
    let mut peer = peer();
    assert_eq!(peer.say("GET none"), "$-1\r\n");
    let hello = peer.say("HELLO 3 AUTH default x SETNAME me");
    assert!(hello.starts_with("%7\r\n$6\r\nserver\r\n$5\r\nredis\r\n"), "{hello}");
    assert_eq!(peer.say("GET none"), "_\r\n");
    assert_eq!(peer.say("CLIENT GETNAME"), "$2\r\nme\r\n");
    assert!(peer.say("CONFIG GET *").starts_with("%2\r\n"));
    assert!(peer.say("CLIENT LIST").contains(" name=me "));
    assert!(peer.say("CLIENT LIST ID 43").contains("txt:id=43 "));
    assert_eq!(peer.say("HELLO 4"), "-NOPROTO unsupported protocol version\r\n");
    assert_eq!(peer.say("RESET"), "+RESET\r\n");
    assert_eq!(peer.say("GET none"), "$-1\r\n");
    assert_eq!(peer.say("CLIENT SETINFO lib-name redis-py"), "+OK\r\n");
    assert!(peer.say("CLIENT LIST").contains(" lib-name=redis-py "));
}

#[test]
fn command_describes_every_command() {
    let mut peer = peer();
    let count = crate::resp::table::COMMANDS.len();
    assert_eq!(peer.say("COMMAND COUNT"), format!(":{count}\r\n"));
    assert!(peer.say("COMMAND").starts_with(&format!("*{count}\r\n*10\r\n$6\r\nappend\r\n")));
    assert!(peer.say("COMMAND INFO get nope").ends_with("$-1\r\n"));
    assert!(peer.say("COMMAND DOCS client|list").contains("client|list"));
    assert_eq!(
        peer.say("COMMAND LIST FILTERBY PATTERN decr*"),
        "*2\r\n$4\r\ndecr\r\n$6\r\ndecrby\r\n"
    );
}

#[test]
fn quit_answers_what_came_before_and_nothing_after() {
    let mut peer = peer();
    peer.store.remote = 15;
    let bytes = [command(&[b"SET", b"k", b"v"]), command(&[b"QUIT"]), command(&[b"PING"])].concat();
    assert_eq!(peer.send(&bytes), Progress::Close);
    assert_eq!(peer.out, b"+OK\r\n+OK\r\n");
}

#[test]
fn a_web_page_gets_nothing() {
    let mut peer = peer();
    assert_eq!(peer.send(b"POST / HTTP/1.1\r\nHost: x\r\n\r\nSET k v\r\n"), Progress::Close);
    assert!(peer.out.is_empty());
    assert_eq!(peer.store.submitted, 0);
}

#[test]
fn the_docs_list_every_command() {
    let docs = include_str!("../../../../docs/resp.md");
    for command in crate::resp::table::COMMANDS {
        let name = command.name.to_ascii_uppercase();
        if command.subcommands.is_empty() {
            let line = format!("| `{name}` | {} | {} |", command.group.name(), command.summary);
            assert!(docs.contains(&line), "docs/resp.md lacks this line:\n{line}");
        }
        for sub in command.subcommands {
            let sub_name = sub.name.to_ascii_uppercase();
            let line = format!("| `{name} {sub_name}` | {} | {} |", sub.group.name(), sub.summary);
            assert!(docs.contains(&line), "docs/resp.md lacks this line:\n{line}");
        }
    }
}
