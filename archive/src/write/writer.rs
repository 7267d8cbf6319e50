//! The writer of an archive: its state, and the archive as it knows it.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions, TryLockError};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use piperoll_format::time::Timestamp;

use super::error::WriteError;
use super::settings::Settings;
use super::state::{Alarm, AlarmKind, PendingDeletion, STATE_FILE, State, StateFile};
use crate::history::{Head, History, HistoryError, missing};
use crate::record::names;
use crate::record::{Digest, Missing, Step};
use crate::store::Store;

/// Rows that one step adds at most: about 3 GB on the local disk while it is written. The others follow in the next step.
const STEP_ROWS_MAX: u64 = 4_000_000;
/// Removed files whose deletion a writer confirms after it took over, besides those that the store lists.
const UNCONFIRMED_MAX: usize = 10_000;
pub(super) const SPOOL_DIR: &str = "spool";
const LOCK_FILE: &str = "lock";

/// Result of one round.
#[derive(Debug)]
pub enum StepOutcome {
    /// No row is due, or none of the due ones could be read.
    Nothing { missing: Vec<Missing> },
    Committed {
        committed: Box<Committed>,
        /// The archive with this step.
        history: Box<History>,
    },
}

/// A committed step.
#[derive(Debug, Clone)]
pub struct Committed {
    pub step: Step,
    pub digest: Digest,
}

/// The writer of one archive. Only one may exist for an archive.
pub struct Writer {
    pub(super) store: Store,
    pub(super) settings: Settings,
    pub(super) state: StateFile,
    pub(super) step_rows_max: u64,
    /// The archive as this writer knows it, so that later rounds read only new steps.
    pub(super) known: Option<History>,
    /// Held while the writer exists, so that no other process uses its state.
    _lock: File,
}

impl Writer {
    /// Opens the writer's state.
    ///
    /// # Errors
    /// Fails if the local directory or the state file cannot be used.
    pub fn open(store: Store, settings: Settings) -> Result<Self, WriteError> {
        let spool = settings.dir.join(SPOOL_DIR);
        std::fs::create_dir_all(&spool).map_err(|error| WriteError::Local { path: spool.clone(), error })?;
        let lock = lock(&settings.dir)?;
        clear(&spool).map_err(|error| WriteError::Local { path: spool.clone(), error })?;
        let state = StateFile::open(&settings.dir.join(STATE_FILE))?;
        Ok(Self { store, settings, state, step_rows_max: STEP_ROWS_MAX, known: None, _lock: lock })
    }

    /// Limits the rows of a step to fewer than the default; for tests.
    #[must_use]
    pub fn with_step_rows_max(mut self, rows: u64) -> Self {
        self.step_rows_max = rows.max(1);
        self
    }

    /// Host and instance, as plans and steps name the writer.
    pub fn name(&self) -> String {
        format!("{}/{}", self.settings.host, self.state.state.instance)
    }

    /// Whether a plan or step was written by this writer. The host may have been renamed since.
    pub(super) fn is_own(&self, writer: &str) -> bool {
        writer.rsplit('/').next() == Some(self.state.state.instance.as_str())
    }

    /// The finding about the archive that an operator has not accepted yet.
    pub fn alarm(&self) -> Option<&Alarm> {
        self.state.state.alarm.as_ref()
    }

    /// Reads the chain of steps, and compares it with what this writer saw. Returns the newest step too, if it was not published
    /// completely.
    ///
    /// # Errors
    /// Fails if the archive was rolled back, replaced, or written by another writer.
    pub async fn load(&mut self, now: Timestamp) -> Result<(History, Option<Committed>), WriteError> {
        if let Some(alarm) = self.state.state.alarm.clone() {
            return Err(WriteError::Alarm { kind: alarm.kind, reason: alarm.reason, since: alarm.since });
        }
        let read = match self.read_chain().await {
            // A finding stays until an operator accepts it, so it must not be due to a single answer that was damaged on its way.
            Err(Unread::Finding(kind, reason)) => match self.read_chain().await {
                Err(Unread::Error(error)) if !error.is_no_finding() => Err(Unread::Finding(kind, reason)),
                again => again,
            },
            read => read,
        };
        let (history, newest) = read.map_err(|unread| match unread {
            Unread::Finding(kind, reason) => self.raise(kind, reason, now),
            Unread::Error(error) => error,
        })?;
        if self.state.state.head != Some(history.head) {
            let next = State { head: Some(history.head), ..self.state.state.clone() };
            self.state.store(next)?;
        }
        self.known = Some(history.clone());
        let unpublished = newest.filter(|(step, _)| step.number > self.state.state.published);
        let unpublished = unpublished.map(|(step, digest)| Committed { step, digest });
        Ok((history, unpublished))
    }

