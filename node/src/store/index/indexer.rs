//! The thread that builds the index after rows were committed. It indexes the newest rows first, and then older rows
//! that are not in the index yet.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use piperoll_format::mac::KeyRing;
use piperoll_format::verify::RowChecker;
use piperoll_protocol::node::IndexExtent;
use rusqlite::Connection;

use super::blocks::{BLOCK_LEVEL, Index, LoadedBlocks};
use super::builder::Builder;
use super::encode::encode;
use super::fresh::PendingRows;
use crate::store::table::erased;
use crate::store::table::error::OpenError;
use crate::store::table::keys::LogKeys;
use crate::store::table::log_dir::LogDir;
use crate::store::table::log_start::{first_seq, floor};
use crate::store::table::mac_epochs::load_epochs;
use crate::store::table::rows::{StoredRow, extent, read_row};

/// Number of rows that one statement reads and that are added to a block under one lock. A query that needs the lock waits until
/// all of them have been added.
const BATCH_ROWS: u64 = 256;
/// Time for which a few new rows wait for more rows before they are added.
const PAUSE: Duration = Duration::from_millis(200);
/// Delay before retrying a block that could not be built, for example because the disk was full.
const RETRY: Duration = Duration::from_secs(60);

/// The next task: to add some rows to a block.
struct Task {
    block: u64,
    part: Arc<RwLock<Builder>>,
    from: u64,
    to: u64,
    changes: u64,
}

/// Rows to add to a block.
enum BlockRows {
    /// Rows that the writer passed on after their commit.
    Fresh(PendingRows),
    /// Rows that were read from the database and verified, up to this seq.
    Stored(Vec<StoredRow>, u64),
}

/// Handle of the indexer thread, which ends when the handle is dropped.
pub(in crate::store) struct Indexer {
    index: Arc<Index>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Indexer {
    /// Starts the thread with its own connection. The log has `rows` rows.
    pub(in crate::store) fn start(index: Arc<Index>, conn: Connection, ring: KeyRing, rows: u64) -> io::Result<Self> {
        index.head.store(rows, Ordering::Release);
        let stop = Arc::new(AtomicBool::new(false));
        let mut work = Work::new(Arc::clone(&index), conn, ring);
        let stopping = Arc::clone(&stop);
        let thread = std::thread::Builder::new().name("indexer".to_owned()).spawn(move || {
            let _ = work.index.thread.set(std::thread::current());
            work.begin();
            while !stopping.load(Ordering::Acquire) {
                work.round();
            }
        })?;
        Ok(Self { index, stop, thread: Some(thread) })
    }

    /// Wraps the index of a read-only log, without a thread.
    pub(in crate::store) fn of_kept(index: Arc<Index>) -> Self {
        // Rows that are not in the index are read from the database, so nothing waits for them to be indexed.
        Self { index, stop: Arc::default(), thread: None }
    }

    pub(in crate::store) fn index(&self) -> &Arc<Index> {
        &self.index
    }
}

impl Drop for Indexer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            let _ = thread.join();
        }
    }
}

/// Result of building an entire index at once.
#[derive(Debug, Clone, Copy)]
pub struct Made {
    pub extent: IndexExtent,
    /// Whether every full block has its file.
    pub complete: bool,
}

/// Discards the index of a log and rebuilds it without a daemon. Holds the writer's lock while doing so.
pub fn make_index(dir: &LogDir, keys: &LogKeys, mut progress: impl FnMut(u64)) -> Result<Made, OpenError> {
    let _lock = dir.lock_existing()?;
    let opened = dir.open_reader(keys.ring.cluster(), keys.ring.node_id())?;
    let io = |source| OpenError::Io { path: dir.path().to_owned(), source };
    let sql = |source| OpenError::Sqlite { path: dir.database(), source };
    let index = Arc::new(Index::open(dir, opened.generation, BLOCK_LEVEL));
    index.reset().map_err(io)?;
    let head = extent(&opened.conn).map_err(sql)?.head_seq;
    index.head.store(head.map_or(0, |head| head + 1), Ordering::Release);
    let mut work = Work::new(Arc::clone(&index), opened.conn, keys.ring.clone());
    work.begin();
    while let Some(task) = work.task() {
        work.advance(&task);
        progress(index.extent().rows);
    }
    let complete = index.read().failed.is_empty();
    Ok(Made { extent: index.extent(), complete })
}

struct Work {
    index: Arc<Index>,
    conn: Connection,
    checker: RowChecker,
}

impl Work {
    fn new(index: Arc<Index>, conn: Connection, ring: KeyRing) -> Self {
        let checker = RowChecker::new(ring, index.generation);
        Self { index, conn, checker }
    }

    /// Checks the existing files. Removes files that do not belong to these rows, so that they are rebuilt, and files beyond
    /// the end of the log, which come from a longer log.
    fn begin(&mut self) {
        // Ignore a log start that cannot be trusted: every read reports it. Rows that are missing or fail verification are marked
        // as odd in their blocks.
        let floor = floor(&self.conn, &mut self.checker).ok().and_then(Result::ok).flatten();
        if let Err(error) = self.index.cut(first_seq(floor.as_ref())) {
            tracing::error!(%error, "cannot remove an index block with pruned rows");
        }
        let _ = load_epochs(&self.conn, &mut self.checker, floor.as_ref());
        let head = self.index.head.load(Ordering::Acquire);
        let whole: Vec<u64> = self.index.read().whole.iter().copied().collect();
        for block in whole {
            let fits = (block + 1) * self.index.block_rows() <= head;
            let fault = match fits.then(|| self.index.stored(&self.conn, block)) {
                None => "it is beyond the end of the log".to_owned(),
                Some(Err(error)) => error.to_string(),
                Some(Ok(_)) => continue,
            };
            tracing::warn!(%fault, file = %self.index.path(block).display(), "rebuilding an index block");
            let mut state = self.index.write();
            let _ = self.index.remove(&mut state, block);
        }
    }

