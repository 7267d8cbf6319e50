//! Collects one node's part of a bundle: rows, border rows, and one proof for all of them.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use piperoll_evidence::bundle::{ERASED_HEAD_BYTES, was_witnessed_until};
use piperoll_format::entry::Prefix;
use piperoll_format::limits::BODY_AND_MAC_BYTES_MAX;
use piperoll_format::merkle::{Hash, RangeRoot, decode_hash, leaf_hash};
use piperoll_format::time::Timestamp;
use piperoll_format::verify::Integrity;
use piperoll_protocol::aggregator::Status;
use piperoll_protocol::node::{NodeStatus, ProofAnswer, ProofRequest, peer_path};

use super::spool::{Spool, SpoolRows};
use crate::answer::outcome::NodeOutcome;
use crate::cluster::connection::{Channel, Failure};
use crate::cluster::node_handle::NodeHandle;
use crate::cluster::witness::pinned::Pinned;
use crate::config::FanOutLimits;
use crate::scan::node_reader::{NodeReader, conclude};
use crate::scan::plan::NodeRequest;
use crate::scan::proof_verifier::RangeCompleteness;
use crate::scan::verified_row::{BorderRow, VerifiedRow};
use crate::witness::poll::poll;

/// Maximum time to wait for a checkpoint that covers all rows a node had when the export began. Nodes sign once a second.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(5);
const SETTLE_PAUSE: Duration = Duration::from_millis(200);
const STATUS_TIMEOUT: Duration = Duration::from_secs(2);
/// Size limits of a proof answer: levels of a tree of 2^62 rows, bytes of one hash in a JSON list, and bytes for everything else.
const TREE_LEVELS_MAX: usize = 62;
const HASH_TEXT_BYTES: usize = 48;
const PROOF_BYTES_MIN: usize = 64 * 1024;
/// Time limit for a proof. A node needs several seconds to create the proof of a million runs of rows.
const PROOF_TIMEOUT: Duration = Duration::from_secs(60);

/// Rows that a node sent and proved.
pub(super) struct Proven {
    pub(super) pinned: Pinned,
    /// Rows by era. `seq` also ascends from one era to the next.
    pub(super) eras: BTreeMap<u32, Spool>,
    /// Sorted by `seq`.
    pub(super) borders: Vec<BorderRow>,
    pub(super) proof: Vec<Hash>,
}

/// Outcome and rows of one log of a node.
pub(super) struct Collected {
    pub(super) part: NodeOutcome,
    pub(super) proven: Option<Proven>,
    /// Received rows that no proof covers, kept unchanged as JSON lines.
    pub(super) rejected: Option<Spool>,
}

impl Collected {
    pub(super) fn none(part: NodeOutcome) -> Self {
        Self { part, proven: None, rejected: None }
    }

    /// Returns the number of rows for the timeline.
    pub(super) fn rows(&self) -> u64 {
        self.proven.iter().flat_map(|proven| proven.eras.values()).map(|spool| spool.rows).sum()
    }
}

/// Waits until a checkpoint cosigned by this aggregator covers the rows that the node has now. If no such checkpoint
/// appears in time, the node contributes fewer rows, and the bundle states up to which time they reach.
pub(super) async fn wait_until_witnessed(member: &Arc<NodeHandle>) {
    let Ok(status) = member.link.get_json::<NodeStatus>(peer_path::STATUS, STATUS_TIMEOUT).await else { return };
    let Some(head) = status.head_seq else { return };
    let deadline = Instant::now() + SETTLE_TIMEOUT;
    loop {
        poll(member).await;
        let covered = member.witness.pinned().is_some_and(|pinned| pinned.size > head);
        if covered || Instant::now() >= deadline {
            return;
        }
        tokio::time::sleep(SETTLE_PAUSE).await;
    }
}

/// Rows of one node while they are being received.
struct Collecting<'a> {
    dir: &'a Path,
    /// Rows that `take` accepted: intact, witnessed and within the caller's scope.
    eras: BTreeMap<u32, Spool>,
    runs: BTreeMap<u32, Vec<Range<u64>>>,
    rejected: Option<Spool>,
    /// The entries that record the erasure of rows.
    statements: Vec<BorderRow>,
}