    /// Reads the steps that are not known yet, and compares the chain with what this writer saw. Returns the newest of these steps too.
    async fn read_chain(&mut self) -> Result<(History, Option<(Step, Digest)>), Unread> {
        let seen = self.state.state.head;
        // If the newest step was not published completely, read it again.
        let known = self.known.take().filter(|known| known.head.number <= self.state.state.published);
        // The steps that this writer knows were compared when it read or wrote them.
        let mut seen_there = seen.is_none() || known.is_some();
        let mut newest: Option<(Step, Digest)> = None;
        let key = self.settings.keys.steps.public().clone();
        let each = |step: &Step, head: Head| {
            seen_there |= Some(head) == seen;
            newest = Some((step.clone(), head.digest));
        };
        let loaded = match known {
            Some(mut known) => known.advance(&self.store, &key, each).await.map(|()| known),
            None => History::load(&self.store, &key, &self.settings.cluster, &self.settings.archive, each).await,
        };
        let history = match loaded {
            // A missing step below the newest one that this writer saw is a rollback too.
            Err(HistoryError::Gap(name)) if seen.is_some() => {
                return Err(Unread::Finding(AlarmKind::Rollback, format!("{name} is missing")));
            }
            Err(error @ HistoryError::Chain { .. }) if seen.is_some() => {
                return Err(Unread::Finding(AlarmKind::Fork, error.to_string()));
            }
            loaded => loaded.map_err(WriteError::from)?,
        };
        if let Some(seen) = seen {
            if history.head.number < seen.number {
                return match missing(&self.store, history.head.number + 1).await {
                    HistoryError::Gap(_) => {
                        let reason = format!("it has {} steps, but step {} was seen", history.head.number, seen.number);
                        Err(Unread::Finding(AlarmKind::Rollback, reason))
                    }
                    error => Err(WriteError::from(error).into()),
                };
            }
            let is_known = seen_there || seen == history.head || (newest.is_some() && seen.number == 0);
            if !is_known {
                let reason = format!("{} is not the one that was seen ({})", names::step(seen.number), seen.digest);
                return Err(Unread::Finding(AlarmKind::Fork, reason));
            }
        } else if history.head.number > 0 {
            return Err(WriteError::Unknown(self.store.shown().to_owned()).into());
        }
        if let Some((step, _)) = newest.as_ref().filter(|(step, _)| seen.is_none_or(|seen| step.number > seen.number))
            && !self.is_own(&step.writer)
        {
            let (name, writer) = (names::step(step.number), step.writer.clone());
            return Err(WriteError::AnotherWriter { name, writer, own: self.name() }.into());
        }
        Ok((history, newest))
    }

    /// Accepts the archive as it is now: clears a finding, and takes over from another writer.
    ///
    /// # Errors
    /// Fails if the chain of steps is not valid in itself.
    pub async fn accept(&mut self) -> Result<Head, WriteError> {
        let key = self.settings.keys.steps.public().clone();
        let (cluster, archive) = (self.settings.cluster.clone(), self.settings.archive.clone());
        let mut removed: Vec<(String, u64)> = Vec::new();
        let mut present: BTreeSet<String> = BTreeSet::new();
        let each = |step: &Step, _| {
            for name in step.removed_files() {
                present.remove(name);
                removed.push((name.clone(), step.number));
            }
            present.extend(step.new_files().map(|file| file.name.clone()));
        };
        let history = History::load(&self.store, &key, &cluster, &archive, each).await?;
        let published = self.state.state.published.min(history.head.number);
        // A plan that another writer left open is continued.
        let adopted = Some(history.head.number + 1);
        removed.retain(|(name, _)| !present.contains(name));
        let pending = self.unconfirmed(removed, &present).await?;
        // The rows of all steps are searched for erasures again: those that this writer searched may be others.
        let next = State {
            head: Some(history.head),
            alarm: None,
            published,
            adopted,
            pending,
            searched: 0,
            refused: Vec::new(),
            ..self.state.state.clone()
        };
        self.state.store(next)?;
        self.known = None;
        Ok(history.head)
    }

    /// Files that steps replaced or removed and that may still exist: another writer, or this one before it lost its state, may not have
    /// been able to delete them. The next round tries again.
    async fn unconfirmed(
        &self,
        removed: Vec<(String, u64)>,
        present: &BTreeSet<String>,
    ) -> Result<Vec<PendingDeletion>, WriteError> {
        let mut pending = self.state.state.pending.clone();
        // After a rollback, a file that was to be deleted can be part of the archive again.
        pending.retain(|pending| !present.contains(&pending.name));
        if removed.is_empty() {
            return Ok(pending);
        }
        let known: BTreeSet<String> = pending.iter().map(|pending| pending.name.clone()).collect();
        let listed: BTreeSet<String> = self.store.list(names::DATA).await?.into_iter().map(|file| file.name).collect();
        for (name, step) in removed.into_iter().rev() {
            // A locked file may be hidden from lists, so the most recently removed ones are tried in any case.
            if !known.contains(&name) && (listed.contains(&name) || pending.len() < UNCONFIRMED_MAX) {
                let reason = "this writer has not seen its deletion".to_owned();
                pending.push(PendingDeletion { name, step, until: None, reason });
            }
        }
        Ok(pending)
    }

    fn raise(&mut self, kind: AlarmKind, reason: String, since: Timestamp) -> WriteError {
        let next = State { alarm: Some(Alarm { kind, reason: reason.clone(), since }), ..self.state.state.clone() };
        if let Err(error) = self.state.store(next) {
            // The finding is reported anyway, and found again at the next round.
            tracing::error!(%error, "cannot store a finding about the archive");
        }
        WriteError::Alarm { kind, reason, since }
    }
}

/// Takes the lock of the writer's directory.
fn lock(dir: &Path) -> Result<File, WriteError> {
    let path = dir.join(LOCK_FILE);
    let failed = |error: std::io::Error| WriteError::Local { path: path.clone(), error };
    let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(WriteError::Locked(path.clone())),
        Err(TryLockError::Error(error)) => Err(failed(error)),
    }
}

/// Removes files that a crash left.
fn clear(spool: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(spool)? {
        std::fs::remove_file(entry?.path())?;
    }
    Ok(())
}

/// Reasons why the chain of steps could not be read.
enum Unread {
    /// The archive was rolled back or replaced, if a second attempt has the same result.
    Finding(AlarmKind, String),
    Error(WriteError),
}

impl From<WriteError> for Unread {
    fn from(error: WriteError) -> Self {
        Self::Error(error)
    }
}
