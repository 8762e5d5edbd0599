//! A report of damage.

use std::fmt;

use crate::record::Flaw;
use crate::segment::SegmentName;

/// Damaged bytes where a record should be: reported, never served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Corrupt {
    /// Partition id.
    pub partition: u32,
    /// Which segment; `None` when the location names none.
    pub segment: Option<SegmentName>,
    /// Where in it.
    pub offset: u64,
    /// How many bytes could not be read as records; `None` when one record was asked for.
    pub bytes: Option<u64>,
    /// What is wrong.
    pub flaw: Flaw,
}

impl fmt::Display for Corrupt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "partition {}: ", self.partition)?;
        match self.segment {
            Some(name) => write!(f, "segment {name}, ")?,
            None => write!(f, "no such segment, ")?,
        }
        write!(f, "offset {}: {}", self.offset, self.flaw)?;
        if let Some(bytes) = self.bytes {
            write!(f, "; {bytes} bytes are not readable")?;
        }
        Ok(())
    }
}

impl std::error::Error for Corrupt {}
