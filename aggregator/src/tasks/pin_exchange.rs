//! Exchanges pins between witnesses. Every aggregator writes its pins into its own log, compares the pins of the others
//! with the logs that the nodes present, and recovers its own memory from its log if the memory is missing.

use std::sync::Arc;
use std::time::Duration;

use piperoll_client::{Category, EmitError, Entry};
use piperoll_format::checkpoint::Checkpoint;
use piperoll_format::ids::Generation;
use piperoll_format::merkle::{encode_hash, verify_consistency};
use piperoll_format::note::Note;
use piperoll_format::order::Order;
use piperoll_format::time::Timestamp;
use piperoll_format::verify::Integrity;
use piperoll_format::view::EntryView;
use piperoll_net::clock::{Clock as _, SystemClock};
use piperoll_protocol::node::{CheckpointAnswer, peer_path};
use piperoll_protocol::verdict::Verdict;
use piperoll_query::filter::Filter;
use serde::{Deserialize, Serialize};

use crate::answer::page::page;
use crate::cluster::node_handle::NodeHandle;
use crate::cluster::witness::memory::{Again, Alarm, EarlyPrune, Lost, Pin, Remembered, Split};
use crate::cluster::witness::watch::{NodeWitness, POLL_TIMEOUT, generation_of, proof};
use crate::scan::query::Query;
use crate::state::App;

const ACTION: &str = "audit.witness_checkpoints";
/// Maximum bytes of pins in one entry, as JSON: half the limit for an entry.
const PINS_BYTES_MAX: usize = 32 * 1024;
/// Maximum number of losses, and of early prunes, of one node in one entry. Older ones are in earlier entries.
const LOSSES_MAX: usize = 16;
/// Maximum number of a node's archived logs, most recently replaced first, that are compared with the pins of one other
/// aggregator.
const EARLIER_COMPARED_MAX: usize = 4;
/// Maximum number of entries that one read returns, and maximum age of the other aggregators' entries that `compare` reads.
const ENTRIES_MAX: usize = 1_000;
const OTHERS_WITHIN: Duration = Duration::from_hours(3);
/// Delay between attempts to read this aggregator's own log at startup, and the number of attempts.
const RECALL_PAUSE: Duration = Duration::from_millis(250);
const RECALL_TRIES: u32 = 60;

/// One node's pin, as stored in an entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Written {
    node: String,
    /// The node's checkpoint with the witness's cosignature.
    note: String,
    /// Time at which the node last confirmed the pin.
    seen: Timestamp,
    /// Lost rows, and rows that were pruned too early. These records are permanent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    lost: Vec<Lost>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    early: Vec<EarlyPrune>,
}

#[derive(Deserialize)]
struct Details {
    checkpoints: Vec<Written>,
}

/// Writes the pins of all nodes into this aggregator's own log.
pub(crate) async fn write_pins(app: &App) -> Result<(), EmitError> {
    let pins: Vec<Written> = app.cluster.members.iter().filter_map(|member| member.witness.written()).collect();
    let size = |pin: &Written| serde_json::to_vec(pin).map_or(0, |json| json.len());
    let mut rest = pins.as_slice();
    while !rest.is_empty() {
        let (mut count, mut bytes) = (0, 0);
        while count < rest.len() && (count == 0 || bytes + size(&rest[count]) <= PINS_BYTES_MAX) {
            bytes += size(&rest[count]);
            count += 1;
        }
        let (some, later) = rest.split_at(count);
        rest = later;
        let entry = Entry::new(Category::Audit, ACTION)
            .description(format!("checkpoints that this witness pinned for {} nodes", some.len()))
            .detail("checkpoints", some);
        app.audit.note(entry).await?;
    }
    Ok(())
}

/// Recovers the pins written before, then writes and compares pins periodically.
pub(crate) async fn run(app: Arc<App>, own: String, every: Duration) {
    recall(&app, &own).await;
    loop {
        // Write the pins once per interval, for the first time after one interval. The first write includes the pins from before
        // a crash.
        tokio::time::sleep(every).await;
        if let Err(error) = write_pins(&app).await {
            tracing::warn!(%error, "cannot store pinned checkpoints");
        }
        compare(&app, &own).await;
    }
}

