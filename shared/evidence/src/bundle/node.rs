//! Verifies one node's part of a bundle: checkpoint, rows, proof.

use std::collections::BTreeMap;

use super::names::CHECKPOINT_AGE_SECONDS_MAX;
use super::policy::{PolicyFit, kept_to_policy};
use super::rows::{Rows, StoredEntry};
use super::trust::{NodeTrust, Trust};
use super::verdict::{Check, Checks, NodeVerdict};
use piperoll_format::checkpoint::Checkpoint;
use piperoll_format::completeness::{Coverage, ProvenRow};
use piperoll_format::entry::is_one_entry;
use piperoll_format::merkle::{Hash, RangeRoot, decode_hash, leaf_hash};
use piperoll_format::note::{KeyKind, Note, VerifyingKey};
use piperoll_format::order::Position;
use piperoll_format::statement::{Begun, Pruned, Statement};
use piperoll_format::time::Timestamp;
use piperoll_format::verify::SequenceWalk;
use piperoll_format::view::EntryView;
use piperoll_query::filter::{ErasedFit, Filter};

/// Members of one log of a node.
#[derive(Debug, Clone, Copy)]
pub(super) struct NodeMembers<'a> {
    pub(super) checkpoint: &'a [u8],
    pub(super) entries: &'a [u8],
    pub(super) proof: &'a [u8],
}

/// The parsed request of a bundle, and the checks to perform.
pub(super) struct BundleQuery {
    pub(super) filter: Filter,
    pub(super) from: Timestamp,
    pub(super) to: Timestamp,
    /// Time at which the bundle was created, according to the exporter.
    pub(super) created: Timestamp,
    pub(super) checks: Checks,
}

impl BundleQuery {
    /// Returns whether an entry belongs in the timeline. With `erased_apart`, the manifest only counts the erased entries whose
    /// match with the filter depends on their lost content; they are not in the timeline.
    fn wants(&self, row: &StoredEntry<'_>, view: &EntryView<'_>, erased_apart: bool) -> bool {
        let fits = match &row.erased {
            None => self.filter.matches(view),
            Some(_) if erased_apart => self.filter.on_erased(row.prefix.node_id, row.seq()) == ErasedFit::Yes,
            // The bundle was written by an earlier version, which included every erased entry because it could not know whether
            // the entry had matched.
            Some(_) => true,
        };
        fits && (self.from..self.to).contains(&row.timestamp())
    }
}

/// Checks the members of one log against `node`, the node's entry in the trust file. Returns those entries of the log that belong
/// in the timeline, in ascending `seq`, and adds faults to the verdict.
pub(super) fn check_node<'a>(
    trust: &Trust,
    node: Option<&NodeTrust>,
    question: &BundleQuery,
    members: NodeMembers<'a>,
    verdict: &mut NodeVerdict,
) -> Vec<StoredEntry<'a>> {
    let Some(node) = node else {
        verdict.fault("the trust file does not name this node".to_owned());
        return Vec::new();
    };
    let (checkpoint, generation) = match open_checkpoint(trust, node, members.checkpoint, question.checks, verdict) {
        Ok(opened) => opened,
        Err(message) => {
            verdict.fault(message);
            return Vec::new();
        }
    };
    verdict.size = Some(checkpoint.size);
    verdict.generation = Some(generation.clone());
    let proof = match read_proof(members.proof) {
        Ok(proof) => proof,
        Err(message) => {
            verdict.fault(message);
            return Vec::new();
        }
    };
    let rows = walk(trust, question, &generation, members.entries, &checkpoint, &proof, verdict);
    verdict.rows = rows.len() as u64;
    rows
}

