//! A node's log with its writer running.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use piperoll_detect::Rules;
use piperoll_format::entry::lifecycle;
use piperoll_format::ids::{EntryId, Generation};
use piperoll_format::mac::KeyRing;
use piperoll_format::merkle::{Hash, TileCache, TreeReader, consistency_proof, inclusion_proof};
use piperoll_format::note::KeyKind;
use piperoll_format::time::Timestamp;
use piperoll_format::verify::RowChecker;
use piperoll_net::clock::Clock;
use piperoll_protocol::node::{CheckpointAnswer, IndexExtent, LogAside, LogSpan, ScanRequest, VerifyLine};
use rusqlite::OptionalExtension as _;
use serde_json::json;
use tokio::sync::{mpsc, oneshot};

use super::engine::ages::Ages;
use super::engine::open_writer::{OpenWriter, open_writer};
use super::engine::signer::{self, CheckpointFault, SignedCheckpoint, StoredNote};
use super::engine::start_entries::{record_next_key, record_start};
use super::engine::writer::Job;
use super::fsck::check::Check;
use super::index::{BLOCK_LEVEL, CheckedRows, Index, IndexCheck, Indexer};
use super::lifecycle::past_logs::{ArchivedLogs, covers};
use super::lifecycle::rollover::finish_exchange;
use super::read::past_log::ArchivedLog;
use super::read::prove;
use super::read::range::{RowRange, read_range};
use super::read::scan::{Batch, Scan, ScanContext, parse_filter};
use super::table::error::{AppendError, OpenError, ReadError};
use super::table::health::Health;
use super::table::keys::LogKeys;
use super::table::log_dir::{self, LogDir};
use super::table::new_entry::{Appended, NewEntry};
use super::table::readers::Readers;
use super::table::rows::{self, Extent};
use super::table::schema;
use super::table::tiles;

/// Maximum number of append requests queued for the writer. Further callers wait, which provides back-pressure.
const JOBS_WAITING_MAX: usize = 1_024;

/// A node's log with its writer running. All clones use the same log.
#[derive(Clone)]
pub struct Store {
    pub(super) jobs: mpsc::Sender<Job>,
    pub(super) readers: Readers,
    pub(super) indexer: Arc<Indexer>,
    pub(super) tiles: Arc<TileCache>,
    pub(super) health: Arc<Health>,
    pub(super) keys: LogKeys,
    pub(super) generation: Generation,
    pub(super) dir: LogDir,
    pub(super) identity: log_dir::FileIdentity,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) ages: Arc<Mutex<Ages>>,
    pub(super) asides: Arc<ArchivedLogs>,
    pub(super) writer: Arc<Mutex<Option<std::thread::JoinHandle<()>>>>,
    /// Set if the log was opened with `open_to_read`; contains the log's lock, if one was taken.
    pub(super) kept: Option<Arc<Option<std::fs::File>>>,
}

impl Store {
    /// Opens a log read-only: every write is refused. The newest checkpoint is the last one that was signed.
    pub fn open_to_read(dir: LogDir, keys: LogKeys, clock: Arc<dyn Clock>) -> Result<Self, OpenError> {
        let ring = keys.ring.clone();
        // Hold the lock for as long as the log is open, because rows that a daemon adds would not be seen. No daemon can run in a
        // directory that is not writable.
        let lock = if dir.may_write() { Some(dir.lock_existing()?) } else { None };
        let first = dir.open_reader(ring.cluster(), ring.node_id())?;
        let sql = |source| OpenError::Sqlite { path: dir.database(), source };
        let extent = rows::extent(&first.conn).map_err(sql)?;
        let (generation, identity) = (first.generation, first.identity);
        drop(first);
        let health = Arc::new(Health::default());
        health.publish_head(extent.head_seq.map_or(0, |head| head.saturating_add(1)));
        let of = dir.clone();
        let open = move || Ok(of.open_reader(ring.cluster(), ring.node_id())?.conn);
        let readers = Readers::start(open, Arc::clone(&health))?;
        let index = Arc::new(Index::open(&dir, generation, BLOCK_LEVEL));
        // There is no receiver, so every send fails and nothing can be written.
        let (jobs, _) = mpsc::channel(1);
        Ok(Self {
            jobs,
            readers,
            indexer: Arc::new(Indexer::of_kept(index)),
            tiles: Arc::default(),
            health,
            asides: Arc::new(ArchivedLogs::new(&dir)),
            keys,
            generation,
            dir,
            identity,
            clock,
            ages: Arc::new(Mutex::new(Ages::none(generation))),
            writer: Arc::default(),
            kept: Some(Arc::new(lock)),
        })
    }