impl Collecting<'_> {
    fn take(&mut self, row: &VerifiedRow) -> io::Result<()> {
        if row.withheld && row.erased.is_some() {
            // Skip the row: whether it was within the scope cannot be determined, and the entry that records its
            // erasure may be outside of the scope.
            return Ok(());
        }
        let head = if row.erased.is_some() { ERASED_HEAD_BYTES } else { 0 };
        let fits = head + row.body.len() + row.mac.len() <= BODY_AND_MAC_BYTES_MAX;
        let sound = matches!(row.integrity, Integrity::Ok | Integrity::Erased) && row.witnessed && !row.withheld;
        let prefix = Prefix::parse(&row.body).filter(|_| fits && sound);
        let Some(prefix) = prefix else {
            let spool = match &mut self.rejected {
                Some(spool) => spool,
                None => self.rejected.insert(Spool::new(self.dir)?),
            };
            let mut line = Vec::new();
            row.to_row().write_json(&mut line);
            line.push(b'\n');
            return spool.push_line(&line);
        };
        let (seq, era) = match &row.erased {
            Some(gone) => (gone.said.seq, gone.said.era),
            None => (prefix.seq, prefix.era),
        };
        let spool = match self.eras.entry(era) {
            std::collections::btree_map::Entry::Occupied(known) => known.into_mut(),
            std::collections::btree_map::Entry::Vacant(new) => new.insert(Spool::new(self.dir)?),
        };
        match &row.erased {
            None => spool.push(&row.body, &row.mac)?,
            Some(gone) => {
                spool.push_erased(seq, &row.body, &row.mac)?;
                // A verifier must be able to check that the erasure entry is part of the log.
                self.statements.push(statement(gone.entry_seq, &row.body, &row.mac));
            }
        }
        let runs = self.runs.entry(era).or_default();
        match runs.last_mut() {
            Some(last) if last.end == seq => last.end += 1,
            _ => runs.push(seq..seq + 1),
        }
        Ok(())
    }
}

/// Builds a border row from an entry that records the erasure of a row.
fn statement(seq: u64, body: &Bytes, mac: &Bytes) -> BorderRow {
    BorderRow { seq, leaf: leaf_hash(body, mac), body: body.clone(), mac: mac.clone(), erased_under: None }
}

/// Reads all rows that a node sends and requests the proof of these rows.
///
/// `created` is the time at which the export began. A checkpoint that was last seen too long before `created` may not
/// cover all rows that the node had at that time.
pub(super) async fn collect(
    member: Arc<NodeHandle>,
    asked: NodeRequest,
    limits: FanOutLimits,
    created: Timestamp,
    dir: &Path,
) -> io::Result<Collected> {
    if let Some((status, reason)) = member.circuit_open() {
        return Ok(Collected::none(NodeOutcome {
            aside: asked.aside,
            ..NodeOutcome::unasked(&member, status, reason)
        }));
    }
    let started = Instant::now();
    let mut part = NodeOutcome { aside: asked.aside, ..NodeOutcome::asked(&member, started) };
    let mut reader = match NodeReader::open(&member, &asked, &limits, Channel::Own).await {
        Ok(reader) => reader,
        Err(failure) => {
            member.failed(&failure);
            (part.status, part.reason) = conclude(&part.counters, false, Some(&failure));
            return Ok(Collected::none(part));
        }
    };
    let mut collecting =
        Collecting { dir, eras: BTreeMap::new(), runs: BTreeMap::new(), rejected: None, statements: Vec::new() };
    let failure = loop {
        match reader.next().await {
            Ok(Some(row)) => collecting.take(&row)?,
            Ok(None) => break None,
            Err(failure) => break Some(failure),
        }
    };
    // Skip rows whose only fault is that their proof did not arrive: they prove nothing, and are not evidence against the node.
    for row in reader.rest().filter(|row| !matches!(row.integrity, Integrity::Ok | Integrity::Erased)) {
        collecting.take(&row)?;
    }
    part.generation = Some(reader.head.generation);
    part.head_seq = reader.head.head_seq;
    part.oldest_seq = reader.head.oldest_seq;
    (part.status, part.reason) = conclude(&reader.counters, true, failure.as_ref());
    part.took = Some(started.elapsed());
    let unfiltered = asked.request.filter.is_empty();
    if let (Status::Ok, true, RangeCompleteness::Not(message)) = (part.status, unfiltered, &reader.counters.proof) {
        (part.status, part.reason) = (Status::Error, Some(format!("not proven complete: {message}")));
    }
    // An answer to a filtered query must not contain border rows, so drop any that the node sends.
    let mut borders = std::mem::take(&mut reader.borders);
    let room = BODY_AND_MAC_BYTES_MAX - ERASED_HEAD_BYTES;
    borders.retain(|border| unfiltered && border.body.len() + border.mac.len() <= room);
    part.counters = std::mem::take(&mut reader.counters);
    let Collecting { eras, runs, rejected, statements, .. } = collecting;
    let Some(pinned) = asked.pinned.filter(|pinned| Some(pinned.generation) == part.generation) else {
        return Ok(Collected { part, proven: None, rejected });
    };
    let given = |seq: u64| runs.values().flatten().any(|run| run.contains(&seq));
    let mut statements = statements;
    statements.extend(borders.iter().filter_map(|row| Some(statement(row.erased_under?, &row.body, &row.mac))));
    if let Some(young) = statements.iter().find(|entry| entry.seq >= pinned.size) {
        if part.status == Status::Ok {
            let message = format!("a row was erased under entry {}, which is not witnessed yet", young.seq);
            (part.status, part.reason) = (Status::Error, Some(message));
        }
        return Ok(Collected { part, proven: None, rejected });
    }
    borders.extend(statements.into_iter().filter(|entry| !given(entry.seq)));
    borders.sort_by_key(|border| border.seq);
    borders.dedup_by_key(|border| border.seq);
    // A superseded log gets no new rows, so waiting does not help: its rows that were never cosigned cannot be proven.
    let unseen = part.head_seq.map_or(0, |head| head.saturating_add(1)).saturating_sub(pinned.size);
    if asked.aside.is_some() && unseen > 0 && part.status == Status::Ok {
        let message = format!("no witness has cosigned its last {unseen} rows, so they cannot be proven");
        (part.status, part.reason) = (Status::Error, Some(message));
    }
    // The verifier applies the same rule, so a bundle that is exported as complete is also verified as complete.
    if !was_witnessed_until(pinned.seen, created) && asked.aside.is_none() && part.status == Status::Ok {
        (part.status, part.reason) =
            (Status::Error, Some(format!("its checkpoint has not been renewed since {}", pinned.seen)));
    }
    let proven = match prove(&member, &pinned, runs, &borders).await {
        Ok(proof) => {
            let mut proven = Proven { pinned, eras, borders, proof };
            // `fits` reads every row once more. `block_in_place` lets other requests continue meanwhile.
            let fits = tokio::task::block_in_place(|| proven.fits())?;
            if !fits {
                (part.status, part.reason) =
                    (Status::Invalid, Some("its proof does not match the witnessed checkpoint".to_owned()));
            }
            fits.then_some(proven)
        }
        Err(message) => {
            (part.status, part.reason) = (Status::Incomplete, Some(format!("its rows could not be proven: {message}")));
            None
        }
    };
    Ok(Collected { part, proven, rejected })
}