/// Opens the checkpoint: the node must have signed it with a key that the trust file allows for this size, and at least one
/// trusted witness must have cosigned it.
fn open_checkpoint(
    trust: &Trust,
    node: &NodeTrust,
    member: &[u8],
    checks: Checks,
    verdict: &mut NodeVerdict,
) -> Result<(Checkpoint, String), String> {
    let text = std::str::from_utf8(member).map_err(|_| "its checkpoint is not valid UTF-8".to_owned())?;
    let note = Note::parse(text).map_err(|error| format!("its checkpoint is invalid: {error}"))?;
    let origin = note.text().lines().next().unwrap_or_default();
    let own = format!("{}/{}/", trust.cluster, node.id);
    let generation =
        origin.strip_prefix(&own).ok_or_else(|| format!("its checkpoint belongs to another log, {origin:?}"))?;
    let keys = node.keys.iter().filter_map(|span| Some((span, VerifyingKey::new(origin, KeyKind::Log, &span.public)?)));
    let mut problem = "the trust file has no key for this node".to_owned();
    let mut opened = None;
    let cosigned = trust.witnesses.iter().filter_map(|witness| note.verify(witness).ok()).map(time_of).min();
    for (span, key) in keys {
        match Checkpoint::open(&note, &key) {
            Ok(checkpoint)
                if node.allows(span, generation, checkpoint.size, cosigned) || !checks.on(Check::KeySpan) =>
            {
                opened = Some(checkpoint);
            }
            Ok(checkpoint) => {
                problem = format!(
                    "its checkpoint of {} rows is signed with a key that is not valid for that size",
                    checkpoint.size
                );
            }
            Err(error) if opened.is_none() => problem = format!("its checkpoint is invalid: {error}"),
            Err(_) => {}
        }
    }
    if !checks.on(Check::NodeSignature) {
        opened = Checkpoint::parse(note.text()).ok();
    }
    let checkpoint = opened.ok_or(problem)?;
    for witness in &trust.witnesses {
        match note.verify(witness) {
            Ok(seconds) => {
                verdict.witnessed_at = verdict.witnessed_at.max(Some(time_of(seconds)));
                verdict.witnesses.push(witness.name().to_owned());
            }
            Err(piperoll_format::note::NoteError::Unsigned(_)) => {}
            Err(error) => return Err(format!("its checkpoint is invalid: {error}")),
        }
    }
    if checks.on(Check::Witness) && verdict.witnesses.is_empty() {
        return Err("no witness in the trust file has cosigned its checkpoint".to_owned());
    }
    Ok((checkpoint, generation.to_owned()))
}

/// Converts the time of a cosignature, in seconds since 1970, to a timestamp.
fn time_of(seconds: u64) -> Timestamp {
    Timestamp::from_micros(i64::try_from(seconds).unwrap_or(i64::MAX / 2_000_000).saturating_mul(1_000_000))
}

/// Reads a proof: one base64-encoded hash per line.
fn read_proof(member: &[u8]) -> Result<Vec<Hash>, String> {
    let bad = || "its proof is not a list of hashes".to_owned();
    let text = std::str::from_utf8(member).map_err(|_| bad())?;
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let lines = text.strip_suffix('\n').ok_or_else(bad)?;
    lines.split('\n').map(|line| decode_hash(line).ok_or_else(bad)).collect()
}

