//! The only thread that writes to a log. It assigns seq, time and MAC, and acknowledges entries after the commit was synced.

use std::cell::Cell;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use piperoll_detect::{Detector, Rules};
use piperoll_format::ids::Generation;
use piperoll_format::mac::KeyRing;
use piperoll_format::note::Note;
use piperoll_format::time::Timestamp;
use piperoll_format::verify::RowChecker;
use piperoll_net::clock::Clock;
use rusqlite::{Connection, ErrorCode, TransactionBehavior};
use tokio::sync::{mpsc, oneshot};

use super::ages::Ages;
use super::integrator::TreeIntegrator;
use super::recovery::{Recovered, Recovery};
use super::signer::{CheckpointFault, SignedCheckpoint, Signer};
use super::transaction::{AppendPosition, Pending, Sealing, Transaction};
use super::write_error::WriteError;
use crate::store::index::{Index, PendingRows};
use crate::store::table::error::AppendError;
use crate::store::table::health::Health;
use crate::store::table::keys::LogKeys;
use crate::store::table::log_dir::{BUSY_TIMEOUT, FileIdentity, LogDir, Opened, file_identity};
use crate::store::table::new_entry::{AppendResult, NewEntry};
use crate::store::table::rows;
use crate::store::table::schema;
use crate::store::table::tiles::TreeError;

/// Maximum number of rows in one commit. A larger group does not make a row cheaper to commit; it only makes callers wait longer.
const ROWS_PER_COMMIT_MAX: usize = 4_096;

/// Interval between two attempts to recover from a disk failure.
const RECOVERY_INTERVAL: Duration = Duration::from_secs(1);

pub(in crate::store) enum Job {
    Append {
        new_entries: Vec<NewEntry>,
        reply: oneshot::Sender<Vec<AppendResult>>,
    },
    /// Signs the committed rows if a signature is due.
    Checkpoint {
        reply: oneshot::Sender<Result<SignedCheckpoint, CheckpointFault>>,
    },
    /// Stores a checkpoint that a witness has cosigned.
    Cosigned {
        note: String,
        reply: oneshot::Sender<Result<u64, CheckpointFault>>,
    },
    /// Runs any other work that only the writer may do, such as retention.
    Work(Box<dyn FnOnce(&mut Writer) + Send>),
    Stop,
}

/// Number of attempts to empty the WAL after an erasure or a prune, `WAL_PAUSE` apart: half a second in total.
pub(in crate::store) const WAL_TRIES: u32 = 25;
const WAL_PAUSE: Duration = Duration::from_millis(20);

/// State of the writer, owned by its thread alone.
pub(in crate::store) struct Writer {
    conn: Connection,
    dir: LogDir,
    identity: FileIdentity,
    ring: KeyRing,
    generation: Generation,
    /// Key epoch for the MACs of new rows.
    epoch: u32,
    /// Key epoch of the newest row when the log was opened.
    last_epoch: Option<u32>,
    clock: Arc<dyn Clock>,
    health: Arc<Health>,
    /// Position after the last *committed* row. A commit that fails does not change it.
    end: AppendPosition,
    /// `None` when the stored tree cannot be used; the log then refuses appends.
    tree: Option<TreeIntegrator>,
    /// `None` when the earlier checkpoints cannot be used; the log then refuses appends.
    signer: Option<Signer>,
    schema_cookie: i64,
    /// The index, which is notified of every commit and of every row that was changed.
    index: Arc<Index>,
    /// Rows of the open transaction, which the index will receive.
    fresh: PendingRows,
    /// Decides which entries are flagged.
    detector: Detector,
    /// Set if the WAL still holds erased content, because a reader blocked its truncation.
    wal_to_empty: bool,
    /// Tracks for how long rows have been witnessed.
    ages: Arc<Mutex<Ages>>,
    keys: LogKeys,
    /// Time of the disk failure, or of the latest recovery attempt; `None` while the disk works.
    broken: Cell<Option<Instant>>,
}

