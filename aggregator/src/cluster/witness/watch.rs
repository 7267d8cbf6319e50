//! Witness state of one node: pinned checkpoint, findings, and the effect of a poll.

use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use piperoll_format::checkpoint::Checkpoint;
use piperoll_format::ids::Generation;
use piperoll_format::merkle::{Hash, decode_hash, encode_hash};
use piperoll_format::note::{KeyKind, Note, NoteError, SigningKey, VerifyingKey};
use piperoll_format::time::Timestamp;
use piperoll_net::clock::{Clock as _, SystemClock};
use piperoll_protocol::node::{CheckpointAnswer, LogAside, LogBefore, LogSpan};
use piperoll_protocol::verdict::Verdict;

use super::aside::PolledLog;
use super::compare::{Comparison, compare};
use super::day_checkpoint::{DayCheckpoint, note_day};
use super::log_start::{Keeping, LogStart};
use super::memory::{
    Alarm, BadRow, EarlyPrune, Evidence, Lost, Mark, Memory, Pin, ROW_INVALID, Remembered, SeenFloor, Span,
    WitnessedEdge,
};
use super::pinned::Pinned;
use super::status::{LostHere, NotTaken, WitnessStatus};
use crate::config::RosterNode;

pub(crate) const POLL_TIMEOUT: Duration = Duration::from_secs(2);
/// Time without a successful poll after which the verdict becomes `stale`.
const STALE_AFTER: Duration = Duration::from_secs(60);
/// Maximum number of losses that a reason describes individually.
const LOST_SHOWN_MAX: usize = 3;
/// Hashes in a consistency proof: at most two per level of a tree of 2^64 rows.
const PROOF_HASHES_MAX: usize = 128;

/// Witness state of one node.
pub(crate) struct NodeWitness {
    pub(crate) memory: Memory,
    /// Public half of the node's checkpoint key. The name of the key is taken from the origin of each note.
    pub(crate) node_key: Option<[u8; 32]>,
    /// Other keys, next and former, under which the node's log may have been pinned.
    pub(crate) pinned_keys: Vec<[u8; 32]>,
    /// Key that replaces `node_key`. Once a checkpoint carries its signature, that signature must be valid too.
    pub(crate) next_key: Option<[u8; 32]>,
    /// Prefix of the node's origins: `cluster/node/`.
    pub(crate) origins: String,
    pub(crate) cosigner: SigningKey,
    pub(crate) keeping: Keeping,
    /// Whether the node's log was witnessed in an earlier run of this aggregator.
    pub(crate) was_known: bool,
    pub(crate) state: Mutex<WatchState>,
    /// Serializes polls of the node and `accept`: if two polls overlapped, the slower one would present a smaller log than the other has
    /// pinned. Locked by `poll`, `poll_unless_polled` and `accept`.
    pub(crate) polling: tokio::sync::Mutex<()>,
}

pub(crate) struct WatchState {
    pub(crate) remembered: Remembered,
    /// The checkpoint of `remembered.pin`, parsed and verified.
    pub(crate) pinned: Option<Checkpoint>,
    /// Verdict and reason of the last poll, if it failed.
    pub(crate) trouble: Option<(Verdict, String)>,
    pub(crate) polled: bool,
    /// Whether the last poll came before this aggregator was ready to check the node; `trouble` has the reason.
    pub(crate) too_early: bool,
    /// Log start of the node, if rows were pruned and the `log.pruned` entry has been read.
    pub(crate) floor: Option<LogStart>,
    /// Set by `NodeWitness::recalled` once this aggregator's own log has been searched for earlier pins of the node.
    pub(crate) recalled: bool,
    /// Logs that the node's current one replaced and that the node reports as still readable.
    pub(crate) asides: Vec<LogAside>,
    /// Archived logs that the node has been asked about.
    pub(crate) earlier_polled: Vec<PolledLog>,
}