    /// Opens or creates the log, records `log.started`, and starts the threads. `rules` are the detection rules.
    pub fn open(dir: LogDir, keys: LogKeys, clock: Arc<dyn Clock>, rules: Rules) -> Result<Self, OpenError> {
        Self::open_with_blocks(dir, keys, clock, rules, BLOCK_LEVEL)
    }

    /// Like [`Store::open`], but with index blocks of the given tile level. Tests use this to get more blocks from fewer rows.
    pub fn open_with_blocks(
        dir: LogDir,
        keys: LogKeys,
        clock: Arc<dyn Clock>,
        rules: Rules,
        level: u32,
    ) -> Result<Self, OpenError> {
        let opened = open_writer(&dir, &keys, Arc::clone(&clock), rules, level)?;
        let ring = &keys.ring;
        let OpenWriter { mut writer, generation, identity, health, lock } = opened;
        if let Err(error) = finish_exchange(&dir, &keys) {
            tracing::error!(%error, "cannot rename the previous log");
        }
        let last_stop = writer.last_stop().map_err(|source| OpenError::Sqlite { path: dir.database(), source })?;
        record_start(&mut writer, last_stop);
        record_next_key(&mut writer, &keys, generation);
        if health.head().is_some() {
            dir.write_marker(ring.cluster(), ring.node_id(), generation)
                .map_err(|source| OpenError::Io { path: dir.path().to_owned(), source })?;
        }
        let index = Arc::clone(writer.index());
        let indexing = dir.open_reader(ring.cluster(), ring.node_id())?;
        let indexer = Indexer::start(index, indexing.conn, ring.clone(), writer.next_seq())
            .map_err(|source| OpenError::Io { path: dir.path().to_owned(), source })?;
        let (readers_dir, readers_ring) = (dir.clone(), ring.clone());
        let open = move || Ok(readers_dir.open_reader(readers_ring.cluster(), readers_ring.node_id())?.conn);
        let readers = Readers::start(open, Arc::clone(&health))?;
        let (jobs, receiver) = mpsc::channel(JOBS_WAITING_MAX);
        let ages = Arc::clone(writer.ages());
        let thread = std::thread::Builder::new()
            .name("writer".to_owned())
            .spawn(move || {
                // Hold the lock for as long as the writer thread runs.
                let _lock = lock;
                writer.run(receiver);
            })
            .map_err(|source| OpenError::Io { path: dir.path().to_owned(), source })?;
        let writer = Arc::new(Mutex::new(Some(thread)));
        let asides = Arc::new(ArchivedLogs::new(&dir));
        Ok(Self {
            jobs,
            readers,
            indexer: Arc::new(indexer),
            tiles: Arc::default(),
            health,
            keys,
            generation,
            dir,
            identity,
            clock,
            ages,
            asides,
            writer,
            kept: None,
        })
    }

    pub fn health(&self) -> &Arc<Health> {
        &self.health
    }

    pub fn generation(&self) -> Generation {
        self.generation
    }

    pub fn ring(&self) -> &KeyRing {
        &self.keys.ring
    }

    pub fn dir(&self) -> &LogDir {
        &self.dir
    }

    /// Records entries and returns one result per entry, in order, after the commit was synced to disk.
    pub async fn append(&self, new_entries: Vec<NewEntry>) -> Vec<Result<Appended, AppendError>> {
        let count = new_entries.len();
        let (reply, answer) = oneshot::channel();
        if self.jobs.send(Job::Append { new_entries, reply }).await.is_err() {
            return vec![Err(AppendError::Stopping); count];
        }
        answer.await.unwrap_or_else(|_| vec![Err(AppendError::Stopping); count])
    }