impl Proven {
    /// Returns whether the rows, border rows and proof lead to the pinned root. A verifier makes the same check.
    fn fits(&mut self) -> io::Result<bool> {
        let mut root = RangeRoot::new(self.pinned.size, &self.proof);
        let mut good = true;
        let mut borders = self.borders.iter().peekable();
        for spool in self.eras.values_mut() {
            let mut rows = SpoolRows::new(spool)?;
            while rows.advance()? {
                let Some(row) = rows.current() else { return Ok(false) };
                while let Some(border) = borders.next_if(|border| border.seq < row.seq()) {
                    good &= root.leaf(border.seq, border.leaf).is_ok();
                }
                good &= root.leaf(row.seq(), row.leaf()).is_ok();
            }
        }
        for border in borders {
            good &= root.leaf(border.seq, border.leaf).is_ok();
        }
        Ok(good && root.root() == Ok(self.pinned.root))
    }
}

async fn prove(
    member: &Arc<NodeHandle>,
    pinned: &Pinned,
    runs: BTreeMap<u32, Vec<Range<u64>>>,
    borders: &[BorderRow],
) -> Result<Vec<Hash>, String> {
    let mut all: Vec<Range<u64>> = runs.into_values().flatten().collect();
    all.extend(borders.iter().map(|border| border.seq..border.seq + 1));
    all.sort_by_key(|run| run.start);
    // Join adjacent runs.
    let mut joined: Vec<Range<u64>> = Vec::new();
    for run in all {
        match joined.last_mut() {
            Some(last) if last.end == run.start => last.end = run.end,
            _ => joined.push(run),
        }
    }
    let runs = joined.iter().map(|run| (run.start, run.end)).collect();
    let request = ProofRequest { generation: pinned.generation, size: pinned.size, runs };
    // Each run adds at most two hashes per level of the tree.
    let bytes_max = PROOF_BYTES_MIN + request.runs.len() * 2 * TREE_LEVELS_MAX * HASH_TEXT_BYTES;
    let answer: Result<ProofAnswer, Failure> =
        member.link.post_json(peer_path::PROOF, &request, bytes_max, PROOF_TIMEOUT).await;
    let answer = answer.map_err(|failure| failure.reason().to_owned())?;
    let hashes: Option<Vec<Hash>> = answer.hashes.iter().map(|hash| decode_hash(hash)).collect();
    hashes.ok_or_else(|| "its proof is not a list of hashes".to_owned())
}
