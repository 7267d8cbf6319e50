//! Witness state that is needed to read a node's rows from the archive.

use piperoll_archive::row::LogId;
use piperoll_format::checkpoint::Checkpoint;
use piperoll_format::ids::Generation;
use piperoll_format::note::Note;

use super::memory::WitnessedEdge;
use super::watch::{NodeWitness, generation_of};

impl NodeWitness {
    /// Returns era and time of the last witnessed row, if they are known.
    pub(crate) fn edge(&self) -> Option<WitnessedEdge> {
        self.state().remembered.edge.clone()
    }

    /// Whether era and time of the last witnessed row are remembered, which an archive needs.
    pub(crate) fn remembers_edges(&self) -> bool {
        self.keeping.day_checkpoints
    }

    /// Returns the number of witnessed rows of any log of the node, current or replaced; `None` if it is not known.
    pub(crate) fn witnessed_size(&self, generation: Generation) -> Option<u64> {
        let (state, generation) = (self.state(), generation.to_string());
        let current = state.pinned.as_ref().filter(|pinned| generation_of(pinned) == generation);
        let lost =
            state.remembered.lost.iter().filter(|lost| lost.generation == generation).map(|lost| lost.to_seq).max();
        current.map(|pinned| pinned.size).max(lost.filter(|rows| *rows > 0))
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
