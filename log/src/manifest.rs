//! The manifest: the one file of a replica that is replaced, atomically (docs/formats.md has the
//! byte diagram).

use crate::limits::{ANCESTORS_MAX, HISTORY_MAX, SEGMENTS_MAX};
use crate::record::Version;
use crate::segment::{SegmentKind, SegmentName};

/// First eight bytes of a manifest.
pub const MANIFEST_MAGIC: [u8; 8] = *b"FBMANIFE";
/// The version of the manifest format.
pub const MANIFEST_FORMAT: u32 = 1;
/// File name, in both directories.
pub const MANIFEST_FILE: &str = "manifest";
const FIXED: usize = 152;
/// A manifest is smaller than this, whatever it lists.
pub const MANIFEST_BYTES_MAX: usize =
    FIXED + 12 * HISTORY_MAX + 4 * ANCESTORS_MAX + 24 * SEGMENTS_MAX;

/// The run of a brick that a memory belongs to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Incarnation {
    /// The kernel's boot id: memory does not outlive it.
    pub boot_id: [u8; 16],
    /// Random, new at each start.
    pub nonce: u64,
    /// The nonce before, while memory may still carry it; 0 is none.
    pub nonce_before: u64,
    /// Random, made once per brick: what ties `memory` tables to their brick.
    pub brick: u64,
}

/// A segment that counts although it is not in the tail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its name (of a tail segment too, once `lowest` has passed it).
    pub name: SegmentName,
    /// Its records were durable up to this offset when it was listed.
    pub end: u64,
}

/// What a replica knows about itself besides its records.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Manifest {
    /// Table id.
    pub table: u32,
    /// Partition id.
    pub partition: u32,
    /// Whose memory this is.
    pub incarnation: Incarnation,
    /// No copy is half done.
    pub complete: bool,
    /// Nothing is known to be lost.
    pub intact: bool,
    /// Highest sequence number of a tombstone ever dropped.
    pub dropped: u64,
    /// (epoch, first sequence number), oldest first.
    pub history: Vec<Version>,
    /// Partitions whose records this one may hold (parents of splits and merges).
    pub ancestors: Vec<u32>,
    /// First tail segment of the chain.
    pub lowest: u64,
    /// Version of the last record below `lowest`.
    pub below: Version,
    /// No tail segment at or above this number was ever made when this was written.
    pub next_tail: u64,
    /// Likewise for settled segments.
    pub next_settled: u64,
    /// Everything up to here was durable when this was written.
    pub flushed: Version,
    /// Segments outside the tail.
    pub settled: Vec<Listed>,
}

/// Why bytes are not a manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ManifestFlaw {
    /// Too short.
    Short,
    /// Another magic number.
    Foreign,
    /// A format that this program does not know.
    Format(u32),
    /// The checksum differs.
    Crc,
    /// A good checksum over fields that make no sense.
    Fields,
}

impl Manifest {
    /// A new, empty replica's.
    pub fn new(table: u32, partition: u32, incarnation: Incarnation) -> Self {
        Self {
            table,
            partition,
            incarnation,
            complete: true,
            intact: true,
            lowest: 1,
            next_tail: 1,
            next_settled: 1,
            ..Self::default()
        }
    }

