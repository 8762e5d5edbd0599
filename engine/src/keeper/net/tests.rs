use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use firebrick_partition::keeper::Registration;
use tokio::runtime::Runtime;

use super::frame::{self, Greeting, Hello};
use super::message::{JoinAnswer, Question};
use super::*;
use crate::keeper::Finder;

/// Answers joins, and refuses all else.
struct Echo;

impl Handler for Echo {
    fn me(&self) -> (u64, u32) {
        (77, 3)
    }
    async fn answer(&self, from: Hello, _: bool, ask: Ask, tail: Vec<u8>) -> Answer {
        match ask {
            Ask::Join { .. } => Answer::Join(JoinAnswer::Wait { ms: u64::from(from.from) }),
            Ask::Maps { since: 1 } => {
                tokio::time::sleep(Duration::from_millis(300)).await;
                Answer::NotLeader { leader: None }
            }
            _ => Answer::Refused(format!("{} bytes behind it", tail.len())),
        }
    }
}

fn serving() -> (Runtime, SocketAddr) {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
    let at = listener.local_addr().unwrap();
    runtime.spawn(serve(listener, Arc::new(Echo)));
    (runtime, at)
}

const PREAMBLE: &[u8] = b"FBCT\x01\0\0\0";

fn dial(at: SocketAddr, bytes: &[&[u8]]) -> TcpStream {
    let mut stream = TcpStream::connect(at).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    for bytes in bytes {
        // It may be closed already.
        let _ = stream.write_all(bytes);
    }
    stream
}

/// Everything that comes until the other side closes.
fn rest(mut stream: TcpStream) -> Vec<u8> {
    let mut all = Vec::new();
    let _ = stream.read_to_end(&mut all);
    all
}

fn hello(cluster: u64, to: u32) -> Vec<u8> {
    frame::encode(&Hello { cluster, from: 9, to }, &[]).unwrap()
}

fn join(number: u64) -> Vec<u8> {
    let ask = Ask::Join { registration: Box::new(Registration::default()), has_log: false };
    frame::encode(&Question { number, relayed: false, ask }, &[]).unwrap()
}

#[test]
fn questions_are_answered_on_one_connection_and_a_slow_one_holds_up_no_other() {
    let (runtime, at) = serving();
    let links = Links::default();
    links.set_me(77, 9);
    let second = Duration::from_secs(5);
    runtime.block_on(async {
        let at = at.to_string();
        let slow = links.ask(&at, 3, Lane::Asks, (false, Ask::Maps { since: 1 }), &[], second);
        let began = Instant::now();
        let quick = async {
            let ask = (false, Ask::Maps { since: 2 });
            let answer = links.ask(&at, 3, Lane::Asks, ask, b"\n\n123", second).await.unwrap();
            assert!(matches!(answer, Answer::Refused(why) if why == "5 bytes behind it"));
            began.elapsed()
        };
        let (slow, quick) = tokio::join!(slow, quick);
        assert!(matches!(slow, Ok(Answer::NotLeader { .. })));
        assert!(quick < Duration::from_millis(250), "{quick:?}");
        let brief = Duration::from_millis(50);
        let late = links.ask(&at, 3, Lane::Asks, (false, Ask::Maps { since: 1 }), &[], brief).await;
        assert!(late.unwrap_err().to_string().contains("no answer within 50 ms"));
    });
}

#[test]
fn only_what_may_have_arrived_is_in_doubt() {
    let (runtime, at) = serving();
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    runtime.block_on(async {
        for (at, why) in [(nobody, Why::NotNow), (at, Why::InDoubt)] {
            let links = Links::default();
            links.set_me(77, 9);
            let finder = Finder::new(links, [at.to_string()]);
            let asked = finder.ask(&Ask::Maps { since: 1 }, Duration::from_millis(200)).await;
            assert_eq!(asked.unwrap_err().why, why);
        }
    });
}

#[test]
fn a_brick_of_another_cluster_or_meant_for_another_brick_is_told_so() {
    let (runtime, at) = serving();
    let at = at.to_string();
    for (cluster, to, expected) in
        [(78, 3, "belongs to cluster"), (77, 4, "it is brick 3, not brick 4")]
    {
        let links = Links::default();
        links.set_me(cluster, 9);
        let ask = (false, Ask::Maps { since: 0 });
        let asked = links.ask(&at, to, Lane::Raft, ask, &[], Duration::from_secs(5));
        let told = runtime.block_on(asked).unwrap_err().to_string();
        assert!(told.contains(expected), "{told}");
    }
}

