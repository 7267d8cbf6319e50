//! Reads the `log.pruned` entry of a node once, and compares it with the cluster's policy.

use std::sync::Arc;
use std::time::Duration;

use piperoll_evidence::bundle::{PolicyFit, kept_to_policy};
use piperoll_format::order::Order;
use piperoll_format::statement::{Pruned, Statement};
use piperoll_format::time::Timestamp;
use piperoll_format::verify::Integrity;
use piperoll_net::clock::{Clock as _, SystemClock};
use piperoll_protocol::node::{PrunedRows, ScanRequest};

use crate::access::scope::Scope;
use crate::cluster::connection::Channel;
use crate::cluster::node_handle::NodeHandle;
use crate::cluster::witness::log_start::{Keeping, LogStart};
use crate::cluster::witness::memory::EarlyPrune;
use crate::config::FanOutLimits;
use crate::scan::node_reader::NodeReader;
use crate::scan::plan::NodeRequest;

/// Time limit for reading one row and its proof.
const READ_TIMEOUT: Duration = Duration::from_secs(2);
/// Maximum time by which a statement may be ahead of the aggregator's clock before it counts as being in the future.
const CLOCK_SLACK_MICROS: i64 = 5 * 60 * 1_000_000;

/// Reads the entry that states a node's log start, unless it was read before. If this fails, the next poll tries again.
pub(crate) async fn check(member: &Arc<NodeHandle>, said: Option<PrunedRows>, oldest: Option<Timestamp>) {
    let watch = &member.witness;
    let Some(said) = said else {
        watch.state().floor = None;
        return;
    };
    let Some(pinned) = watch.pinned() else { return };
    let known = |floor: &LogStart| floor.to_seq == said.to_seq && floor.generation == pinned.generation;
    if watch.state().floor.as_ref().is_some_and(known) {
        return;
    }
    let Some((pruned, stated)) = statement(member, said).await else { return };
    let origin = format!("{}{}", watch.origins, pinned.generation);
    let now = SystemClock.now();
    let Keeping { policies, witnesses, .. } = &watch.keeping;
    watch.first_seen(&pinned.generation.to_string(), pruned.to_seq, now);
    let fit = if stated.micros() > now.micros().saturating_add(CLOCK_SLACK_MICROS) {
        PolicyFit::Unshown(format!(
            "they were recorded as pruned at {stated}, which is in the future: the node's clock was ahead"
        ))
    } else {
        // The prune was stated no later than it was first seen here, even if the node's clock says otherwise.
        let seen = watch.first_seen(&pinned.generation.to_string(), pruned.to_seq, now);
        kept_to_policy(&origin, &pruned, stated.min(seen), policies, witnesses)
    };
    let since = pruned.newest.max(oldest.unwrap_or(Timestamp::MIN)).plus_micros(1);
    if let PolicyFit::Early(message) = &fit {
        let generation = pinned.generation.to_string();
        let early = EarlyPrune {
            generation,
            to_seq: pruned.to_seq,
            newest: pruned.newest,
            message: message.clone(),
            found: now,
        };
        watch.found_early(early);
    }
    let is_kept = fit == PolicyFit::Kept;
    if let Err(message) = watch.let_go(&pruned.earlier, &pinned.generation, pruned.to_seq, is_kept) {
        // Until the result is stored, these logs count as missing. The next poll tries again.
        tracing::error!(node = %member.node.id, error = message, "cannot check a prune yet");
        return;
    }
    watch.state().floor = Some(LogStart { to_seq: pruned.to_seq, generation: pinned.generation, since, fit });
}

/// Reads the statement and its time, proven under the witnessed checkpoint.
async fn statement(member: &Arc<NodeHandle>, said: PrunedRows) -> Option<(Pruned, Timestamp)> {
    let pinned = member.witness.pinned().filter(|pinned| said.entry_seq < pinned.size)?;
    let request = ScanRequest {
        filter: String::new(),
        from: Timestamp::MIN,
        to: Timestamp::MAX,
        order: Order::Asc,
        limit: Some(1),
        after: None,
        from_seq: Some(said.entry_seq),
        head: Some(said.entry_seq),
        generation: Some(pinned.generation),
        prove: Some(pinned.size),
        count: None,
        follow: false,
    };
    let asked = NodeRequest {
        request,
        pinned: Some(pinned),
        all_there: true,
        scope: Scope::default(),
        aside: None,
        archived: None,
    };
    let read = async {
        let mut reader = NodeReader::open(member, &asked, &FanOutLimits::default(), Channel::Shared).await.ok()?;
        loop {
            let row = reader.next().await.ok()??;
            if row.key.seq == said.entry_seq && row.integrity == Integrity::Ok && row.witnessed && row.erased.is_none()
            {
                return match Statement::read(&row.body)? {
                    Statement::Pruned(pruned) if pruned.to_seq == said.to_seq => Some((pruned, row.key.timestamp)),
                    _ => None,
                };
            }
        }
    };
    tokio::time::timeout(READ_TIMEOUT, read).await.ok().flatten()
}
