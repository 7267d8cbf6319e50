//! Rows of one log on the local disk, between their node and the archive. The file has no name, so nothing is left after a crash.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek as _, SeekFrom, Write};
use std::path::Path;

use bytes::Bytes;
use piperoll_format::limits::{BODY_AND_MAC_BYTES_MAX, MAC_BYTES};
use piperoll_format::time::Timestamp;

use crate::row::{ArchivedRow, Content, Day};

const BUFFER_BYTES: usize = 256 * 1024;
const ENTRY: u8 = b'E';
const ERASED: u8 = b'X';

/// Consecutive rows of one day and one era, and where they begin in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SpooledRun {
    pub(super) day: Day,
    pub(super) era: u32,
    pub(super) from_seq: u64,
    pub(super) to_seq: u64,
    offset: u64,
}

/// Rows that were written and not read yet.
pub(super) struct Spool {
    file: BufWriter<File>,
    bytes: u64,
    runs: Vec<SpooledRun>,
}

impl Spool {
    pub(super) fn new(dir: &Path) -> io::Result<Self> {
        let file = BufWriter::with_capacity(BUFFER_BYTES, tempfile::tempfile_in(dir)?);
        Ok(Self { file, bytes: 0, runs: Vec::new() })
    }

    pub(super) fn push(&mut self, row: &ArchivedRow) -> io::Result<()> {
        let (day, era) = (row.day(), row.era);
        match self.runs.last_mut() {
            Some(run) if (run.day, run.era, run.to_seq) == (day, era, row.seq) => run.to_seq += 1,
            _ => self.runs.push(SpooledRun { day, era, from_seq: row.seq, to_seq: row.seq + 1, offset: self.bytes }),
        }
        let mut head = Vec::with_capacity(32);
        head.extend_from_slice(&row.timestamp.micros().to_be_bytes());
        match &row.content {
            Content::Entry { epoch, body, mac } => {
                head.push(ENTRY);
                head.extend_from_slice(&epoch.to_be_bytes());
                head.extend_from_slice(&u32::try_from(body.len()).unwrap_or(u32::MAX).to_be_bytes());
                self.write(&head)?;
                self.write(mac)?;
                self.write(body)
            }
            Content::Erased { leaf } => {
                head.push(ERASED);
                self.write(&head)?;
                self.write(leaf)
            }
        }
    }

    /// Number of runs so far.
    pub(super) fn runs(&self) -> usize {
        self.runs.len()
    }

    /// Size of the rows so far.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.bytes += bytes.len() as u64;
        self.file.write_all(bytes)
    }

    /// Ends writing.
    pub(super) fn finish(self) -> io::Result<SpooledRows> {
        let file = self.file.into_inner().map_err(io::IntoInnerError::into_error)?;
        Ok(SpooledRows { file, runs: self.runs })
    }
}

/// Rows that can be read run by run.
pub(super) struct SpooledRows {
    file: File,
    pub(super) runs: Vec<SpooledRun>,
}

impl SpooledRows {
    /// Passes the rows of a run to `each`.
    pub(super) fn read<E: From<io::Error>>(
        &mut self,
        run: &SpooledRun,
        mut each: impl FnMut(ArchivedRow) -> Result<(), E>,
    ) -> Result<(), E> {
        self.file.seek(SeekFrom::Start(run.offset))?;
        let mut file = BufReader::with_capacity(BUFFER_BYTES, &self.file);
        for seq in run.from_seq..run.to_seq {
            each(read_row(&mut file, seq, run.era)?)?;
        }
        Ok(())
    }
}

fn read_row(file: &mut impl Read, seq: u64, era: u32) -> io::Result<ArchivedRow> {
    let timestamp = Timestamp::from_micros(i64::from_be_bytes(array(file)?));
    let [kind] = array(file)?;
    let content = match kind {
        ENTRY => {
            let epoch = u32::from_be_bytes(array(file)?);
            let length = u32::from_be_bytes(array(file)?) as usize;
            if length > BODY_AND_MAC_BYTES_MAX {
                return Err(io::Error::other("a row in the spool is damaged"));
            }
            let mac: [u8; MAC_BYTES] = array(file)?;
            let mut body = vec![0; length];
            file.read_exact(&mut body)?;
            Content::Entry { epoch, body: Bytes::from(body), mac }
        }
        _ => Content::Erased { leaf: array(file)? },
    };
    Ok(ArchivedRow { seq, era, timestamp, content })
}

fn array<const N: usize>(file: &mut impl Read) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    file.read_exact(&mut bytes)?;
    Ok(bytes)
}
