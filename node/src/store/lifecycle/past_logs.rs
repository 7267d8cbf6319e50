//! Archived logs. `new-generation` moves the old log into a folder next to the current log's folder, and the node reads it from
//! there. Nothing is written to an archived log except holds and erasures by an operator.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use piperoll_format::checkpoint::Checkpoint;
use piperoll_format::ids::Generation;
use piperoll_format::merkle::{TreeReader, consistency_proof, encode_hash};
use piperoll_format::note::Note;
use piperoll_protocol::node::{CheckpointAnswer, LogAside, ScanRequest};

use crate::store::engine::signer::{StoredNote, kept};
use crate::store::index::{BLOCK_LEVEL, Index};
use crate::store::read::past_log::{ArchivedLog, FileStamp};
use crate::store::read::scan::{Scan, ScanContext, parse_filter};
use crate::store::table::error::{OpenError, ReadError};
use crate::store::table::health::Health;
use crate::store::table::keys::LogKeys;
use crate::store::table::log_dir::LogDir;
use crate::store::table::readers::Readers;
use crate::store::table::rows;
use crate::store::table::tiles::StoredTiles;

/// Number of reader threads for each archived log.
const THREADS: usize = 1;
/// Maximum number of archived logs that are open at a time; no node is expected to have as many. Further logs can be read with
/// `--direct`.
const LOGS_MAX: usize = 16;
/// Time for which the list of folders is cached.
const LOOK_EVERY: Duration = Duration::from_secs(5);

fn stamp(dir: &LogDir) -> FileStamp {
    let of = |suffix: &str| {
        let mut path = dir.database().into_os_string();
        path.push(suffix);
        let file = std::fs::metadata(path).ok()?;
        // Ignore an empty WAL, because merely opening the database for reading may create one.
        (file.len() > 0).then(|| Some((file.len(), file.modified().ok()?)))?
    };
    [of(""), of("-wal")]
}

/// All archived logs, which are in folders next to the current log's folder.
pub(in crate::store) struct ArchivedLogs {
    dir: PathBuf,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    scanned_at: Option<Instant>,
    open: BTreeMap<Generation, ArchivedLog>,
    /// Last error for each archived log that cannot be opened, so that the same error is reported only once.
    failed: BTreeMap<Generation, String>,
}

/// Returns the path of a folder next to the current log's folder; for an archived log, `suffix` is its generation.
pub(in crate::store) fn folder_of(dir: &std::path::Path, suffix: &str) -> PathBuf {
    let mut name = dir.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{suffix}"));
    dir.with_file_name(name)
}

/// Returns the generations and folders of the archived logs next to a log.
pub fn generations_aside(dir: &std::path::Path) -> Vec<(Generation, PathBuf)> {
    let name = dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let parent = dir.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(std::path::Path::new("."));
    let Ok(entries) = std::fs::read_dir(parent) else { return Vec::new() };
    let mut found: Vec<_> = entries
        .flatten()
        .filter_map(|entry| {
            let file = entry.file_name();
            let generation = file.to_str()?.strip_prefix(&name)?.strip_prefix('.')?.parse::<Generation>().ok()?;
            entry.path().is_dir().then(|| (generation, entry.path()))
        })
        .collect();
    found.sort();
    found.truncate(LOGS_MAX);
    found
}

impl ArchivedLogs {
    pub(in crate::store) fn new(dir: &LogDir) -> Self {
        Self { dir: dir.path().to_owned(), known: Mutex::default() }
    }

