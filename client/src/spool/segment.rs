//! Reads segments, the files of spooled records.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use crate::clock::now;

use super::record::{Parsed, SpooledEntry, parse};

const SUFFIX: &str = ".spool";
const READ_BYTES: u64 = 256 * 1024;

pub(super) fn path_of(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("{number:016}{SUFFIX}"))
}

/// Returns the segments' numbers, oldest first.
pub(super) fn numbers(folder: &Path) -> io::Result<Vec<u64>> {
    let mut numbers = Vec::new();
    for file in std::fs::read_dir(folder)? {
        let name = file?.file_name();
        let number: Option<u64> =
            name.to_str().and_then(|name| name.strip_suffix(SUFFIX)).and_then(|number| number.parse().ok());
        numbers.extend(number);
    }
    numbers.sort_unstable();
    Ok(numbers)
}

/// Returns the numbers of records and bytes in a segment that an earlier process wrote, and whether all of it can be read.
pub(super) fn count(path: &Path) -> io::Result<(u64, u64, bool)> {
    let mut reader = SegmentReader::open(path.to_owned(), 0)?;
    let (mut entries, mut bytes) = (0, 0);
    loop {
        match reader.next(None)? {
            Read::Record(kept) => {
                entries += 1;
                bytes += kept.bytes();
            }
            Read::End => return Ok((entries, bytes, true)),
            Read::Damaged => return Ok((entries, bytes, false)),
        }
    }
}

/// Result of reading the next record of a segment.
#[derive(Debug)]
pub(crate) enum Read {
    Record(SpooledEntry),
    /// There are no more records for now; bytes after the last complete record were never acknowledged.
    End,
    /// The record at this position is damaged. Nothing after it can be read.
    Damaged,
}

/// Reads a segment from its start, even while the writer appends to it.
#[derive(Debug)]
pub(crate) struct SegmentReader {
    pub(crate) number: u64,
    path: PathBuf,
    file: File,
    /// Bytes read from the file; those from `at` on have not been returned as records yet.
    buffer: Vec<u8>,
    at: usize,
    /// Number of bytes read from the file.
    read: u64,
    /// Number of records returned by `next`; `record_bytes` is their size.
    pub(super) records: u64,
    pub(super) record_bytes: u64,
}

impl SegmentReader {
    pub(super) fn open(path: PathBuf, number: u64) -> io::Result<Self> {
        Ok(Self {
            number,
            file: File::open(&path)?,
            path,
            buffer: Vec::new(),
            at: 0,
            read: 0,
            records: 0,
            record_bytes: 0,
        })
    }

    /// Returns the next record before offset `end`. If `end` is `None`, the file is no longer written to, and all of it may be
    /// read.
    pub(crate) fn next(&mut self, end: Option<u64>) -> io::Result<Read> {
        loop {
            match parse(&self.buffer[self.at..]) {
                Parsed::Record(kept, bytes) => {
                    self.at += bytes;
                    self.records += 1;
                    self.record_bytes += bytes as u64;
                    return Ok(Read::Record(kept));
                }
                Parsed::Damaged => return Ok(Read::Damaged),
                Parsed::Short => {
                    self.buffer.drain(..self.at);
                    self.at = 0;
                    let before = self.buffer.len();
                    let room = end.map_or(READ_BYTES, |end| end.saturating_sub(self.read).min(READ_BYTES));
                    self.file.by_ref().take(room).read_to_end(&mut self.buffer)?;
                    let more = self.buffer.len() - before;
                    self.read += more as u64;
                    if more == 0 {
                        let is_damaged = end.is_none() && self.has_record_behind();
                        return Ok(if is_damaged { Read::Damaged } else { Read::End });
                    }
                }
            }
        }
    }

    /// Whether an apparently torn end is really a record with a corrupted length, because a complete record follows.
    fn has_record_behind(&self) -> bool {
        (1..self.buffer.len()).any(|at| matches!(parse(&self.buffer[at..]), Parsed::Record(..)))
    }

    pub(super) fn remove(&self) -> io::Result<()> {
        std::fs::remove_file(&self.path)
    }

    pub(super) fn quarantine(&self) -> io::Result<PathBuf> {
        // Put the time into the name, so that no older file is overwritten: numbering starts again when an empty spool is opened.
        let now = now().micros();
        let aside = self.path.with_extension(format!("{now}.damaged"));
        std::fs::rename(&self.path, &aside)?;
        Ok(aside)
    }
}
