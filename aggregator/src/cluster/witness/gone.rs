//! Archived logs that retention deleted with the first rows of the next log: their rows are pruned, not missing.

use piperoll_format::ids::Generation;
use piperoll_format::statement::EarlierPruned;
use piperoll_format::time::Timestamp;

use super::memory::Lost;
use super::watch::{NodeWitness, WatchState};

/// Logs of a range that were deleted with the rows of another log, after they had been kept for as long as the policy requires.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct GoneHere {
    /// Upper bound for the times of the rows of these logs.
    pub(crate) until: Timestamp,
    pub(crate) message: String,
}

impl WatchState {
    /// Whether a log was pruned with all of its known rows and no earlier than the policy allows, and is no longer listed by the
    /// node.
    pub(crate) fn has_let_go(&self, lost: &Lost) -> bool {
        lost.gone.as_ref().is_some_and(|gone| gone.is_kept && lost.to_seq <= gone.rows)
            && self.asides.iter().all(|aside| aside.generation.to_string() != lost.generation)
    }
}

impl NodeWitness {
    /// Returns the logs that may have had rows in a range and were deleted together with the first rows of their successor. Logs of
    /// `read` were read elsewhere.
    pub(crate) fn gone_in(&self, from: Timestamp, to: Timestamp, read: &[Generation]) -> Option<GoneHere> {
        let state = self.state();
        let is_read = |lost: &Lost| read.iter().any(|generation| lost.generation == generation.to_string());
        let gone = |lost: &&Lost| lost.touches(from, to) && state.has_let_go(lost) && !is_read(lost);
        state.remembered.lost.iter().filter(gone).fold(None, |all: Option<GoneHere>, lost| {
            let Some(all) = all else { return Some(GoneHere { until: lost.until, message: lost.describe() }) };
            Some(GoneHere { until: all.until.max(lost.until), ..all })
        })
    }

    /// Returns a message saying that the log was deleted by a prune, if that is why the log is missing.
    pub(crate) fn gone(&self, generation: Generation) -> Option<String> {
        let (state, generation) = (self.state(), generation.to_string());
        let gone = |lost: &&Lost| lost.generation == generation && state.has_let_go(lost);
        state.remembered.lost.iter().find(gone).map(Lost::describe)
    }

    /// Records which logs were deleted with the first `to_seq` rows of another log.
    pub(crate) fn let_go(
        &self,
        logs: &[EarlierPruned],
        with: &Generation,
        to_seq: u64,
        is_kept: bool,
    ) -> Result<(), String> {
        let mut state = self.state();
        let mut remembered = state.remembered.clone();
        remembered.let_go(logs, with, to_seq, is_kept);
        if remembered != state.remembered {
            self.memory.store(&remembered).map_err(|e| format!("cannot store the record of deleted logs: {e}"))?;
            state.remembered = remembered;
        }
        Ok(())
    }
}