    fn round(&mut self) {
        let Some(task) = self.task() else {
            let head = self.index.head.load(Ordering::Acquire);
            self.index.reached.store(head, Ordering::Release);
            self.index.asleep.store(true, Ordering::SeqCst);
            // If the writer has committed rows since `head` was read, do not sleep: the writer may not have seen `asleep`.
            if self.index.head.load(Ordering::SeqCst) == head {
                std::thread::park_timeout(RETRY);
            }
            return;
        };
        self.index.reached.store(task.from, Ordering::Release);
        if self.index.read().held > 0 || task.to - task.from < super::blocks::BACKLOG_ROWS && self.is_newest(&task) {
            std::thread::park_timeout(PAUSE);
        }
        self.advance(&task);
    }

    /// Whether a task ends with the newest row of the log; then it is worthwhile to wait for more rows.
    fn is_newest(&self, task: &Task) -> bool {
        task.to == self.index.head.load(Ordering::Acquire)
    }

    /// Returns a task for the newest rows that are not in a block yet.
    fn task(&self) -> Option<Task> {
        let head = self.index.head.load(Ordering::Acquire);
        let rows = self.index.block_rows();
        let mut state = self.index.write();
        let LoadedBlocks { whole, parts, failed, floor, changes, .. } = &mut *state;
        failed.retain(|_, at| at.elapsed() < RETRY);
        let blocks = *floor / rows..head.div_ceil(rows);
        for block in blocks.rev().filter(|block| !whole.contains(block) && !failed.contains_key(block)) {
            let first = block * rows;
            let part = Arc::clone(parts.entry(block).or_insert_with(|| {
                Arc::new(RwLock::new(Builder::new(first, usize::try_from(rows).unwrap_or(usize::MAX), *floor)))
            }));
            let (from, to) = (part.read().unwrap_or_else(PoisonError::into_inner).next(), head.min(first + rows));
            // A full block is written to a file, unless some of its first rows were pruned.
            let unwritten = to == first + rows && *floor <= first;
            if from < to || unwritten {
                return Some(Task { block, part, from, to, changes: *changes });
            }
        }
        None
    }

    fn advance(&mut self, task: &Task) {
        let done = if task.from < task.to { self.take_rows(task) } else { self.finish(task) };
        if let Err(error) = done {
            tracing::warn!(%error, rows = %format!("{}..{}", task.from, task.to), "cannot index rows; searches read them instead");
            let mut state = self.index.write();
            state.parts.remove(&task.block);
            state.failed.insert(task.block, Instant::now());
        }
    }

    fn take_rows(&mut self, task: &Task) -> io::Result<()> {
        let rows = match self.index.waiting.take(task.from) {
            Ok(fresh) => BlockRows::Fresh(fresh),
            Err(next) => {
                let to = task.to.min(task.from + BATCH_ROWS).min(next.unwrap_or(u64::MAX));
                BlockRows::Stored(self.rows(task.from, to).map_err(io::Error::other)?, to)
            }
        };
        let state = self.index.read();
        // Rows were changed after they had been read, so they must be read again.
        if state.changes != task.changes || state.held > 0 {
            return Ok(());
        }
        let mut part = task.part.write().unwrap_or_else(PoisonError::into_inner);
        match rows {
            BlockRows::Fresh(fresh) => {
                let to = task.to.min(task.from + BATCH_ROWS);
                let wanted = fresh.from(task.from).take(usize::try_from(to - task.from).unwrap_or(usize::MAX));
                wanted.for_each(|(timestamp, body)| part.push_sound(timestamp, body));
                if fresh.end() > to {
                    self.index.waiting.give_back(fresh);
                }
            }
            BlockRows::Stored(rows, to) => {
                rows.iter().for_each(|row| part.push(row));
                while part.next() < to {
                    part.push_missing();
                }
            }
        }
        Ok(())
    }

    fn rows(&mut self, from: u64, to: u64) -> rusqlite::Result<Vec<StoredRow>> {
        let mut statement = self.conn.prepare_cached(
            "SELECT seq, ts, era, epoch, mac, body FROM entries WHERE seq >= ?1 AND seq < ?2 ORDER BY seq",
        )?;
        let mut rows = statement.query((from, to))?;
        let mut found = Vec::new();
        while let Some(row) = rows.next()? {
            let mut row = read_row(row, &mut self.checker)?;
            erased::recognise(&self.conn, &mut self.checker, &mut row)?;
            found.push(row);
        }
        Ok(found)
    }

    /// Writes a full block to its file.
    fn finish(&mut self, task: &Task) -> io::Result<()> {
        let head = self.index.expected_head(&self.conn, task.block).map_err(io::Error::other)?;
        let bytes = encode(&task.part.read().unwrap_or_else(PoisonError::into_inner), &head)?;
        let temporary = self.index.write_file(task.block, &bytes)?;
        let mut state = self.index.write();
        if state.changes != task.changes || state.held > 0 {
            return super::blocks::overwrite_and_remove(&temporary);
        }
        std::fs::rename(&temporary, self.index.path(task.block))?;
        state.whole.insert(task.block);
        state.parts.remove(&task.block);
        Ok(())
    }
}
