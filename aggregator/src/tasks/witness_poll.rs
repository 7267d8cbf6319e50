//! Polls all nodes periodically, and records changes.

use std::sync::Arc;
use std::time::Duration;

use piperoll_client::{Category, EmitError, Entry, Outcome};
use piperoll_protocol::verdict::Verdict;

use crate::cluster::node_handle::NodeHandle;
use crate::cluster::witness::status::WitnessStatus;
use crate::state::App;
use crate::witness::poll::poll;

/// Pause between polls until this aggregator is ready to check the node. It takes moments to read its own log at a start.
const PENDING_PAUSE: Duration = Duration::from_millis(250);

/// Polls one node for ever, and records every change of the verdict as an entry.
pub(crate) async fn watch(app: Arc<App>, member: Arc<NodeHandle>, interval: Duration) {
    let mut last = None;
    loop {
        if member.is_out_of_reach() {
            // An operator may still correct the time at which the node left, or a clock may have been wrong, so check again.
            tokio::time::sleep(interval).await;
            continue;
        }
        poll(&member).await;
        let standing = member.witness.standing();
        // A verdict that says nothing about the node must not look like a verdict against the node.
        if !standing.is_pending && last.as_ref() != Some(&standing.verdict) {
            // A good first verdict after a start is not recorded.
            let news = last.is_some() || standing.verdict != Verdict::Ok;
            if news && record(&app, &member, &standing).await.is_err() {
                tracing::error!(node = %member.node.id, verdict = standing.verdict.as_str(), "cannot record a change of verdict");
            }
            tracing::info!(node = %member.node.id, verdict = standing.verdict.as_str(), reason = standing.reason, "witness");
            last = Some(standing.verdict);
        }
        let pause = if standing.is_pending { interval.min(PENDING_PAUSE) } else { interval };
        tokio::time::sleep(pause).await;
    }
}

/// Records a change of the verdict as an entry of the aggregator.
async fn record(app: &App, member: &NodeHandle, standing: &WitnessStatus) -> Result<(), EmitError> {
    let good = standing.verdict == Verdict::Ok;
    let (outcome, reason) = if good { (Outcome::Success, "") } else { (Outcome::Failure, standing.verdict.as_str()) };
    let entry = Entry::new(Category::Audit, "audit.witness_verdict")
        .outcome(outcome)
        .reason(reason)
        .entity("node", member.node.id.to_string())
        .description(format!("the witness's verdict on node {} is now {}", member.node.id, standing.verdict))
        .detail("verdict", standing.verdict)
        .detail("words", &standing.reason)
        .detail("witnessed_rows", standing.size)
        .detail("witnessed_at", standing.seen);
    app.audit.note(entry).await
}