    /// Makes the writer append all further rows without adding them to the tree.
    #[cfg(feature = "without-tree")]
    pub async fn leave_out_tree(&self) {
        let _ = self.jobs.send(Job::Work(Box::new(super::engine::writer::Writer::leave_out_tree))).await;
    }

    /// Plans a read up to the newest committed row.
    pub async fn scan(&self, request: ScanRequest) -> Result<Scan, ReadError> {
        if let Some(aside) = self.aside(request.generation).await? {
            return aside.scan(request, &self.keys, self.clock.now()).await;
        }
        let filter = parse_filter(&request, self.clock.now())?;
        let (ring, generation, head) = (self.keys.ring.clone(), self.generation, self.health.head());
        let beside = ScanContext { index: Some(Arc::clone(self.indexer.index())), tiles: Arc::clone(&self.tiles) };
        self.check_file().await;
        self.readers.run(move |conn| Scan::plan(conn, &request, filter, head, ring, generation, beside)).await?
    }

    /// Reads the next batch and returns it with the scan.
    pub async fn next_batch(&self, mut scan: Scan) -> Result<(Scan, Batch), ReadError> {
        let readers = scan.aside().map_or_else(|| self.readers.clone(), |aside| aside.readers.clone());
        readers
            .run(move |conn| {
                let batch = scan.next_batch(conn)?;
                Ok((scan, batch))
            })
            .await?
    }

    /// Returns the log of another generation, if it is archived next to this one.
    pub(super) async fn aside(&self, generation: Option<Generation>) -> Result<Option<ArchivedLog>, ReadError> {
        let Some(generation) = generation.filter(|generation| *generation != self.generation) else { return Ok(None) };
        let (asides, keys) = (Arc::clone(&self.asides), self.keys.clone());
        let found = tokio::task::spawn_blocking(move || asides.find(&keys, generation)).await;
        found.map_err(|_| ReadError::Panicked)
    }

    /// Lists the archived logs that can be read.
    pub async fn asides(&self) -> Vec<LogAside> {
        let (asides, keys) = (Arc::clone(&self.asides), self.keys.clone());
        tokio::task::spawn_blocking(move || asides.list(&keys)).await.unwrap_or_default()
    }

    /// Answers a witness's checkpoint request for an archived log; `None` if this node does not have that log.
    pub async fn aside_checkpoint(
        &self,
        generation: Generation,
        old: u64,
    ) -> Result<Option<CheckpointAnswer>, ReadError> {
        match self.aside(Some(generation)).await? {
            Some(aside) => aside.last_signed(old).await.map(Some),
            None => Ok(None),
        }
    }

    /// Returns the readers of a log for proofs about its tree of `size` rows; `None` if this node does not have that log, or if
    /// the log has fewer rows.
    pub(super) async fn readers_of(&self, generation: Generation, size: u64) -> Result<Option<Readers>, ReadError> {
        if generation == self.generation {
            let rows = self.health.head().map_or(0, |head| head + 1);
            return Ok((size <= rows).then(|| self.readers.clone()));
        }
        let aside = self.aside(Some(generation)).await?.filter(|aside| covers(aside, size));
        Ok(aside.map(|aside| aside.readers))
    }

    /// Returns for each id whether its entry is in the log and was recorded with this `via`, which only the node sets.
    pub async fn recorded_via(&self, ids: Vec<Option<EntryId>>, via: Arc<str>) -> Result<Vec<bool>, ReadError> {
        let ending = format!(",\"via\":{}}}", serde_json::Value::from(&*via));
        let recorded = move |conn: &rusqlite::Connection| -> rusqlite::Result<Vec<bool>> {
            let mut statement =
                conn.prepare_cached("SELECT e.body FROM ids i JOIN entries e ON e.seq = i.seq WHERE i.id = ?1")?;
            let mut known = |id: EntryId| -> rusqlite::Result<bool> {
                let body = statement.query_row([&id.as_bytes()[..]], |row| row.get::<_, String>(0)).optional()?;
                Ok(body.is_some_and(|body| body.ends_with(&ending)))
            };
            ids.into_iter().map(|id| id.map_or(Ok(false), &mut known)).collect()
        };
        Ok(self.readers.run(recorded).await??)
    }