/// Recovers pins from this aggregator's own log, for nodes about which the witness's memory is missing or older than the log.
/// Until this has run, no checkpoint of a node without a pin is cosigned.
async fn recall(app: &App, own: &str) {
    let mut written = None;
    if app.cluster.members.iter().any(|member| member.node.id.as_str() == own) {
        for _ in 0..RECALL_TRIES {
            written = read(app, &format!("action:{ACTION} node:{own}"), Timestamp::MIN).await;
            if written.is_some() {
                break;
            }
            tokio::time::sleep(RECALL_PAUSE).await;
        }
        if written.is_none() {
            tracing::warn!("cannot read this aggregator's own log; using the state directory only");
        }
    }
    for member in &app.cluster.members {
        // Newest first.
        let mine = written.iter().flatten().filter(|(_, pin)| pin.node == member.node.id.as_str());
        let mine: Vec<&Written> = mine.map(|(_, pin)| pin).collect();
        member.witness.recalled(&mine);
    }
}

/// Compares the pins that other witnesses wrote with the logs that the nodes show here.
async fn compare(app: &App, own: &str) {
    let from = SystemClock.now().minus(OTHERS_WITHIN);
    let Some(written) = read(app, &format!("action:{ACTION} -node:{own}"), from).await else { return };
    for member in &app.cluster.members {
        let mut others: Vec<&str> = Vec::new();
        for (witness, pin) in written.iter().filter(|(_, pin)| pin.node == member.node.id.as_str()) {
            // Only the newest pin of each witness is compared.
            if others.contains(&witness.as_str()) {
                continue;
            }
            others.push(witness);
            compare_one(member, witness, pin).await;
        }
    }
}

async fn compare_one(member: &NodeHandle, witness: &str, pin: &Written) {
    compare_present(member, witness, &pin.note).await;
    // Each aggregator keeps its last pin of every log that was replaced.
    let notes = pin.lost.iter().rev().filter_map(|lost| lost.note.as_ref());
    for note in notes.take(EARLIER_COMPARED_MAX) {
        compare_earlier(member, witness, note).await;
    }
}

async fn compare_present(member: &NodeHandle, witness: &str, note: &str) {
    let watch = &member.witness;
    let Some(theirs) = watch.opened_text(note) else { return };
    let mine = watch.state().pinned.clone();
    let Some(mine) = mine.filter(|mine| mine.origin == theirs.origin && theirs.size > 0) else { return };
    // An operator here accepted these rows as lost. The other aggregator once pinned them, and its operator may not
    // have accepted the loss yet.
    if watch.accepted_without(&generation_of(&theirs), theirs.size) {
        return;
    }
    let fits = if theirs.size == mine.size {
        Some(theirs.root == mine.root)
    } else {
        goes_on_from(member, &theirs, None).await
    };
    if fits == Some(false) {
        watch.raise_split(witness, &theirs, note);
    }
}

async fn compare_earlier(member: &NodeHandle, witness: &str, note: &str) {
    let watch = &member.witness;
    let Some(theirs) = watch.opened_text(note).filter(|theirs| theirs.size > 0) else { return };
    let Ok(generation) = generation_of(&theirs).parse::<Generation>() else { return };
    let Some(mine) = watch.pinned_of(generation).filter(|_| !watch.lost_inside(&theirs)) else { return };
    let fits = if theirs.size == mine.size {
        Some(theirs.root == mine.root)
    } else {
        goes_on_from(member, &theirs, Some(generation)).await
    };
    // A log may have been archived because it is damaged. The node may then be unable to prove either pin, which does not show
    // that it has two histories.
    let is_sound = theirs.size == mine.size || fits != Some(false) || {
        goes_on_from(member, &mine, Some(generation)).await == Some(true)
    };
    if fits == Some(false) && is_sound {
        watch.raise_split(witness, &theirs, note);
    }
}

