//! Offline access: reads a log from its directory without a daemon, or appends to it briefly.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::{BufWriter, Seek as _, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use piperoll_detect::Rules;
use piperoll_evidence::bundle::{
    ARCHIVE, ArchiveHead, checkpoint_name, entries_name, member_header, member_padding, proof_name, write_end,
    write_entry, write_erased,
};
use piperoll_format::checkpoint::Checkpoint;
use piperoll_format::ids::Generation;
use piperoll_format::merkle::{TreeReader, encode_hash, range_proof, runs_of};
use piperoll_format::note::{KeyKind, Note};
use piperoll_format::verify::RowChecker;
use piperoll_net::clock::{Clock, SystemClock};
use piperoll_protocol::node::{ScanRequest, VerifyLine};
use rusqlite::Connection;

use crate::store::engine::open_writer::{OpenWriter, open_writer};
use crate::store::engine::signer::{self, Signer, StoredNote};
use crate::store::fsck::check::Check;
use crate::store::index::{BLOCK_LEVEL, CheckedRows, Index, IndexCheck};
use crate::store::read::scan::{Batch, Scan, ScanContext, parse_filter};
use crate::store::table::erased::row_at;
use crate::store::table::error::{AppendError, OpenError, ReadError};
use crate::store::table::keys::LogKeys;
use crate::store::table::log_dir::{LogDir, SnapshotCopy};
use crate::store::table::new_entry::{Appended, NewEntry};
use crate::store::table::rows::{self, Extent, StoredRow};
use crate::store::table::schema;
use crate::store::table::tiles;

/// Reason why rows were not archived.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error("no witness has cosigned a checkpoint of this log yet, so an archive of its rows would not be verifiable")]
    Unwitnessed,
    #[error("a row was erased under entry {0}, which no witness has seen yet; try again in a moment")]
    Young(u64),
    #[error("the cosigned checkpoint cannot be read: {0}")]
    Note(String),
    #[error("row {0} is missing or fails verification; run `piperoll node verify`")]
    Unsound(u64),
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: std::io::Error },
}

enum RowsFault {
    Unsound(u64),
    Sqlite(rusqlite::Error),
    Io(std::io::Error),
}

impl RowsFault {
    fn at(self, path: &Path) -> ArchiveError {
        match self {
            Self::Unsound(seq) => ArchiveError::Unsound(seq),
            Self::Sqlite(error) => ReadError::from(error).into(),
            Self::Io(source) => ArchiveError::Io { path: path.to_owned(), source },
        }
    }
}

impl From<rusqlite::Error> for RowsFault {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

impl From<std::io::Error> for RowsFault {
    fn from(error: std::io::Error) -> Self {
        Self::Io(error)
    }
}

fn write_member(out: &mut impl Write, name: &str, bytes: &[u8]) -> std::io::Result<()> {
    let header = member_header(name, bytes.len() as u64);
    out.write_all(&header.ok_or_else(|| std::io::Error::other(format!("the member name {name:?} is too long")))?)?;
    out.write_all(bytes)?;
    out.write_all(member_padding(bytes.len() as u64))
}

/// A log read directly from its directory, without a daemon.
pub struct OfflineLog {
    conn: Connection,
    keys: LogKeys,
    generation: Generation,
    index: Arc<Index>,
    copy: Option<SnapshotCopy>,
    dir: LogDir,
}

impl OfflineLog {
    pub fn open(dir: &LogDir, keys: LogKeys) -> Result<Self, OpenError> {
        let opened = dir.open_reader(keys.ring.cluster(), keys.ring.node_id())?;
        let index = Arc::new(Index::open(dir, opened.generation, BLOCK_LEVEL));
        Ok(Self {
            conn: opened.conn,
            keys,
            generation: opened.generation,
            index,
            dir: opened.copy.as_ref().map_or_else(|| dir.clone(), SnapshotCopy::log_dir),
            copy: opened.copy,
        })
    }

    pub fn generation(&self) -> Generation {
        self.generation
    }

    pub fn extent(&self) -> Result<Extent, ReadError> {
        Ok(rows::extent(&self.conn)?)
    }

    pub fn scan(&self, request: &ScanRequest) -> Result<Scan, ReadError> {
        let head = self.extent()?.head_seq;
        let filter = parse_filter(request, SystemClock.now())?;
        let beside = ScanContext { index: Some(Arc::clone(&self.index)), tiles: Arc::default() };
        Scan::plan(&self.conn, request, filter, head, self.keys.ring.clone(), self.generation, beside)
    }

    pub fn next_batch(&self, scan: &mut Scan) -> Result<Batch, ReadError> {
        scan.next_batch(&self.conn)
    }

    pub fn check(&self) -> Result<Check, ReadError> {
        let rows = if self.copy.is_some() { CheckedRows::Copied } else { CheckedRows::AtRest };
        let index = IndexCheck::new(Arc::clone(&self.index), rows);
        let beside = self.dir.read_checkpoint().map_err(|e| e.to_string());
        Ok(Check::new(&self.keys, self.generation, beside, self.extent()?.head_seq, index))
    }

    pub fn check_step(&self, check: &mut Check) -> Result<Vec<VerifyLine>, ReadError> {
        Ok(check.step(&self.conn)?)
    }

    /// Reads the newest stored note of a kind without verifying who signed it.
    pub fn kept_note(&self, kept: StoredNote) -> Result<Option<String>, ReadError> {
        Ok(signer::kept(&self.conn, kept)?)
    }

