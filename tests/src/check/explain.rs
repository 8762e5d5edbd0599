//! The smallest part of a history that shows a violation, for people.
//!
//! A history is only ever made weaker: what comes after the first answer that nothing explains is left
//! out, gets are left out, and answers of writes are forgotten (they may or may not have happened then).
//! So what is left in the end is a violation on its own.

use std::fmt;

use super::history::Life;
use super::history::{Back, Bytes, Call, Operation, Version};
use super::linear::{Verdict, check_key};

/// A history that no order explains.
#[derive(Clone, Debug)]
pub struct Violation {
    /// The key.
    pub key: Bytes,
    /// What is needed to see it, in the order of calls.
    pub window: Vec<Operation>,
    /// Calls of the whole history of the key.
    pub of: usize,
    verdict: Verdict,
}

impl Violation {
    /// From a key's history and what was said of it.
    pub fn find(key: &Bytes, operations: Vec<Operation>, verdict: Verdict) -> Self {
        let of = operations.len();
        let mut window = match verdict {
            Verdict::Violated { at, .. } => shrink(up_to(&operations, at)),
            _ => operations,
        };
        window.sort_by_key(|o| o.called_ns);
        let verdict = match check_key(&window) {
            Verdict::Linearizable => verdict,
            of_window => of_window,
        };
        Self { key: key.clone(), window, of, verdict }
    }

    /// The checker gave up: the history may be right.
    pub fn is_undecided(&self) -> bool {
        matches!(self.verdict, Verdict::Undecided { .. })
    }
}

/// What was called before an answer came, and only what was answered by then.
fn up_to(operations: &[Operation], at: usize) -> Vec<Operation> {
    let end = operations[at].back.as_ref().map_or(u64::MAX, |b| b.0);
    let called = operations.iter().filter(|o| o.called_ns <= end).cloned();
    let mut all: Vec<Operation> = called.collect();
    for operation in &mut all {
        operation.back.take_if(|b| b.0 > end);
    }
    all.retain(|o| o.back.is_some() || o.call != Call::Get);
    all
}

fn fails(operations: &[Operation]) -> bool {
    matches!(check_key(operations), Verdict::Violated { .. })
}

fn shrink(mut operations: Vec<Operation>) -> Vec<Operation> {
    let mut width = operations.len().next_power_of_two();
    while width > 0 {
        let mut from = 0;
        while from < operations.len() {
            let to = (from + width).min(operations.len());
            match weaker(&operations, from, to) {
                Some(weaker) if fails(&weaker) => {
                    let gone = operations.len() - weaker.len();
                    operations = weaker;
                    from = to - gone;
                }
                _ => from = to,
            }
        }
        width /= 2;
    }
    // Writes that may have happened and that no answer shows are not needed to see it.
    let answered: Vec<Operation> =
        operations.iter().filter(|o| o.back.is_some()).cloned().collect();
    operations.retain(|o| o.back.is_some() || answered.iter().any(|a| shows(a, o)));
    operations
}

/// Without the gets of a range, and with its writes' answers forgotten; `None`: that changes nothing.
fn weaker(operations: &[Operation], from: usize, to: usize) -> Option<Vec<Operation>> {
    if operations[from..to].iter().all(|o| o.back.is_none()) {
        return None;
    }
    let mut all = operations.to_vec();
    for operation in &mut all[from..to] {
        operation.back = None;
    }
    all.retain(|o| o.back.is_some() || o.call != Call::Get);
    Some(all)
}

/// The answer of `a` says something about the write `o`.
fn shows(a: &Operation, o: &Operation) -> bool {
    let part = |value: &Bytes, bytes: &Bytes| {
        !bytes.0.is_empty() && value.0.windows(bytes.0.len()).any(|part| part == bytes.0)
    };
    match (&a.back, &o.call) {
        (Some((_, Back::Value { value, .. })), Call::Append { value: bytes }) => part(value, bytes),
        (
            Some((_, Back::Value { value, .. })),
            Call::Put { value: bytes }
            | Call::PutFor { value: bytes, .. }
            | Call::Swap { value: bytes }
            | Call::PutIfAbsent { value: bytes }
            | Call::PutIfVersion { value: bytes, .. },
        ) => value == bytes,
        _ => false,
    }
}

