//! Actions after a commit: cosigns and publishes the checkpoints whose rows the archive holds.

use std::time::Duration;

use piperoll_format::note::Note;
use piperoll_format::time::Timestamp;

use super::error::WriteError;
use super::state::{PendingDeletion, State};
use super::writer::{Committed, Writer};
use crate::record::{Step, names};
use crate::store::{Created, StoreError};

/// Maximum size of a checkpoint with its signatures.
const CHECKPOINT_BYTES_MAX: u64 = 64 * 1024;
/// Refused erasures that are remembered.
const REFUSED_MAX: usize = 64;
const SECOND: Duration = Duration::from_secs(1);

impl Writer {
    /// Cosigns the checkpoints whose rows are all archived (C2SP tlog-mirror), and stores them in the archive. A checkpoint that
    /// covers rows after the step's range is not cosigned. Repeating this returns the checkpoints of the first time.
    ///
    /// # Errors
    /// Fails if the store does not answer.
    pub async fn publish(&mut self, committed: &Committed, now: Timestamp) -> Result<(), WriteError> {
        self.remove_unused(committed).await?;
        for name in committed.step.removed_files() {
            self.delete_or_remember(name, committed.step.number).await?;
        }
        let seconds = u64::try_from(now.micros()).unwrap_or_default() / u64::try_from(SECOND.as_micros()).unwrap_or(1);
        for range in &committed.step.logs {
            let origin = range.log.origin(self.settings.cluster.as_str());
            let checkpoint = crate::history::checkpoint_of(&range.checkpoint, &origin);
            let bad =
                |reason: String| crate::record::RecordError::Form { name: names::step(committed.step.number), reason };
            if checkpoint.map_err(bad)?.size != range.to_seq {
                continue;
            }
            let note = Note::parse(&range.checkpoint)?;
            let cosignature = self.settings.keys.mirror.cosign(note.text(), seconds);
            let text = note.clone().with(cosignature).to_string();
            let name = names::checkpoint(&origin, committed.step.number);
            if self.store.create(&name, text.into()).await? == Created::Exists {
                // An earlier attempt cosigned it at another time.
                let found = self.store.read(&name, CHECKPOINT_BYTES_MAX).await?;
                let found = String::from_utf8(found.to_vec()).unwrap_or_default();
                let known = Note::parse(&found).ok().filter(|known| known.text() == note.text());
                let known = known.filter(|known| known.verify(self.settings.keys.mirror.public()).is_ok());
                if known.is_none() {
                    return Err(WriteError::OtherContent { name });
                }
            }
        }
        Ok(())
    }

    /// Deletes files that interrupted attempts created and that the step does not use, because a row was erased or a node was lost
    /// meanwhile. Engines that list the folder would otherwise see their rows twice. The commit has decided which files are
    /// used, so this cannot delete one that is.
    async fn remove_unused(&mut self, committed: &Committed) -> Result<(), WriteError> {
        let used = |name: &str| committed.step.new_files().any(|file| file.name == name);
        let plans = self.plans_of(committed.step.number).await?;
        // The files of a plan for another history, before an operator accepted a rollback, may belong to an earlier step now.
        let of_history = plans.into_iter().filter(|(_, plan)| plan.previous == committed.step.previous);
        for (_, plan) in of_history {
            for file in plan.files.iter().filter(|file| !used(&file.name)) {
                self.delete_or_remember(&file.name, committed.step.number).await?;
            }
        }
        Ok(())
    }

    /// Deletes all versions of a file that is not part of the archive. If the store keeps it, for example because of an object lock, this
    /// is remembered and tried again later.
    async fn delete_or_remember(&mut self, name: &str, step: u64) -> Result<(), WriteError> {
        let remaining = match self.store.delete_all_versions(name).await {
            Ok(deleted) => deleted.remaining(),
            // One file that cannot be deleted must not stop the archive.
            Err(
                error @ (StoreError::Denied { .. }
                | StoreError::TooManyVersions { .. }
                | StoreError::VersionsRemain { .. }),
            ) => Some((None, error.to_string())),
            Err(error) => return Err(error.into()),
        };
        let is_known = |pending: &PendingDeletion| pending.name == name;
        match remaining {
            None if !self.state.state.pending.iter().any(is_known) => Ok(()),
            None => self.remember(|pending| pending.retain(|known| known.name != name)),
            Some((until, reason)) => {
                let until = until.map(|until| Timestamp::from_micros(until.timestamp_micros()));
                let kept = PendingDeletion { name: name.to_owned(), step, until, reason };
                self.remember(|pending| {
                    pending.retain(|known| known.name != name);
                    pending.push(kept);
                })
            }
        }
    }

    fn remember(&mut self, change: impl FnOnce(&mut Vec<PendingDeletion>)) -> Result<(), WriteError> {
        let mut next = self.state.state.clone();
        change(&mut next.pending);
        Ok(self.state.store(next)?)
    }

    /// Files that are not part of the archive any more, and that the store keeps.
    pub fn pending_deletions(&self) -> &[PendingDeletion] {
        &self.state.state.pending
    }

    /// Tries again to delete files that the store kept, unless they are known to be locked.
    ///
    /// # Errors
    /// Fails if the store does not answer.
    pub async fn retry_deletions(&mut self, now: Timestamp) -> Result<(), WriteError> {
        let is_due = |pending: &&PendingDeletion| pending.until.is_none_or(|until| until <= now);
        let due: Vec<PendingDeletion> = self.state.state.pending.iter().filter(is_due).cloned().collect();
        for pending in due {
            self.delete_or_remember(&pending.name, pending.step).await?;
        }
        Ok(())
    }

    /// Forgets deletions of files that are going to be part of the archive again: the same rows have the same name.
    pub(super) fn keep_files(&mut self, step: &Step) -> Result<(), WriteError> {
        let is_used = |pending: &PendingDeletion| step.new_files().any(|file| file.name == pending.name);
        if !self.state.state.pending.iter().any(is_used) {
            return Ok(());
        }
        self.remember(|pending| pending.retain(|known| !is_used(known)))
    }

    /// Newest step whose rows were searched for entries that declare erasures.
    pub fn searched(&self) -> u64 {
        self.state.state.searched
    }

    /// Declared erasures that were refused, because they describe other rows than the archived ones.
    pub fn refused(&self) -> &[String] {
        &self.state.state.refused
    }

    /// Remembers that all erasures that the rows of the first `step` steps declare have been carried out, except `refused` ones.
    ///
    /// # Errors
    /// Fails if the state file cannot be written; the rows are then searched again.
    pub fn set_searched(&mut self, step: u64, refused: Vec<String>) -> Result<(), WriteError> {
        let mut known = self.state.state.refused.clone();
        known.extend(refused.into_iter().filter(|reason| !self.state.state.refused.contains(reason)));
        known.truncate(REFUSED_MAX);
        let next = State { searched: step, refused: known, ..self.state.state.clone() };
        Ok(self.state.store(next)?)
    }

    /// Remembers that everything after the commit of this step was done.
    ///
    /// # Errors
    /// Fails if the state file cannot be written; the step is then published again.
    pub fn published(&mut self, number: u64) -> Result<(), WriteError> {
        let next = State { published: number, ..self.state.state.clone() };
        Ok(self.state.store(next)?)
    }
}
