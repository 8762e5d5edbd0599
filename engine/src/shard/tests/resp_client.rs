//! A RESP connection with a model: it knows the bytes of every reply before they come.

use std::collections::{BTreeMap, VecDeque};

use firebrick_net::Ep;
use firebrick_net::fake::Peer;

use super::Random;
use super::rig::Rig;

type Value = Option<Vec<u8>>;

/// One command without a reply yet.
struct Owed {
    reply: usize,
    /// What it does to keys.
    after: Vec<(String, Value)>,
}

/// See the module's text.
pub struct RespClient {
    name: String,
    pub core: usize,
    pub ep: Ep,
    pub peer: Peer,
    /// Reply bytes that must come.
    want: VecDeque<u8>,
    owed: VecDeque<Owed>,
    /// Bytes of the front reply that came.
    part: usize,
    /// As of the last reply.
    acked: BTreeMap<String, Value>,
    /// As of the last command.
    newest: BTreeMap<String, Value>,
    /// Nothing is read until then.
    pub reads_at: u64,
    pub replies: u64,
}

pub fn command(words: &[&[u8]]) -> Vec<u8> {
    let mut out = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        out.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        out.extend_from_slice(word);
        out.extend_from_slice(b"\r\n");
    }
    out
}

fn bulk(value: &Value) -> Vec<u8> {
    match value {
        Some(v) => [format!("${}\r\n", v.len()).as_bytes(), v, b"\r\n"].concat(),
        None => b"$-1\r\n".to_vec(),
    }
}

impl RespClient {
    pub fn new(rig: &mut Rig, core: usize, name: &str) -> Self {
        let (ep, peer) = rig.stream(core);
        Self {
            name: name.into(),
            core,
            ep,
            peer,
            want: VecDeque::new(),
            owed: VecDeque::new(),
            part: 0,
            acked: BTreeMap::new(),
            newest: BTreeMap::new(),
            reads_at: 0,
            replies: 0,
        }
    }

    pub fn owed(&self) -> usize {
        self.owed.len()
    }

    fn key(&self, random: &mut Random, kind: char) -> String {
        format!("{}:{kind}{}", self.name, random.below(12))
    }

    fn value(&self, key: &str) -> Value {
        self.newest.get(key).cloned().unwrap_or_default()
    }

    pub fn say(&mut self, now: u64, words: &[&[u8]], reply: &[u8], after: Vec<(String, Value)>) {
        self.peer.feed(now, &command(words));
        self.want.extend(reply);
        for (key, value) in &after {
            self.newest.insert(key.clone(), value.clone());
        }
        self.owed.push_back(Owed { reply: reply.len(), after });
    }

    /// Says some command.
    pub fn any(&mut self, now: u64, random: &mut Random) {
        let key = self.key(random, 's');
        let old = self.value(&key);
        let k = key.clone().into_bytes();
        match random.below(12) {
            0..=3 => {
                let len = if random.one_in(40) { 60_000 } else { random.below(200) };
                let value = vec![b'a' + random.below(26) as u8; len as usize];
                self.say(now, &[b"SET", &k, &value], b"+OK\r\n", vec![(key, Some(value.clone()))]);
            }
            4..=6 => self.say(now, &[b"GET", &k], &bulk(&old), Vec::new()),
            7 => {
                let reply = format!(":{}\r\n", u8::from(old.is_some()));
                self.say(now, &[b"DEL", &k], reply.as_bytes(), vec![(key, None)]);
            }
            8 => {
                let key = self.key(random, 'n');
                let old =
                    self.value(&key).map_or(0, |v| String::from_utf8(v).unwrap().parse().unwrap());
                let new: i64 = old + 1;
                let after = vec![(key.clone(), Some(new.to_string().into_bytes()))];
                self.say(now, &[b"INCR", key.as_bytes()], format!(":{new}\r\n").as_bytes(), after);
            }
            9 => {
                let value = Some(format!("g{now}").into_bytes());
                let words: [&[u8]; 3] = [b"GETSET", &k, value.as_ref().unwrap()];
                self.say(now, &words, &bulk(&old), vec![(key, value.clone())]);
            }
            10 => {
                let value = Some(format!("m{now}").into_bytes());
                let keys: Vec<String> = (0..12).map(|n| format!("{}:s{n}", self.name)).collect();
                let mut words: Vec<&[u8]> = vec![b"MSET"];
                for key in &keys {
                    words.extend([key.as_bytes(), value.as_ref().unwrap()]);
                }
                let after = keys.iter().map(|k| (k.clone(), value.clone())).collect();
                self.say(now, &words, b"+OK\r\n", after);
            }
            _ => {
                let keys: Vec<String> = (0..12).map(|n| format!("{}:s{n}", self.name)).collect();
                let mut words: Vec<&[u8]> = vec![b"MGET"];
                words.extend(keys.iter().map(String::as_bytes));
                let mut reply = b"*12\r\n".to_vec();
                for key in &keys {
                    reply.extend(bulk(&self.value(key)));
                }
                self.say(now, &words, &reply, Vec::new());
            }
        }
    }

    /// Takes what came, which must be what was to come.
    pub fn read(&mut self, now: u64) {
        if now < self.reads_at {
            return;
        }
        let got = self.peer.taken(now);
        for (at, byte) in got.iter().enumerate() {
            let want = self.want.pop_front();
            assert_eq!(
                Some(*byte),
                want,
                "{}: {:?} after {} replies",
                self.name,
                String::from_utf8_lossy(&got[at.saturating_sub(20)..(at + 60).min(got.len())]),
                self.replies
            );
            self.part += 1;
            while self.owed.front().is_some_and(|owed| owed.reply == self.part) {
                self.part = 0;
                self.replies += 1;
                if let Some(owed) = self.owed.pop_front() {
                    self.acked.extend(owed.after);
                }
            }
        }
    }

    /// The connection is lost. What each key may hold: as acked, or as any command in flight left it.
    pub fn lose(&mut self) -> BTreeMap<String, Vec<Value>> {
        let mut may: BTreeMap<String, Vec<Value>> =
            self.acked.iter().map(|(key, value)| (key.clone(), vec![value.clone()])).collect();
        for (key, value) in self.owed.drain(..).flat_map(|owed| owed.after) {
            may.entry(key).or_insert_with(|| vec![None]).push(value);
        }
        self.want.clear();
        self.part = 0;
        may
    }

    /// Connects again, once nothing of the old connection is in flight, and looks what became of it.
    pub fn reconnect(&mut self, rig: &mut Rig, core: usize, may: &BTreeMap<String, Vec<Value>>) {
        let (ep, peer) = rig.stream(core);
        (self.core, self.ep, self.peer) = (core, ep, peer);
        for (key, values) in may {
            let now = rig.now;
            self.peer.feed(now, &command(&[b"GET", key.as_bytes()]));
            let mut got = Vec::new();
            rig.run_until(2_000_000_000, |rig| {
                got.extend(self.peer.taken(rig.now));
                values.iter().any(|value| bulk(value) == got)
                    || (got.len() > 4 && !got.starts_with(b"$"))
            });
            let value = values.iter().find(|value| bulk(value) == got);
            let value =
                value.unwrap_or_else(|| panic!("{key}: {:?}", String::from_utf8_lossy(&got)));
            self.acked.insert(key.clone(), value.clone());
        }
        self.newest = self.acked.clone();
    }
}
