//! Going through the keys of a table.

use std::collections::VecDeque;

use firebrick_partition::op::{Answer, Op, packed_keys};

use crate::client::Where;
use crate::error::Result;
use crate::table::{Table, unexpected};

/// About how many keys one request brings.
const PAGE_KEYS: u32 = 512;

/// A cursor over the keys of a table; see [`Table::scan`].
#[derive(Debug)]
pub struct Scan {
    table: Table,
    /// Partitions not finished; the first is being read.
    partitions: VecDeque<u32>,
    cursor: u64,
    page: VecDeque<Vec<u8>>,
}

impl Scan {
    pub(crate) fn new(table: Table, partitions: Vec<u32>) -> Self {
        Self { table, partitions: partitions.into(), cursor: 0, page: VecDeque::new() }
    }

    /// The next key; `None` at the end. After an error the same place may be tried again.
    pub async fn next(&mut self) -> Result<Option<Vec<u8>>> {
        loop {
            if let Some(key) = self.page.pop_front() {
                return Ok(Some(key));
            }
            let Some(&partition) = self.partitions.front() else { return Ok(None) };
            let op = Op::Scan { cursor: self.cursor, count: PAGE_KEYS };
            let at = Where::Partition(partition);
            let page = self.table.begin(at, op, Vec::new(), |answer| match answer {
                Answer::Keys { cursor, packed } => {
                    let keys: VecDeque<_> = packed_keys(packed).map(<[u8]>::to_vec).collect();
                    Ok((cursor, keys))
                }
                _ => Err(unexpected()),
            });
            (self.cursor, self.page) = page.await?.wait().await?;
            if self.cursor == 0 {
                self.partitions.pop_front();
            }
        }
    }
}
