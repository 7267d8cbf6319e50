//! Witness state that is needed to read a node's rows from the archive.

use piperoll_archive::row::LogId;
use piperoll_format::checkpoint::Checkpoint;
use piperoll_format::ids::Generation;
use piperoll_format::note::Note;
use piperoll_format::time::Timestamp;

use super::memory::{Lost, WitnessedEdge};
use super::watch::{NodeWitness, generation_of};

/// Rows of a log that was replaced as a whole.
pub(crate) struct ReplacedRows {
    /// Number of witnessed rows, and the time at which the last of them was witnessed.
    pub(crate) witnessed: u64,
    pub(crate) seen: Timestamp,
    /// Number of rows according to a proven entry of the log that replaced it.
    pub(crate) stated: Option<u64>,
}

impl NodeWitness {
    /// Returns the era of the last witnessed row, if it is known.
    pub(crate) fn edge(&self) -> Option<WitnessedEdge> {
        self.state().remembered.edge.clone()
    }

    /// Whether the era of the last witnessed row is remembered, which an archive needs.
    pub(crate) fn remembers_edges(&self) -> bool {
        self.keeping.day_checkpoints
    }

    /// Returns what is known about the rows of a log that was replaced as a whole; `None` if nothing is.
    pub(crate) fn rows_of_replaced(&self, generation: Generation) -> Option<ReplacedRows> {
        let (state, generation) = (self.state(), generation.to_string());
        let whole = |lost: &&Lost| lost.generation == generation && lost.note.is_some() && lost.to_seq > 0;
        let lost = state.remembered.lost.iter().rev().find(whole)?;
        let stated = lost.gone.as_ref().map(|gone| gone.rows);
        Some(ReplacedRows { witnessed: lost.to_seq, seen: lost.witnessed, stated })
    }

    /// Returns the number of rows that a log has in common with all copies of it that were accepted in its place; `None` if there are none.
    pub(crate) fn common_rows(&self, generation: Generation) -> Option<u64> {
        let (state, generation) = (self.state(), generation.to_string());
        let is_part =
            |lost: &&Lost| lost.generation == generation && lost.note.is_none() && lost.from_seq < lost.to_seq;
        state.remembered.lost.iter().filter(is_part).map(|lost| lost.from_seq).min()
    }

    /// Newest time at which a witness cosigned a checkpoint; `None` if none did.
    pub(crate) fn cosigned_at(&self, note: &str) -> Option<Timestamp> {
        let note = Note::parse(note).ok()?;
        let newest = self.keeping.witnesses.iter().filter_map(|witness| note.verify(witness).ok()).max()?;
        Some(Timestamp::from_micros(i64::try_from(newest).ok()?.checked_mul(1_000_000)?))
    }

    /// Verifies a checkpoint of the archive: it must be of this log, signed by the node and cosigned by a witness.
    pub(crate) fn opened_archived(&self, note: &str, log: &LogId) -> Result<Checkpoint, String> {
        let of = |reason: String| format!("a checkpoint in the archive cannot be verified: {reason}");
        let note = Note::parse(note).map_err(|error| of(error.to_string()))?;
        let keys = self.node_key.iter().chain(&self.pinned_keys);
        let opened = keys.filter_map(|key| self.opened_by(&note, key).ok()).next();
        let checkpoint = opened.ok_or_else(|| of("the node did not sign it".to_owned()))?;
        if generation_of(&checkpoint) != log.generation.to_string() {
            return Err(of("it is of another log".to_owned()));
        }
        let is_cosigned = self.keeping.witnesses.iter().any(|witness| note.verify(witness).is_ok());
        if is_cosigned { Ok(checkpoint) } else { Err(of("no witness cosigned it".to_owned())) }
    }
}
