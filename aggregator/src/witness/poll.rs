//! One poll of a node: its checkpoint, its log start, and its archived logs.

use std::sync::Arc;

use piperoll_net::clock::{Clock as _, SystemClock};
use piperoll_protocol::node::{CheckpointAnswer, NodeStatus, peer_path};
use piperoll_protocol::verdict::Verdict;

use super::{earlier, log_start_check};
use crate::cluster::connection::Failure;
use crate::cluster::node_handle::NodeHandle;
use crate::cluster::witness::watch::LOOK_TIMEOUT;

pub(crate) async fn poll(member: &Arc<NodeHandle>) {
    let _one = member.witness.looking.lock().await;
    look_now(member).await;
}

/// Polls a node unless a poll is already running, so that a plain status request does not wait for it.
pub(crate) async fn poll_unless_polled(member: &Arc<NodeHandle>) {
    if let Ok(_one) = member.witness.looking.try_lock() {
        look_now(member).await;
    }
}

async fn look_now(member: &Arc<NodeHandle>) {
    let watch = &member.witness;
    let trouble = match poll_once(member).await {
        Ok(()) => None,
        Err(
            Failure::Unreachable { reason, .. }
            | Failure::Timeout(reason)
            | Failure::Frozen(reason)
            | Failure::Broken(reason),
        ) => Some((Verdict::Unreachable, reason)),
        Err(Failure::Error(reason)) => Some((Verdict::Unverifiable, reason)),
    };
    let mut state = watch.state();
    state.looked = true;
    if trouble.is_some() {
        // The node may answer for an archived log once it is reachable again, so forget that it did not.
        state.earlier_looked.retain(|looked| looked.is_known);
    }
    state.trouble = trouble;
}

async fn poll_once(member: &Arc<NodeHandle>) -> Result<(), Failure> {
    let watch = &member.witness;
    let old = watch.state().remembered.pin.as_ref().map_or(0, |pin| pin.size);
    let path = format!("{}?old={old}", peer_path::CHECKPOINT);
    let answer: CheckpointAnswer = match member.link.get_json(&path, LOOK_TIMEOUT).await {
        Err(Failure::Error(message)) => {
            // The node presents no signed checkpoint. Check separately whether its log still has the witnessed rows.
            if let Ok(status) = member.link.get_json::<NodeStatus>(peer_path::STATUS, LOOK_TIMEOUT).await {
                let known = status.head_seq.map_or(0, |head| head.saturating_add(1));
                let rows = status.rows_stored.map_or(known, |stored| stored.min(known));
                watch.take_short(status.generation, rows, &message, SystemClock.now());
            }
            return Err(Failure::Error(message));
        }
        answer => answer?,
    };
    watch.state().asides = answer.span.as_ref().map(|span| earlier::named(&span.aside)).unwrap_or_default();
    let (floor, oldest) = answer.span.as_ref().map_or((None, None), |span| (span.pruned, span.oldest));
    if let Some(cosigned) = watch.take(&answer, old, SystemClock.now()).map_err(Failure::Error)? {
        // The node keeps the cosignature for its own exports. A failed delivery changes nothing here.
        if let Err(failure) = member.link.post(peer_path::COSIGNED, cosigned.into(), LOOK_TIMEOUT).await {
            tracing::debug!(node = %member.node.id, reason = failure.reason(), "a cosignature was not accepted");
        }
    }
    log_start_check::check(member, floor, oldest).await;
    earlier::poll(member).await
}
