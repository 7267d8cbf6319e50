//! The member `entries`: the entries of one node in ascending `seq`, each preceded by its length in 16 bits, big endian, as in an
//! entry bundle of C2SP tlog-tiles. An entry is its body and its MAC. An erased entry has neither; in their place are the letter
//! X, its `seq` in 64 bits, big endian, and the body and MAC of its erasure statement.

use piperoll_format::entry::Prefix;
use piperoll_format::limits::MAC_BYTES;
use piperoll_format::merkle::{Hash, leaf_hash};
use piperoll_format::row::Row;
use piperoll_format::statement::{Erased, Statement};
use piperoll_format::time::Timestamp;
use piperoll_format::verify::Integrity;

pub const ROW_LENGTH_BYTES: usize = 2;

/// Reason why the entries of a node cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RowsError {
    #[error("its entries end inside a row ({})", behind(.0))]
    Short(Option<u64>),
    #[error("the `log.erased` entry given for an erased row does not name that row ({})", behind(.0))]
    Erased(Option<u64>),
    #[error("a row does not begin like a signed entry ({})", behind(.0))]
    Prefix(Option<u64>),
}

fn behind(last: &Option<u64>) -> String {
    last.map_or("the first row".to_owned(), |seq| format!("after row {seq}"))
}

/// Length of the letter X and the `seq`, which precede the erasure statement of an erased entry.
pub const ERASED_HEAD_BYTES: usize = 9;
/// First byte of an erased entry; a body begins with a brace.
const ERASED: u8 = b'X';

/// One entry, or the erasure statement in place of an erased one.
#[derive(Debug, Clone)]
pub struct StoredEntry<'a> {
    /// Prefix of the stored entry: the entry itself, or the erasure statement in its place.
    pub prefix: Prefix<'a>,
    pub body: &'a [u8],
    pub mac: &'a [u8],
    /// Content of the erasure statement, if the entry was erased.
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

    /// Returns the entry's hash in the tree.
    pub fn leaf(&self) -> Hash {
        self.erased.as_ref().map_or_else(|| leaf_hash(self.body, self.mac), |erased| erased.leaf)
    }

    /// Converts the entry to the form that people and programs read. Entries in a bundle are proven, so each of them is marked as
    /// witnessed.
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

/// Appends an entry. Its body and MAC together are at most 65,535 bytes, which holds for every entry.
pub fn write_entry(out: &mut Vec<u8>, body: &[u8], mac: &[u8]) {
    let length = u16::try_from(body.len() + mac.len()).unwrap_or(u16::MAX);
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(body);
    out.extend_from_slice(mac);
}

/// Appends an erased entry: its `seq` and its erasure statement.
pub fn write_erased(out: &mut Vec<u8>, seq: u64, body: &[u8], mac: &[u8]) {
    let mut row = vec![ERASED];
    row.extend_from_slice(&seq.to_be_bytes());
    row.extend_from_slice(body);
    write_entry(out, &row, mac);
}

/// Reads entries one by one.
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
