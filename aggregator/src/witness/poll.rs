//! One poll of a node: its checkpoint, its log start, and its archived logs.

use std::sync::Arc;

use piperoll_net::clock::{Clock as _, SystemClock};
use piperoll_protocol::node::{CheckpointAnswer, NodeStatus, peer_path};

use super::{earlier, log_start_check};
use crate::cluster::connection::Failure;
use crate::cluster::node_handle::NodeHandle;
use crate::cluster::witness::status::NotTaken;
use crate::cluster::witness::watch::POLL_TIMEOUT;

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
    if let Some(cosigned) = watch.take(&answer, old, SystemClock.now())? {
        // The node keeps the cosignature for its own exports. A failed delivery changes nothing here.
        if let Err(failure) = member.link.post(peer_path::COSIGNED, cosigned.into(), POLL_TIMEOUT).await {
            tracing::debug!(node = %member.node.id, reason = failure.reason(), "a cosignature was not accepted");
        }
    }
    log_start_check::check(member, floor, oldest).await;
    Ok(earlier::poll(member).await?)
}
