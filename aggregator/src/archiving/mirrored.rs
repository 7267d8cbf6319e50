//! Gives the nodes the checkpoints whose rows the archive has, so that they prune only archived rows.

use std::sync::Arc;

use piperoll_archive::read::{CatalogLog, Reader};
use piperoll_archive::row::LogId;
use piperoll_format::checkpoint::Checkpoint;
use piperoll_format::note::{Note, SigningKey};
use piperoll_format::time::Timestamp;
use piperoll_protocol::node::{MirroredCheckpoint, peer_path};

use crate::cluster::node_handle::NodeHandle;
use crate::cluster::roster::Cluster;
use crate::cluster::witness::watch::POLL_TIMEOUT;

/// Sends every node the newest checkpoint of each of its logs that covers archived rows only, with the cosignature of the mirror. A node
/// that does not wait for the archive refuses it, which is not an error.
pub(super) async fn give_to_nodes(cluster: &Cluster, mirror: &SigningKey, now: Timestamp) {
    let Some(Ok(reader)) = cluster.archive.as_ref().map(|archive| archive.reader()) else { return };
    for member in &cluster.members {
        if member.is_out_of_reach() || member.link.is_local() || member.circuit_open().is_some() {
            continue;
        }
        give(member, &reader, mirror, now).await;
    }
}

async fn give(member: &Arc<NodeHandle>, reader: &Reader, mirror: &SigningKey, now: Timestamp) {
    for (log, archived) in reader.catalog().logs_of(&member.node.id) {
        let Some(mirrored) = cosigned(log, archived, mirror, now) else { continue };
        let body = serde_json::to_vec(&mirrored).unwrap_or_default();
        if let Err(failure) = member.link.post(peer_path::MIRRORED, body.into(), POLL_TIMEOUT).await {
            tracing::debug!(node = %member.node.id, reason = failure.reason(), "a node did not take the archive's checkpoint");
        }
    }
}

/// The checkpoint of a log's newest contiguous range, if the range ends with it.
fn cosigned(log: &LogId, archived: &CatalogLog, mirror: &SigningKey, now: Timestamp) -> Option<MirroredCheckpoint> {
    let range = archived.ranges().last()?;
    let note = Note::parse(&range.checkpoint).ok()?;
    let checkpoint = Checkpoint::parse(note.text()).ok()?;
    let is_of_it = checkpoint.origin.ends_with(&format!("/{}/{}", log.node_id, log.generation));
    if !is_of_it || checkpoint.size != range.to_seq {
        return None;
    }
    let seconds = u64::try_from(now.micros()).unwrap_or_default() / 1_000_000;
    let cosignature = mirror.cosign(note.text(), seconds);
    Some(MirroredCheckpoint { note: note.with(cosignature).to_string(), first_seq: range.from_seq })
}
