//! Known mistakes of the protocol, one of which a test may make on purpose: a simulator that does not
//! find each of them is worth little. Without the cargo feature `canary`, which only those tests ask
//! for, none can be made, and nothing of this is in the program.

/// A rule that is broken on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Canary {
    /// Votes of earlier epochs count.
    VotesKept,
    /// A backup answers a read although the key has a prepared record.
    BackupReadsPending,
    /// A primary answers before its take-over record is committed.
    ServeBeforeTakeOver,
    /// A learner is reported although no commit waits for its vote.
    PromoteBeforeRequire,
    /// Logs are not compared: a primary ships to its backups from its commit watermark on, and they store what it ships
    /// behind whatever is there, and vote for it. (Three guards are off: whom a primary ships to, whether a backup
    /// has compared, and behind what it stores.)
    NoEpochMatch,
    /// The primary of a `sync` table counts its own vote before its flush.
    VoteBeforeFlush,
    /// Truncation leaves the old bytes where they are, and a scan does not look at epochs. (Each alone does no
    /// harm: two records of one seq and one epoch are the same record.)
    OldBytes,
    /// A tombstone is dropped although an older record of its key may be somewhere in the log.
    TombstonesByTail,
    /// A primary commits when it has a record itself.
    CommitAlone,
    /// A refusal does not wait for the record on which it rests.
    RefuseAtOnce,
    /// A request that was answered before is executed again.
    ForgetAnswers,
    /// Every commit waits for a learner from the first, not from when it holds everything.
    LearnersCount,
    /// A remove is refused where a put is.
    RemovesNeedRoom,
}

#[cfg(feature = "canary")]
thread_local! {
    static ON: std::cell::Cell<Option<Canary>> = const { std::cell::Cell::new(None) };
}

/// Breaks a rule from now on, or none, in whatever runs on this thread.
#[cfg(feature = "canary")]
pub fn set(canary: Option<Canary>) {
    ON.set(canary);
}

/// This rule is broken.
#[cfg(feature = "canary")]
#[inline]
pub fn is_on(canary: Canary) -> bool {
    ON.get() == Some(canary)
}

/// This rule is broken: never.
#[cfg(not(feature = "canary"))]
#[inline]
pub const fn is_on(_canary: Canary) -> bool {
    false
}