/// Checks each entry in turn: its content, its position in the tree of the checkpoint, and whether it matches the request.
fn walk<'a>(
    trust: &Trust,
    question: &BundleQuery,
    generation: &str,
    entries: &'a [u8],
    checkpoint: &Checkpoint,
    proof: &[Hash],
    verdict: &mut NodeVerdict,
) -> Vec<StoredEntry<'a>> {
    let (unfiltered, checks) = (question.filter.is_empty(), question.checks);
    let mut root = RangeRoot::new(checkpoint.size, proof);
    let (mut shown, mut sequence) = (Coverage::default(), SequenceWalk::default());
    let mut wanted = Vec::new();
    // Time of the newest entry that the checkpoint covers, if that entry is in the bundle.
    let (mut count, mut newest) = (0u64, Timestamp::MIN);
    // The `log.pruned` statement with the highest `to_seq`, and the time of its entry.
    let mut floor = None;
    // `needed`: erasure statements found in place of erased entries; each of them must also occur at its own `seq`. `met`: the
    // erasure statements that do occur at their own `seq`.
    let (mut needed, mut met) = (Vec::new(), BTreeMap::new());
    for row in Rows::new(entries) {
        let row = match row {
            Ok(row) => row,
            Err(error) => {
                verdict.fault(error.to_string());
                return Vec::new();
            }
        };
        let prefix = row.prefix;
        let own = prefix.node_id == verdict.node_id && prefix.generation == generation;
        let seq = row.seq();
        if checks.on(Check::Identity) && !own {
            verdict.fault(format!(
                "row {seq} was written by {}/{}, so it belongs to another log",
                prefix.node_id, prefix.generation
            ));
            return Vec::new();
        }
        if let Err(problem) = root.leaf(seq, row.leaf()) {
            verdict.fault(format!("row {seq} is invalid: {problem}"));
            return Vec::new();
        }
        count += 1;
        if seq + 1 == checkpoint.size {
            newest = row.timestamp();
        }
        if seq == 0 && row.erased.is_none() {
            // The first entry of a log names the log that it replaced, if there was one.
            verdict.begun = Begun::read(row.body).filter(|begun| !begun.was_empty());
        }
        let said = Statement::read(row.body);
        match (&row.erased, &said) {
            (Some(erased), _) => {
                needed.push((prefix.seq, erased.seq, leaf_hash(row.body, row.mac)));
            }
            (None, Some(Statement::Erased(_))) => {
                met.insert(seq, row.leaf());
            }
            (None, Some(Statement::Pruned(pruned))) => {
                shown.pruned(pruned.to_seq, pruned.newest);
                verdict.pruned = verdict.pruned.max(Some(pruned.to_seq));
                if floor.as_ref().is_none_or(|(known, _): &(Pruned, Timestamp)| known.to_seq < pruned.to_seq) {
                    floor = Some((pruned.clone(), row.timestamp()));
                }
            }
            _ => {}
        }
        // Report decreasing times only for entries with consecutive `seq`. A gap is not a fault here: the bundle does not contain
        // the entries between.
        if let Some(fault @ piperoll_format::verify::SequenceFault::TimeDecreases { .. }) =
            sequence.step(seq, Some((row.era(), row.timestamp())))
            && checks.on(Check::TimeOrder)
        {
            verdict.fault(fault.to_string());
        }
        let view = EntryView::parse(row.body).filter(|_| is_one_entry(row.body));
        if view.is_none() && checks.on(Check::EntryForm) {
            verdict.fault(format!("row {seq} is not a valid entry"));
        }
        let view = view.unwrap_or_default();
        let place = ProvenRow { seq, era: row.era(), timestamp: row.timestamp() };
        if question.wants(&row, &view, verdict.erased_apart.is_some()) {
            if unfiltered {
                shown.row(place);
            }
            verdict.erased += u64::from(row.erased.is_some());
            wanted.push(row);
        } else if unfiltered {
            shown.border(place);
            verdict.borders += 1;
        } else if row.erased.is_none() && matches!(said, Some(Statement::Erased(_))) {
            // This erasure statement is in the bundle only to prove the erasure of another entry.
            verdict.borders += 1;
        } else if checks.on(Check::Question) {
            verdict.fault(format!("row {seq} does not match the request"));
        } else {
            wanted.push(row);
        }
    }
    match root.root() {
        Ok(made) if made == checkpoint.root || !checks.on(Check::Root) => {}
        Ok(_) => verdict.fault("its rows do not lead to the root that was signed and witnessed".to_owned()),
        Err(problem) => verdict.fault(format!("its proof is invalid: {problem}")),
    }
    if checks.on(Check::Erasure) {
        check_erasures(needed, &met, verdict);
    }
    verdict.withheld = checkpoint.size.saturating_sub(count + verdict.pruned.unwrap_or(0));
    verdict.unproven = unproven(question, &shown, checkpoint.size);
    if verdict.unproven.is_some() && unfiltered {
        verdict.rest = floor.and_then(|(pruned, stated)| {
            rest(trust, question, &shown, checkpoint, (&pruned, stated), verdict.witnessed_at)
        });
    }
    verdict.stale = stale(question, newest, verdict.witnessed_at);
    wanted
}

/// Checks that the bundle contains and proves the erasure statement of every erased entry. `needed` has the statement's `seq`,
/// the erased entry's `seq`, and the statement's leaf.
fn check_erasures(needed: Vec<(u64, u64, Hash)>, met: &BTreeMap<u64, Hash>, verdict: &mut NodeVerdict) {
    for (entry_seq, seq, leaf) in needed {
        if met.get(&entry_seq) != Some(&leaf) {
            verdict.fault(format!("row {seq} is shown as erased, but the erasure entry {entry_seq} is not proven"));
        }
    }
}

/// Maximum time by which a node's clock may be ahead of its witness's clock.
const CLOCK_SLACK_MICROS: i64 = 5 * 60 * 1_000_000;

/// If entries were pruned, returns the time from which the rest of the range is proven to be complete, and whether the pruned
/// entries had been kept for as long as the policy requires.
fn rest(
    trust: &Trust,
    question: &BundleQuery,
    shown: &Coverage,
    checkpoint: &Checkpoint,
    (pruned, stated): (&Pruned, Timestamp),
    witnessed_at: Option<Timestamp>,
) -> Option<(Timestamp, PolicyFit)> {
    let since = shown.since()?.max(question.from);
    let at = |timestamp| Position { timestamp, seq: 0 };
    shown.is_whole(at(since), at(question.to.max(since)), checkpoint.size).ok()?;
    // The statement was recorded before its checkpoint was cosigned, whatever time the statement itself gives.
    let latest = witnessed_at.unwrap_or(Timestamp::MIN).plus_micros(CLOCK_SLACK_MICROS);
    if stated > latest {
        let message = format!(
            "they were recorded as pruned at {stated}, which is after that record was cosigned: the node's clock ran ahead"
        );
        return Some((since, PolicyFit::Unshown(message)));
    }
    Some((since, kept_to_policy(&checkpoint.origin, pruned, stated, &trust.retention, &trust.witnesses)))
}

