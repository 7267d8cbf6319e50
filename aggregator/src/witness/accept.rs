//! Accepts another history, which is the only way to clear a fork or a rollback. An acceptance refers to one log, the
//! one that the operator was shown. Rows that the old log had and the accepted one lacks stay on record.

use std::time::Duration;

use piperoll_format::checkpoint::Checkpoint;
use piperoll_format::ids::Generation;
use piperoll_format::merkle::{Hash, decode_hash, encode_hash, verify_consistency};
use piperoll_format::note::Note;
use piperoll_format::time::Timestamp;
use piperoll_net::clock::{Clock as _, SystemClock};
use piperoll_protocol::node::{CheckpointAnswer, peer_path};

use crate::cluster::node_handle::NodeHandle;
use crate::cluster::witness::compare::{Comparison, compare};
use crate::cluster::witness::memory::{ACCEPTED, Evidence, Lost, Mark, Pin};
use crate::cluster::witness::watch::{NodeWitness, POLL_TIMEOUT, generation_of, proof, span_of};

/// Maximum number of retries to get the same checkpoint twice from a node whose log is growing.
const TRIES: u32 = 5;
const TRY_PAUSE: Duration = Duration::from_millis(100);

/// A log that an operator accepts.
#[derive(Debug, Clone)]
pub(crate) struct Acceptance {
    pub(crate) generation: Generation,
    /// Size and root that the operator was shown. If missing, the acceptance refers to the log that is presented now.
    pub(crate) shown: Option<(u64, Hash)>,
    /// Reason given by the operator.
    pub(crate) message: String,
}

/// Reasons for refusing an operator's acceptance.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AcceptError {
    #[error("nothing to accept: the node presents the witnessed log, and none of its rows failed verification")]
    NothingToAccept,
    #[error("the node presents generation {presented}; pass that generation to accept it")]
    OtherGeneration { presented: String },
    #[error(
        "the node now presents {size} rows with root {root}, which do not extend the log that you were shown; run `piperoll nodes` again"
    )]
    OtherLog { size: u64, root: String },
    #[error(
        "the node has presented no signed checkpoint since the alarm; restore its log, or start a new generation, and try again"
    )]
    NothingPresented,
    #[error("cannot store the acceptance: {0}")]
    Store(String),
}

/// The log that the node presents. `answer` contains the consistency proof from the requested size, and is missing if
/// the node could not be reached.
struct Presented {
    note: String,
    checkpoint: Checkpoint,
    answer: Option<CheckpointAnswer>,
}

impl Presented {
    /// Whether the presented log has this size and root, or extends a log with this size and root.
    fn goes_on_from(&self, size: u64, root: &Hash) -> bool {
        let (now, proof) = (&self.checkpoint, self.answer.as_ref().and_then(proof).unwrap_or_default());
        match size.cmp(&now.size) {
            std::cmp::Ordering::Equal => *root == now.root,
            std::cmp::Ordering::Less => {
                size == 0 || verify_consistency(size, root, now.size, &now.root, &proof).is_ok()
            }
            std::cmp::Ordering::Greater => false,
        }
    }
}

/// Clears an alarm, pins the log that the node presents, and records the rows that are lost with the old one.
pub(crate) async fn accept(member: &NodeHandle, wanted: &Acceptance) -> Result<(), AcceptError> {
    let watch = &member.witness;
    let _one = watch.polling.lock().await;
    let (alarmed, other, pinned) = {
        let state = watch.state();
        let remembered = &state.remembered;
        let other = remembered.again.is_some() || remembered.bad_row.is_some();
        (remembered.alarm.is_some(), other, state.pinned.clone())
    };
    if !alarmed && other {
        return watch.accept_pinned(wanted);
    }
    if !alarmed {
        return Err(AcceptError::NothingToAccept);
    }
    let mut tries = TRIES;
    let (presented, lost) = loop {
        let presented = ask(member, pinned.as_ref().map_or(0, |pinned| pinned.size)).await?;
        let generation = generation_of(&presented.checkpoint);
        if generation != wanted.generation.to_string() {
            return Err(AcceptError::OtherGeneration { presented: generation });
        }
        if let Some((size, root)) = &wanted.shown {
            let (size_now, root_now) = (presented.checkpoint.size, encode_hash(&presented.checkpoint.root));
            let other = AcceptError::OtherLog { size: size_now, root: root_now };
            let again = ask(member, *size).await?;
            if again.checkpoint != presented.checkpoint && tries > 0 {
                tries -= 1;
                tokio::time::sleep(TRY_PAUSE).await;
                continue;
            }
            if again.checkpoint != presented.checkpoint || !again.goes_on_from(*size, root) {
                return Err(other);
            }
        }
        let lost = match &pinned {
            None => unreadable_pin(watch),
            Some(pinned) => lost(member, pinned, &presented).await?,
        };
        break (presented, lost);
    };
    watch.pin_accepted(&presented, lost, &wanted.message)
}

