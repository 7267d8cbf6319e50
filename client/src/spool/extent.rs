//! Stores the number of acknowledged records of each segment, so that a shortened or missing segment is detected.
//!
//! The count is written after the records and not synced. It survives the end of the process, but after a power failure it may be
//! smaller than the number of records in the segment. If it is larger, some records were written without a sync and had not
//! reached the disk: they are lost, and are counted as lost.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

const SUFFIX: &str = ".kept";
/// Layout of the file: number of records (8, little-endian), CRC-32 of these bytes (4).
const BYTES: usize = 12;

fn path_of(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("{number:016}{SUFFIX}"))
}

/// Count of the segment that is being written.
#[derive(Debug)]
pub(super) struct Extent {
    file: File,
    records: u64,
}

impl Extent {
    pub(super) fn begin(folder: &Path, number: u64) -> io::Result<Self> {
        let file =
            OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(path_of(folder, number))?;
        Ok(Self { file, records: 0 })
    }

    /// Counts records that were written to the segment. If the count cannot be written, the file holds a smaller number, and fewer losses
    /// are detected.
    pub(super) fn add(&mut self, records: u64) {
        self.records += records;
        let _ = self.file.write_all_at(&to_bytes(self.records), 0);
    }
}

fn to_bytes(records: u64) -> [u8; BYTES] {
    let mut bytes = [0; BYTES];
    bytes[..8].copy_from_slice(&records.to_le_bytes());
    bytes[8..].copy_from_slice(&crc32fast::hash(&records.to_le_bytes()).to_le_bytes());
    bytes
}

/// Returns how many records a segment had; `None` if there is no count or it is damaged.
pub(super) fn read(folder: &Path, number: u64) -> Option<u64> {
    let bytes: [u8; BYTES] = std::fs::read(path_of(folder, number)).ok()?.try_into().ok()?;
    let records = u64::from_le_bytes(bytes[..8].try_into().ok()?);
    (to_bytes(records) == bytes).then_some(records)
}

/// Returns the numbers of all segments that have a count.
pub(super) fn numbers(folder: &Path) -> io::Result<Vec<u64>> {
    let mut numbers = Vec::new();
    for file in std::fs::read_dir(folder)? {
        let name = file?.file_name();
        numbers.extend(
            name.to_str().and_then(|name| name.strip_suffix(SUFFIX)).and_then(|number| number.parse::<u64>().ok()),
        );
    }
    Ok(numbers)
}

/// Removes the count of a segment. Call it before removing the segment: a crash in between then leaves a segment without a count, never a
/// count without a segment.
pub(super) fn remove(folder: &Path, number: u64) -> io::Result<()> {
    match std::fs::remove_file(path_of(folder, number)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_reads_as_it_was_written_and_a_damaged_one_says_nothing() {
        let dir = tempfile::tempdir().expect("a folder");
        let mut extent = Extent::begin(dir.path(), 7).expect("a file");
        assert_eq!(read(dir.path(), 7), None, "nothing yet");
        extent.add(3);
        extent.add(4);
        assert_eq!((read(dir.path(), 7), numbers(dir.path()).expect("a list")), (Some(7), vec![7]));
        let path = path_of(dir.path(), 7);
        let sound = std::fs::read(&path).expect("bytes");
        for bit in 0..sound.len() * 8 {
            let mut flipped = sound.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            std::fs::write(&path, flipped).expect("written");
            assert_eq!(read(dir.path(), 7), None, "bit {bit}");
        }
        remove(dir.path(), 7).expect("gone");
        remove(dir.path(), 7).expect("gone before");
    }
}