impl NodeWitness {
    pub(crate) fn open(
        state_dir: &Path,
        member: &RosterNode,
        cosigner: &SigningKey,
        keeping: Keeping,
        was_witnessed: bool,
    ) -> std::io::Result<Self> {
        let (memory, remembered) = Memory::open(state_dir, &member.id)?;
        let was_known = was_witnessed || memory.has_evidence();
        let state = Mutex::new(WatchState {
            remembered,
            pinned: None,
            trouble: None,
            polled: false,
            too_early: false,
            floor: None,
            recalled: false,
            asides: Vec::new(),
            earlier_polled: Vec::new(),
        });
        let origins = format!("{}/{}/", member.ring.cluster(), member.id);
        let watch = Self {
            memory,
            node_key: member.checkpoint_key,
            pinned_keys: member.next_checkpoint_key.iter().chain(&member.former_checkpoint_keys).copied().collect(),
            next_key: member.next_checkpoint_key,
            origins,
            cosigner: cosigner.clone(),
            keeping,
            was_known,
            state,
            polling: tokio::sync::Mutex::new(()),
        };
        // If the pin cannot be verified because the roster now names another key, the next poll tries again and reports the
        // problem.
        {
            let mut state = watch.state();
            state.pinned = state.remembered.pin.as_ref().and_then(|pin| watch.open_pin(pin).ok());
        }
        Ok(watch)
    }

    pub(crate) fn open_pin(&self, pin: &Pin) -> Result<Checkpoint, String> {
        let note = Note::parse(&pin.note).map_err(|e| e.to_string())?;
        let former = self.pinned_keys.iter().find_map(|key| self.opened_by(&note, key).ok());
        former.map_or_else(|| self.opened(&note), Ok)
    }