/// Whether the log that the node shows here extends `theirs`. `None` while the node does not answer or has fewer rows
/// than the other aggregator saw, which the next poll will report. `earlier` names a log that was replaced.
async fn goes_on_from(member: &NodeHandle, theirs: &Checkpoint, earlier: Option<Generation>) -> Option<bool> {
    let of_log = earlier.map(|generation| format!("&generation={generation}")).unwrap_or_default();
    let path = format!("{}?old={}{of_log}", peer_path::CHECKPOINT, theirs.size);
    let answer: CheckpointAnswer = member.link.get_json(&path, POLL_TIMEOUT).await.ok()?;
    let now = member.witness.opened_text(&answer.note)?;
    if now.origin != theirs.origin || now.size < theirs.size {
        return None;
    }
    if now.size == theirs.size {
        return Some(now.root == theirs.root);
    }
    let hashes = proof(&answer)?;
    Some(verify_consistency(theirs.size, &theirs.root, now.size, &now.root, &hashes).is_ok())
}

/// Reads pins from entries, newest first, each with the node whose log contains it; `None` if the log cannot be read.
async fn read(app: &App, filter: &str, from: Timestamp) -> Option<Vec<(String, Written)>> {
    let now = SystemClock.now();
    let filter = Filter::parse(filter, now).ok()?;
    let mut query = Query::everything(filter, (from, Timestamp::MAX), Order::Desc, now);
    query.limit = Some(ENTRIES_MAX);
    let answer = page(&app.cluster, &query).await;
    // A row that fails verification does not make the other rows unreadable.
    if answer.envelope.answered == 0 && answer.rows.is_empty() {
        return None;
    }
    let mut all = Vec::new();
    for row in answer.rows.iter().filter(|row| row.integrity == Integrity::Ok) {
        let details = EntryView::parse(&row.body).and_then(|view| view.details);
        let Some(Ok(Details { checkpoints })) = details.map(|details| serde_json::from_str(details.get())) else {
            continue;
        };
        all.extend(checkpoints.into_iter().map(|pin| (row.key.node_id.to_string(), pin)));
    }
    Some(all)
}

impl NodeWitness {
    /// Returns the pin in the form that is written to the log.
    fn written(&self) -> Option<Written> {
        let state = self.state();
        let pin = state.remembered.pin.as_ref()?;
        let node = self.origins.split('/').nth(1)?.to_owned();
        let Remembered { lost, early, .. } = &state.remembered;
        let lost = lost[lost.len().saturating_sub(LOSSES_MAX)..].to_vec();
        let early = early[early.len().saturating_sub(LOSSES_MAX)..].to_vec();
        Some(Written { node, note: pin.note.clone(), seen: pin.seen, lost, early })
    }

    /// Returns the checkpoint of a note, if this node signed it with one of its keys.
    pub(crate) fn opened_text(&self, note: &str) -> Option<Checkpoint> {
        let note = Note::parse(note).ok()?;
        self.opened(&note).ok().or_else(|| self.pinned_keys.iter().find_map(|key| self.opened_by(&note, key).ok()))
    }

