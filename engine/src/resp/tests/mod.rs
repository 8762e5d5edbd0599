//! Tests of the front on real replicas, and of both against a real Redis.

mod chunks;
mod differential;
mod later;
mod replicas;
mod speed;
mod words;

use super::{Backend, Conn, Progress};
use firebrick_partition::Now;
use replicas::Replicas;

/// A client with its connection and its data core.
pub struct Peer {
    pub conn: Conn,
    pub store: Replicas,
    pub out: Vec<u8>,
    pub room: usize,
    pub last: Progress,
}

impl Peer {
    pub fn new(store: Replicas) -> Self {
        let conn = Conn::new(7, 42, store.now());
        Self { conn, store, out: Vec::new(), room: 1 << 20, last: Progress::Ok }
    }

    /// Gives bytes to the connection and does for it what a data core does, until it is idle.
    pub fn send(&mut self, bytes: &[u8]) -> Progress {
        self.last = self.conn.on_bytes(bytes, self.room, &mut self.store, &mut self.out);
        self.settle()
    }

    /// Answers, resumes and drains until nothing moves. Returns the last progress.
    pub fn settle(&mut self) -> Progress {
        let mut sent = Vec::new();
        loop {
            sent.append(&mut self.out);
            if let Some((token, answer)) = self.store.deliver() {
                let now = self.store.now();
                self.last = self.conn.on_answer(token, answer.get(), now, &mut self.out);
            } else if matches!(self.last, Progress::Again | Progress::Full) {
                self.last = self.conn.resume(self.room, &mut self.store, &mut self.out);
            } else {
                self.out.splice(..0, sent);
                return self.last;
            }
        }
    }

    /// The reply to one command.
    pub fn ask(&mut self, words: &[&[u8]]) -> Vec<u8> {
        self.send(&command(words));
        std::mem::take(&mut self.out)
    }

    /// The reply to words on a line, as text.
    pub fn say(&mut self, line: &str) -> String {
        let words: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
        String::from_utf8(self.ask(&words)).unwrap()
    }
}

/// A command as an array of bulk strings.
pub fn command(words: &[&[u8]]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        bytes.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        bytes.extend_from_slice(word);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}

/// The wall clock, for tests beside a real Redis.
pub fn wall_clock() -> Now {
    let unix = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    Now { boot_ns: unix.as_nanos() as u64, unix_ms: unix.as_millis() as u64 }
}

/// A small xorshift generator: tests are repeated by their seed.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }
}