    /// Returns the pinned checkpoint that the node's rows are verified against; `None` if nothing is pinned or the pinned log is
    /// empty.
    pub(crate) fn pinned(&self) -> Option<Pinned> {
        let state = self.state();
        let checkpoint = state.pinned.as_ref().filter(|checkpoint| checkpoint.size > 0)?;
        let generation = checkpoint.origin.rsplit('/').next()?.parse().ok()?;
        let pin = state.remembered.pin.as_ref()?;
        let (note, seen) = (pin.note.as_str().into(), pin.seen);
        Some(Pinned { generation, size: checkpoint.size, root: checkpoint.root, note, seen })
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, WatchState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the current verdict on the node.
    pub(crate) fn standing(&self) -> WitnessStatus {
        let state = self.state();
        let pin = state.remembered.pin.as_ref();
        let (size, seen) = (pin.map(|pin| pin.size), pin.map(|pin| pin.seen));
        let old = seen.is_some_and(|seen| {
            SystemClock.now().micros() - seen.micros() > i64::try_from(STALE_AFTER.as_micros()).unwrap_or(i64::MAX)
        });
        let (verdict, reason) = match (&state.remembered.alarm, &state.trouble) {
            (Some(alarm), _) => {
                // Report an alarm even if the verdict in the state file is not one that raises an alarm.
                let verdict = if alarm.verdict.is_alarm() { alarm.verdict } else { Verdict::Rollback };
                let bad_row = state.remembered.bad_row.iter().map(|row| format!("; {}", row.describe()));
                (verdict, Some(format!("{} (since {}){}", alarm.reason, alarm.since, bad_row.collect::<String>())))
            }
            // A row that failed verification takes precedence over anything that the node could cause itself, such as being unreachable.
            (None, _) if let Some(row) = &state.remembered.bad_row => {
                let again =
                    state.remembered.again.iter().map(|again| format!("; {} (since {})", again.message, again.since));
                let message = format!(
                    "{}; accept the log (`piperoll nodes accept`) once you understand the cause{}",
                    row.describe(),
                    again.collect::<String>()
                );
                (Verdict::RowInvalid, Some(message))
            }
            (None, Some((verdict, reason))) => (*verdict, Some(reason.clone())),
            (None, None) if !state.polled => {
                (Verdict::Unverifiable, Some("its checkpoint has not been read yet".to_owned()))
            }
            (None, None) if state.remembered.again.is_some() => {
                let again = state.remembered.again.as_ref();
                (Verdict::FirstSeenAgain, again.map(|again| format!("{} (since {})", again.message, again.since)))
            }
            (None, None) if old => (Verdict::Stale, Some("its checkpoint has not been renewed for a while".to_owned())),
            (None, None) => (Verdict::Ok, None),
        };
        // An alarm or a bad row concerns the node itself, whatever the result of the last poll was, so its verdict is never
        // pending.
        let is_pending = verdict == Verdict::Unverifiable && (state.too_early || !state.polled);
        WitnessStatus { verdict, reason, size, seen, is_pending }
    }

    /// Returns a summary of the lost rows that may be in this range: rows of logs that were replaced by other logs. Logs in
    /// `read` are available and do not count as lost.
    pub(crate) fn lost_in(&self, from: Timestamp, to: Timestamp, read: &[Generation]) -> Option<LostHere> {
        let state = self.state();
        // Rows lost from within a log are missing from every copy of it. Only rows lost together with the complete log
        // can be in a log of `read`.
        let here = |lost: &Lost| {
            lost.note.is_some() && read.iter().any(|generation| lost.generation == generation.to_string())
        };
        let mut all = state
            .remembered
            .lost
            .iter()
            .filter(|lost| lost.touches(from, to) && !here(lost) && !state.has_let_go(lost));
        let first = all.next()?;
        let (mut oldest, mut until, mut message) = (first.oldest, first.until, vec![first.describe()]);
        let mut more = 0;
        for lost in all {
            oldest = oldest.zip(lost.oldest).map(|(a, b)| a.min(b));
            until = until.max(lost.until);
            if message.len() < LOST_SHOWN_MAX {
                message.push(lost.describe());
            } else {
                more += 1;
            }
        }
        if more > 0 {
            message.push(format!("and {more} more"));
        }
        Some(LostHere { oldest, until, message: message.join("; ") })
    }

    /// Returns the node's log start, if rows below `to_seq` were pruned, and whether they had been kept for as long as
    /// the policy requires.
    pub(crate) fn floor(&self, to_seq: u64) -> Option<LogStart> {
        self.state().floor.clone().filter(|floor| floor.to_seq == to_seq)
    }

    /// Returns a description of the first early prune that deleted rows at or after `from`, that is, rows that the policy still
    /// required. The finding stays on record.
    pub(crate) fn pruned_early(&self, from: Timestamp) -> Option<String> {
        self.state().remembered.early.iter().find(|early| from <= early.newest).map(EarlyPrune::describe)
    }

    /// Returns the time at which a log start was first seen. A new one is recorded with the time `now`.
    pub(crate) fn first_seen(&self, generation: &str, to_seq: u64, now: Timestamp) -> Timestamp {
        let mut state = self.state();
        let known =
            state.remembered.floors.iter().find(|floor| floor.generation == generation && floor.to_seq == to_seq);
        if let Some(known) = known {
            return known.seen;
        }
        let mut remembered = state.remembered.clone();
        remembered.note_floor(SeenFloor { generation: generation.to_owned(), to_seq, seen: now });
        if let Err(error) = self.memory.store(&remembered) {
            tracing::error!(%error, "cannot record when a new log start was first seen");
        }
        state.remembered = remembered;
        now
    }

    /// Records that a row failed verification, unless such a row is on record already. Called by `NodeReader` for every such row.
    pub(crate) fn found_bad_row(&self, generation: Generation, seq: u64, reason: &str) {
        let mut state = self.state();
        if state.remembered.bad_row.is_some() {
            return;
        }
        let (generation, reason, found) = (generation.to_string(), reason.to_owned(), SystemClock.now());
        let row = BadRow { generation, seq, reason, found };
        let mut remembered = state.remembered.clone();
        remembered.bad_row = Some(row.clone());
        let pinned = remembered.pin.as_ref().map(|pin| pin.note.as_str());
        let message = row.describe();
        let evidence =
            Evidence { at: found, what: ROW_INVALID, message: &message, pinned, presented: None, row: Some(&row) };
        // As in `raise`, the finding is reported even if it cannot be stored.
        if let Err(error) = self.memory.keep(&evidence).and_then(|()| self.memory.store(&remembered)) {
            tracing::error!(%error, "cannot store the evidence against a node");
        }
        state.remembered = remembered;
    }

    /// Records permanently that rows were pruned too early.
    pub(crate) fn found_early(&self, early: EarlyPrune) {
        let mut state = self.state();
        let mut remembered = state.remembered.clone();
        if !remembered.note_early(early) {
            return;
        }
        if let Err(error) = self.memory.store(&remembered) {
            tracing::error!(%error, "cannot record that rows were pruned too early");
        }
        state.remembered = remembered;
    }

    /// Returns the logs, other than the current one, that may contain rows of a range and that the node can still read. Each
    /// comes with its last pinned checkpoint, if the log still has all rows that the checkpoint covers and the log's predecessor
    /// is known.
    pub(crate) fn asides_in(&self, from: Timestamp, to: Timestamp) -> Vec<(Generation, Option<Pinned>)> {
        let state = self.state();
        let mut found: Vec<(Generation, Option<Pinned>)> = Vec::new();
        // The newest record of each log applies: a log that was replaced twice was pinned twice, so it has two records.
        for lost in state.remembered.lost.iter().rev().filter(|lost| lost.touches(from, to)) {
            if state.pinned.as_ref().is_some_and(|pinned| generation_of(pinned) == lost.generation) {
                continue;
            }
            let aside = state.asides.iter().find(|aside| aside.generation.to_string() == lost.generation);
            let Some(aside) = aside.filter(|aside| found.iter().all(|(known, _)| *known != aside.generation)) else {
                continue;
            };
            let pinned = lost.note.as_deref().and_then(|note| Some((self.opened_text(note)?, note)));
            let pinned = pinned.filter(|(checkpoint, _)| generation_of(checkpoint) == lost.generation);
            let pinned = pinned.filter(|(checkpoint, _)| (1..=aside.rows).contains(&checkpoint.size));
            // Until the node has reported which log preceded this one, it is unknown whether this log is complete.
            let pinned = pinned.filter(|_| state.earlier_polled.iter().any(|polled| polled.knows(aside)));
            let pinned = pinned.map(|(checkpoint, note)| Pinned {
                generation: aside.generation,
                size: checkpoint.size,
                root: checkpoint.root,
                note: note.into(),
                seen: lost.witnessed,
            });
            found.push((aside.generation, pinned));
        }
        found
    }

    /// Whether, during an alarm, the node presents the log of this generation instead of the witnessed one.
    pub(crate) fn presents(&self, generation: Generation) -> bool {
        let generation = generation.to_string();
        self.state().remembered.alarm.as_ref().is_some_and(|alarm| alarm.generation == generation)
    }

    /// Looks up a readable log other than the current one. Returns `None` if there is no such log, otherwise the log's last
    /// pinned checkpoint under the conditions of `asides_in`.
    pub(crate) fn aside(&self, generation: Generation) -> Option<Option<Pinned>> {
        let all = self.asides_in(Timestamp::MIN, Timestamp::MAX);
        all.into_iter().find(|(known, _)| *known == generation).map(|(_, pinned)| pinned)
    }

    /// Returns the logs that the current one replaced, oldest first. Each has its generation and, if the log can be read, whether
    /// all of its witnessed rows are available.
    pub(crate) fn logs_before(&self) -> Vec<(String, Option<(Generation, bool)>)> {
        let readable = self.asides_in(Timestamp::MIN, Timestamp::MAX);
        let state = self.state();
        let present = state.pinned.as_ref().map(generation_of);
        let whole = state.remembered.lost.iter().filter(|lost| lost.note.is_some() || lost.learned);
        let mut logs: Vec<(Timestamp, &str)> = Vec::new();
        for lost in whole.filter(|lost| Some(&lost.generation) != present.as_ref()) {
            logs.retain(|(_, known)| *known != lost.generation);
            logs.push((lost.until, &lost.generation));
        }
        // A log that became known later may be older than the others.
        logs.sort();
        let found = |generation: &str| {
            let found = readable.iter().find(|(known, _)| known.to_string() == generation);
            found.map(|(known, pinned)| (*known, pinned.is_some()))
        };
        logs.into_iter().map(|(_, generation)| (generation.to_owned(), found(generation))).collect()
    }

    /// Whether a generation was replaced by another log. The current log can have lost rows too, but that does not mean that it
    /// was replaced.
    pub(crate) fn is_past(&self, generation: Generation) -> bool {
        let generation = generation.to_string();
        let state = self.state();
        let present = state.pinned.as_ref().is_some_and(|pinned| generation_of(pinned) == generation);
        !present && state.remembered.lost.iter().any(|lost| lost.generation == generation)
    }

    /// Returns the reason why a node that was not a member during a range is still expected to answer for the range; `None` if no
    /// rows that may be in the range were witnessed.
    pub(crate) fn saw_rows_in(&self, from: Timestamp, to: Timestamp) -> Option<String> {
        let state = self.state();
        let pin = state.remembered.pin.as_ref()?;
        let span = pin.span.unwrap_or(Span { oldest: None, newest: None, era: 0, latest: None });
        let latest = span.latest.max(span.newest).unwrap_or(pin.seen);
        let touches = from <= latest && span.oldest.is_none_or(|oldest| oldest < to);
        touches.then(|| format!("{} of its rows were witnessed, with times up to {latest}", pin.size))
    }

    /// Returns the last checkpoint of each UTC day, oldest first, with this witness's cosignature.
    pub(crate) fn day_checkpoints(&self) -> Vec<DayCheckpoint> {
        self.state().remembered.days.clone()
    }

    /// Returns the number of witnessed rows of the node's current log.
    pub(crate) fn witnessed_rows(&self) -> Option<u64> {
        self.state().remembered.pin.as_ref().map(|pin| pin.size)
    }

    /// Processes the answer to one poll of a node's checkpoint. Returns the note to send back, which has this witness's
    /// cosignature. `old` is the size that the consistency proof was requested for; `edge` describes the last row of the presented
    /// checkpoint, if it was read.
    pub(crate) fn take(
        &self,
        answer: &CheckpointAnswer,
        old: u64,
        now: Timestamp,
        edge: Option<WitnessedEdge>,
    ) -> Result<Option<String>, NotTaken> {
        let note = Note::parse(&answer.note).map_err(|e| e.to_string())?;
        let presented = self.opened(&note)?;
        let proof = proof(answer).ok_or_else(|| "its consistency proof is malformed".to_owned())?;
        let mut state = self.state();
        let pinned = match (&state.pinned, &state.remembered.pin) {
            (None, Some(pin)) => Some(self.open_pin(pin)?),
            (pinned, _) => pinned.clone(),
        };
        if pinned.is_none() && !state.recalled {
            let reason = "this aggregator's earlier records about the node have not been searched yet";
            return Err(NotTaken::TooEarly(reason.to_owned()));
        }
        if state.remembered.pin.as_ref().map_or(0, |pin| pin.size) != old {
            // `recalled` found the pin in this aggregator's own log after the node was asked, so the proof is for another size.
            let reason = "its pinned checkpoint was found in the meantime; reading the node's checkpoint again";
            return Err(NotTaken::TooEarly(reason.to_owned()));
        }
        let (verdict, reason) = match compare(pinned.as_ref(), &presented, &proof) {
            // An alarm stays regardless of what the node presents later; only an operator clears it.
            Comparison::Advance | Comparison::Same if state.remembered.alarm.is_some() => {
                self.present(&mut state, &presented, &answer.note)?;
                return Ok(None);
            }
            Comparison::Advance | Comparison::Same => {
                let seconds = u64::try_from(now.micros() / 1_000_000).unwrap_or_default();
                let cosigned = note.clone().with(self.cosigner.cosign(note.text(), seconds)).to_string();
                let (origin, size) = (presented.origin.clone(), presented.size);
                let mut remembered = state.remembered.clone();
                let before = remembered.pin.as_ref().filter(|pin| pin.origin == origin).and_then(|pin| pin.span);
                let span = answer.span.as_ref().map(|said| span_of(said).after(before)).or(before);
                // Do this only when a log is first seen, not whenever its node reports another predecessor.
                if before.is_none() {
                    remembered.learn_of(answer.span.as_ref().and_then(|span| span.before.as_ref()), now);
                }
                if let Some(pin) = remembered.pin.as_ref().filter(|pin| self.keeping.day_checkpoints && pin.size > 0) {
                    note_day(&mut remembered.days, &pin.note, pin.seen, now);
                }
                remembered.mark(Mark { size, root: encode_hash(&presented.root), seen: now, span });
                if edge.is_some() {
                    remembered.edge = edge;
                }
                remembered.pin = Some(Pin { origin, size, note: cosigned.clone(), seen: now, span });
                // Store the pin before returning the cosignature: this witness must never forget a checkpoint that it cosigned.
                self.memory.store(&remembered).map_err(|e| format!("cannot store the witness's state: {e}"))?;
                state.remembered = remembered;
                state.pinned = Some(presented);
                return Ok(Some(cosigned));
            }
            Comparison::Fork(reason) => (Verdict::Fork, reason),
            Comparison::Rollback(reason) => (Verdict::Rollback, reason),
        };
        if state.remembered.alarm.is_none() {
            let generation = generation_of(&presented);
            let presented = Some(answer.note.clone());
            let alarm = Alarm { verdict, reason, since: now, generation, presented };
            self.raise(&mut state, alarm);
        } else {
            self.present(&mut state, &presented, &answer.note)?;
        }
        Ok(None)
    }

    /// Stores how a poll ended.
    pub(crate) fn concluded(&self, poll: Result<(), NotTaken>) {
        let mut state = self.state();
        state.polled = true;
        state.too_early = matches!(poll, Err(NotTaken::TooEarly(_)));
        state.trouble = poll.err().map(|not_taken| match not_taken {
            NotTaken::Unreachable(reason) => (Verdict::Unreachable, reason),
            NotTaken::Unverifiable(reason) | NotTaken::TooEarly(reason) => (Verdict::Unverifiable, reason),
        });
        if state.trouble.is_some() {
            // Once the node is reachable again, it may answer for the archived logs that it gave no answer for, so forget these
            // attempts.
            state.earlier_polled.retain(|polled| polled.is_known);
        }
    }

    /// Raises an alarm for a node that presents no signed checkpoint and has fewer rows than were witnessed: its log
    /// was truncated, whatever reason the node gives.
    pub(crate) fn take_short(&self, generation: Generation, rows: u64, excuse: &str, now: Timestamp) {
        let mut state = self.state();
        let Some(pinned) = &state.pinned else { return };
        if state.remembered.alarm.is_some() || generation_of(pinned) != generation.to_string() || rows >= pinned.size {
            return;
        }
        let reason = format!(
            "{} rows were witnessed, but the node now has only {rows} and signs none of them: the end of its log was cut off, or an older copy \
             was put back; the node reports: {excuse}",
            pinned.size
        );
        let generation = generation.to_string();
        let alarm = Alarm { verdict: Verdict::Rollback, reason, since: now, generation, presented: None };
        self.raise(&mut state, alarm);
    }

    /// Stores an alarm and its evidence. If storing them fails, the alarm is raised anyway, although it is then forgotten at a
    /// restart.
    pub(crate) fn raise(&self, state: &mut WatchState, alarm: Alarm) {
        let mut remembered = state.remembered.clone();
        let (at, message) = (alarm.since, alarm.reason.clone());
        let (verdict, presented) = (alarm.verdict, alarm.presented.clone());
        remembered.alarm = Some(alarm);
        let pinned = remembered.pin.as_ref().map(|pin| pin.note.as_str());
        let presented = presented.as_deref();
        let evidence = Evidence { at, what: verdict.as_str(), message: &message, pinned, presented, row: None };
        let stored = self.memory.keep(&evidence).and_then(|()| self.memory.store(&remembered));
        if let Err(error) = stored {
            tracing::error!(%error, "cannot store the evidence against a node");
        }
        state.remembered = remembered;
    }

    /// Records what the node presents during an alarm. An acceptance refers to the log that was seen last, not to the log that
    /// raised the alarm, because an operator may have replaced that log since. The evidence keeps the log that raised the alarm.
    pub(crate) fn present(&self, state: &mut WatchState, presented: &Checkpoint, note: &str) -> Result<(), String> {
        let mut remembered = state.remembered.clone();
        let Some(alarm) = &mut remembered.alarm else { return Ok(()) };
        if alarm.presented.as_deref() == Some(note) {
            return Ok(());
        }
        alarm.generation = generation_of(presented);
        alarm.presented = Some(note.to_owned());
        self.memory.store(&remembered).map_err(|e| format!("cannot store the witness's state: {e}"))?;
        state.remembered = remembered;
        Ok(())
    }

    /// Verifies a note and returns its checkpoint. The node of this roster entry must have signed the note, with the checkpoint's
    /// origin as the name of the key.
    pub(crate) fn opened(&self, note: &Note) -> Result<Checkpoint, String> {
        let key = self.node_key.ok_or("the roster has no checkpoint key for this node; update `roster.toml`")?;
        let opened = self.opened_by(note, &key)?;
        let next = self.next_key.and_then(|next| VerifyingKey::new(&opened.origin, KeyKind::Log, &next));
        match next.map(|next| note.verify(&next)) {
            Some(Err(error @ NoteError::Signature(_))) => Err(error.to_string()),
            _ => Ok(opened),
        }
    }

    pub(crate) fn opened_by(&self, note: &Note, key: &[u8; 32]) -> Result<Checkpoint, String> {
        let origin = note.text().lines().next().unwrap_or_default();
        if !origin.starts_with(&self.origins) {
            return Err(format!("the checkpoint belongs to another log, {origin:?}"));
        }
        let key =
            VerifyingKey::new(origin, KeyKind::Log, key).ok_or("the origin of the checkpoint is not a valid name")?;
        Checkpoint::open(note, &key).map_err(|e| e.to_string())
    }
}

/// Converts the time span that a node reports. An era above 0 means that the clock has stepped back, so the oldest time is unknown.
pub(crate) fn span_of(said: &LogSpan) -> Span {
    Span { oldest: said.oldest.filter(|_| said.era == 0), newest: said.newest, era: said.era, latest: said.newest }
}

impl Remembered {
    /// Records as lost the log that the current one replaced, if nothing is remembered about that log. Otherwise a witness that
    /// first sees the node after the replacement would report a range that begins before the current log as complete.
    pub(crate) fn learn_of(&mut self, before: Option<&LogBefore>, now: Timestamp) {
        let Some(before) = before else { return };
        let generation = before.generation.map_or_else(|| "unknown".to_owned(), |generation| generation.to_string());
        let known = self.lost.iter().any(|lost| lost.generation == generation);
        let recorded = before.witnessed_rows.max(before.rows);
        let empty = before.signed_rows == Some(0) && recorded.unwrap_or_default() == 0;
        // The loss of the pinned generation is recorded when an operator accepts it with a reason, so it is skipped here.
        let pinned = self.pin.as_ref().is_some_and(|pin| pin.origin.ends_with(&generation));
        if known || empty || pinned {
            return;
        }
        let to_seq = before.signed_rows.max(recorded).unwrap_or_default();
        // Limit the time to `now`: with a time in the future, ranges that begin after `now` would match too.
        let at = before.at.min(now);
        self.lose(Lost {
            generation,
            from_seq: 0,
            to_seq,
            oldest: None,
            until: at,
            witnessed: at,
            learned: true,
            note: None,
            gone: None,
        });
    }
}

/// Returns the generation of a checkpoint: the last part of its origin, `cluster/node/generation`.
pub(crate) fn generation_of(checkpoint: &Checkpoint) -> String {
    checkpoint.origin.rsplit('/').next().unwrap_or_default().to_owned()
}

pub(crate) fn proof(answer: &CheckpointAnswer) -> Option<Vec<Hash>> {
    (answer.proof.len() <= PROOF_HASHES_MAX).then(|| answer.proof.iter().map(|hash| decode_hash(hash)).collect())?
}