struct Told<'a>(&'a Option<Version>);

impl fmt::Display for Told<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |version| write!(f, " at {version:?}"))
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Get => write!(f, "get"),
            Self::Put { value } => write!(f, "put {value:?}"),
            Self::Remove => write!(f, "remove"),
            Self::Take => write!(f, "take"),
            Self::Swap { value } => write!(f, "swap for {value:?}"),
            Self::PutFor { value, life } => write!(f, "put {value:?} {life}"),
            Self::Expire { life } => write!(f, "expire {life}"),
            Self::Persist => write!(f, "persist"),
            Self::Left => write!(f, "time left"),
            Self::PutIfAbsent { value } => write!(f, "put {value:?} if absent"),
            Self::PutIfVersion { value, version } => write!(f, "put {value:?} if {version:?}"),
            Self::Increment { by } => write!(f, "increment by {by}"),
            Self::Append { value } => write!(f, "append {value:?}"),
        }
    }
}

impl fmt::Display for Life {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { ms, from_now, early_ns, late_ns } = self;
        let (early, late) = (*early_ns as f64 / 1e9, *late_ns as f64 / 1e9);
        let word = if *from_now { "for" } else { "until" };
        write!(f, "{word} {ms} ms ({early} to {late} s)")
    }
}

impl fmt::Display for Back {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Value { value, version } => write!(f, "{value:?}{}", Told(version)),
            Self::Absent => write!(f, "absent"),
            Self::Done { version } => write!(f, "done{}", Told(version)),
            Self::Refused { current: Some(Version::NONE) } => write!(f, "refused: it is absent"),
            Self::Refused { current } => write!(f, "refused: it is there{}", Told(current)),
            Self::Integer { value, version } => write!(f, "{value}{}", Told(version)),
            Self::Length { len, version } => write!(f, "length {len}{}", Told(version)),
            Self::Failed => write!(f, "failed, nothing changed"),
        }
    }
}

/// Width of the picture of who overlaps whom.
const BAR: usize = 32;

impl Violation {
    /// The order of all moments, so that a long pause takes no more room than a short one.
    fn moments(&self) -> Vec<u64> {
        let backs = self.window.iter().filter_map(|o| o.back.as_ref().map(|b| b.0));
        let mut all: Vec<u64> = self.window.iter().map(|o| o.called_ns).chain(backs).collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    fn bar(moments: &[u64], operation: &Operation) -> String {
        let scale = |at: usize| at * (BAR - 1) / moments.len().max(2).saturating_sub(1);
        let place = |ns: u64| scale(moments.partition_point(|&m| m < ns)).min(BAR - 1);
        let from = place(operation.called_ns);
        let to = operation.back.as_ref().map_or(BAR - 1, |b| place(b.0));
        let mut bar = vec![b' '; BAR];
        bar[from..=to].fill(b'-');
        bar[from] = b'|';
        bar[to] = if operation.back.is_some() { b'|' } else { b'>' };
        String::from_utf8_lossy(&bar).into_owned()
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.verdict {
            Verdict::Undecided { .. } => "too many calls were open at once to decide about",
            _ => "no order of these calls explains all answers:",
        };
        writeln!(f, "key {:?}: {what} ({} of {} calls)", self.key, self.window.len(), self.of)?;
        let moments = self.moments();
        for o in self.window.iter().take(60) {
            let bar = Self::bar(&moments, o);
            let (at, call) = (o.called_ns as f64 / 1e9, o.call.to_string());
            write!(f, "  {at:>14.9} s  client {:<3} {bar}  {call}", o.client)?;
            match &o.back {
                Some((_, back)) => writeln!(f, " -> {back}")?,
                None => writeln!(f, " -> not known")?,
            }
        }
        if let Verdict::Violated { at, before } = &self.verdict {
            let last = &self.window[*at];
            writeln!(
                f,
                "  when client {} got its answer the key can only have been:",
                last.client
            )?;
            for state in before {
                writeln!(f, "    {state}")?;
            }
        }
        Ok(())
    }
}

impl std::error::Error for Violation {}
