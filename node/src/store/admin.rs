//! Maintenance of a log by its operator: holds, erasure and retention.

use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use piperoll_detect::Rules;
use piperoll_format::note::Note;
use piperoll_format::statement::{ArchiveDigest, Hold, HoldRelease, PruneFinished, Pruned, TimesConfirmed};
use piperoll_format::time::Timestamp;
use piperoll_format::verify::RowChecker;
use piperoll_net::clock::Clock;
use piperoll_protocol::ArchivedRowRef;
use piperoll_protocol::node::{ConfirmedTimes, EntryRecorded, PrunePlan};
use tokio::sync::oneshot;

use super::engine::ages::Ages;
use super::engine::open_writer::{OpenWriter, open_writer};
use super::engine::signer::{CurrentRows, StoredNote, keep_mirrored, kept};
use super::engine::writer::{Job, Writer};
use super::index::BLOCK_LEVEL;
use super::lifecycle::erase::{erase, erase_archived};
use super::lifecycle::hold_changes::{add_hold, confirm_times, release_hold};
use super::lifecycle::past_retention::{self, LogLocation};
use super::lifecycle::prune::{PruneCheck, Pruner, file_bytes, plan, used_bytes};
use super::lifecycle::prune_request::PruneTarget;
use super::log::Store;
use super::table::error::{AdminError, AppendError, OpenError, check_reason, refused as refused_read};
use super::table::holds::{HeldBy, holds};
use super::table::keys::LogKeys;
use super::table::log_dir::LogDir;
use super::table::log_start::{LogStart, first_seq, floor, unfinished};

type Result<T> = std::result::Result<T, AdminError>;