/// Returns all rows that the pin covers as lost. Used if the roster no longer has the pin's key, because then nothing can
/// be compared with the pin.
fn unreadable_pin(watch: &NodeWitness) -> Option<Lost> {
    let state = watch.state();
    let pin = state.remembered.pin.as_ref()?;
    let since = state.remembered.alarm.as_ref().map_or(pin.seen, |alarm| alarm.since);
    Some(Lost {
        generation: pin.origin.rsplit('/').next().unwrap_or_default().to_owned(),
        from_seq: 0,
        to_seq: pin.size,
        oldest: None,
        until: pin.span.and_then(|span| span.latest).unwrap_or(pin.seen).max(pin.seen).max(since),
        witnessed: pin.seen,
        learned: false,
        note: Some(pin.note.clone()),
        gone: None,
    })
}

/// Returns the rows that the pinned log had and the presented one lacks.
async fn lost(member: &NodeHandle, pinned: &Checkpoint, presented: &Presented) -> Result<Option<Lost>, AcceptError> {
    let now = &presented.checkpoint;
    let proof = presented.answer.as_ref().and_then(proof).unwrap_or_default();
    if matches!(compare(Some(pinned), now, &proof), Comparison::Advance | Comparison::Same) {
        return Ok(None);
    }
    let (pin, alarm, marks) = {
        let state = member.witness.state();
        let remembered = &state.remembered;
        (remembered.pin.clone(), remembered.alarm.clone(), remembered.marks.clone())
    };
    let Some(pin) = pin else { return Ok(None) };
    let (witnessed, span) = (pin.seen, pin.span);
    let newest = span.and_then(|span| span.latest.max(span.newest)).unwrap_or(witnessed).max(witnessed);
    let since = alarm.map_or(witnessed, |alarm| alarm.since);
    let mut lost = Lost {
        generation: generation_of(pinned),
        from_seq: 0,
        to_seq: pinned.size,
        oldest: span.and_then(|span| span.oldest),
        // The log may have had more rows after the last witnessed one, up to the time at which it was replaced.
        until: newest.max(since),
        witnessed,
        learned: false,
        // If the accepted log has the same generation, the pin belongs to another history of that generation, so the pin's note
        // is not kept.
        note: (pinned.origin != now.origin).then(|| pin.note.clone()),
        gone: None,
    };
    if pinned.origin == now.origin
        && let Some(common) = last_common(member, &marks, now).await?
    {
        let same_era = common.span.zip(span).is_some_and(|(then, last)| then.era == last.era);
        // Use the earlier of the node's time and the witness's clock, so that neither clock alone can make the time later.
        let from = common.span.and_then(|span| span.newest).map(|newest| newest.min(common.seen));
        lost.from_seq = common.size;
        lost.oldest = from.filter(|_| same_era).or(lost.oldest);
    }
    Ok(Some(lost))
}

