//! What an operator wishes of single partitions, and what they should be told about.
//!
//! A wish is part of the state, so it outlives whoever leads the keepers; the planner works it off with the entries
//! that it uses for repairs. It is met when the group is as wished, and then the partition stays where it was put:
//! nothing that only makes bricks more even touches it, until a brick joins, is emptied or is removed.

use serde::{Deserialize, Serialize};

use super::apply::Outcome;
use super::entry::Applied;
use super::state::{Group, Keepers};
use crate::maps::Replicas;

/// Notes that are kept.
const NOTES_MAX: usize = 32;

/// What is wished of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Wish {
    /// The replica of one brick goes to another.
    Move {
        /// Who has it.
        from: u32,
        /// Who should.
        to: u32,
    },
    /// A backup becomes the primary.
    Lead {
        /// Who should lead.
        to: u32,
    },
}

impl Wish {
    /// The group is as wished.
    pub fn is_met(self, replicas: &Replicas) -> bool {
        match self {
            Self::Move { from, to } => {
                replicas.position(to).is_some() && replicas.position(from).is_none()
            }
            Self::Lead { to } => replicas.position(to) == Some(0),
        }
    }

    /// The copy that it needs is a member: now the other one is one too many.
    pub(super) fn is_copied(self, replicas: &Replicas) -> bool {
        matches!(self, Self::Move { to, .. } if replicas.position(to).is_some())
    }

    /// The brick that is to get something.
    pub fn to(self) -> u32 {
        match self {
            Self::Move { to, .. } | Self::Lead { to } => to,
        }
    }

    fn names(self, brick: u32) -> bool {
        self.to() == brick || matches!(self, Self::Move { from, .. } if from == brick)
    }
}

/// What a note is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NoteKind {
    /// Acknowledged writes may be lost.
    Loss,
    /// A wish was given up.
    Withdrawn,
}

/// Something that an operator should know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    /// Version of the maps at which it happened.
    pub version: u64,
    /// What it is about.
    pub kind: NoteKind,
    /// The partition.
    pub partition: u32,
    /// A sentence.
    pub text: String,
}

impl Keepers {
    /// The newest notes, oldest first.
    pub fn notes(&self) -> &[Note] {
        &self.notes
    }

    /// A brick's name, for sentences.
    pub(super) fn name_of(&self, brick: u32) -> String {
        self.bricks.get(&brick).map_or_else(|| format!("number {brick}"), |b| b.name.clone())
    }

    pub(super) fn note(&mut self, kind: NoteKind, partition: u32, text: String) {
        if self.notes.len() >= NOTES_MAX {
            self.notes.remove(0);
        }
        self.notes.push(Note { version: self.version, kind, partition, text });
    }

    /// Takes a wish, or (`None`) takes one back.
    pub(super) fn wish(&mut self, partition: u32, wish: Option<Wish>) -> Outcome {
        let group = self.groups.get(&partition);
        let group = group.ok_or_else(|| format!("there is no partition {partition}"))?;
        let Some(wish) = wish else {
            let Some(old) = group.wish else {
                return Err(format!("nothing is wished of partition {partition}"));
            };
            return self.end_wish(partition, old, "it was taken back");
        };
        if group.wish == Some(wish) {
            return Ok(Applied::Done);
        }
        if let Some(other) = group.wish {
            return Err(format!(
                "partition {partition} already {}: wait for it, or take it back first",
                self.tell(other)
            ));
        }
        self.check_wish(partition, group, wish)?;
        self.bump();
        if let Some(group) = self.groups.get_mut(&partition) {
            group.wish = Some(wish);
        }
        Ok(Applied::Done)
    }

    fn check_wish(&self, partition: u32, group: &Group, wish: Wish) -> Result<(), String> {
        let to = wish.to();
        let brick = self.bricks.get(&to).ok_or_else(|| format!("there is no brick {to}"))?;
        if brick.draining {
            return Err(format!("brick \"{}\" is being emptied: it gets nothing", brick.name));
        }
        let holders: Vec<String> =
            group.replicas.members.iter().map(|m| self.name_of(m.brick)).collect();
        let holders = holders.join(", ");
        let place = group.replicas.position(to);
        match wish {
            Wish::Move { from, .. } if group.replicas.position(from).is_none() => Err(format!(
                "brick \"{}\" has no replica of partition {partition}: {holders} have",
                self.name_of(from)
            )),
            Wish::Move { .. } if place.is_some() => Err(format!(
                "brick \"{}\" has a replica of partition {partition} already ({holders}): name a brick \
                 without one, or make it the primary instead",
                brick.name
            )),
            Wish::Lead { .. } if place.is_none() => Err(format!(
                "brick \"{}\" has no replica of partition {partition}, so it cannot be its primary: \
                 {holders} have",
                brick.name
            )),
            Wish::Lead { .. } if place == Some(0) => Err(format!(
                "brick \"{}\" is the primary of partition {partition} already",
                brick.name
            )),
            _ => Ok(()),
        }
    }

    /// What a wish says, behind "partition 7".
    pub fn tell(&self, wish: Wish) -> String {
        match wish {
            Wish::Move { from, to } => {
                format!("moves from brick \"{}\" to \"{}\"", self.name_of(from), self.name_of(to))
            }
            Wish::Lead { to } => format!("is handed over to brick \"{}\"", self.name_of(to)),
        }
    }

    /// Gives a wish up, with the copy that was made for it.
    pub(super) fn end_wish(&mut self, partition: u32, wish: Wish, why: &str) -> Outcome {
        let group = self.groups.get(&partition).filter(|group| group.wish == Some(wish));
        let Some(group) = group else {
            return Err(format!("that is not wished of partition {partition} any more"));
        };
        let copying = group.replicas.learners.iter().any(|m| m.brick == wish.to())
            && group.replicas.members.len() >= self.wanted(group);
        let text = format!("partition {partition} no longer {}: {why}", self.tell(wish));
        self.bump();
        if let Some(group) = self.groups.get_mut(&partition) {
            group.wish = None;
        }
        if copying {
            self.turn(partition, |g| g.learners.clear());
        }
        self.note(NoteKind::Withdrawn, partition, text);
        Ok(Applied::Done)
    }

    /// There is one brick more or less to spread over: what operators placed may move again.
    pub(super) fn forget_hands(&mut self) {
        self.groups.values_mut().for_each(|group| group.by_hand = false);
    }

    /// The brick gets nothing any more (`gone`: nor has it anything), so what was wished of it cannot be.
    pub(super) fn end_wishes(&mut self, brick: u32, gone: bool) {
        let ends = |wish: Wish| if gone { wish.names(brick) } else { wish.to() == brick };
        let ended: Vec<(u32, Wish)> = self
            .groups
            .iter()
            .filter_map(|(partition, group)| Some((*partition, group.wish?)))
            .filter(|(_, wish)| ends(*wish))
            .collect();
        let why = if gone { "was removed" } else { "is being emptied" };
        let why = format!("brick \"{}\" {why}", self.name_of(brick));
        for (partition, wish) in ended {
            // It is there: it was just found.
            let _ = self.end_wish(partition, wish, &why);
        }
    }
}

impl Group {
    /// The wish is met, or still stands.
    pub(super) fn look_at_wish(&mut self) {
        if self.wish.is_some_and(|wish| wish.is_met(&self.replicas)) {
            self.wish = None;
            self.by_hand = true;
        }
    }
}
