//! What a history of calls and answers must satisfy, whoever recorded it: the simulator or clients of
//! real processes. Shares no code with what it checks.
//!
//! Linearizability is local: a history is linearizable when the history of each key is, so each key is
//! checked alone (`linear.rs`).

mod classes;
mod explain;
mod frontier;
pub mod history;
mod linear;
mod need;
mod state;

pub use explain::Violation;
pub use history::{Back, Bytes, Call, History, Life, Line, Operation, Version};
pub use linear::{Verdict, check_key};

/// Checks every key; the first violation, in the order of keys. A key with too many open calls to decide about is one.
pub fn check(history: &History) -> Result<Checked, Violation> {
    look(history, false)
}

/// The same, but what cannot be decided is counted: random runs may leave any number of calls open.
pub fn check_what_can_be(history: &History) -> Result<Checked, Violation> {
    look(history, true)
}

fn look(history: &History, counts_undecided: bool) -> Result<Checked, Violation> {
    let mut checked = Checked::default();
    for (key, operations) in history.by_key() {
        checked.keys += 1;
        checked.operations += operations.len();
        checked.unknown += operations.iter().filter(|o| o.back.is_none()).count();
        match check_key(&operations) {
            Verdict::Linearizable => {}
            Verdict::Undecided { .. } if counts_undecided => checked.undecided += 1,
            verdict => return Err(Violation::find(key, operations, verdict)),
        }
    }
    Ok(checked)
}

/// How much was checked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    /// Keys.
    pub keys: usize,
    /// Calls.
    pub operations: usize,
    /// Calls whose outcome nobody knows.
    pub unknown: usize,
    /// Keys of which nothing is known because too many calls were open at once.
    pub undecided: usize,
}
