//! Messages between replicas: fixed fields, then raw bytes to the end (records, a history).
//!
//! The records of a prepare go straight from the sender's mapped log behind a head of 32 bytes, and
//! straight into the receiver's log: neither side encodes them. Every handler is idempotent, so loss,
//! duplication and reordering of these messages do no harm.

use firebrick_log::record::{Flaw, Record, Unchecked};

use super::{Kind, PREFIX_BYTES, WireError, prefix};
use crate::op::Version;

const BELOW: u16 = 1 << 0;
const GAP: u16 = 1 << 1;
const WHOLE: u16 = 1 << 2;
const LEARN: u16 = 1 << 0;
const AGAIN: u16 = 1 << 0;
const VOTE_FLAGS: u16 = BELOW | GAP | WHOLE;

/// Bytes of a prepare before its records, prefix included.
pub const PREPARE_HEAD_BYTES: usize = PREFIX_BYTES + 24;
/// The same of a copy's piece.
pub const COPY_HEAD_BYTES: usize = PREFIX_BYTES + 20;

firebrick_log::codes! {
    /// Why a replica does not do what it was asked.
    pub enum Why {
        /// It has no room left for a prepared record.
        NoSpace = 1,
        /// Its disk failed, or its log is damaged.
        Sick = 2,
        /// As a source: its commit watermark is behind the first record that the learner is shipped.
        Behind = 3,
        /// As a source: it does not know this copy (any more); the learner lists again.
        NoCopy = 4,
        /// As a learner: it cannot go on from what it has; name another first record.
        Again = 5,
    }
}

/// A replica's vote, and what its primary must know about it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Vote {
    /// Everything up to here is stored, as durably as the table asks.
    pub seq: u64,
    /// Everything up to here is in its log.
    pub held: u64,
    /// Everything up to here it knows to be committed.
    pub commit: u64,
    /// Bytes it can still take.
    pub room: u64,
    /// Writes would go below its reserve.
    pub below: bool,
    /// It was sent a record beyond the one it needs next.
    pub gap: bool,
    /// A learner's: its copy is whole.
    pub whole: bool,
}

/// (epoch, first sequence number) pairs, oldest first, as the manifest keeps them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct History<'a>(&'a [u8]);

impl<'a> History<'a> {
    /// Of what [`pack_history`] wrote.
    pub fn new(packed: &'a [u8]) -> Self {
        Self(packed)
    }

    /// The pairs.
    pub fn iter(&self) -> impl Iterator<Item = Version> + use<'a> {
        self.0.as_chunks::<12>().0.iter().map(|pair| {
            let [e0, e1, e2, e3, seq @ ..] = *pair;
            Version { epoch: u32::from_le_bytes([e0, e1, e2, e3]), seq: u64::from_le_bytes(seq) }
        })
    }
}

/// Appends a history's bytes.
pub fn pack_history(history: &[Version], out: &mut Vec<u8>) {
    for version in history {
        out.extend_from_slice(&version.epoch.to_le_bytes());
        out.extend_from_slice(&version.seq.to_le_bytes());
    }
}

/// A message between the replicas of a partition. Each names the sender's epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer<'a> {
    /// Records to store.
    Prepare {
        /// Epoch.
        epoch: u32,
        /// The commit watermark.
        commit: u64,
        /// Version of the record before the first.
        before: Version,
        /// One or more consecutive records, each padded to 8 bytes; see [`records`].
        records: &'a [u8],
    },
    /// Everything up to here is committed. Answered with a vote.
    Commit {
        /// Epoch.
        epoch: u32,
        /// The commit watermark.
        commit: u64,
    },
    /// A vote.
    Voted {
        /// Epoch.
        epoch: u32,
        /// It.
        vote: Vote,
    },
    /// What was asked is not done.
    Refused {
        /// Epoch.
        epoch: u32,
        /// The reason.
        why: Why,
    },
    /// Is this committed? Answered with `Commit`.
    AskCommit {
        /// Epoch.
        epoch: u32,
    },
    /// An epoch begins: compare.
    TakeOver {
        /// Epoch.
        epoch: u32,
        /// The newest record of the log to be compared with; for a learner, the record before the
        /// first that it will be shipped.
        tail: Version,
        /// The commit watermark.
        commit: u64,
        /// Highest sequence number of a tombstone the primary ever dropped.
        dropped: u64,
        /// To a learner.
        learn: bool,
        /// The primary's epoch history.
        history: History<'a>,
    },
    /// The answer, and the first vote.
    TailIs {
        /// Epoch.
        epoch: u32,
        /// Up to here the logs agreed; everything above was dropped.
        agreed: u64,
        /// The vote.
        vote: Vote,
    },
    /// Learner to source: list what there is.
    CopyStart {
        /// Epoch.
        epoch: u32,
        /// The learner's number for this copy.
        copy: u32,
        /// It has everything up to here.
        have: u64,
        /// The first record it is shipped.
        s0: u64,
    },
    /// What there is.
    CopyListing {
        /// Epoch.
        epoch: u32,
        /// The copy.
        copy: u32,
        /// Highest sequence number of a tombstone the source ever dropped.
        dropped: u64,
        /// Bytes to be gone through.
        bytes: u64,
    },
    /// Learner to source: what came, and how far the source may send ahead.
    CopyRead {
        /// Epoch.
        epoch: u32,
        /// The copy.
        copy: u32,
        /// Every piece before this one came.
        from: u32,
        /// Pieces before this one may be sent.
        upto: u32,
        /// What was sent from `from` on is lost: send it again.
        again: bool,
    },
    /// A piece: live, committed records of one segment.
    CopyData {
        /// Epoch.
        epoch: u32,
        /// The copy.
        copy: u32,
        /// Its number, from 0.
        piece: u32,
        /// Bytes that are not gone through yet; 0: this is the last piece.
        left: u64,
        /// Records, each padded to 8 bytes.
        records: &'a [u8],
    },
    /// Learner to source: the last piece came.
    CopyDone {
        /// Epoch.
        epoch: u32,
        /// The copy.
        copy: u32,
    },
}