impl Store {
    /// Runs work on the writer's thread between two groups of entries.
    async fn on_writer<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Writer) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (reply, answer) = oneshot::channel();
        let work = Box::new(move |writer: &mut Writer| {
            let _ = reply.send(work(writer));
        });
        let stopping = || AdminError::Log(AppendError::Stopping);
        self.jobs.send(Job::Work(work)).await.map_err(|_| stopping())?;
        answer.await.unwrap_or_else(|_| Err(stopping()))
    }

    fn checker(&self) -> RowChecker {
        RowChecker::new(self.keys.ring.clone(), self.generation)
    }

    /// Returns the log start if rows were pruned, and `None` otherwise.
    pub async fn floor(&self) -> Result<Option<LogStart>> {
        let mut checker = self.checker();
        let found = self.readers.run(move |conn| floor(conn, &mut checker)).await??;
        found.map_err(AdminError::Refused)
    }

    /// Returns all holds that have not been released.
    pub async fn holds(&self) -> Result<Vec<HeldBy>> {
        let mut checker = self.checker();
        self.readers.run(move |conn| holds(conn, &mut checker)).await??.map_err(AdminError::Refused)
    }

    pub async fn add_hold(&self, hold: Hold) -> Result<u64> {
        self.on_writer(move |writer| add_hold(writer, &hold)).await
    }

    pub async fn release_hold(&self, release: HoldRelease) -> Result<u64> {
        self.on_writer(move |writer| release_hold(writer, &release)).await
    }

    /// Erases one row and returns the seq of the entry that records it.
    pub async fn erase(&self, seq: u64, reason: String, by: String) -> Result<EntryRecorded> {
        self.on_writer(move |writer| erase(writer, seq, &reason, &by, &[])).await
    }

    /// Records the erasure of a row that this log pruned and that the archive still has.
    pub async fn erase_archived(&self, row: ArchivedRowRef, reason: String, by: String) -> Result<EntryRecorded> {
        self.on_writer(move |writer| erase_archived(writer, &row, &reason, &by, &[])).await
    }

    /// Stores a checkpoint of this node whose rows the cluster's archive has. `archived_from` is the first archived row. Returns the
    /// number of rows that the checkpoint covers.
    pub async fn mirrored(&self, note: String, archived_from: u64) -> Result<u64> {
        self.on_writer(move |writer| {
            let refused =
                |reason: String| AdminError::Refused(format!("the archive's checkpoint was refused: {reason}"));
            let (mut checker, end) = (writer.checker(), writer.next_seq());
            let start = first_seq(refused_read(floor(writer.conn(), &mut checker)?)?.as_ref());
            let current = CurrentRows { generation: writer.generation(), rows: start..end };
            let kept = keep_mirrored(writer.conn(), writer.keys(), &current, &note, archived_from);
            kept.map_err(|error| refused(error.to_string()))
        })
        .await
    }

    /// Discards the search index; the indexer rebuilds it in the background.
    pub async fn reindex(&self) -> Result<()> {
        let index = Arc::clone(self.indexer.index());
        let done = tokio::task::spawn_blocking(move || index.reset()).await.unwrap_or_else(|e| Err(e.into()));
        done.map_err(|error| AdminError::Read(format!("cannot remove an index block: {error}")))
    }

    /// Plans a prune: determines which rows the request would prune now.
    pub async fn plan_prune(&self, wish: PruneTarget) -> Result<PrunePlan> {
        let (mut checker, witnessed, place) = (self.checker(), self.health.witnessed_size(), self.place());
        self.readers.run(move |conn| plan(conn, &mut checker, wish, witnessed, &place)).await?
    }

    fn place(&self) -> LogLocation {
        LogLocation { dir: self.dir.clone(), keys: self.keys.clone() }
    }

    /// Returns the oldest timestamp in an archived log that would be pruned together with the first rows of the current log.
    pub async fn oldest_of_earlier(&self) -> Result<Option<Timestamp>> {
        let (mut checker, place) = (self.checker(), self.place());
        self.readers.run(move |conn| past_retention::oldest(conn, &mut checker, &place)).await?
    }

    /// Verifies every row of the archived logs that the plan would remove. If a log must be kept as evidence, that log and all
    /// logs before it are kept.
    async fn check_earlier(&self, plan: &mut PrunePlan) -> Result<()> {
        for at in 0..plan.earlier.len() {
            let (place, log) = (self.place(), plan.earlier[at].clone());
            let checking = move || past_retention::verify(&place, &log);
            let stopped = |error: tokio::task::JoinError| AdminError::Read(error.to_string());
            if let Some(evidence) = tokio::task::spawn_blocking(checking).await.map_err(stopped)?? {
                let generation = plan.earlier[at].generation;
                tracing::error!(%generation, evidence, "keeping an archived log and those before it as evidence; remove it by hand once you understand what happened");
                plan.earlier.truncate(at);
                break;
            }
        }
        Ok(())
    }

    /// Removes the archived logs that were pruned together with rows of this log, once a witness has seen the `log.pruned`
    /// entry.
    pub async fn remove_earlier(&self) -> Result<()> {
        let Some(floor) = self.floor().await? else { return Ok(()) };
        // If the pruned rows do not begin at row 0, the entry only repeats which logs an earlier prune removed. Remove nothing
        // then, because an operator may have restored such a log in order to examine it.
        if self.health.witnessed_size() <= floor.entry_seq || floor.pruned.from_seq > 0 {
            return Ok(());
        }
        let (place, held) = (self.place(), self.holds().await?);
        let removing = move || {
            let mut left = Vec::new();
            for log in &floor.pruned.earlier {
                match past_retention::remove(&place, log, &held) {
                    Ok(true) => {
                        tracing::info!(generation = %log.generation, rows = log.rows, "removing an archived log")
                    }
                    Ok(false) => {}
                    Err(message) => left.push(format!(
                        "the archived log {} is recorded as pruned but still exists: {message}",
                        log.generation
                    )),
                }
            }
            left
        };
        let left = tokio::task::spawn_blocking(removing).await.map_err(|e| AdminError::Read(e.to_string()))?;
        self.asides.look_again();
        if left.is_empty() { Ok(()) } else { Err(AdminError::Refused(left.join("; "))) }
    }

    /// Verifies every row that a plan would prune, and then records that the rows are pruned. [`Store::drop_batch`] deletes
    /// them.
    pub async fn state_prune(
        &self,
        wish: PruneTarget,
        mut plan: PrunePlan,
        policy: String,
        archive: Option<ArchiveDigest>,
    ) -> Result<Pruned> {
        self.check_earlier(&mut plan).await?;
        let mut check = PruneCheck::new(plan.from_seq, plan.to_seq);
        loop {
            let mut checker = self.checker();
            let step = move |conn: &rusqlite::Connection| {
                let done = check.step(conn, &mut checker);
                (check, done)
            };
            let (returned, done) = self.readers.run(step).await?;
            check = returned;
            if done? {
                break;
            }
        }
        self.on_writer(move |writer| Pruner::new(writer).state(wish, &plan, &policy, archive)).await
    }

    /// Returns the log start if pruned rows still have to be deleted from the database.
    pub async fn unfinished_prune(&self) -> Result<Option<LogStart>> {
        let mut checker = self.checker();
        self.readers.run(move |conn| unfinished(conn, &mut checker)).await?
    }

    /// Deletes one batch of pruned rows from the database. Returns true if there was no row left to delete.
    pub async fn drop_batch(&self) -> Result<bool> {
        self.on_writer(|writer| Pruner::new(writer).drop_batch()).await
    }

    /// Gives some free pages back to the file system. Returns true if no free page is left or none could be given back.
    pub async fn shrink(&self) -> Result<bool> {
        self.on_writer(|writer| Pruner::new(writer).shrink()).await
    }

    /// Returns the seq of the oldest row that is still in the database, even if it is below the log start.
    pub async fn oldest_there(&self) -> Result<Option<u64>> {
        let read = |conn: &rusqlite::Connection| {
            conn.query_row("SELECT min(seq) FROM entries WHERE seq >= 0", [], |row| row.get(0))
        };
        Ok(self.readers.run(read).await??)
    }

    pub async fn finish_prune(&self, bytes_freed: u64) -> Result<Option<PruneFinished>> {
        self.on_writer(move |writer| Pruner::new(writer).finish(bytes_freed)).await
    }

    pub async fn file_bytes(&self) -> Result<u64> {
        self.on_writer(|writer| Ok(file_bytes(writer.conn())?)).await
    }

    /// Returns the number of bytes of the database that are in use.
    pub async fn used_bytes(&self) -> Result<u64> {
        Ok(self.readers.run(used_bytes).await??)
    }

    fn ages(&self) -> MutexGuard<'_, Ages> {
        self.ages.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a witness of this cluster is configured on this node.
    pub fn knows_witnesses(&self) -> bool {
        self.ages().knows_witnesses()
    }

    /// Whether a witness that is not configured on this node has cosigned.
    pub fn met_unknown_witness(&self) -> bool {
        self.ages().stranger()
    }

    /// Returns the seq below which rows have been witnessed for at least `long`.
    pub fn rows_witnessed_for(&self, long: Duration) -> u64 {
        self.ages().rows_for(long)
    }

    /// Returns the seq below which a row's age is computed from its own timestamp, because an operator has confirmed these
    /// timestamps.
    pub fn confirmed_below(&self) -> Option<u64> {
        self.ages().confirmed_below()
    }

    /// Allows automatic retention to use the timestamps of the rows that were recorded before this node began to track how long
    /// rows have been witnessed. This can be done once per log; for later rows it is not needed.
    pub async fn confirm_times(&self, reason: String, by: String, dry_run: bool) -> Result<ConfirmedTimes> {
        let refused = |message: String| Err(AdminError::Refused(message));
        // Check the reason first, so that a request that can never succeed is not told to wait for a witness.
        if !dry_run {
            check_reason(&reason)?;
        }
        if let Some(below) = self.confirmed_below() {
            return refused(format!(
                "the times of the rows below {below} were confirmed already; the times of later rows need no confirmation"
            ));
        }
        let Some(to_seq) = self.ages().unsampled() else {
            return refused(
                "no witness has cosigned this log yet, so the age of its rows is unknown; wait for one to do so"
                    .to_owned(),
            );
        };
        let from_seq = self.extent().await?.oldest_seq.unwrap_or(0);
        if from_seq >= to_seq {
            return refused(format!("there are no times to confirm: all rows below {to_seq} have been pruned"));
        }
        let (oldest, newest) = (self.time_of(from_seq).await?, self.time_of(to_seq - 1).await?);
        let mut confirmed = ConfirmedTimes { from_seq, to_seq, oldest, newest, entry_seq: None };
        if !dry_run {
            let said = TimesConfirmed { to_seq, reason, by };
            confirmed.entry_seq = Some(self.on_writer(move |writer| confirm_times(writer, &said)).await?);
            // A crash before this line leaves an entry that has no effect, and the command can be repeated.
            let kept = self.ages().confirm(to_seq);
            kept.map_err(|error| {
                AdminError::Refused(format!(
                    "cannot write witnessed.json: {error}; free disk space and repeat the command"
                ))
            })?;
        }
        Ok(confirmed)
    }

    /// Returns the duration for which the oldest rows have been witnessed.
    pub fn oldest_witnessed(&self) -> Duration {
        self.ages().oldest()
    }

    /// Returns the time at which a configured witness last cosigned a checkpoint of this log, according to that witness's
    /// clock.
    pub async fn witnessed_at(&self) -> Result<Option<Timestamp>> {
        let note = self.readers.run(|conn| kept(conn, StoredNote::Witnessed)).await??;
        let note = note.and_then(|note| Note::parse(&note).ok());
        let seconds = note.and_then(|note| self.ages().cosigned_at(&note));
        Ok(seconds.and_then(|seconds| i64::try_from(seconds).ok()?.checked_mul(1_000_000)).map(Timestamp::from_micros))
    }
}

