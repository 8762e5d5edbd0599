//! Known mistakes, made on purpose: a simulator that does not find them is worth nothing.

/// A rule of the protocol that is broken around the replicas. (Rules inside of them:
/// `firebrick_log::canary`.)
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mistake {
    /// None.
    #[default]
    None,
    /// A lease is counted from its answer, not from before its request.
    LeaseFromAnswer,
    /// A lease counts before the maps that came with it.
    LeaseBeforeMap,
    /// The clock is looked at before the values are read, not after.
    LeaseCheckedBefore,
    /// A log with records counts as complete at start, although a copy to it was half done.
    CompleteFromTail,
    /// A member leaves, or a primary is handed over, without its word that it stopped.
    LeaveUnconfirmed,
    /// The keepers answer a brick while its removal is on its way.
    AnswerWhileRemoving,
    /// An answer that may not leave becomes `Unavailable`, although the request was executed.
    SaysNothingHappened,
    /// A new process counts what it found in memory as flushed.
    NotFlushedAgain,
    /// A brick that lost its memory says that it is there.
    ClaimsMemory,
    /// A read that was not answered is asked for again at the same replica.
    AsksOneOnly,
    /// A group that stopped is led when all its members are back, not when one that kept everything is.
    LeadWaitsForAll,
    /// A brick tells the keepers once what they should know, not until they have done something about it.
    ReportsOnce,
    /// Nobody tells the keepers whom it cannot reach, or whose vote is missing.
    SilenceUnreported,
    /// A client's next process goes on with its session, and numbers from 1.
    SessionKept,
}