impl Peer<'_> {
    /// The sender's epoch.
    pub fn epoch(&self) -> u32 {
        match *self {
            Self::Prepare { epoch, .. }
            | Self::Commit { epoch, .. }
            | Self::Voted { epoch, .. }
            | Self::Refused { epoch, .. }
            | Self::AskCommit { epoch }
            | Self::TakeOver { epoch, .. }
            | Self::TailIs { epoch, .. }
            | Self::CopyStart { epoch, .. }
            | Self::CopyListing { epoch, .. }
            | Self::CopyRead { epoch, .. }
            | Self::CopyData { epoch, .. }
            | Self::CopyDone { epoch, .. } => epoch,
        }
    }

    fn kind(&self) -> Kind {
        match self {
            Self::Prepare { .. } => Kind::Prepare,
            Self::Commit { .. } => Kind::Commit,
            Self::Voted { .. } => Kind::Voted,
            Self::Refused { .. } => Kind::Refused,
            Self::AskCommit { .. } => Kind::AskCommit,
            Self::TakeOver { .. } => Kind::TakeOver,
            Self::TailIs { .. } => Kind::TailIs,
            Self::CopyStart { .. } => Kind::CopyStart,
            Self::CopyListing { .. } => Kind::CopyListing,
            Self::CopyRead { .. } => Kind::CopyRead,
            Self::CopyData { .. } => Kind::CopyData,
            Self::CopyDone { .. } => Kind::CopyDone,
        }
    }
}

fn vote_flags(vote: &Vote) -> u16 {
    let bit = |on, bit| if on { bit } else { 0 };
    bit(vote.below, BELOW) | bit(vote.gap, GAP) | bit(vote.whole, WHOLE)
}

/// Appends a message of a partition.
pub fn encode(out: &mut Vec<u8>, partition: u32, peer: &Peer<'_>) {
    let (code, flags) = match peer {
        Peer::Voted { vote, .. } | Peer::TailIs { vote, .. } => (0, vote_flags(vote)),
        Peer::Refused { why, .. } => (*why as u8, 0),
        Peer::TakeOver { learn: true, .. } => (0, LEARN),
        Peer::CopyRead { again: true, .. } => (0, AGAIN),
        _ => (0, 0),
    };
    prefix(out, peer.kind(), code, flags, partition);
    out.extend_from_slice(&peer.epoch().to_le_bytes());
    let mut words = |all: &[u64]| all.iter().for_each(|w| out.extend_from_slice(&w.to_le_bytes()));
    match *peer {
        Peer::Prepare { commit, before, records, .. } => {
            words(&[before.seq, commit]);
            out.extend_from_slice(&before.epoch.to_le_bytes());
            out.extend_from_slice(records);
        }
        Peer::Commit { commit, .. } => words(&[commit]),
        Peer::Voted { vote, .. } => words(&[vote.seq, vote.held, vote.commit, vote.room]),
        Peer::Refused { .. } | Peer::AskCommit { .. } => {}
        Peer::TakeOver { tail, commit, dropped, history, .. } => {
            words(&[tail.seq, commit, dropped]);
            out.extend_from_slice(&tail.epoch.to_le_bytes());
            out.extend_from_slice(history.0);
        }
        Peer::TailIs { agreed, vote, .. } => {
            words(&[agreed, vote.seq, vote.held, vote.commit, vote.room]);
        }
        Peer::CopyStart { copy, have, s0, .. } => {
            words(&[have, s0]);
            out.extend_from_slice(&copy.to_le_bytes());
        }
        Peer::CopyListing { copy, dropped, bytes, .. } => {
            words(&[dropped, bytes]);
            out.extend_from_slice(&copy.to_le_bytes());
        }
        Peer::CopyRead { copy, from, upto, .. } => {
            for word in [copy, from, upto] {
                out.extend_from_slice(&word.to_le_bytes());
            }
        }
        Peer::CopyData { copy, piece, left, records, .. } => {
            words(&[left]);
            out.extend_from_slice(&copy.to_le_bytes());
            out.extend_from_slice(&piece.to_le_bytes());
            out.extend_from_slice(records);
        }
        Peer::CopyDone { copy, .. } => out.extend_from_slice(&copy.to_le_bytes()),
    }
}

