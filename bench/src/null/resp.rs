//! RESP with fixed answers: enough for `redis-benchmark -t get,set` and nothing more.

use std::collections::HashMap;

use firebrick_net::{Ep, Fabric, Rx, Tcp};

use super::VALUE_BYTES;

/// A command longer than this is not what this brick is for.
const COMMAND_BYTES_MAX: usize = 1 << 20;

/// Input of each connection that is not answered yet: the beginning of a command, or what waits for room.
#[derive(Default)]
pub struct Streams {
    rest: HashMap<Ep, Vec<u8>>,
    /// The input at work: the fabric cannot lend its receive and its output buffer at once.
    input: Vec<u8>,
}

impl Streams {
    /// Answers the whole commands in the input and keeps the rest.
    pub fn handle_bytes(&mut self, tcp: &mut Tcp, ep: Ep, rx: &Rx) {
        if let Some(rest) = self.rest.get_mut(&ep).filter(|rest| !rest.is_empty()) {
            rest.extend_from_slice(tcp.bytes(rx));
            self.handle_drained(tcp, ep);
            return;
        }
        let mut input = std::mem::take(&mut self.input);
        input.clear();
        input.extend_from_slice(tcp.bytes(rx));
        let used = answer_all(tcp, ep, &input);
        self.keep(tcp, ep, &input, used);
        self.input = input;
    }

    /// There is room again.
    pub fn handle_drained(&mut self, tcp: &mut Tcp, ep: Ep) {
        let Some(input) = self.rest.remove(&ep) else { return };
        let used = answer_all(tcp, ep, &input);
        self.keep(tcp, ep, &input, used);
    }

    fn keep(&mut self, tcp: &mut Tcp, ep: Ep, input: &[u8], used: Option<usize>) {
        match used {
            Some(used) if used == input.len() => {}
            Some(used) if input.len() - used <= COMMAND_BYTES_MAX => {
                self.rest.insert(ep, input[used..].to_vec());
            }
            _ => tcp.close(ep),
        }
    }

    /// The connection is gone.
    pub fn forget(&mut self, ep: Ep) {
        self.rest.remove(&ep);
    }
}

/// Answers from the start of `input` while there is room; how much was used, `None` for bytes that are no
/// RESP command. Asking for room is what makes the fabric report when there is some again.
fn answer_all(tcp: &mut Tcp, ep: Ep, input: &[u8]) -> Option<usize> {
    let mut used = 0;
    loop {
        let room = tcp.room(ep);
        let Some(out) = tcp.out(ep) else { return Some(input.len()) };
        let full_at = out.len() + room;
        while out.len() < full_at {
            match parse(&input[used..]) {
                Parsed::Command(Command { len, name }) => {
                    reply(name, out);
                    used += len;
                }
                Parsed::Short => return Some(used),
                Parsed::Bad => return None,
            }
        }
        if room == 0 {
            return Some(used);
        }
    }
}

fn reply(name: &[u8], out: &mut Vec<u8>) {
    const VALUE: [u8; VALUE_BYTES] = [b'x'; VALUE_BYTES];
    match name.first().map(u8::to_ascii_uppercase) {
        Some(b'G') => {
            out.extend_from_slice(b"$64\r\n");
            out.extend_from_slice(&VALUE);
            out.extend_from_slice(b"\r\n");
        }
        Some(b'P') => out.extend_from_slice(b"+PONG\r\n"),
        // redis-benchmark asks for `save` and `appendonly` before it starts.
        Some(b'C') => out.extend_from_slice(b"*2\r\n$4\r\nsave\r\n$0\r\n\r\n"),
        _ => out.extend_from_slice(b"+OK\r\n"),
    }
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Command<'a> {
    pub(super) len: usize,
    pub(super) name: &'a [u8],
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Parsed<'a> {
    Command(Command<'a>),
    Short,
    Bad,
}

/// Finds the end of the first command, `*n` and n bulk strings, or one line.
pub(super) fn parse(input: &[u8]) -> Parsed<'_> {
    let Some((line, mut at)) = line(input, 0) else { return Parsed::Short };
    let Some(count) = line.strip_prefix(b"*") else {
        let name = line.split(|&b| b == b' ').next().unwrap_or(line);
        return Parsed::Command(Command { len: at, name });
    };
    let Some(count @ 1..) = number(count) else { return Parsed::Bad };
    let mut name = &input[..0];
    for argument in 0..count {
        let Some((header, start)) = self::line(input, at) else { return Parsed::Short };
        let Some(len) = header.strip_prefix(b"$").and_then(number) else { return Parsed::Bad };
        let Some(bytes) = input.get(start..start + len + 2) else { return Parsed::Short };
        if !bytes.ends_with(b"\r\n") {
            return Parsed::Bad;
        }
        if argument == 0 {
            name = &bytes[..len];
        }
        at = start + len + 2;
    }
    Parsed::Command(Command { len: at, name })
}

/// The line at `at`, without its end, and where the next begins.
fn line(input: &[u8], at: usize) -> Option<(&[u8], usize)> {
    let rest = &input[at..];
    let end = rest.iter().position(|&b| b == b'\n')?;
    Some((rest[..end].strip_suffix(b"\r").unwrap_or(&rest[..end]), at + end + 1))
}

/// A short decimal number: no command of this brick's clients has a longer one.
fn number(digits: &[u8]) -> Option<usize> {
    let short = (1..=7).contains(&digits.len()) && digits.iter().all(u8::is_ascii_digit);
    short.then(|| digits.iter().fold(0, |sum, digit| sum * 10 + usize::from(digit - b'0')))
}
