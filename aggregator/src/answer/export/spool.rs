//! Buffers a bundle's rows in unnamed files in the state directory, so that an export of any size needs only the memory
//! of a page, and a crash leaves no files.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::Path;

use piperoll_evidence::bundle::{MemberDigest, ROW_LENGTH_BYTES, Rows, StoredEntry, write_entry, write_erased};
use sha2::{Digest as _, Sha256};

/// Rows of one node and era, in ascending `seq`, in the form of a bundle's `entries`.
pub(super) struct Spool {
    file: BufWriter<File>,
    pub(super) rows: u64,
}

impl Spool {
    pub(super) fn new(dir: &Path) -> io::Result<Self> {
        Ok(Self { file: BufWriter::new(tempfile::tempfile_in(dir)?), rows: 0 })
    }

    pub(super) fn push(&mut self, body: &[u8], mac: &[u8]) -> io::Result<()> {
        let mut row = Vec::with_capacity(ROW_LENGTH_BYTES + body.len() + mac.len());
        write_entry(&mut row, body, mac);
        self.rows += 1;
        self.file.write_all(&row)
    }

    /// Adds an erased row, with the entry that records its erasure.
    pub(super) fn push_erased(&mut self, seq: u64, body: &[u8], mac: &[u8]) -> io::Result<()> {
        let mut row = Vec::new();
        write_erased(&mut row, seq, body, mac);
        self.rows += 1;
        self.file.write_all(&row)
    }

    /// Adds a line of text; used for rejected rows.
    pub(super) fn push_line(&mut self, line: &[u8]) -> io::Result<()> {
        self.rows += 1;
        self.file.write_all(line)
    }

    /// Returns a reader that begins at the first row.
    pub(super) fn read(&mut self) -> io::Result<BufReader<File>> {
        self.file.flush()?;
        let mut file = self.file.get_ref().try_clone()?;
        file.seek(SeekFrom::Start(0))?;
        Ok(BufReader::new(file))
    }

    /// Adds the rows of another spool.
    pub(super) fn append(&mut self, other: &mut Self) -> io::Result<()> {
        self.rows += other.rows;
        io::copy(&mut other.read()?, &mut self.file).map(|_| ())
    }

    /// Copies all rows into a piece.
    pub(super) fn copy_to(&mut self, piece: &mut Piece) -> io::Result<()> {
        io::copy(&mut self.read()?, piece).map(|_| ())
    }
}

/// A spool being read row by row.
pub(super) struct SpoolRows {
    file: BufReader<File>,
    row: Vec<u8>,
}

impl SpoolRows {
    pub(super) fn new(spool: &mut Spool) -> io::Result<Self> {
        Ok(Self { file: spool.read()?, row: Vec::new() })
    }

    /// Advances to the next row; returns false at the end.
    pub(super) fn advance(&mut self) -> io::Result<bool> {
        self.row.clear();
        let mut length = [0; ROW_LENGTH_BYTES];
        match self.file.read_exact(&mut length) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
            Err(error) => return Err(error),
        }
        self.row.extend_from_slice(&length);
        self.row.resize(ROW_LENGTH_BYTES + usize::from(u16::from_be_bytes(length)), 0);
        self.file.read_exact(&mut self.row[ROW_LENGTH_BYTES..])?;
        Ok(true)
    }

    pub(super) fn current(&self) -> Option<StoredEntry<'_>> {
        Rows::new(&self.row).next()?.ok()
    }

    pub(super) fn current_bytes(&self) -> &[u8] {
        &self.row
    }
}

/// A member of the bundle while it is being written; its digest is known after its last byte.
pub(super) struct Piece {
    name: String,
    file: BufWriter<File>,
    hash: Sha256,
    bytes: u64,
}

impl Piece {
    pub(super) fn new(dir: &Path, name: impl Into<String>) -> io::Result<Self> {
        let file = BufWriter::new(tempfile::tempfile_in(dir)?);
        Ok(Self { name: name.into(), file, hash: Sha256::new(), bytes: 0 })
    }

    pub(super) fn digest(&self) -> MemberDigest {
        let sha256 = hex::encode(self.hash.clone().finalize());
        MemberDigest { name: self.name.clone(), bytes: self.bytes, sha256 }
    }

    pub(super) fn into_reader(self) -> io::Result<File> {
        let mut file = self.file.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.seek(SeekFrom::Start(0))?;
        Ok(file)
    }
}

impl io::Write for Piece {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write_all(bytes)?;
        self.hash.update(bytes);
        self.bytes += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}
