//! Files of records.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use super::record::{Kept, Parsed, parse};

const SUFFIX: &str = ".spool";
const READ_BYTES: usize = 256 * 1024;

pub(super) fn path_of(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("{number:016}{SUFFIX}"))
}

/// The segments' numbers, oldest first.
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

/// Records and bytes of a segment that was written by an earlier process.
pub(super) fn count(path: &Path) -> io::Result<(u64, u64)> {
    let mut reader = SegmentReader::open(path.to_owned())?;
    let (mut entries, mut bytes) = (0, 0);
    while let Read::Record(kept) = reader.next()? {
        entries += 1;
        bytes += kept.bytes();
    }
    Ok((entries, bytes))
}

/// What comes next in a segment.
#[derive(Debug)]
pub(crate) enum Read {
    Record(Kept),
    /// Nothing more for now; what stands behind the last whole record was never acknowledged.
    End,
    /// What stands here was once a record. Nothing behind it can be read.
    Damaged,
}

/// Reads a segment from its front, also while it is written to.
#[derive(Debug)]
pub(crate) struct SegmentReader {
    path: PathBuf,
    file: File,
    /// Bytes that were read and hold no whole record yet.
    buffer: Vec<u8>,
    at: usize,
}

impl SegmentReader {
    pub(super) fn open(path: PathBuf) -> io::Result<Self> {
        Ok(Self { file: File::open(&path)?, path, buffer: Vec::new(), at: 0 })
    }

    pub(crate) fn next(&mut self) -> io::Result<Read> {
        loop {
            match parse(&self.buffer[self.at..]) {
                Parsed::Record(kept, bytes) => {
                    self.at += bytes;
                    return Ok(Read::Record(kept));
                }
                Parsed::Damaged => return Ok(Read::Damaged),
                Parsed::Short => {
                    self.buffer.drain(..self.at);
                    self.at = 0;
                    let before = self.buffer.len();
                    self.file.by_ref().take(READ_BYTES as u64).read_to_end(&mut self.buffer)?;
                    if self.buffer.len() == before {
                        return Ok(Read::End);
                    }
                }
            }
        }
    }

    /// Its records are in the log. If this is lost in a crash they are sent again, and known by their ids.
    pub(crate) fn remove(self) -> io::Result<()> {
        std::fs::remove_file(&self.path)
    }

    /// Puts it out of the way for whoever looks for what can be saved.
    pub(crate) fn set_aside(self) -> io::Result<PathBuf> {
        let aside = self.path.with_extension("damaged");
        std::fs::rename(&self.path, &aside)?;
        Ok(aside)
    }
}