/// Finds the largest mark that the presented log extends. A log that extends one mark also extends all smaller marks.
async fn last_common(member: &NodeHandle, marks: &[Mark], now: &Checkpoint) -> Result<Option<Mark>, AcceptError> {
    let marks: Vec<&Mark> = marks.iter().filter(|mark| mark.size > 0 && mark.size <= now.size).collect();
    let (mut low, mut high) = (0, marks.len());
    while low < high {
        let middle = low.midpoint(high);
        let mark = marks[middle];
        let root = decode_hash(&mark.root);
        let presented = ask(member, mark.size).await?;
        // An answer about a log other than the accepted one proves nothing.
        let same = presented.answer.is_some() && presented.checkpoint == *now;
        if same && root.is_some_and(|root| presented.goes_on_from(mark.size, &root)) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    Ok(low.checked_sub(1).map(|last| marks[last].clone()))
}

/// Returns the log that the node presents now, with the proof from `old` rows, or the one that it presented last if the
/// node cannot be reached.
async fn ask(member: &NodeHandle, old: u64) -> Result<Presented, AcceptError> {
    let watch = &member.witness;
    let path = format!("{}?old={old}", peer_path::CHECKPOINT);
    let asked = member.link.get_json::<CheckpointAnswer>(&path, POLL_TIMEOUT).await;
    let opened = |text: &str| {
        let note = Note::parse(text).ok()?;
        watch.opened(&note).ok()
    };
    if let Ok(answer) = asked
        && let Some(checkpoint) = opened(&answer.note)
    {
        let note = answer.note.clone();
        let mut state = watch.state();
        watch.present(&mut state, &checkpoint, &note).map_err(AcceptError::Store)?;
        return Ok(Presented { note, checkpoint, answer: Some(answer) });
    }
    let last = watch.state().remembered.alarm.as_ref().and_then(|alarm| alarm.presented.clone());
    let known = last.and_then(|note| Some((opened(&note)?, note)));
    let (checkpoint, note) = known.ok_or(AcceptError::NothingPresented)?;
    Ok(Presented { note, checkpoint, answer: None })
}

impl NodeWitness {
    /// Clears findings about a node whose log is the pinned one: a lost memory, or a row that failed verification.
    fn accept_pinned(&self, wanted: &Acceptance) -> Result<(), AcceptError> {
        let store = |error: std::io::Error| AcceptError::Store(error.to_string());
        let mut state = self.state();
        let pin = state.remembered.pin.clone().ok_or(AcceptError::NothingPresented)?;
        let generation = pin.origin.rsplit('/').next().unwrap_or_default().to_owned();
        if generation != wanted.generation.to_string() {
            return Err(AcceptError::OtherGeneration { presented: generation });
        }
        if let Some((size, root)) = &wanted.shown
            && (*size > pin.size
                || (*size == pin.size && state.pinned.as_ref().is_some_and(|pinned| pinned.root != *root)))
        {
            let root = state.pinned.as_ref().map(|pinned| encode_hash(&pinned.root)).unwrap_or_default();
            return Err(AcceptError::OtherLog { size: pin.size, root });
        }
        let mut cleared = state.remembered.clone();
        (cleared.again, cleared.bad_row) = (None, None);
        let (at, message) = (SystemClock.now(), wanted.message.as_str());
        let evidence = Evidence { at, what: ACCEPTED, message, pinned: None, presented: Some(&pin.note), row: None };
        self.memory.keep(&evidence).and_then(|()| self.memory.store(&cleared)).map_err(store)?;
        state.remembered = cleared;
        Ok(())
    }

    /// Pins the accepted log in the same step that clears the alarm. The node's next checkpoint must extend it.
    fn pin_accepted(&self, presented: &Presented, lost: Option<Lost>, message: &str) -> Result<(), AcceptError> {
        let store = |error: std::io::Error| AcceptError::Store(error.to_string());
        let note = Note::parse(&presented.note).map_err(|e| AcceptError::Store(e.to_string()))?;
        let now = SystemClock.now();
        let seconds = u64::try_from(now.micros() / 1_000_000).unwrap_or_default();
        let cosigned = note.clone().with(self.cosigner.cosign(note.text(), seconds)).to_string();
        let mut state = self.state();
        let mut cleared = state.remembered.clone();
        let before = cleared.pin.take();
        let evidence = Evidence {
            at: now,
            what: ACCEPTED,
            message,
            row: None,
            pinned: before.as_ref().map(|pin| pin.note.as_str()),
            presented: Some(&presented.note),
        };
        let Checkpoint { origin, size, .. } = &presented.checkpoint;
        let same = before.as_ref().filter(|pin| pin.origin == *origin);
        let said = presented.answer.as_ref().and_then(|answer| answer.span.as_ref());
        let known = same.and_then(|pin| pin.span);
        let span = said.map(|said| span_of(said).after(known)).or(known);
        if same.is_none() {
            cleared.marks.clear();
        }
        if let Some(lost) = lost {
            // Marks above the last common row belong to the log that was replaced.
            cleared.marks.retain(|mark| mark.size <= lost.from_seq);
            cleared.days.clear();
            cleared.lose(lost);
        }
        cleared.edge = None;
        cleared.pin = Some(Pin { origin: origin.clone(), size: *size, note: cosigned, seen: now, span });
        // Other logs may have been created and replaced between the old log and the accepted one.
        cleared.learn_of(said.and_then(|said| said.before.as_ref()), now);
        (cleared.alarm, cleared.again, cleared.bad_row) = (None, None, None);
        self.memory.keep(&evidence).and_then(|()| self.memory.store(&cleared)).map_err(store)?;
        state.remembered = cleared;
        state.pinned = Some(presented.checkpoint.clone());
        state.polled = false;
        Ok(())
    }
}

/// A fork, a rollback, a lost memory or a row that failed verification, which no operator has accepted.
pub(crate) struct Standstill {
    pub(crate) since: Timestamp,
    /// Generation, size and root of the log that the node presented last; `None` while the node presents no signed checkpoint.
    pub(crate) presented: Option<(String, u64, String)>,
}

impl NodeWitness {
    /// Returns the finding that is not accepted yet, for the operator who has to decide.
    pub(crate) fn standstill(&self) -> Option<Standstill> {
        let state = self.state();
        let Some(alarm) = state.remembered.alarm.as_ref() else {
            let (again, bad_row) = (&state.remembered.again, &state.remembered.bad_row);
            let since = again.iter().map(|again| again.since).chain(bad_row.iter().map(|row| row.found)).min()?;
            let pinned = state.pinned.as_ref();
            let presented = pinned.map(|pinned| (generation_of(pinned), pinned.size, encode_hash(&pinned.root)));
            return Some(Standstill { since, presented });
        };
        let checkpoint = alarm.presented.as_deref().and_then(|text| {
            let note = Note::parse(text).ok()?;
            self.opened(&note).ok()
        });
        let presented =
            checkpoint.map(|checkpoint| (generation_of(&checkpoint), checkpoint.size, encode_hash(&checkpoint.root)));
        Some(Standstill { since: alarm.since, presented })
    }
}
