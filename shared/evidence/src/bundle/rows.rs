//! The member `entries`: rows of one node in ascending `seq`, each behind its length in 16 bits, big endian, as in an
//! entry bundle of C2SP tlog-tiles. A row is its body and its mac. Of an erased row there is neither; it is the letter X,
//! its seq in 64 bits, big endian, and then body and mac of the entry that says that it was erased.

use piperoll_format::entry::Prefix;
use piperoll_format::limits::MAC_BYTES;
use piperoll_format::merkle::{Hash, leaf_hash};
use piperoll_format::row::Row;
use piperoll_format::statement::{Erased, Statement};
use piperoll_format::time::Timestamp;
use piperoll_format::verify::Integrity;

pub const ROW_LENGTH_BYTES: usize = 2;

/// Why the rows of a node cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RowsError {
    #[error("its entries end inside a row ({})", behind(.0))]
    Short(Option<u64>),
    #[error("an erased row is not named by the entry that stands for it ({})", behind(.0))]
    Erased(Option<u64>),
    #[error("a row does not begin as a signed entry does ({})", behind(.0))]
    Prefix(Option<u64>),
}

fn behind(last: &Option<u64>) -> String {
    last.map_or("the first one".to_owned(), |seq| format!("behind row {seq}"))
}

/// The letter and the seq in front of the entry that stands for an erased row.
pub const ERASED_HEAD_BYTES: usize = 9;
/// What an erased row begins with; a body begins with a brace.
const ERASED: u8 = b'X';

/// One row.
#[derive(Debug, Clone)]
pub struct StoredEntry<'a> {
    /// Of the entry that stands here: the row itself, or the one that says that the row was erased.
    pub prefix: Prefix<'a>,
    pub body: &'a [u8],
    pub mac: &'a [u8],
    /// What that entry says about the row, when the row is erased.
    pub erased: Option<Box<Erased>>,
}

impl StoredEntry<'_> {
    pub fn seq(&self) -> u64 {
        self.erased.as_ref().map_or(self.prefix.seq, |erased| erased.seq)
    }

    pub fn era(&self) -> u32 {
        self.erased.as_ref().map_or(self.prefix.era, |erased| erased.era)
    }

    pub fn timestamp(&self) -> Timestamp {
        self.erased.as_ref().map_or(self.prefix.timestamp, |erased| erased.timestamp)
    }

    /// Its hash in the tree.
    pub fn leaf(&self) -> Hash {
        self.erased.as_ref().map_or_else(|| leaf_hash(self.body, self.mac), |erased| erased.leaf)
    }

    /// As people and programs read it. What is in a bundle is proven, so every row says so.
    pub fn to_row(&self) -> Row<'_> {
        if let Some(erased) = &self.erased {
            return Row::erased(self.prefix.node_id, erased, self.prefix.seq, true);
        }
        Row {
            body: self.body.into(),
            mac: self.mac.into(),
            integrity: Integrity::Ok,
            witnessed: true,
            reason: None,
            found_at: None,
            erased: None,
            withheld: false,
        }
    }
}

/// Appends a row. Body and mac together are at most 65,535 bytes, which every entry is.
pub fn write_entry(out: &mut Vec<u8>, body: &[u8], mac: &[u8]) {
    let length = u16::try_from(body.len() + mac.len()).unwrap_or(u16::MAX);
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(body);
    out.extend_from_slice(mac);
}

/// Appends an erased row: its seq, and the entry that says so.
pub fn write_erased(out: &mut Vec<u8>, seq: u64, body: &[u8], mac: &[u8]) {
    let mut row = vec![ERASED];
    row.extend_from_slice(&seq.to_be_bytes());
    row.extend_from_slice(body);
    write_entry(out, &row, mac);
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
        let (gone, body) = match body.split_first_chunk::<ERASED_HEAD_BYTES>() {
            Some(([ERASED, seq @ ..], body)) => (Some(u64::from_be_bytes(*seq)), body),
            _ => (None, body),
        };
        let prefix = Prefix::parse(body).ok_or(RowsError::Prefix(self.last))?;
        let erased = match gone {
            None => None,
            Some(seq) => match Statement::read(body) {
                Some(Statement::Erased(erased)) if erased.seq == seq && seq < prefix.seq => Some(Box::new(erased)),
                _ => return Err(RowsError::Erased(self.last)),
            },
        };
        let row = StoredEntry { prefix, body, mac, erased };
        self.rest = rest;
        self.last = Some(row.seq());
        Ok(row)
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