struct Fields<'a> {
    kind: Kind,
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    fn array<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let Some((head, rest)) = self.rest.split_first_chunk() else {
            return Err(WireError::Archive(self.kind));
        };
        self.rest = rest;
        Ok(*head)
    }

    fn u32(&mut self) -> Result<u32, WireError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    fn u64(&mut self) -> Result<u64, WireError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    fn vote(&mut self, flags: u16) -> Result<Vote, WireError> {
        let (seq, held) = (self.u64()?, self.u64()?);
        let (commit, room) = (self.u64()?, self.u64()?);
        let has = |bit| flags & bit != 0;
        Ok(Vote { seq, held, commit, room, below: has(BELOW), gap: has(GAP), whole: has(WHOLE) })
    }

    fn all(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.rest)
    }
}

/// Checks a message's body.
pub(super) fn decode(kind: Kind, code: u8, flags: u16, body: &[u8]) -> Result<Peer<'_>, WireError> {
    let allowed = match kind {
        Kind::Voted | Kind::TailIs => VOTE_FLAGS,
        Kind::TakeOver => LEARN,
        Kind::CopyRead => AGAIN,
        _ => 0,
    };
    if flags & !allowed != 0 {
        return Err(WireError::Flags(kind, flags));
    }
    if code != 0 && kind != Kind::Refused {
        return Err(WireError::Code(kind, code));
    }
    let mut r = Fields { kind, rest: body };
    let epoch = r.u32()?;
    let peer = match kind {
        Kind::Prepare => {
            let (seq, commit) = (r.u64()?, r.u64()?);
            let before = Version { epoch: r.u32()?, seq };
            Peer::Prepare { epoch, commit, before, records: r.all() }
        }
        Kind::Commit => Peer::Commit { epoch, commit: r.u64()? },
        Kind::Voted => Peer::Voted { epoch, vote: r.vote(flags)? },
        Kind::Refused => {
            Peer::Refused { epoch, why: Why::parse(code).ok_or(WireError::Code(kind, code))? }
        }
        Kind::AskCommit => Peer::AskCommit { epoch },
        Kind::TakeOver => {
            let (seq, commit, dropped) = (r.u64()?, r.u64()?, r.u64()?);
            let tail = Version { epoch: r.u32()?, seq };
            let history = r.all();
            if !history.len().is_multiple_of(12) {
                return Err(WireError::Archive(kind));
            }
            let (learn, history) = (flags & LEARN != 0, History(history));
            Peer::TakeOver { epoch, tail, commit, dropped, learn, history }
        }
        Kind::TailIs => Peer::TailIs { epoch, agreed: r.u64()?, vote: r.vote(flags)? },
        other => decode_copy(other, flags, epoch, &mut r)?,
    };
    if r.rest.is_empty() { Ok(peer) } else { Err(WireError::Archive(kind)) }
}

fn decode_copy<'a>(
    kind: Kind,
    flags: u16,
    epoch: u32,
    r: &mut Fields<'a>,
) -> Result<Peer<'a>, WireError> {
    Ok(match kind {
        Kind::CopyStart => {
            let (have, s0) = (r.u64()?, r.u64()?);
            Peer::CopyStart { epoch, copy: r.u32()?, have, s0 }
        }
        Kind::CopyListing => {
            let (dropped, bytes) = (r.u64()?, r.u64()?);
            Peer::CopyListing { epoch, copy: r.u32()?, dropped, bytes }
        }
        Kind::CopyRead => {
            let (copy, from, upto) = (r.u32()?, r.u32()?, r.u32()?);
            Peer::CopyRead { epoch, copy, from, upto, again: flags & AGAIN != 0 }
        }
        Kind::CopyData => {
            let (left, copy, piece) = (r.u64()?, r.u32()?, r.u32()?);
            Peer::CopyData { epoch, copy, piece, left, records: r.all() }
        }
        Kind::CopyDone => Peer::CopyDone { epoch, copy: r.u32()? },
        other => return Err(WireError::NotSpoken(other)),
    })
}

/// The records of a prepare or of a copy, each wholly checked; ends after the first that is not one.
pub fn records(bytes: &[u8]) -> impl Iterator<Item = Result<Record<'_>, Flaw>> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let checked = Unchecked::new(rest).check();
        rest = match &checked {
            Ok(record) => rest.get(record.stride()..).unwrap_or(&[]),
            Err(_) => &[],
        };
        Some(checked)
    })
}