    /// Reads and verifies at most `rows_max` rows, starting at `from`. Returns an empty range if no such rows exist yet.
    pub async fn slice(&self, from: u64, rows_max: usize) -> Result<RowRange, ReadError> {
        let end = self.health.head().map_or(0, |head| head + 1);
        if from >= end {
            return Ok(RowRange { next: from, ..RowRange::default() });
        }
        let mut checker = RowChecker::new(self.keys.ring.clone(), self.generation);
        self.readers.run(move |conn| read_range(conn, &mut checker, from, end, rows_max)).await?
    }

    /// Returns the value of a row's time column, if the row exists.
    pub async fn time_of(&self, seq: u64) -> Result<Option<Timestamp>, ReadError> {
        Ok(self.readers.run(move |conn| rows::time_of(conn, seq)).await??)
    }

    /// Returns the times of the first `size` rows, and a description of the log that this log replaced.
    pub async fn span(&self, size: u64) -> Result<LogSpan, ReadError> {
        Ok(self.readers.run(move |conn| rows::span(conn, size)).await??)
    }

    pub async fn extent(&self) -> Result<Extent, ReadError> {
        Ok(self.readers.run(rows::extent).await??)
    }

    /// Returns the number of rows, and a lower bound for the times of all later rows, which holds unless the clock steps back.
    pub fn watermark(&self) -> (u64, Timestamp) {
        self.health.watermark(self.clock.now())
    }

    /// Progress of the search index.
    pub fn index(&self) -> IndexExtent {
        self.indexer.index().extent()
    }

    /// Starts a full check up to the newest committed row.
    pub fn check(&self) -> Check {
        let index = IndexCheck::new(Arc::clone(self.indexer.index()), CheckedRows::Live);
        let beside = self.dir.read_checkpoint().map_err(|e| e.to_string());
        Check::new(&self.keys, self.generation, beside, self.health.head(), index).beside(Arc::clone(&self.health))
    }

    pub async fn check_step(&self, mut check: Check) -> Result<(Check, Vec<VerifyLine>), ReadError> {
        self.readers
            .run(move |conn| {
                let lines = check.step(conn)?;
                Ok((check, lines))
            })
            .await?
    }

    /// Returns the newest checkpoint, signing a new one if it is due.
    pub async fn checkpoint(&self) -> Result<SignedCheckpoint, CheckpointFault> {
        if self.kept.is_some() {
            return self.kept_checkpoint().await;
        }
        let (reply, answer) = oneshot::channel();
        let stopping = || CheckpointFault::Refused("the node is stopping".to_owned());
        self.jobs.send(Job::Checkpoint { reply }).await.map_err(|_| stopping())?;
        answer.await.unwrap_or_else(|_| Err(stopping()))
    }

    /// Returns the last signed checkpoint of a read-only log.
    pub(super) async fn kept_checkpoint(&self) -> Result<SignedCheckpoint, CheckpointFault> {
        let refused = |message: String| CheckpointFault::Refused(message);
        let origin = self.keys.origin(self.generation);
        let key = self.keys.checkpoint.named(&origin, KeyKind::Log);
        let key = key.ok_or_else(|| refused(format!("{origin:?} is not a valid key name")))?;
        let note = self.kept_note(StoredNote::Signed).await.map_err(|e| refused(e.to_string()))?;
        let signed =
            signer::open_note(&note.ok_or_else(|| refused("this log has no signed checkpoint".to_owned()))?, &key)?;
        // Refuse a checkpoint that does not cover all rows: by renewing its cosignature of this checkpoint, a witness would
        // confirm that no later rows exist.
        let (size, rows) = (signed.checkpoint.size, self.health.head().map_or(0, |head| head.saturating_add(1)));
        if size < rows {
            return Err(refused(format!(
                "only {size} of {rows} rows were signed before the node stopped; start the node once, stop it cleanly, and then hand over its folder"
            )));
        }
        Ok(signed)
    }

    /// Stores a checkpoint of this node that a witness has cosigned.
    pub async fn cosigned(&self, note: String) -> Result<u64, CheckpointFault> {
        let (reply, answer) = oneshot::channel();
        let stopping = || CheckpointFault::Refused("the node is stopping".to_owned());
        self.jobs.send(Job::Cosigned { note, reply }).await.map_err(|_| stopping())?;
        answer.await.unwrap_or_else(|_| Err(stopping()))
    }