    /// Processes the pins found in this aggregator's own log. Until then, `take` accepts no first checkpoint. If the remembered
    /// pin is missing, or older than the one found, the pin found replaces it, and this is reported until an operator accepts it.
    fn recalled(&self, written: &[&Written]) {
        let mut state = self.state();
        state.recalled = true;
        let known = state.remembered.pin.clone();
        // Among the pins of the most recently pinned log, use the one with the largest size.
        let opened: Vec<_> =
            written.iter().filter_map(|written| Some((self.opened_text(&written.note)?, *written))).collect();
        let origin = opened.first().map(|(checkpoint, _)| checkpoint.origin.clone());
        let same = opened.into_iter().filter(|(checkpoint, _)| Some(&checkpoint.origin) == origin.as_ref());
        let found = same.max_by_key(|(checkpoint, _)| checkpoint.size);
        let mut remembered = state.remembered.clone();
        let was_gone = remembered.pin.is_none() && remembered.alarm.is_none();
        match (&known, found) {
            (Some(pin), Some((checkpoint, written)))
                if written.seen > pin.seen && (pin.origin != checkpoint.origin || pin.size < checkpoint.size) =>
            {
                let message = format!(
                    "the pinned checkpoint in the state directory covers {} rows of {}, but the one in this aggregator's own log covers {} rows of {} and was seen at {}: an older copy of the state directory was restored",
                    pin.size, pin.origin, checkpoint.size, checkpoint.origin, written.seen
                );
                self.adopt(&mut remembered, &checkpoint, written, message);
            }
            (None, Some((checkpoint, written))) if was_gone => {
                let message = format!(
                    "the node's pinned checkpoint is missing from the state directory; the one in this aggregator's own log covers {} rows of {} and was seen at {}, and the node is checked \
                     against it",
                    checkpoint.size, checkpoint.origin, written.seen
                );
                self.adopt(&mut remembered, &checkpoint, written, message);
            }
            (None, None) if was_gone && self.was_known => {
                let message = "the node's pinned checkpoint is missing from the state directory, and this aggregator's own log has no record of it";
                remembered.again = Some(Again { since: SystemClock.now(), message: message.to_owned() });
            }
            _ => return,
        }
        for lost in written.iter().flat_map(|written| &written.lost) {
            // The same loss may be on record already, possibly with more rows, because more of them have been cosigned since.
            let is_known = |known: &Lost| {
                let same =
                    (&known.generation, known.from_seq, known.until) == (&lost.generation, lost.from_seq, lost.until);
                same && known.to_seq >= lost.to_seq && (known.note.is_some() || lost.note.is_none())
            };
            if !remembered.lost.iter().any(is_known) {
                remembered.lose(lost.clone());
            }
        }
        for early in written.iter().flat_map(|written| &written.early) {
            remembered.note_early(early.clone());
        }
        if let Err(error) = self.memory.store(&remembered) {
            tracing::error!(%error, "cannot store the pinned checkpoint recovered from this aggregator's own log");
        }
        state.pinned = remembered.pin.as_ref().and_then(|pin| self.open_pin(pin).ok());
        state.remembered = remembered;
        // The log start has to be checked again with the recovered memory.
        state.floor = None;
    }

    fn adopt(&self, remembered: &mut Remembered, checkpoint: &Checkpoint, written: &Written, message: String) {
        let (origin, size) = (checkpoint.origin.clone(), checkpoint.size);
        tracing::error!(origin, size, "{message}");
        remembered.pin = Some(Pin { origin, size, note: written.note.clone(), seen: written.seen, span: None });
        remembered.marks.clear();
        remembered.again = Some(Again { since: SystemClock.now(), message });
    }

    /// Whether the last of the first `size` rows of the log `generation` is among the rows whose loss is on record.
    fn accepted_without(&self, generation: &str, size: u64) -> bool {
        let state = self.state();
        state
            .remembered
            .lost
            .iter()
            .any(|lost| lost.generation == generation && lost.from_seq < size && size <= lost.to_seq)
    }

    /// Whether the last row that `theirs` covers is on record as lost from within its log. The record of the loss of a complete
    /// log does not count.
    fn lost_inside(&self, theirs: &Checkpoint) -> bool {
        let (generation, size) = (generation_of(theirs), theirs.size);
        let inside = |lost: &Lost| lost.note.is_none() && lost.generation == generation;
        let state = self.state();
        state.remembered.lost.iter().any(|lost| inside(lost) && lost.from_seq < size && size <= lost.to_seq)
    }

    /// Returns the last pin of a log that was replaced.
    fn pinned_of(&self, generation: Generation) -> Option<Checkpoint> {
        let generation = generation.to_string();
        let state = self.state();
        let notes = state.remembered.lost.iter().rev().filter(|lost| lost.generation == generation);
        let mut pinned = notes.filter_map(|lost| self.opened_text(lost.note.as_deref()?));
        pinned.find(|pinned| generation_of(pinned) == generation)
    }

