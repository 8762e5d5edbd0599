//! Reads.

use firebrick_log::record::Body;
use firebrick_log::{AppendError, Loc};

use super::commit::{Draft, Effect, Reply};
use super::execute::{Reads, Step};
use super::lookup::{Newest, Place};
use super::{Actions, Replica};
use crate::op::{Answer, Failure, Now, Op, Request};

/// Keys that one SCAN step returns at most, and buckets it looks at for each.
const SCAN_KEYS_MAX: u32 = 512;
const SCAN_BUCKETS_EACH: usize = 4;
/// Buckets that RANDOMKEY looks at in a mostly emptied index before it says that there is no key.
const RANDOM_BUCKETS_MAX: usize = 2048;

impl Replica {
    pub(super) fn read(
        &mut self,
        now: Now,
        token: u64,
        hash: u64,
        request: &Request<'_>,
        reads: Reads,
        out: &mut Actions,
    ) -> Step {
        match request.op {
            Op::Scan { cursor, count } => self.scan(now, cursor, count),
            Op::Count => Step::Answer(Answer::Count { count: self.index.len() as u64 }),
            Op::RandomKey { cursor } => self.random_key(now, cursor),
            _ => self.read_key(now, token, hash, request, reads, out),
        }
    }

    fn read_key(
        &mut self,
        now: Now,
        token: u64,
        hash: u64,
        request: &Request<'_>,
        reads: Reads,
        out: &mut Actions,
    ) -> Step {
        let key = request.key;
        let Newest { mut place, mut rests_on } = match reads {
            Reads::Own => self.newest(hash, key, out),
            Reads::Committed => Newest { place: self.committed(hash, key, out), rests_on: 0 },
        };
        if let (Reads::Committed, Place::At(loc)) = (reads, place)
            && matches!(self.is_expired(now, loc), Ok(true))
        {
            // A record that is prepared may have it live on: this was decided while it still lived.
            Newest { place, rests_on } = self.newest(hash, key, out);
        }
        let step = place.read(|loc| match self.is_expired(now, loc) {
            Ok(true) => match self.expire(now, hash, key, loc) {
                Ok(seq) => {
                    rests_on = seq;
                    Step::Answer(Answer::Absent)
                }
                Err(error) => error.into(),
            },
            Ok(false) if matches!(request.op, Op::Get) => Step::Value(loc),
            Ok(false) => Step::Seen(loc),
            Err(corrupt) => {
                self.report(corrupt, out);
                Step::failed(Failure::Corrupt)
            }
        });
        self.resting(token, rests_on, step, out)
    }

    /// The value's time is over.
    pub(super) fn is_expired(&self, now: Now, loc: Loc) -> Result<bool, firebrick_log::Corrupt> {
        if !self.may_expire {
            return Ok(false);
        }
        let expires_ms = self.log.record(loc)?.fields().expires_ms;
        Ok(expires_ms != 0 && expires_ms <= now.unix_ms)
    }

    /// Removes a key whose newest value's time is over, by a record: from then on no clock can bring it back. The
    /// sequence number that "absent" rests on. Without room for the record nobody is told "absent": another brick's
    /// clock may say something else.
    pub(super) fn expire(
        &mut self,
        now: Now,
        hash: u64,
        key: &[u8],
        loc: Loc,
    ) -> Result<u64, AppendError> {
        let draft = Draft {
            hash,
            token: None,
            body: Body::Remove { key, id: None },
            effect: Effect::Remove,
            reply: Reply::Absent,
            numbered: None,
            old: Place::At(loc),
        };
        self.prepare(now, draft, None)?;
        self.expired_total += 1;
        Ok(self.log.tail().seq)
    }

    fn scan(&mut self, now: Now, cursor: u64, count: u32) -> Step {
        let count = count.clamp(1, SCAN_KEYS_MAX) as usize;
        let Self { index, log, scratch, may_expire, prefix, .. } = self;
        scratch.clear();
        let walked = index.walk(*prefix, cursor, count, count * SCAN_BUCKETS_EACH + 64, |bits| {
            let loc = Loc::from_bits(bits);
            let Ok(record) = log.record(loc) else { return };
            let fields = record.fields();
            if *may_expire && fields.expires_ms != 0 && fields.expires_ms <= now.unix_ms {
                return;
            }
            scratch.extend_from_slice(&(fields.key.len() as u32).to_le_bytes());
            scratch.extend_from_slice(fields.key);
        });
        Step::Packed { cursor: walked.cursor }
    }

    /// A key near a random place of the order; keys after a gap are likelier, as in Redis.
    fn random_key(&mut self, now: Now, random: u64) -> Step {
        let mut cursor = self.prefix | random >> self.leaf.depth;
        let mut left = RANDOM_BUCKETS_MAX;
        while left > 0 && !self.index.is_empty() {
            let buckets = 64;
            left -= buckets;
            let (mut chosen, mut met) = (None, 0);
            let walked = self.index.walk(self.prefix, cursor, 1, buckets, |bits| {
                let loc = Loc::from_bits(bits);
                if matches!(self.is_expired(now, loc), Ok(false)) {
                    met += 1;
                    if random.is_multiple_of(met) {
                        chosen = Some(loc);
                    }
                }
            });
            if let Some(loc) = chosen {
                return Step::Key(loc);
            }
            cursor = walked.cursor;
        }
        Step::Answer(Answer::Absent)
    }
}