    /// Reads a note from the database without verifying who signed it.
    pub async fn kept_note(&self, kept: StoredNote) -> Result<Option<String>, ReadError> {
        Ok(self.readers.run(move |conn| signer::kept(conn, kept)).await??)
    }

    /// Proves that the first `old` rows are unchanged among the first `size` rows; the log must have at least `size` rows.
    pub async fn consistency(&self, old: u64, size: u64) -> Result<Vec<Hash>, ReadError> {
        let proof = self
            .readers
            .run(move |conn| consistency_proof(&mut TreeReader::new(tiles::StoredTiles(conn), size), old, size));
        Ok(proof.await??)
    }

    /// Creates one proof that all rows of `runs` are in the tree of `size` rows; `None` if this node does not have that tree.
    pub async fn range_proof(
        &self,
        generation: Generation,
        runs: Vec<Range<u64>>,
        size: u64,
    ) -> Result<Option<Vec<Hash>>, ReadError> {
        let Some(readers) = self.readers_of(generation, size).await? else { return Ok(None) };
        let mut making = prove::Making::new(&runs, size);
        loop {
            // Work in short steps, so that no other read waits for a long proof.
            let (returned, done) = readers
                .run(move |conn| {
                    let done = making.step(conn);
                    (making, done)
                })
                .await?;
            making = returned;
            if done? {
                return Ok(Some(making.hashes));
            }
        }
    }

    /// Proves that row `seq` is in a tree of `size` rows; `None` if this node does not have that tree.
    pub async fn inclusion(&self, generation: Generation, seq: u64, size: u64) -> Result<Option<Vec<Hash>>, ReadError> {
        let Some(readers) = self.readers_of(generation, size).await? else { return Ok(None) };
        let proof =
            readers.run(move |conn| inclusion_proof(&mut TreeReader::new(tiles::StoredTiles(conn), size), seq, size));
        Ok(Some(proof.await??))
    }

    /// Detects a database file that was unlinked or replaced, a changed schema, and rows cut off at the end, even while the node
    /// only serves reads. Open connections keep using the old file, although its path may now lead to another file.
    pub async fn check_file(&self) {
        let health = Arc::clone(&self.health);
        let (path, expected) = (self.dir.database(), self.identity);
        let checked = self
            .readers
            .run(move |conn| {
                match log_dir::file_identity(&path) {
                    Ok(found) if found == expected => {}
                    Ok(_) => health.distrust(format!(
                        "{} was replaced by another file while the node was running; stop the node and restore the right file",
                        path.display()
                    )),
                    Err(_) => health.distrust(format!(
                        "{} was removed while the node was running; stop the node and restore the file",
                        path.display()
                    )),
                }
                // Read the committed head first: if the writer commits more rows before the second read, `stored` only becomes
                // larger.
                let committed = health.head().map_or(0, |head| head + 1);
                let stored = rows::extent(conn).map(|extent| extent.head_seq.map_or(0, |head| head + 1));
                if let Ok(stored) = stored
                    && stored < committed
                {
                    health.distrust(format!(
                        "{committed} rows were recorded, but the log has only {stored}: the end was cut off while the node was running; stop the node, keep the file as evidence, and restore the right file"
                    ));
                }
                match schema::differences(conn) {
                    Ok(differences) if differences.is_empty() => {}
                    Ok(differences) => health.distrust(format!("the database's schema was changed: {}", differences.join("; "))),
                    Err(error) => health.distrust(format!("the database's schema cannot be read: {error}")),
                }
            })
            .await;
        if let Err(error) = checked {
            tracing::debug!(%error, "cannot check the database file");
        }
    }

    /// Records `log.stopped` and ends the writer; appends already accepted are committed first.
    pub async fn close(&self) {
        let entry = lifecycle("log.stopped", "the node stopped", &json!({}));
        let _ = self.append(vec![NewEntry { entry, via: Arc::from("node") }]).await;
        let _ = self.jobs.send(Job::Stop).await;
        let thread = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            let _ = tokio::task::spawn_blocking(move || thread.join()).await;
        }
    }
}