impl Writer {
    /// Creates a writer from the state at the end of the log. The key ring must contain at least one secret.
    pub(super) fn new(
        opened: Opened,
        dir: &LogDir,
        keys: &LogKeys,
        clock: Arc<dyn Clock>,
        health: Arc<Health>,
        index: Arc<Index>,
    ) -> rusqlite::Result<Self> {
        let Opened { conn, generation, identity, .. } = opened;
        let schema_cookie = schema::cookie(&conn)?;
        let mut ages = Ages::open(dir.path(), generation, keys.witnesses.clone());
        let recovery = Recovery { conn: &conn, dir, keys, generation, health: &health };
        let Recovered { end, last_epoch, tree, signer } = recovery.run()?;
        ages.cut_to(end.next_seq);
        health.publish_head(end.next_seq);
        Ok(Self {
            conn,
            dir: dir.clone(),
            identity,
            ring: keys.ring.clone(),
            generation,
            epoch: 0,
            last_epoch,
            clock,
            health,
            end,
            tree,
            signer,
            schema_cookie,
            index,
            fresh: PendingRows::default(),
            detector: Detector::new(Rules::none()),
            wal_to_empty: false,
            ages: Arc::new(Mutex::new(ages)),
            keys: keys.clone(),
            broken: Cell::new(None),
        })
    }

    /// Switches to the newest secret for all further rows. Does nothing if the last row already uses it.
    pub(super) fn switch_epoch(&mut self) -> Result<(), AppendError> {
        let Some(newest) = self.ring.newest_epoch() else { return Ok(()) };
        let Some(last) = self.last_epoch else {
            self.epoch = newest;
            return Ok(());
        };
        self.epoch = last;
        if newest < last {
            self.health.refuse_writes(format!(
                "the newest row is sealed under key epoch {last}, but node.toml has no secret above epoch {newest}; add the secret of epoch {last} again"
            ));
            return Ok(());
        }
        if newest == last {
            return Ok(());
        }
        let Some(key) = self.ring.key(self.generation, newest).cloned() else { return Ok(()) };
        self.transact(|transaction, now| transaction.rotate(newest, key, now))?;
        self.epoch = newest;
        Ok(())
    }

    /// Sets the detector, which decides which entries are flagged.
    pub(super) fn set_detector(&mut self, detector: Detector) {
        self.detector = detector;
    }

    /// Returns the connection that only this thread writes to. Rows may be changed only in [`Self::transact`].
    pub(in crate::store) fn conn(&self) -> &Connection {
        &self.conn
    }

    pub(in crate::store) fn dir(&self) -> &LogDir {
        &self.dir
    }

    pub(in crate::store) fn keys(&self) -> &LogKeys {
        &self.keys
    }

    pub(in crate::store) fn generation(&self) -> Generation {
        self.generation
    }

    /// Returns the seq of the next row, which is also the number of rows that this log has had so far.
    pub(in crate::store) fn next_seq(&self) -> u64 {
        self.end.next_seq
    }

    pub(in crate::store) fn index(&self) -> &Arc<Index> {
        &self.index
    }

    /// Returns the tracker of how long rows have been witnessed, which is shared with retention.
    pub(in crate::store) fn ages(&self) -> &Arc<Mutex<Ages>> {
        &self.ages
    }

    /// Returns the number of rows that a witness has seen, as far as this node knows.
    pub(in crate::store) fn witnessed_size(&self) -> u64 {
        self.health.witnessed_size()
    }

    /// Whether the last stop was clean; `None` for a new log.
    pub(in crate::store) fn last_stop(&self) -> rusqlite::Result<Option<bool>> {
        let Self { conn, dir, keys, generation, health, .. } = self;
        Recovery { conn, dir, keys, generation: *generation, health }.last_stop()
    }

    /// Compares the log with its newest signed checkpoint: every signed row must exist, unchanged.
    pub(in crate::store) fn check_signed(&self) -> Result<Result<(), String>, TreeError> {
        match &self.signer {
            Some(signer) => signer.check(&self.conn, self.end.next_seq),
            None => Ok(Err("the log's earlier checkpoints could not be verified".to_owned())),
        }
    }

    /// Stops adding rows to the tree: later rows are appended only to the log.
    #[cfg(feature = "without-tree")]
    pub(in crate::store) fn leave_out_tree(&mut self) {
        if let Some(tree) = &mut self.tree {
            tree.off = true;
        }
    }

