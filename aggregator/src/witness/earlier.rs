//! Logs that another one took the place of: their last rows were signed when their node ended, and no witness had looked since. They
//! are cosigned where the node can still show them, so that they can be proven like all others.

use std::sync::Arc;

use piperoll_shared::api::node::{CheckpointAnswer, LogAside, peer_path};
use piperoll_shared::log::note::Note;
use piperoll_shared::log::time::Timestamp;
use piperoll_shared::log::tree::verify_consistency;
use piperoll_shared::net::clock::{Clock as _, SystemClock};

use super::memory::Lost;
use super::{LOOK_TIMEOUT, Watch, generation_of, proof};
use crate::link::Failure;
use crate::member::Member;

/// Looks at each log once, as long as the node says the same of it.
pub(super) async fn look(member: &Arc<Member>) {
    let watch = &member.witness;
    let asides = watch.state().asides.clone();
    for aside in asides {
        let Some(old) = watch.witnessed_of(&aside) else { continue };
        let path = format!("{}?old={old}&generation={}", peer_path::CHECKPOINT, aside.generation);
        match member.link.get_json::<CheckpointAnswer>(&path, LOOK_TIMEOUT).await {
            Ok(answer) => {
                if let Err(words) = watch.take_earlier(&aside, old, &answer, SystemClock.now()) {
                    tracing::info!(node = %member.node.id, generation = %aside.generation, words, "the last rows of an earlier log stay as they were");
                }
            }
            // The node refused, and will again.
            Err(Failure::Error(_)) => {}
            // It is asked again with the next look.
            Err(_) => continue,
        }
        watch.state().earlier_looked.push(aside);
    }
}

/// Where a log is kept on record that was replaced with all of its rows.
fn place_of(lost: &[Lost], aside: &LogAside) -> Option<usize> {
    let generation = aside.generation.to_string();
    lost.iter().rposition(|lost| lost.generation == generation && (lost.note.is_some() || lost.learned))
}

impl Watch {
    /// How many rows of a log were witnessed, if it is worth asking for more.
    fn witnessed_of(&self, aside: &LogAside) -> Option<u64> {
        let state = self.state();
        if state.remembered.alarm.is_some() || state.earlier_looked.contains(aside) {
            return None;
        }
        let lost = &state.remembered.lost[place_of(&state.remembered.lost, aside)?];
        let old = match &lost.note {
            Some(note) => self.opened_text(note)?.size,
            None => 0,
        };
        (old < aside.rows).then_some(old)
    }

    /// Cosigns the last checkpoint of a log if it goes on from what was witnessed. `old` is the size that its proof was asked for.
    ///
    /// The node's present key has to have signed it: what a former key signs now may come from whoever stole it.
    fn take_earlier(
        &self,
        aside: &LogAside,
        old: u64,
        answer: &CheckpointAnswer,
        now: Timestamp,
    ) -> Result<(), String> {
        let note = Note::parse(&answer.note).map_err(|e| e.to_string())?;
        let presented = self.opened(&note)?;
        let proof = proof(answer).ok_or("its consistency proof is not one")?;
        let mut state = self.state();
        let mut remembered = state.remembered.clone();
        let place = place_of(&remembered.lost, aside).ok_or("it is not on record any more")?;
        let lost = &mut remembered.lost[place];
        let known = lost.note.as_deref().and_then(|note| self.opened_text(note));
        let goes_on = match &known {
            Some(known) => {
                known.size == old
                    && verify_consistency(old, &known.root, presented.size, &presented.root, &proof).is_ok()
            }
            // It was never witnessed here, and the log that took its place says how many rows it had.
            None => old == 0 && presented.size >= lost.to_seq,
        };
        let is_of_it = generation_of(&presented) == lost.generation && (old + 1..=aside.rows).contains(&presented.size);
        if !is_of_it || !goes_on || state.remembered.alarm.is_some() {
            return Err(format!("{} rows of it that the node shows do not go on from {old}", presented.size));
        }
        let seconds = u64::try_from(now.micros() / 1_000_000).unwrap_or_default();
        lost.note = Some(note.clone().with(self.cosigner.cosign(note.text(), seconds)).to_string());
        (lost.to_seq, lost.witnessed) = (lost.to_seq.max(presented.size), now);
        self.memory.store(&remembered).map_err(|e| format!("the witness cannot remember it: {e}"))?;
        state.remembered = remembered;
        Ok(())
    }
}