#[test]
fn a_stranger_may_join_and_nothing_else() {
    let (_runtime, at) = serving();
    let mut stream = dial(at, &[PREAMBLE, &hello(0, 0), &join(5)]);
    let mut preamble = [0; 8];
    stream.read_exact(&mut preamble).unwrap();
    assert_eq!(preamble, PREAMBLE);
    let ask = Question { number: 6, relayed: false, ask: Ask::Maps { since: 0 } };
    stream.write_all(&frame::encode(&ask, &[]).unwrap()).unwrap();
    let all = String::from_utf8_lossy(&rest(stream)).into_owned();
    assert!(all.contains("welcome") && all.contains("\"wait\":{\"ms\":9}"), "{all}");
    assert!(!all.contains("refused"), "the question was not looked at: {all}");
}

#[test]
fn malformed_input_ends_its_connection_and_no_other() {
    let (_runtime, at) = serving();
    let mut other_version = PREAMBLE.to_vec();
    other_version[4] = 2;
    let mut flipped = join(1);
    *flipped.last_mut().unwrap() ^= 1;
    let endless = [u32::MAX.to_le_bytes(), [0; 4]].concat();
    let over = [(70u32 << 10).to_le_bytes(), [0; 4]].concat();
    let not_json = {
        let mut bytes = 4u32.to_le_bytes().to_vec();
        bytes.extend(crc32fast::hash(b"{\"a}").to_le_bytes());
        bytes.extend(b"{\"a}");
        bytes
    };
    let (member, any, larger) = (hello(77, 0), hello(77, 0), hello(0, 0));
    let cases: [(&str, Vec<&[u8]>); 8] = [
        ("noise", vec![b"GET / HTTP/1.1\r\n\r\n"]),
        ("another version", vec![&other_version]),
        ("no hello", vec![PREAMBLE, &not_json]),
        ("a flipped bit", vec![PREAMBLE, &member, &flipped]),
        ("an endless frame", vec![PREAMBLE, &member, &endless]),
        ("a stranger's large frame", vec![PREAMBLE, &larger, &over]),
        ("no question", vec![PREAMBLE, &member, &not_json]),
        ("a hello for a question", vec![PREAMBLE, &member, &any]),
    ];
    let began = Instant::now();
    for (what, bytes) in cases {
        let all = String::from_utf8_lossy(&rest(dial(at, &bytes))).into_owned();
        assert!(!all.contains("wait"), "{what} was answered: {all}");
    }
    assert!(began.elapsed() < Duration::from_secs(2), "closed at once, not by a timeout");
    // One that says nothing is closed after its time, and meanwhile keeps nobody out.
    let silent = dial(at, &[PREAMBLE]);
    let answered = rest_after_join(at);
    assert!(answered.contains("wait"), "{answered}");
    rest(silent);
    assert!(began.elapsed() < Duration::from_secs(6));
}

#[test]
fn strangers_cost_no_brick_its_connection() {
    let (_runtime, at) = serving();
    let mut brick = dial(at, &[PREAMBLE, &hello(77, 3), &join(1)]);
    let mut some = [0; 512];
    let mut answered = |brick: &mut TcpStream, what: &str| {
        let mut text = String::new();
        while !text.contains("wait") {
            let n = brick.read(&mut some).unwrap();
            assert!(n > 0, "{what}: closed");
            text.push_str(&String::from_utf8_lossy(&some[..n]));
        }
    };
    answered(&mut brick, "before");
    // All are newer than the last word of the brick.
    let hello = hello(0, 0);
    let strangers: Vec<TcpStream> =
        (0..super::server::CONNECTIONS_MAX + 100).map(|_| dial(at, &[PREAMBLE, &hello])).collect();
    std::thread::sleep(Duration::from_millis(300));
    brick.write_all(&join(2)).unwrap();
    answered(&mut brick, "after");
    drop(strangers);
}

fn rest_after_join(at: SocketAddr) -> String {
    let mut stream = dial(at, &[PREAMBLE, &hello(77, 3), &join(1)]);
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut all = Vec::new();
    let _ = stream.read_to_end(&mut all);
    String::from_utf8_lossy(&all).into_owned()
}

#[test]
fn greetings_and_hellos_are_what_they_were() {
    let text = serde_json::to_string(&Greeting::Welcome { cluster: 7, brick: 3 }).unwrap();
    assert_eq!(text, "{\"welcome\":{\"cluster\":7,\"brick\":3}}");
    let text = serde_json::to_string(&Hello { cluster: 7, from: 1, to: 2 }).unwrap();
    assert_eq!(text, "{\"cluster\":7,\"from\":1,\"to\":2}");
}
