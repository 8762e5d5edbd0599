//! An epoch begins: a replica compares its log with the primary's by their epoch histories, drops what
//! differs, and only then votes. Once an epoch: a repeated comparison is answered and drops nothing.

use firebrick_log::Version;

use super::backup::Compared;
use super::group::Role;
use super::learner::Finish;
use super::{Actions, Replica};
use crate::op::Now;
use crate::wire::peer::History;

/// The highest sequence number at which two logs have the same epoch: up to there they are equal,
/// because an epoch has one primary and a record is stored only behind the one that its primary had
/// there.
pub(super) fn agreement(
    mine: &[Version],
    my_tail: u64,
    theirs: &[Version],
    their_tail: u64,
) -> u64 {
    let last = |history: &[Version], at: usize, tail: u64| {
        history.get(at + 1).map_or(tail, |next| (next.seq - 1).min(tail))
    };
    let (mut i, mut j) = (mine.len(), theirs.len());
    while i > 0 && j > 0 {
        let (a, b) = (mine[i - 1], theirs[j - 1]);
        if a.epoch != b.epoch {
            (i, j) = if a.epoch > b.epoch { (i - 1, j) } else { (i, j - 1) };
            continue;
        }
        let agreed = last(mine, i - 1, my_tail).min(last(theirs, j - 1, their_tail));
        if agreed >= a.seq.max(b.seq) {
            return agreed;
        }
        (i, j) = (i - 1, j - 1);
    }
    0
}

impl Replica {
    pub(super) fn on_take_over(
        &mut self,
        tail: Version,
        dropped: u64,
        learn: bool,
        history: History<'_>,
    ) {
        match self.group.follow.compared {
            Compared::No => {}
            // It asked to start over: another first record.
            _ if learn && !self.is_whole() && tail.seq > self.log.manifest().below.seq => {
                self.group.follow.copy = None;
                self.group.follow.finish = Finish::Done;
            }
            Compared::Saving { .. } => return,
            Compared::Yes => {
                // The answer was lost, perhaps.
                self.group.follow.answer_due = true;
                return;
            }
        }
        let theirs: Vec<Version> = history.iter().collect();
        let rising = theirs.windows(2).all(|w| w[0].epoch < w[1].epoch && w[0].seq <= w[1].seq);
        if !rising || theirs.first().is_some_and(|v| v.seq == 0) {
            return;
        }
        let mine = &self.log.manifest().history;
        let agreed = agreement(mine, self.log.tail().seq, &theirs, tail.seq);
        match (self.group.role, learn) {
            (Role::Backup, false) => self.compare(agreed, theirs),
            (Role::Learner, true) => self.begin_copy(agreed, tail, dropped, theirs),
            _ => {}
        }
    }

    fn compare(&mut self, agreed: u64, theirs: Vec<Version>) {
        if self.log.commit() > agreed {
            // What is committed is on every member: this log, or the primary's, is damaged.
            self.group.damaged = true;
            return;
        }
        self.drop_above(agreed);
        self.group.follow.agreed = agreed;
        let ticket = self.log.change_manifest(|manifest| manifest.history = theirs);
        self.group.follow.compared = Compared::Saving { ticket };
    }

    /// Drops every record above `agreed`: another primary decided otherwise.
    pub(super) fn drop_above(&mut self, agreed: u64) {
        while self.pending.back().is_some_and(|p| p.seq > agreed) {
            self.drop_newest();
        }
        self.log.truncate(agreed);
    }

    /// Before the vote: what was dropped is gone for good, and the history is saved.
    pub(super) fn finish_comparison(&mut self, now: Now, out: &mut Actions) {
        if let Compared::Saving { ticket } = self.group.follow.compared
            && self.log.manifest_saved() >= ticket
            && !self.log.truncating()
        {
            self.group.follow.compared = Compared::Yes;
            self.group.follow.answer_due = true;
        }
        if std::mem::take(&mut self.group.follow.answer_due) {
            self.send_tail_is(now, out);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::agreement;
    use crate::op::Version;

    fn history(pairs: &[(u32, u64)]) -> Vec<Version> {
        pairs.iter().map(|&(epoch, seq)| Version { epoch, seq }).collect()
    }

    #[test]
    fn logs_agree_up_to_the_last_record_of_a_common_epoch() {
        let a = history(&[(1, 1), (2, 5), (4, 9)]);
        let cases = [
            (&[(1, 1), (2, 5), (4, 9)][..], 12, 10, 10), // equal, one is shorter
            (&[(1, 1), (2, 5), (3, 8)][..], 12, 12, 7),  // another primary from 8 on
            (&[(1, 1), (3, 5)][..], 12, 9, 4),           // and from 5 on
            (&[(1, 1)][..], 12, 3, 3),
            (&[(3, 1)][..], 12, 9, 0),   // nothing in common
            (&[(4, 9)][..], 12, 20, 12), // the older part is forgotten
            (&[][..], 12, 0, 0),
            (&[(1, 1), (2, 5), (4, 9), (5, 12)][..], 12, 15, 11),
        ];
        for (theirs, my_tail, their_tail, agreed) in cases {
            assert_eq!(agreement(&a, my_tail, &history(theirs), their_tail), agreed, "{theirs:?}");
            assert_eq!(agreement(&history(theirs), their_tail, &a, my_tail), agreed, "{theirs:?}");
        }
    }
}
