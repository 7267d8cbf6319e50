//! The member `entries`: rows of one node in ascending `seq`, each behind its length in 16 bits, big endian, as in an
//! entry bundle of C2SP tlog-tiles. A row is its body and its mac.

use crate::log::entry::Prefix;
use crate::log::limits::MAC_BYTES;

pub const ROW_LENGTH_BYTES: usize = 2;

/// Why the rows of a node cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RowsError {
    #[error("its entries end inside a row ({})", behind(.0))]
    Short(Option<u64>),
    #[error("a row does not begin as a signed entry does ({})", behind(.0))]
    Prefix(Option<u64>),
}

fn behind(last: &Option<u64>) -> String {
    last.map_or("the first one".to_owned(), |seq| format!("behind row {seq}"))
}

/// One row.
#[derive(Debug, Clone, Copy)]
pub struct StoredEntry<'a> {
    pub prefix: Prefix<'a>,
    pub body: &'a [u8],
    pub mac: &'a [u8],
}

/// Appends a row. Body and mac together are at most 65,535 bytes, which every entry is.
pub fn write_entry(out: &mut Vec<u8>, body: &[u8], mac: &[u8]) {
    let length = u16::try_from(body.len() + mac.len()).unwrap_or(u16::MAX);
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(body);
    out.extend_from_slice(mac);
}

/// Reads rows one by one.
#[derive(Debug, Clone)]
pub struct Rows<'a> {
    rest: &'a [u8],
    last: Option<u64>,
}

impl<'a> Rows<'a> {
    pub fn new(entries: &'a [u8]) -> Self {
        Self { rest: entries, last: None }
    }

    fn read(&mut self) -> Result<StoredEntry<'a>, RowsError> {
        let short = RowsError::Short(self.last);
        let (length, rest) = self.rest.split_first_chunk::<ROW_LENGTH_BYTES>().ok_or_else(|| short.clone())?;
        let (row, rest) =
            rest.split_at_checked(usize::from(u16::from_be_bytes(*length))).ok_or_else(|| short.clone())?;
        let at = row.len().checked_sub(MAC_BYTES).ok_or(short)?;
        let (body, mac) = row.split_at(at);
        let prefix = Prefix::parse(body).ok_or(RowsError::Prefix(self.last))?;
        self.rest = rest;
        self.last = Some(prefix.seq);
        Ok(StoredEntry { prefix, body, mac })
    }
}

impl<'a> Iterator for Rows<'a> {
    type Item = Result<StoredEntry<'a>, RowsError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let row = self.read();
        if row.is_err() {
            self.rest = &[];
        }
        Some(row)
    }
}