    /// Checkpoints the whole WAL into the database and truncates it, because the WAL may still hold older content. A
    /// long-running reader can block this; the writer then tries again every second. If the process is killed before it
    /// succeeds, the next start empties the WAL.
    pub(in crate::store) fn empty_wal(&mut self, tries: u32) -> bool {
        // Appends wait for this call, so do not wait for readers as well.
        let _ = self.conn.busy_timeout(Duration::ZERO);
        let done = (0..tries).any(|number| {
            if number > 0 {
                std::thread::sleep(WAL_PAUSE);
            }
            self.conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get::<_, i64>(0)) == Ok(0)
        });
        let _ = self.conn.busy_timeout(BUSY_TIMEOUT);
        self.wal_to_empty = !done;
        done
    }

    /// Runs jobs until `Job::Stop` arrives or every sender is dropped.
    pub(in crate::store) fn run(mut self, mut jobs: mpsc::Receiver<Job>) {
        while let Some(job) = jobs.blocking_recv() {
            let mut group = vec![job];
            let mut rows = drafts_in(&group[0]);
            while rows < ROWS_PER_COMMIT_MAX {
                let Ok(job) = jobs.try_recv() else { break };
                rows += drafts_in(&job);
                group.push(job);
            }
            let stop = group.iter().any(|job| matches!(job, Job::Stop));
            self.commit_group(group, stop);
            if stop {
                break;
            }
        }
    }

    fn commit_group(&mut self, group: Vec<Job>, stop: bool) {
        let started = Instant::now();
        let (mut new_entries, mut replies, mut asked, mut works) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for job in group {
            match job {
                Job::Append { new_entries: some, reply } => {
                    new_entries.push(some);
                    replies.push(reply);
                }
                Job::Checkpoint { reply } => asked.push(reply),
                Job::Cosigned { note, reply } => {
                    let _ = reply.send(self.cosigned(&note));
                }
                Job::Work(work) => works.push(work),
                Job::Stop => {}
            }
        }
        self.commit_drafts(new_entries, replies, started);
        for work in works {
            work(self);
        }
        // Sign after the commit, so that only rows on disk are signed.
        if stop && let Err(error) = self.checkpoint(true) {
            tracing::error!(%error, "cannot sign a checkpoint at shutdown");
        }
        if self.wal_to_empty {
            self.empty_wal(1);
        }
        for reply in asked {
            let _ = reply.send(self.checkpoint(false));
        }
    }

    pub(in crate::store) fn checkpoint(&mut self, at_once: bool) -> Result<SignedCheckpoint, CheckpointFault> {
        self.recover_if_due();
        if let Some(fault) = self.health.write_fault() {
            return Err(CheckpointFault::Refused(fault));
        }
        let (Some(signer), Some(tree)) = (&mut self.signer, &mut self.tree) else {
            return Err(CheckpointFault::Refused("the log's earlier checkpoints could not be verified".to_owned()));
        };
        let size = self.end.next_seq;
        let signed = signer.sign(&self.conn, &self.dir, size, || tree.root(size), at_once).inspect_err(|fault| {
            if let CheckpointFault::Tree(gone) = fault {
                self.health.refuse_writes(gone.to_string());
            }
        })?;
        self.health.publish_signed(Some(signed.checkpoint.size));
        Ok(signed)
    }

    fn cosigned(&mut self, note: &str) -> Result<u64, CheckpointFault> {
        let Some(signer) = &self.signer else {
            return Err(CheckpointFault::Refused("the log's earlier checkpoints could not be verified".to_owned()));
        };
        let opened = Note::parse(note).map_err(|e| CheckpointFault::Note(e.into()))?;
        let mut ages = self.ages.lock().unwrap_or_else(PoisonError::into_inner);
        if ages.knows_witnesses() && ages.cosigned_at(&opened).is_none() {
            if ages.met_stranger() {
                tracing::warn!("{}", CheckpointFault::Uncosigned);
            }
            return Err(CheckpointFault::Uncosigned);
        }
        let size = signer.keep_cosigned(&self.conn, note)?;
        ages.count(&opened, size, Instant::now());
        drop(ages);
        self.health.publish_witnessed(Some(size));
        Ok(size)
    }

    fn commit_drafts(
        &mut self,
        new_entries: Vec<Vec<NewEntry>>,
        replies: Vec<oneshot::Sender<Vec<AppendResult>>>,
        started: Instant,
    ) {
        if new_entries.is_empty() {
            return;
        }
        let counts: Vec<usize> = new_entries.iter().map(Vec::len).collect();
        match self.append(new_entries.into_iter().flatten().collect()) {
            Ok(results) => {
                let mut results = results.into_iter();
                for (count, reply) in counts.into_iter().zip(replies) {
                    // A caller that has disconnected gets no receipt, but its entries are recorded anyway.
                    let _ = reply.send(results.by_ref().take(count).collect());
                }
            }
            Err(error) => {
                for (count, reply) in counts.into_iter().zip(replies) {
                    let _ = reply.send(vec![Err(error.clone()); count]);
                }
            }
        }
        self.health.commits.observe(started.elapsed());
    }

    /// Records entries in one transaction. On an error, no entry of the group is recorded and `end` still describes what is on disk.
    pub(in crate::store) fn append(&mut self, new_entries: Vec<NewEntry>) -> Result<Vec<AppendResult>, AppendError> {
        let clock = Arc::clone(&self.clock);
        self.transact(|transaction, _| {
            let mut results = Vec::with_capacity(new_entries.len());
            for new_entry in new_entries {
                transaction.advance_time(clock.now())?;
                results.push(transaction.record(new_entry)?);
            }
            Ok(results)
        })
    }

    /// Runs `work` in one transaction, together with the entries that it records. On an error, nothing is applied, and `end`
    /// still describes what is on disk.
    pub(in crate::store) fn transact<T>(
        &mut self,
        work: impl FnOnce(&mut Transaction<'_>, Timestamp) -> Result<T, WriteError>,
    ) -> Result<T, AppendError> {
        self.recover_if_due();
        if let Some(fault) = self.health.write_fault() {
            return Err(AppendError::Fault(fault));
        }
        self.check_file()?;
        let mut end = self.end;
        self.health.stamps_from(self.clock.now());
        let done = self.in_transaction(&mut end, work);
        if done.is_ok() {
            self.health.publish_head(end.next_seq);
        }
        self.health.stamped();
        match done {
            Ok(done) => {
                self.detector.commit();
                self.end = end;
                self.index.grew(end.next_seq, &self.fresh);
                self.health.set_transient_fault(None);
                Ok(done)
            }
            Err(error) => {
                self.detector.rollback_to(0);
                self.health.claim(self.end.next_seq);
                Err(self.fail(&error))
            }
        }
    }

    fn in_transaction<T>(
        &mut self,
        end: &mut AppendPosition,
        work: impl FnOnce(&mut Transaction<'_>, Timestamp) -> Result<T, WriteError>,
    ) -> Result<T, WriteError> {
        let key = self.ring.key(self.generation, self.epoch).ok_or(WriteError::NoSecret(self.epoch))?;
        let (generation, epoch) = (self.generation, self.epoch);
        let sealing = Sealing { key: key.clone(), node_id: self.ring.node_id().clone(), generation, epoch };
        let tree = self.tree.as_mut().ok_or(WriteError::NoTree)?;
        tree.begin(end.next_seq)?;
        self.fresh.begin(end.next_seq);
        let transaction = self.conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let cookie = schema::cookie(&transaction)?;
        if cookie != self.schema_cookie {
            let differences = schema::differences(&transaction)?;
            if !differences.is_empty() {
                return Err(WriteError::Schema(differences.join("; ")));
            }
            self.schema_cookie = cookie;
        }
        let done = {
            let pending = Pending { tree, fresh: &mut self.fresh, detector: &mut self.detector, end };
            let mut open = Transaction::new(&transaction, sealing, pending)?;
            let done = work(&mut open, self.clock.now())?;
            open.store_tiles()?;
            done
        };
        // Publish the claim before the commit, because a full check treats a row at or above the claim as not written by the
        // writer.
        self.health.claim(end.next_seq);
        transaction.commit()?;
        Ok(done)
    }

    pub(in crate::store) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Returns a checker for rows of this log.
    pub(in crate::store) fn checker(&self) -> RowChecker {
        RowChecker::new(self.ring.clone(), self.generation)
    }

    /// Checks whether a failed disk works again, at most once per `RECOVERY_INTERVAL`.
    fn recover_if_due(&mut self) {
        if self.broken.get().is_none_or(|tried| tried.elapsed() < RECOVERY_INTERVAL) {
            return;
        }
        self.broken.set(Some(Instant::now()));
        match self.recover() {
            Ok(()) => {
                self.broken.set(None);
                self.health.recovered();
                tracing::warn!(rows = self.end.next_seq, "the disk works again; the log accepts entries again");
            }
            Err(message) => tracing::debug!(error = message, "the disk has not recovered yet"),
        }
    }

    /// Reloads the state from disk, as at startup. Data that could not be synced may be visible in the WAL through the page
    /// cache without being on disk, so no row is appended to that WAL: the whole WAL is first checkpointed into the database,
    /// synced, and reset. A crash before that loses only rows that were never acknowledged.
    fn recover(&mut self) -> Result<(), String> {
        let describe = |error: &dyn std::fmt::Display| error.to_string();
        // Close the failed connection first, because it may hold locks.
        self.conn = Connection::open_in_memory().map_err(|e| describe(&e))?;
        let opened = self.dir.reopen_writer(self.ring.cluster(), self.ring.node_id()).map_err(|e| describe(&e))?;
        if opened.identity != self.identity || opened.generation != self.generation {
            return Err("the database was replaced by another file".to_owned());
        }
        let busy = opened.conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get::<_, i64>(0));
        match busy {
            Ok(0) => {}
            Ok(_) => return Err("a reader blocks the WAL checkpoint".to_owned()),
            Err(error) => return Err(describe(&error)),
        }
        let stored = rows::extent(&opened.conn).map_err(|e| describe(&e))?.head_seq.map_or(0, |head| head + 1);
        if stored < self.end.next_seq {
            let known = self.end.next_seq;
            self.health.distrust(format!(
                "{known} rows were recorded, but the log has only {stored} since the disk failed; stop the node and keep the file as evidence"
            ));
            return Err("rows are missing".to_owned());
        }
        let (keys, clock, health) = (self.keys.clone(), Arc::clone(&self.clock), Arc::clone(&self.health));
        let fresh =
            Self::new(opened, &self.dir, &keys, clock, health, Arc::clone(&self.index)).map_err(|e| describe(&e))?;
        if fresh.tree.is_none() || fresh.signer.is_none() {
            return Err("cannot read the tree or the signed checkpoints".to_owned());
        }
        let detector = std::mem::replace(&mut self.detector, Detector::new(Rules::none()));
        let (ages, wal_to_empty) = (Arc::clone(&self.ages), self.wal_to_empty);
        let (epoch, last_epoch) = (self.epoch, self.last_epoch);
        *self = Self { detector, ages, wal_to_empty, epoch, last_epoch, ..fresh };
        self.index.grew(self.end.next_seq, &PendingRows::default());
        Ok(())
    }

    /// Checks that the path still names the open file: data written to an unlinked file would be lost when the process ends.
    fn check_file(&self) -> Result<(), AppendError> {
        let problem = match file_identity(&self.dir.database()) {
            Ok(identity) if identity == self.identity => return Ok(()),
            Ok(_) => "was replaced by another file",
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => "was removed",
            Err(_) => "became inaccessible",
        };
        self.health.distrust(format!(
            "{} {problem} while the node was running; stop the node, save what is left, and restore the right file",
            self.dir.database().display()
        ));
        Err(AppendError::Fault(self.health.write_fault().unwrap_or_default()))
    }

    /// Converts the error of a failed transaction into an error for the callers, and notes its consequences for later
    /// transactions in `health`. A full disk may get free space and a failed disk may recover; after any other failure of the
    /// file, the writer stops until a restart, which rereads what is really on disk.
    fn fail(&self, error: &WriteError) -> AppendError {
        tracing::error!(%error, "append failed; no entry of the group was recorded");
        let error = match error {
            WriteError::Sqlite(error) => error,
            // These errors do not affect the database file.
            WriteError::NoSecret(_)
            | WriteError::NoTree
            | WriteError::Random(_)
            | WriteError::OwnEntry(_)
            | WriteError::OwnDuplicate => return AppendError::Fault(error.to_string()),
            WriteError::Integrator(_) => {
                self.health.refuse_writes(error.to_string());
                return AppendError::Fault(error.to_string());
            }
            WriteError::Schema(_) => {
                self.health.distrust(error.to_string());
                return AppendError::Fault(self.health.write_fault().unwrap_or_default());
            }
        };
        let failed = match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => AppendError::DiskFull,
            Some(ErrorCode::ReadOnly) => AppendError::Fault(
                "the database or its disk is read-only; make it writable and send the entry again".to_owned(),
            ),
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => AppendError::Fault(
                "another process has locked the database; stop it and send the entry again".to_owned(),
            ),
            Some(ErrorCode::SystemIoFailure | ErrorCode::CannotOpen) => {
                self.broken.set(Some(Instant::now()));
                self.health.refuse_writes(format!(
                    "{error}: {} or a file next to it cannot be written; check the disk and the kernel log (the node retries every second)",
                    self.dir.database().display()
                ));
                AppendError::Fault(self.health.write_fault().unwrap_or_default())
            }
            _ => {
                self.health.refuse_writes(format!("{error}; restart the node, then run `piperoll node verify`"));
                AppendError::Fault(self.health.write_fault().unwrap_or_default())
            }
        };
        self.health.set_transient_fault(Some(failed.to_string()));
        failed
    }
}

fn drafts_in(job: &Job) -> usize {
    match job {
        Job::Append { new_entries, .. } => new_entries.len(),
        Job::Checkpoint { .. } | Job::Cosigned { .. } | Job::Work(_) | Job::Stop => 0,
    }
}