    /// Returns the archived logs that can be read. If the cached list is too old, blocks on the file system.
    fn scan_directory(&self, keys: &LogKeys) -> Vec<ArchivedLog> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.scanned_at.is_some_and(|scanned_at| scanned_at.elapsed() < LOOK_EVERY) {
            return known.open.values().cloned().collect();
        }
        known.scanned_at = Some(Instant::now());
        let there = generations_aside(&self.dir);
        known.open.retain(|generation, aside| {
            let path = there.iter().find(|(there, _)| there == generation).map(|(_, path)| path);
            path.is_some_and(|path| stamp(&LogDir::new(path)) == aside.stamp)
        });
        for (generation, path) in there {
            if known.open.contains_key(&generation) {
                continue;
            }
            match ArchivedLog::open(&LogDir::new(&path), keys, generation) {
                Ok(aside) => {
                    known.failed.remove(&generation);
                    known.open.insert(generation, aside);
                }
                Err(error) => {
                    let message = error.to_string();
                    if known.failed.get(&generation) != Some(&message) {
                        tracing::warn!(folder = %path.display(), error = message, "cannot read an archived log");
                        known.failed.insert(generation, message);
                    }
                }
            }
        }
        known.open.values().cloned().collect()
    }

    /// Expires the cached list, so that the next request lists the folders again.
    pub(in crate::store) fn look_again(&self) {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).scanned_at = None;
    }

    /// Lists the archived logs for clients.
    pub(in crate::store) fn list(&self, keys: &LogKeys) -> Vec<LogAside> {
        let rows = |aside: &ArchivedLog| aside.extent.head_seq.map_or(0, |head| head.saturating_add(1));
        self.scan_directory(keys)
            .iter()
            .map(|aside| LogAside { generation: aside.generation, rows: rows(aside) })
            .collect()
    }

    pub(in crate::store) fn find(&self, keys: &LogKeys, generation: Generation) -> Option<ArchivedLog> {
        self.scan_directory(keys).into_iter().find(|aside| aside.generation == generation)
    }
}

impl ArchivedLog {
    fn open(dir: &LogDir, keys: &LogKeys, generation: Generation) -> Result<Self, OpenError> {
        let (ring, stamp) = (keys.ring.clone(), stamp(dir));
        let first = dir.open_reader(ring.cluster(), ring.node_id())?;
        if first.generation != generation {
            return Err(OpenError::Foreign {
                path: dir.database(),
                found: first.generation.to_string(),
                expected: generation.to_string(),
            });
        }
        let extent = rows::extent(&first.conn).map_err(|source| OpenError::Sqlite { path: dir.database(), source })?;
        drop(first);
        let of = dir.clone();
        let open = move || Ok(of.open_reader(ring.cluster(), ring.node_id())?.conn);
        let readers = Readers::start_with(THREADS, open, Arc::new(Health::default()))?;
        let index = Arc::new(Index::open(dir, generation, BLOCK_LEVEL));
        Ok(Self { readers, generation, extent, index, tiles: Arc::default(), stamp })
    }

    /// Returns the times of the log's rows, and the last checkpoint that the log signed, with a proof that the checkpoint
    /// extends the first `old` rows.
    pub(in crate::store) async fn last_signed(&self, old: u64) -> Result<CheckpointAnswer, ReadError> {
        let rows = self.extent.head_seq.map_or(0, |head| head.saturating_add(1));
        let (note, span) =
            self.readers.run(move |conn| (kept(conn, StoredNote::Signed), rows::span(conn, rows))).await?;
        let mut answer = CheckpointAnswer {
            note: String::new(),
            generation: Some(self.generation),
            proof: Vec::new(),
            span: Some(span?),
        };
        let Some(note) = note? else { return Ok(answer) };
        let checkpoint = Note::parse(&note).ok().and_then(|note| Checkpoint::parse(note.text()).ok());
        let Some(size) = checkpoint.map(|checkpoint| checkpoint.size).filter(|size| covers(self, *size)) else {
            return Ok(answer);
        };
        answer.note = note;
        if (1..size).contains(&old) {
            let proof = self
                .readers
                .run(move |conn| consistency_proof(&mut TreeReader::new(StoredTiles(conn), size), old, size));
            answer.proof = proof.await??.iter().map(encode_hash).collect();
        }
        Ok(answer)
    }

    /// Plans a read of an archived log.
    pub(in crate::store) async fn scan(
        &self,
        request: ScanRequest,
        keys: &LogKeys,
        now: piperoll_format::time::Timestamp,
    ) -> Result<Scan, ReadError> {
        let filter = parse_filter(&request, now)?;
        let (ring, generation, head) = (keys.ring.clone(), self.generation, self.extent.head_seq);
        let beside = ScanContext { index: Some(Arc::clone(&self.index)), tiles: Arc::clone(&self.tiles) };
        let mut scan =
            self.readers.run(move |conn| Scan::plan(conn, &request, filter, head, ring, generation, beside)).await??;
        scan.of_aside(self.clone());
        Ok(scan)
    }
}

/// Whether an archived log has at least `size` rows, so that it can provide proofs for a tree of that size.
pub(in crate::store) fn covers(aside: &ArchivedLog, size: u64) -> bool {
    let rows: Range<u64> = 0..aside.extent.head_seq.map_or(0, |head| head.saturating_add(1));
    size <= rows.end
}
