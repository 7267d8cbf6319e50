//! Actions after a commit: cosigns and publishes the checkpoints whose rows the archive holds.

use std::time::Duration;

use piperoll_format::note::Note;
use piperoll_format::time::Timestamp;

use super::error::WriteError;
use super::state::{PendingDeletion, State};
use super::writer::{Committed, Writer};
use crate::record::names;
use crate::store::Created;

/// Maximum size of a checkpoint with its signatures.
const CHECKPOINT_BYTES_MAX: u64 = 64 * 1024;
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
        for (_, plan) in self.plans_of(committed.step.number).await? {
            for file in plan.files.iter().filter(|file| !used(&file.name)) {
                self.delete_or_remember(&file.name, committed.step.number).await?;
            }
        }
        Ok(())
    }

    /// Deletes all versions of a file that is not part of the archive. If the store keeps it, for example because of an object lock, this
    /// is remembered and tried again later.
    async fn delete_or_remember(&mut self, name: &str, step: u64) -> Result<(), WriteError> {
        let deleted = self.store.delete_all_versions(name).await?;
        let is_known = |pending: &PendingDeletion| pending.name == name;
        match deleted.remaining() {
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

    /// Newest step whose rows were searched for entries that declare erasures.
    pub fn searched(&self) -> u64 {
        self.state.state.searched
    }

    /// Remembers that all erasures that the rows of the first `step` steps declare have been carried out.
    ///
    /// # Errors
    /// Fails if the state file cannot be written; the rows are then searched again.
    pub fn set_searched(&mut self, step: u64) -> Result<(), WriteError> {
        let next = State { searched: step, ..self.state.state.clone() };
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