/// Sets holds and erases rows while the daemon is stopped. The writer's lock is held as long as this value exists.
pub struct OfflineAdmin {
    open: OpenWriter,
}

impl OfflineAdmin {
    pub fn open(dir: &LogDir, keys: &LogKeys, clock: Arc<dyn Clock>) -> std::result::Result<Self, OpenError> {
        Ok(Self { open: open_writer(dir, keys, clock, Rules::none(), BLOCK_LEVEL)? })
    }

    pub fn holds(&self) -> Result<Vec<HeldBy>> {
        let writer = &self.open.writer;
        holds(writer.conn(), &mut writer.checker())?.map_err(AdminError::Refused)
    }

    pub fn add_hold(&mut self, hold: &Hold) -> Result<u64> {
        let entry = add_hold(&mut self.open.writer, hold)?;
        self.sign();
        Ok(entry)
    }

    pub fn release_hold(&mut self, release: &HoldRelease) -> Result<u64> {
        let entry = release_hold(&mut self.open.writer, release)?;
        self.sign();
        Ok(entry)
    }

    /// Erases a row. For an archived log, `holds` are the holds of the log that replaced it.
    pub fn erase(&mut self, seq: u64, reason: &str, by: &str, holds: &[Hold]) -> Result<EntryRecorded> {
        let done = erase(&mut self.open.writer, seq, reason, by, holds)?;
        self.sign();
        Ok(done)
    }

    /// Records the erasure of a row that this log pruned and that the archive still has. `holds` are as for [`Self::erase`].
    pub fn erase_archived(
        &mut self,
        row: &ArchivedRowRef,
        reason: &str,
        by: &str,
        holds: &[Hold],
    ) -> Result<EntryRecorded> {
        let done = erase_archived(&mut self.open.writer, row, reason, by, holds)?;
        self.sign();
        Ok(done)
    }

    /// Signs the new rows, because no daemon ever starts on an archived log again. If signing fails, the rows stay unsigned,
    /// and every read of them reports that.
    fn sign(&mut self) {
        if let Err(error) = self.open.writer.checkpoint(true) {
            tracing::info!(%error, "cannot sign a checkpoint of the log's current size");
        }
    }
}