    /// Writes the rows `from..to` and their proofs to a file that can replace these rows after a prune. The proofs are for the
    /// newest checkpoint that a witness cosigned. The file is synced to disk.
    pub fn archive(&self, path: &Path, from: u64, to: u64) -> Result<(), ArchiveError> {
        let keep = |kept| signer::kept(&self.conn, kept).map_err(ReadError::from);
        let note = keep(StoredNote::Witnessed)?.ok_or(ArchiveError::Unwitnessed)?;
        let text = Note::parse(&note).map_err(|e| ArchiveError::Note(e.to_string()))?;
        let size = Checkpoint::parse(text.text()).map_err(|e| ArchiveError::Note(e.to_string()))?.size;
        let (ring, node_id) = (&self.keys.ring, self.keys.ring.node_id());
        let (cluster, generation) = (ring.cluster().clone(), self.generation.to_string());
        let head = ArchiveHead { cluster, node_id: node_id.clone(), generation, from_seq: from, to_seq: to };
        let io = |source| ArchiveError::Io { path: path.to_owned(), source };
        let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mut entries = tempfile::tempfile_in(dir).map_err(io)?;
        let statements = self.write_rows(from, to, &mut entries).map_err(|e| e.at(path))?;
        if let Some(young) = statements.iter().find(|seq| **seq >= size) {
            return Err(ArchiveError::Young(*young));
        }
        let runs = runs_of((from..to).chain(statements)).unwrap_or_default();
        let mut tree = TreeReader::new(tiles::StoredTiles(&self.conn), size);
        let hashes = range_proof(&mut tree, &runs, size).map_err(ReadError::from)?;
        let proof: String = hashes.iter().map(|hash| encode_hash(hash) + "\n").collect();
        let file = OpenOptions::new().create_new(true).write(true).mode(0o600).open(path).map_err(io)?;
        let mut out = BufWriter::new(file);
        let written = (|| {
            let id = node_id.as_str();
            write_member(&mut out, ARCHIVE, head.to_text().as_bytes())?;
            write_member(&mut out, &checkpoint_name(id), note.as_bytes())?;
            let bytes = entries.seek(SeekFrom::End(0))?;
            entries.seek(SeekFrom::Start(0))?;
            out.write_all(&member_header(&entries_name(id), bytes).unwrap_or([0; 512]))?;
            std::io::copy(&mut entries, &mut out)?;
            out.write_all(member_padding(bytes))?;
            write_member(&mut out, &proof_name(id), proof.as_bytes())?;
            let mut end = Vec::new();
            write_end(&mut end);
            out.write_all(&end)?;
            out.flush()?;
            out.get_ref().sync_all()
        })();
        written.map_err(io)
    }

    /// Writes the rows, followed by the entries from `to` on that erased any of these rows. Returns the seqs of these entries.
    fn write_rows(&self, from: u64, to: u64, file: &mut std::fs::File) -> Result<Vec<u64>, RowsFault> {
        let mut checker = RowChecker::new(self.keys.ring.clone(), self.generation);
        let mut out = BufWriter::new(file);
        let mut bytes = Vec::new();
        let mut statements = BTreeMap::new();
        for seq in from..to {
            let row = row_at(&self.conn, &mut checker, seq)?.filter(StoredRow::is_sound);
            let row = row.ok_or(RowsFault::Unsound(seq))?;
            bytes.clear();
            match &row.erased {
                None => write_entry(&mut bytes, &row.body, &row.mac),
                Some(erased) => {
                    write_erased(&mut bytes, seq, &erased.body, &erased.mac);
                    if erased.entry_seq >= to {
                        statements.insert(erased.entry_seq, (erased.body.clone(), erased.mac.clone()));
                    }
                }
            }
            out.write_all(&bytes)?;
        }
        for (body, mac) in statements.values() {
            bytes.clear();
            write_entry(&mut bytes, body, mac);
            out.write_all(&bytes)?;
        }
        out.flush()?;
        Ok(statements.into_keys().collect())
    }

    /// Returns why the rows read here cannot be trusted to be the complete log: the schema was changed, or the log contradicts
    /// its signed checkpoint.
    pub fn fault(&self) -> Option<String> {
        let differences = schema::differences(&self.conn).unwrap_or_default();
        if !differences.is_empty() {
            return Some(format!("unexpected database schema: {}", differences.join("; ")));
        }
        self.held_against_signed().err()
    }

    fn held_against_signed(&self) -> Result<(), String> {
        let origin = self.keys.origin(self.generation);
        let key = self
            .keys
            .checkpoint
            .named(&origin, KeyKind::Log)
            .ok_or_else(|| format!("{origin:?} is not a valid key name"))?;
        let signer = Signer::open(&self.conn, &self.dir, key, None).map_err(|e| e.to_string())?;
        let size = self.extent().map_err(|e| e.to_string())?.head_seq.map_or(0, |head| head + 1);
        signer.check(&self.conn, size).map_err(|error| format!("the tree cannot be read: {error}"))?
    }
}

/// Appends entries directly to a log directory while its daemon is stopped. Holds the writer's lock while doing so.
pub fn append_offline(
    dir: &LogDir,
    keys: &LogKeys,
    clock: Arc<dyn Clock>,
    rules: Rules,
    new_entries: Vec<NewEntry>,
) -> Result<Vec<Result<Appended, AppendError>>, OpenError> {
    let OpenWriter { mut writer, generation, health, lock, .. } = open_writer(dir, keys, clock, rules, BLOCK_LEVEL)?;
    let count = new_entries.len();
    let results = writer.append(new_entries).unwrap_or_else(|error| vec![Err(error); count]);
    let io = |source| OpenError::Io { path: dir.path().to_owned(), source };
    if health.head().is_some() {
        dir.write_marker(keys.ring.cluster(), keys.ring.node_id(), generation).map_err(io)?;
    }
    drop(writer);
    drop(lock);
    Ok(results)
}