    /// Raises an alarm for two histories that a node signed for two witnesses, and keeps both notes. A split view that an operator
    /// accepted is not reported again.
    fn raise_split(&self, witness: &str, theirs: &Checkpoint, note: &str) {
        let mut state = self.state();
        let (generation, size) = (generation_of(theirs), theirs.size);
        let split = Split { generation: generation.clone(), size, root: encode_hash(&theirs.root) };
        if state.remembered.alarm.is_some() || state.remembered.splits.contains(&split) {
            return;
        }
        let reason = format!(
            "split view: the aggregator {witness} was shown a log of {size} rows with a different history than the one shown to this aggregator \
             (generation {generation})"
        );
        let presented = Some(note.to_owned());
        let alarm = Alarm { verdict: Verdict::Fork, reason, since: SystemClock.now(), generation, presented };
        // `raise` stores the split together with the alarm.
        state.remembered.note_split(split);
        self.raise(&mut state, alarm);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use piperoll_evidence::bundle::Membership;
    use piperoll_format::ids::Generation;
    use piperoll_format::mac::KeyRing;
    use piperoll_format::note::{KeyKind, SigningSeed};
    use piperoll_protocol::node::CheckpointAnswer;
    use piperoll_protocol::verdict::Verdict;

    use super::*;
    use crate::cluster::witness::log_start::Keeping;
    use crate::cluster::witness::status::NotTaken;
    use crate::config::RosterNode;

    /// A node that answers before this aggregator has read its own log did nothing wrong, so nothing is recorded about it.
    #[test]
    fn a_poll_before_the_own_log_was_read_says_nothing_about_the_node() {
        let dir = tempfile::tempdir().unwrap();
        let seed = SigningSeed::from_bytes([7; 32]);
        let generation = Generation::from_bytes([1; 16]);
        let origin = format!("test/mx1/{generation}");
        let key = seed.named(&origin, KeyKind::Log).unwrap();
        let note = Checkpoint { origin, size: 3, root: [9; 32] }.sign(&key).unwrap().to_string();
        let answer = CheckpointAnswer { note, generation: None, proof: Vec::new(), span: None };
        let node = RosterNode {
            id: "mx1".parse().unwrap(),
            address: "127.0.0.1:1".to_owned(),
            life: Membership::ALWAYS,
            moved: Vec::new(),
            last_seq: None,
            ring: KeyRing::new("test".parse().unwrap(), "mx1".parse().unwrap(), Vec::new()),
            checkpoint_key: Some(seed.public_bytes()),
            next_checkpoint_key: None,
            former_checkpoint_keys: Vec::new(),
        };
        let cosigner = SigningSeed::from_bytes([8; 32]).named("test/agg", KeyKind::Witness).unwrap();
        let keeping = Keeping::default();
        let witness = NodeWitness::open(dir.path(), &node, &cosigner, keeping, false).unwrap();
        assert!(witness.standing().is_pending, "nothing was asked yet");
        let refused = witness.take(&answer, 0, SystemClock.now(), None).unwrap_err();
        assert!(matches!(refused, NotTaken::TooEarly(_)), "{refused:?}");
        witness.concluded(Err(refused));
        let standing = witness.standing();
        assert_eq!((standing.verdict, standing.is_pending), (Verdict::Unverifiable, true), "{standing:?}");

        witness.recalled(&[]);
        assert!(witness.take(&answer, 0, SystemClock.now(), None).unwrap().is_some());
        witness.concluded(Ok(()));
        assert_eq!((witness.standing().verdict, witness.standing().is_pending), (Verdict::Ok, false));

        // A checkpoint that cannot be checked is the node's fault, and is recorded.
        let unsigned = CheckpointAnswer { note: answer.note.replace("\n3\n", "\n4\n"), ..answer };
        let refused = witness.take(&unsigned, 3, SystemClock.now(), None).unwrap_err();
        assert!(matches!(refused, NotTaken::Unverifiable(_)), "{refused:?}");
        witness.concluded(Err(refused));
        let standing = witness.standing();
        assert_eq!((standing.verdict, standing.is_pending), (Verdict::Unverifiable, false), "{standing:?}");
    }
}
