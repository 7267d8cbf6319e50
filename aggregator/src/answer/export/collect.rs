//! Collects one node's part of a bundle: rows, border rows, and one proof for all of them.

use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use piperoll_evidence::bundle::was_witnessed_until;
use piperoll_format::merkle::{Hash, decode_hash};
use piperoll_format::time::Timestamp;
use piperoll_format::verify::Integrity;
use piperoll_protocol::aggregator::Status;
use piperoll_protocol::node::{NodeStatus, ProofAnswer, ProofRequest, peer_path};

use super::gathered::{Gathering, Proven};
use super::spool::Spool;
use crate::answer::outcome::NodeOutcome;
use crate::cluster::connection::{Channel, Failure};
use crate::cluster::node_handle::NodeHandle;
use crate::cluster::witness::pinned::Pinned;
use crate::config::FanOutLimits;
use crate::scan::node_reader::{NodeReader, conclude};
use crate::scan::plan::NodeRequest;
use crate::scan::proof_verifier::RangeCompleteness;
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
        self.proven.as_ref().map_or(0, |proven| proven.rows.count())
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
    let mut gathering = Gathering::new(dir.to_path_buf());
    let failure = loop {
        match reader.next().await {
            Ok(Some(row)) => gathering.take(&row)?,
            Ok(None) => break None,
            Err(failure) => break Some(failure),
        }
    };
    // Skip rows whose only fault is that their proof did not arrive: they prove nothing, and are not evidence against the node.
    for row in reader.rest().filter(|row| !matches!(row.integrity, Integrity::Ok | Integrity::Erased)) {
        gathering.take(&row)?;
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
    borders.retain(|_| unfiltered);
    part.counters = std::mem::take(&mut reader.counters);
    let rejected = gathering.rejected.take();
    let Some(pinned) = asked.pinned.filter(|pinned| Some(pinned.generation) == part.generation) else {
        return Ok(Collected { part, proven: None, rejected });
    };
    let rows = match gathering.finish(borders, pinned.size) {
        Ok(rows) => rows,
        Err(message) => {
            if part.status == Status::Ok {
                (part.status, part.reason) = (Status::Error, Some(message));
            }
            return Ok(Collected { part, proven: None, rejected });
        }
    };
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
    let proven = match prove(&member, &pinned, rows.all_runs()).await {
        Ok(proof) => {
            let mut proven = Proven { pinned, rows, proof };
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

/// Requests the proof of rows of a log. `runs` ascend and are not adjacent.
pub(super) async fn prove(
    member: &Arc<NodeHandle>,
    pinned: &Pinned,
    runs: Vec<Range<u64>>,
) -> Result<Vec<Hash>, String> {
    let runs = runs.iter().map(|run| (run.start, run.end)).collect();
    let request = ProofRequest { generation: pinned.generation, size: pinned.size, runs };
    // Each run adds at most two hashes per level of the tree.
    let bytes_max = PROOF_BYTES_MIN + request.runs.len() * 2 * TREE_LEVELS_MAX * HASH_TEXT_BYTES;
    let answer: Result<ProofAnswer, Failure> =
        member.link.post_json(peer_path::PROOF, &request, bytes_max, PROOF_TIMEOUT).await;
    let answer = answer.map_err(|failure| failure.reason().to_owned())?;
    let hashes: Option<Vec<Hash>> = answer.hashes.iter().map(|hash| decode_hash(hash)).collect();
    hashes.ok_or_else(|| "its proof is not a list of hashes".to_owned())
}
