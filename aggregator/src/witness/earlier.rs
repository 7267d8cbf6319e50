//! Checks archived logs: which log preceded each of them, and the checkpoint that the node signed when the log ended.
//! The last rows of such a log may be covered by no other checkpoint. If the node can still show them, this checkpoint
//! is cosigned, so that they can be proven like all others.

use std::sync::Arc;
use std::time::{Duration, Instant};

use piperoll_format::merkle::verify_consistency;
use piperoll_format::note::Note;
use piperoll_format::time::Timestamp;
use piperoll_net::clock::{Clock as _, SystemClock};
use piperoll_protocol::node::{CheckpointAnswer, LogAside, peer_path};

use crate::cluster::connection::Failure;
use crate::cluster::node_handle::NodeHandle;
use crate::cluster::witness::aside::PolledLog;
use crate::cluster::witness::memory::Lost;
use crate::cluster::witness::watch::{NodeWitness, POLL_TIMEOUT, generation_of, proof};

/// Maximum number of archived logs kept for a node, more than any node has.
const ASIDES_MAX: usize = 64;
/// Maximum number of logs that one poll asks about. The others wait for the next poll, so that a node that lists many
/// logs does not make a poll take long.
const ASKED_MAX: usize = 4;
/// Delay before asking again about a log that the node could not report on.
const AGAIN_AFTER: Duration = Duration::from_secs(60);

/// Returns the logs that a node lists, without duplicates.
pub(crate) fn named(asides: &[LogAside]) -> Vec<LogAside> {
    let mut named: Vec<LogAside> = Vec::new();
    for aside in asides {
        if named.len() < ASIDES_MAX && named.iter().all(|known| known.generation != aside.generation) {
            named.push(*aside);
        }
    }
    named
}

/// Asks about archived logs that the node describes differently than before.
///
/// # Errors
///
/// Fails if the node cannot be reached; the poll then fails too. If the poll succeeded, a node whose archived logs are not
/// known yet would be reported as healthy, but its answers for the time of those logs would be `superseded`.
pub(crate) async fn poll(member: &Arc<NodeHandle>) -> Result<(), Failure> {
    let watch = &member.witness;
    let asides = watch.state().asides.clone();
    let wanted = asides.into_iter().filter_map(|aside| Some((aside, watch.witnessed_of(&aside)?)));
    let wanted: Vec<(LogAside, u64)> = wanted.take(ASKED_MAX).collect();
    for (aside, old) in wanted {
        let path = format!("{}?old={old}&generation={}", peer_path::CHECKPOINT, aside.generation);
        let is_known = match member.link.get_json::<CheckpointAnswer>(&path, POLL_TIMEOUT).await {
            Ok(answer) => watch.take_earlier(&aside, old, &answer, SystemClock.now()).unwrap_or_else(|message| {
                tracing::warn!(node = %member.node.id, generation = %aside.generation, error = message, "cannot check an archived log yet");
                false
            }),
            Err(Failure::Error(_)) => false,
            // The node has answered for its current log; the archived log may be slow to open. The next poll asks about the
            // archived log again.
            Err(Failure::Timeout(_)) => return Ok(()),
            Err(failure) => return Err(failure),
        };
        let mut state = watch.state();
        // Keep one record for each log: a node that reports something different every time must not fill the memory.
        state.earlier_polled.retain(|polled| polled.aside.generation != aside.generation);
        state.earlier_polled.push(PolledLog { aside, at: Instant::now(), is_known });
    }
    Ok(())
}

/// Returns the index of the record of a log that was replaced completely.
fn place_of(lost: &[Lost], aside: &LogAside) -> Option<usize> {
    let generation = aside.generation.to_string();
    lost.iter().rposition(|lost| lost.generation == generation && (lost.note.is_some() || lost.learned))
}

impl NodeWitness {
    /// Returns the number of witnessed rows of a log; `None` if the node need not be asked about the log.
    fn witnessed_of(&self, aside: &LogAside) -> Option<u64> {
        let state = self.state();
        let is_done =
            |polled: &PolledLog| polled.knows(aside) || (polled.aside == *aside && polled.at.elapsed() < AGAIN_AFTER);
        if state.remembered.alarm.is_some() || state.earlier_polled.iter().any(is_done) {
            return None;
        }
        let lost = &state.remembered.lost[place_of(&state.remembered.lost, aside)?];
        Some(lost.note.as_deref().and_then(|note| self.opened_text(note)).map_or(0, |known| known.size))
    }

    /// Records the times of a log and which log preceded it, as reported by the node, and cosigns the log's last checkpoint if
    /// that checkpoint extends the witnessed one. `old` is the size that the consistency proof was requested for. Returns whether
    /// the node answered for this log.
    fn take_earlier(
        &self,
        aside: &LogAside,
        old: u64,
        answer: &CheckpointAnswer,
        now: Timestamp,
    ) -> Result<bool, String> {
        let Some(span) = answer.span.as_ref().filter(|_| answer.generation == Some(aside.generation)) else {
            // A node of an earlier version answers for its current log, whatever generation was requested.
            return Ok(false);
        };
        let mut state = self.state();
        let mut remembered = state.remembered.clone();
        let place = place_of(&remembered.lost, aside).ok_or("the log is no longer on record")?;
        let lost = &mut remembered.lost[place];
        // A later event about a row of this log, such as an erasure, is recorded in this log with its own time. A
        // node's reports only widen the known time span.
        lost.until = lost.until.max(span.newest.unwrap_or(lost.until));
        if let Some((note, size)) = self.extension(lost, aside, old, answer) {
            let seconds = u64::try_from(now.micros() / 1_000_000).unwrap_or_default();
            lost.note = Some(note.clone().with(self.cosigner.cosign(note.text(), seconds)).to_string());
            (lost.to_seq, lost.witnessed) = (lost.to_seq.max(size), now);
        }
        remembered.learn_of(span.before.as_ref(), now);
        if remembered != state.remembered {
            self.memory.store(&remembered).map_err(|e| format!("cannot store the witness's state: {e}"))?;
            // A log that becomes known only now may have been deleted with the rows of another one, so the log start has to be read
            // again.
            state.floor = state.floor.take().filter(|_| remembered.lost.len() == state.remembered.lost.len());
            state.remembered = remembered;
        }
        Ok(true)
    }

    /// Returns the last checkpoint of a log and its size, if it extends the witnessed part of the log.
    ///
    /// The node's current key must have signed the checkpoint: a signature made now with a former key may come from an attacker
    /// who stole that key. A log that this witness never pinned is not cosigned, because another witness may have seen other rows
    /// of it.
    fn extension(&self, lost: &Lost, aside: &LogAside, old: u64, answer: &CheckpointAnswer) -> Option<(Note, u64)> {
        let note = Note::parse(&answer.note).ok()?;
        let presented = self.opened(&note).ok()?;
        let known = lost.note.as_deref().and_then(|note| self.opened_text(note)).filter(|known| known.size == old)?;
        let proof = proof(answer)?;
        let is_of_it = generation_of(&presented) == lost.generation && (old + 1..=aside.rows).contains(&presented.size);
        let is_extension = verify_consistency(old, &known.root, presented.size, &presented.root, &proof).is_ok();
        (is_of_it && is_extension).then_some((note, presented.size))
    }
}
