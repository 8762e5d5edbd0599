//! What happened, for people and for comparing two runs; and what of it was interesting.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;

use super::clock::Ns;

/// Lines that are kept, unless more are asked for.
const LINES: usize = 20_000;

/// Lines that `$FIREBRICK_SIM_LINES` asks for.
pub fn lines_wanted() -> Option<usize> {
    std::env::var("FIREBRICK_SIM_LINES").ok().and_then(|text| text.parse().ok())
}

/// The newest lines, and a hash of all.
#[derive(Debug)]
pub struct Trace {
    lines: VecDeque<String>,
    kept: usize,
    hash: u64,
    /// Lines of messages too.
    pub verbose: bool,
}

impl Default for Trace {
    fn default() -> Self {
        let kept = lines_wanted().unwrap_or(0).max(LINES);
        Self { lines: VecDeque::new(), kept, hash: 0xcbf2_9ce4_8422_2325, verbose: false }
    }
}

impl Trace {
    /// Mixes a number into the hash, without a line.
    pub fn mix(&mut self, number: u64) {
        let mixed = (self.hash ^ number).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        self.hash = mixed ^ mixed >> 29;
    }

    /// A line.
    pub fn line(&mut self, now: Ns, text: fmt::Arguments<'_>) {
        let line = format!("{:>12.6} ms  {text}", now as f64 / 1e6);
        for chunk in line.as_bytes().chunks(8) {
            let word = chunk.iter().fold(0u64, |word, &b| word << 8 | u64::from(b));
            self.mix(word);
        }
        if self.lines.len() == self.kept {
            self.lines.pop_front();
        }
        self.lines.push_back(line);
    }

    /// The same for two runs that went the same way.
    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// The last lines.
    pub fn tail(&self, lines: usize) -> String {
        let skip = self.lines.len().saturating_sub(lines);
        let kept: Vec<&str> = self.lines.iter().skip(skip).map(String::as_str).collect();
        kept.join("\n")
    }
}

/// How often something happened that a simulator is for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Coverage(BTreeMap<&'static str, u64>);

impl Coverage {
    /// It happened.
    pub fn saw(&mut self, what: &'static str) {
        *self.0.entry(what).or_default() += 1;
    }

    /// How often.
    pub fn count(&self, what: &str) -> u64 {
        self.0.get(what).copied().unwrap_or(0)
    }

    /// Adds another run's.
    pub fn add(&mut self, other: &Self) {
        for (what, count) in &other.0 {
            *self.0.entry(what).or_default() += count;
        }
    }
}

impl fmt::Display for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|(what, count)| writeln!(f, "{count:>10}  {what}"))
    }
}
