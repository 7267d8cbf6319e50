//! One poll of a node: its checkpoint, its log start, and its archived logs.

use std::sync::Arc;

use piperoll_format::entry::Prefix;
use piperoll_format::merkle::encode_hash;
use piperoll_format::note::Note;
use piperoll_format::order::Order;
use piperoll_format::time::Timestamp;
use piperoll_format::verify::Integrity;
use piperoll_net::clock::{Clock as _, SystemClock};
use piperoll_protocol::node::{CheckpointAnswer, NodeStatus, ScanRequest, peer_path};

use super::{earlier, log_start_check};
use crate::access::scope::Scope;
use crate::cluster::connection::{Channel, Failure};
use crate::cluster::node_handle::NodeHandle;
use crate::cluster::witness::memory::WitnessedEdge;
use crate::cluster::witness::pinned::Pinned;
use crate::cluster::witness::status::NotTaken;
use crate::cluster::witness::watch::POLL_TIMEOUT;
use crate::config::FanOutLimits;
use crate::scan::node_reader::NodeReader;
use crate::scan::plan::NodeRequest;

pub(crate) async fn poll(member: &Arc<NodeHandle>) {
    let _one = member.witness.polling.lock().await;
    poll_now(member).await;
}

/// Polls a node unless a poll is already running, so that a plain status request does not wait for it.
pub(crate) async fn poll_unless_polled(member: &Arc<NodeHandle>) {
    if let Ok(_one) = member.witness.polling.try_lock() {
        poll_now(member).await;
    }
}

async fn poll_now(member: &Arc<NodeHandle>) {
    let watch = &member.witness;
    let poll = poll_once(member).await;
    watch.concluded(poll);
}

impl From<Failure> for NotTaken {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Unreachable { reason, .. }
            | Failure::Timeout(reason)
            | Failure::Frozen(reason)
            | Failure::Broken(reason) => Self::Unreachable(reason),
            Failure::Error(reason) => Self::Unverifiable(reason),
        }
    }
}

async fn poll_once(member: &Arc<NodeHandle>) -> Result<(), NotTaken> {
    let watch = &member.witness;
    let old = watch.state().remembered.pin.as_ref().map_or(0, |pin| pin.size);
    let path = format!("{}?old={old}", peer_path::CHECKPOINT);
    // The time before the request: what the node records afterward is not covered by its answer.
    let asked_at = SystemClock.now();
    let answer: CheckpointAnswer = match member.link.get_json(&path, POLL_TIMEOUT).await {
        Err(Failure::Error(message)) => {
            // The node presents no signed checkpoint. Check separately whether its log still has the witnessed rows.
            if let Ok(status) = member.link.get_json::<NodeStatus>(peer_path::STATUS, POLL_TIMEOUT).await {
                let known = status.head_seq.map_or(0, |head| head.saturating_add(1));
                let rows = status.rows_stored.map_or(known, |stored| stored.min(known));
                watch.take_short(status.generation, rows, &message, SystemClock.now());
            }
            return Err(Failure::Error(message).into());
        }
        answer => answer?,
    };
    watch.state().asides = answer.span.as_ref().map(|span| earlier::named(&span.aside)).unwrap_or_default();
    let (floor, oldest) = answer.span.as_ref().map_or((None, None), |span| (span.pruned, span.oldest));
    let edge = read_edge(member, &answer.note).await;
    if let Some(cosigned) = watch.take(&answer, old, asked_at, edge)? {
        // The node keeps the cosignature for its own exports. A failed delivery changes nothing here.
        if let Err(failure) = member.link.post(peer_path::COSIGNED, cosigned.into(), POLL_TIMEOUT).await {
            tracing::debug!(node = %member.node.id, reason = failure.reason(), "a cosignature was not accepted");
        }
    }
    log_start_check::check(member, floor, oldest).await;
    Ok(earlier::poll(member).await?)
}

/// Reads the last row below the checkpoint that a node presents, verified with the row's MAC and its proof. The archive can be read instead
/// of a node only if the era of this row is known. `None` if the row is known already, or cannot be read now.
async fn read_edge(member: &Arc<NodeHandle>, note: &str) -> Option<WitnessedEdge> {
    let watch = &member.witness;
    if !watch.remembers_edges() {
        return None;
    }
    let note = Note::parse(note).ok()?;
    let checkpoint = watch.opened(&note).ok()?;
    let (size, seq) = (checkpoint.size, checkpoint.size.checked_sub(1)?);
    let generation = checkpoint.origin.rsplit('/').next()?.parse().ok()?;
    if watch.edge().is_some_and(|edge| edge.size == size && edge.root == encode_hash(&checkpoint.root)) {
        return None;
    }
    let request = ScanRequest {
        filter: String::new(),
        from: Timestamp::MIN,
        to: Timestamp::MAX,
        order: Order::Asc,
        limit: Some(1),
        after: None,
        from_seq: Some(seq),
        head: Some(seq),
        generation: Some(generation),
        prove: Some(size),
        count: None,
        follow: false,
    };
    let root_text = encode_hash(&checkpoint.root);
    let (root, note, seen) = (checkpoint.root, note.to_string().into(), SystemClock.now());
    let pinned = Some(Pinned { generation, size, root, note, seen });
    let scope = Scope::default();
    let asked = NodeRequest { request, pinned, all_there: true, scope, aside: None, archived: None };
    let read = async {
        let limits = FanOutLimits { first_row: POLL_TIMEOUT, idle: POLL_TIMEOUT, ..FanOutLimits::default() };
        let mut reader = NodeReader::open(member, &asked, &limits, Channel::Shared).await.ok()?;
        let row = reader.next().await.ok()??;
        (row.key.seq == seq && row.witnessed).then_some(row)
    };
    let row = tokio::time::timeout(POLL_TIMEOUT, read).await.ok()??;
    let era = match (row.integrity, &row.erased) {
        (Integrity::Ok, None) => Prefix::parse(&row.body)?.era,
        (Integrity::Erased, Some(gone)) => gone.said.era,
        _ => return None,
    };
    Some(WitnessedEdge { size, root: root_text, era })
}