/// Returns why entries of the range could be missing although no check failed; `None` if the bundle proves that none are.
fn unproven(question: &BundleQuery, shown: &Coverage, size: u64) -> Option<String> {
    let at = |timestamp| Position { timestamp, seq: 0 };
    if !question.filter.is_empty() {
        return Some("the export has a filter".to_owned());
    }
    if !question.checks.on(Check::Whole) {
        return None;
    }
    shown.is_whole(at(question.from), at(question.to), size).err().map(|problem| problem.to_string())
}

/// Returns why entries of archived logs may be missing, if the range begins before the current log does. The exporter may not
/// have known about an archived log, so a missing one makes the bundle incomplete but is not a fault.
///
/// The first entry of every log names the log that it replaced and how many entries that log had. All of these logs must be in
/// the bundle, back to the start of the range.
pub(super) fn missing_earlier(question: &BundleQuery, node: &NodeVerdict) -> Option<String> {
    if !question.checks.on(Check::Whole) {
        return None;
    }
    let unfiltered = question.filter.is_empty();
    let not_whole = |log: &NodeVerdict| {
        let why = log.unproven.as_ref().filter(|_| unfiltered)?;
        Some(format!("its archived log of generation {}: {why}", log.generation.as_deref().unwrap_or_default()))
    };
    let mut left: Vec<&NodeVerdict> = node.earlier.iter().collect();
    let mut begun = node.begun.as_ref();
    while let Some(Begun { generation, at, .. }) = begun.filter(|begun| question.from < begun.at) {
        let found = generation.as_ref().and_then(|generation| {
            left.iter().position(|log| log.size.is_some() && log.generation.as_ref() == Some(generation))
        });
        let generation = generation.as_deref().unwrap_or("unknown");
        let Some(found) = found else {
            return Some(format!(
                "its log replaced generation {generation} at {at}; the range begins earlier, but the bundle does not contain that generation"
            ));
        };
        let log = left.swap_remove(found);
        let (size, rows) = (log.size.unwrap_or_default(), begun.and_then(Begun::rows_before));
        if rows.is_none_or(|rows| size < rows) {
            let rows = rows.map_or_else(|| "an unknown number of".to_owned(), |rows| rows.to_string());
            return Some(format!(
                "its archived log of generation {generation} had {rows} rows at {at}, but only {size} of them were witnessed"
            ));
        }
        if let Some(message) = not_whole(log) {
            return Some(message);
        }
        begun = log.begun.as_ref();
    }
    left.into_iter().find_map(not_whole)
}

/// Returns whether a checkpoint that was cosigned at `witnessed` shows which rows existed at `end`. A cosignature states its time
/// in whole seconds, so the fraction of a second, which only the exporter knows, is ignored: otherwise the exporter would claim
/// more than a verifier can confirm.
pub fn was_witnessed_until(witnessed: Timestamp, end: Timestamp) -> bool {
    let stated = Timestamp::from_micros(witnessed.micros().div_euclid(1_000_000) * 1_000_000);
    stated.plus_micros(CHECKPOINT_AGE_SECONDS_MAX * 1_000_000) >= end
}

/// Returns why the checkpoint does not cover the whole range. A checkpoint proves nothing about entries recorded after it. It
/// covers the range if its newest entry is at or after the end of the range, or if it was witnessed late enough (see
/// `was_witnessed_until`). A range without an end ends at the time of the export; an exporter that states an earlier time only
/// claims less.
fn stale(question: &BundleQuery, newest: Timestamp, witnessed_at: Option<Timestamp>) -> Option<String> {
    let end = if question.to == Timestamp::MAX { question.created } else { question.to };
    let witnessed = witnessed_at.unwrap_or(Timestamp::MIN);
    let late_enough = was_witnessed_until(witnessed, end);
    (newest < question.to && !late_enough && question.checks.on(Check::Fresh))
        .then(|| format!("its checkpoint was witnessed at {witnessed} and does not cover the range up to {end}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The exporter knows the time of a cosignature to the microsecond, a verifier only to the second.
    #[test]
    fn a_fraction_of_a_second_does_not_make_a_checkpoint_younger() {
        let at = Timestamp::from_micros;
        assert!(was_witnessed_until(at(19_000_000), at(21_000_000)));
        assert!(!was_witnessed_until(at(19_000_000), at(21_000_001)));
        assert!(!was_witnessed_until(at(19_900_000), at(21_079_838)), "it states 19 s");
        assert!(was_witnessed_until(at(-500_000), at(1_000_000)) && !was_witnessed_until(at(-500_000), at(1_000_001)));
    }
}