    /// The file's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut b = Vec::with_capacity(FIXED + 12 * self.history.len() + 24 * self.settled.len());
        b.extend_from_slice(&MANIFEST_MAGIC);
        let put32 = |b: &mut Vec<u8>, v: u32| b.extend_from_slice(&v.to_le_bytes());
        put32(&mut b, MANIFEST_FORMAT);
        put32(&mut b, 0);
        put32(&mut b, 0);
        put32(&mut b, self.table);
        put32(&mut b, self.partition);
        put32(&mut b, u32::from(self.complete) | u32::from(self.intact) << 1);
        b.extend_from_slice(&self.incarnation.boot_id);
        let put64 = |b: &mut Vec<u8>, v: u64| b.extend_from_slice(&v.to_le_bytes());
        for v in [
            self.incarnation.nonce,
            self.incarnation.nonce_before,
            self.incarnation.brick,
            self.dropped,
            self.lowest,
            u64::from(self.below.epoch),
            self.below.seq,
            self.next_tail,
            self.next_settled,
            u64::from(self.flushed.epoch),
            self.flushed.seq,
        ] {
            put64(&mut b, v);
        }
        put32(&mut b, self.history.len() as u32);
        put32(&mut b, self.ancestors.len() as u32);
        put32(&mut b, self.settled.len() as u32);
        put32(&mut b, 0);
        debug_assert_eq!(b.len(), FIXED);
        for v in &self.history {
            put32(&mut b, v.epoch);
            put64(&mut b, v.seq);
        }
        for &v in &self.ancestors {
            put32(&mut b, v);
        }
        for l in &self.settled {
            put64(&mut b, l.name.kind as u64);
            put64(&mut b, l.name.n);
            put64(&mut b, l.end);
        }
        let len = b.len() as u32;
        b[12..16].copy_from_slice(&len.to_le_bytes());
        let crc = crc32fast::hash(&b[20..]);
        b[16..20].copy_from_slice(&crc.to_le_bytes());
        b
    }

    /// Reads a file's bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, ManifestFlaw> {
        let fixed: &[u8; FIXED] = bytes.first_chunk().ok_or(ManifestFlaw::Short)?;
        if fixed[..8] != MANIFEST_MAGIC {
            return Err(ManifestFlaw::Foreign);
        }
        let mut r = Reader(&bytes[8..]);
        let format = r.u32()?;
        if format != MANIFEST_FORMAT {
            return Err(ManifestFlaw::Format(format));
        }
        if r.u32()? as usize != bytes.len() {
            return Err(ManifestFlaw::Short);
        }
        if r.u32()? != crc32fast::hash(&bytes[20..]) {
            return Err(ManifestFlaw::Crc);
        }
        let (table, partition, flags) = (r.u32()?, r.u32()?, r.u32()?);
        let boot_id = r.array()?;
        let incarnation =
            Incarnation { boot_id, nonce: r.u64()?, nonce_before: r.u64()?, brick: r.u64()? };
        let (dropped, lowest) = (r.u64()?, r.u64()?);
        let below = Version { epoch: r.u64()? as u32, seq: r.u64()? };
        let (next_tail, next_settled) = (r.u64()?, r.u64()?);
        let flushed = Version { epoch: r.u64()? as u32, seq: r.u64()? };
        let (history_n, ancestors_n, settled_n, _) = (r.u32()?, r.u32()?, r.u32()?, r.u32()?);
        let (history_n, ancestors_n) = (history_n as usize, ancestors_n as usize);
        let settled_n = settled_n as usize;
        if r.0.len() != 12 * history_n + 4 * ancestors_n + 24 * settled_n {
            return Err(ManifestFlaw::Fields);
        }
        let history = (0..history_n)
            .map(|_| Ok(Version { epoch: r.u32()?, seq: r.u64()? }))
            .collect::<Result<_, _>>()?;
        let ancestors = (0..ancestors_n).map(|_| r.u32()).collect::<Result<_, _>>()?;
        let settled = (0..settled_n).map(|_| r.listed()).collect::<Result<_, _>>()?;
        Ok(Self {
            table,
            partition,
            incarnation,
            complete: flags & 1 != 0,
            intact: flags & 2 != 0,
            dropped,
            history,
            ancestors,
            lowest,
            below,
            next_tail,
            next_settled,
            flushed,
            settled,
        })
    }

    /// The epoch in which `seq` was prepared, by the history; `None` when it does not say.
    pub fn epoch_of(&self, seq: u64) -> Option<u32> {
        let after = self.history.partition_point(|v| v.seq <= seq);
        after.checked_sub(1).map(|i| self.history[i].epoch)
    }
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn array<const N: usize>(&mut self) -> Result<[u8; N], ManifestFlaw> {
        let (head, rest) = self.0.split_first_chunk().ok_or(ManifestFlaw::Short)?;
        self.0 = rest;
        Ok(*head)
    }

    fn u32(&mut self) -> Result<u32, ManifestFlaw> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    fn u64(&mut self) -> Result<u64, ManifestFlaw> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    fn listed(&mut self) -> Result<Listed, ManifestFlaw> {
        let kind = match self.u64()? {
            1 => SegmentKind::Tail,
            2 => SegmentKind::Settled,
            _ => return Err(ManifestFlaw::Fields),
        };
        Ok(Listed { name: SegmentName { kind, n: self.u64()? }, end: self.u64()? })
    }
}
