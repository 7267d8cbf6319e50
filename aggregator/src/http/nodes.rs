//! `GET /nodes`: the current status of every node of the roster.

use std::sync::Arc;
use std::time::Instant;

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::{Extension, Json};
use piperoll_format::merkle::decode_hash;
use piperoll_format::time::Timestamp;
use piperoll_protocol::aggregator::{
    AcceptRequest, AlarmInfo, NodeInfo, NodeReport, NodesAnswer, PresentedLog, Status,
};
use piperoll_protocol::node::{NodeStatus, peer_path};
use piperoll_protocol::problem::Problem;
use serde_json::json;

use super::audited::AuditEntry;
use super::error::ApiError;
use super::identify::Caller;
use crate::answer::outcome::NodeOutcome;
use crate::cluster::node_handle::NodeHandle;
use crate::config::FanOutLimits;
use crate::scan::node_reader::conclude;
use crate::state::App;
use crate::witness::accept::Acceptance;

/// Requests the status of every node of the roster.
#[utoipa::path(get, path = "/nodes", tag = "nodes", responses(
    (status = 200, description = "Current status of every node in the roster", body = NodesAnswer),
))]
pub(super) async fn nodes(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Extension(audit): Extension<AuditEntry>,
) -> Json<NodesAnswer> {
    let limits = app.cluster.limits;
    let asking: Vec<_> =
        app.cluster.members.iter().map(|member| tokio::spawn(ask(Arc::clone(member), limits))).collect();
    let mut nodes = Vec::with_capacity(asking.len());
    for task in asking {
        match task.await {
            Ok(info) => nodes.push(info),
            Err(error) => tracing::error!(%error, "querying a node failed"),
        }
    }
    let active = || nodes.iter().filter(|node| node.roster_status == "active");
    let (expected, answered) = (active().count(), active().filter(|node| node.report.status == Status::Ok).count());
    // A caller with a scope sees sizes and health, but not addresses, destinations or the names of holds.
    if caller.scope().text().is_some() {
        for node in &mut nodes {
            node.address = String::new();
            node.disk_free_bytes = None;
            node.forward.clear();
            if let Some(retention) = &mut node.retention {
                retention.holds = retention.holds.iter().map(|_| "(a hold)".to_owned()).collect();
                retention.problem = retention.problem.as_ref().map(|_| "retention run failed".to_owned());
            }
        }
    }
    audit.details(json!({ "expected": expected, "answered": answered }));
    Json(NodesAnswer { complete: expected == answered, expected, answered, nodes })
}

async fn ask(member: Arc<NodeHandle>, limits: FanOutLimits) -> NodeInfo {
    if member.is_out_of_reach() {
        let folder = member.unreadable.iter().map(|message| format!("; its folder: {message}")).collect::<String>();
        let message = format!("left the cluster at {}{folder}", member.node.life.until);
        let part = NodeOutcome::unasked(&member, Status::Excluded, message);
        return info(&member, &part, None);
    }
    if let Some((status, reason)) = member.circuit_open() {
        return info(&member, &NodeOutcome::unasked(&member, status, reason), None);
    }
    if member.witness.standing().is_alarm() {
        // Show the operator the log that the node presents now, before they decide.
        crate::witness::poll::poll_unless_polled(&member).await;
    }
    let started = Instant::now();
    let answer: Result<NodeStatus, _> = member.link.get_json(peer_path::STATUS, limits.first_row).await;
    let mut part = NodeOutcome::asked(&member, started);
    match answer {
        Ok(status) => {
            member.seen();
            part.generation = Some(status.generation);
            part.head_seq = status.head_seq;
            part.oldest_seq = status.oldest_seq;
            part.counters.faults.extend(status.read_fault.iter().cloned().chain(member.alarm()));
            if member.has_left() {
                let trouble =
                    member.witness.standing().reason.map(|message| format!("; {message}")).unwrap_or_default();
                let left = member.node.life.until;
                part.reason = Some(format!(
                    "left the cluster at {left}; this aggregator reads its log from the configured folder{trouble}"
                ));
            }
            if !part.counters.faults.is_empty() {
                (part.status, part.reason) = conclude(&part.counters, true, None);
            }
            info(&member, &part, Some(&status))
        }
        Err(failure) => {
            member.failed(&failure);
            (part.status, part.reason) = conclude(&part.counters, false, Some(&failure));
            info(&member, &part, None)
        }
    }
}

fn info(member: &NodeHandle, part: &NodeOutcome, status: Option<&NodeStatus>) -> NodeInfo {
    // No rows were requested, so the report contains the size of the log and no statement about a range.
    let rows = status.and_then(|s| s.head_seq).map_or(0, |head| head + 1);
    let report = NodeReport { proven: None, unproven: None, ..part.report(rows) };
    let alarm = member.witness.standstill().map(|alarm| AlarmInfo {
        since: alarm.since.to_text(),
        presented: alarm.presented.map(|(generation, size, root)| PresentedLog { generation, size, root }),
    });
    NodeInfo {
        report,
        alarm,
        address: member.node.address.clone(),
        roster_status: if member.has_left() { "retired" } else { "active" }.to_owned(),
        version: status.map(|s| s.version.clone()),
        last_timestamp: status.and_then(|s| s.last_timestamp).map(Timestamp::to_text),
        write_fault: status.and_then(|s| s.write_fault.clone()),
        database_bytes: status.map(|s| s.database_bytes),
        disk_free_bytes: status.map(|s| s.disk_free_bytes),
        certificate_not_after: status.and_then(|s| s.certificate_not_after).map(Timestamp::to_text),
        retention: status.and_then(|s| s.retention.clone()),
        forward: status.map(|s| s.forward.clone()).unwrap_or_default(),
    }
}

pub(super) const REASON_CHARACTERS_MAX: usize = 1_000;

/// Accepts the history that a node presents.
///
/// Nothing else clears a fork, a rollback or a row that failed verification.
#[utoipa::path(post, path = "/nodes/{node}/accept", tag = "nodes", params(
    ("node" = String, Path, description = "Node id", example = "mx1"),
), request_body = AcceptRequest, responses(
    (status = 204, description = "The fork or rollback is cleared; the next poll pins the log that the node presents"),
    (status = 400, description = "Missing reason or generation", body = Problem),
    (status = 404, description = "No such node", body = Problem),
    (status = 409, description = "There is nothing to accept, or the node presents another generation", body = Problem),
))]
pub(super) async fn accept(
    State(app): State<Arc<App>>,
    Extension(audit): Extension<AuditEntry>,
    Path(node): Path<String>,
    body: Bytes,
) -> Result<StatusCode, ApiError> {
    audit.details(json!({ "node": node.chars().take(64).collect::<String>() }));
    let (member, acceptance, request) = acceptance(&app, &node, &body)?;
    let standing = member.witness.standing();
    audit.details(json!({ "generation": request.generation, "words": request.reason, "size": request.size,
        "root": request.root, "cleared": standing.verdict, "witnessed_rows": standing.size }));
    crate::witness::accept::accept(member, &acceptance).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Parses a request to accept a history, and finds its node.
fn acceptance<'a>(
    app: &'a App,
    node: &str,
    body: &[u8],
) -> Result<(&'a NodeHandle, Acceptance, AcceptRequest), ApiError> {
    let member = app.cluster.members.iter().find(|member| member.node.id.as_str() == node);
    let member = member.ok_or_else(|| ApiError::new(404, "no_such_node", format!("{node:?} is not in the roster")))?;
    let bad = |detail: String| ApiError::new(400, "bad_request", detail);
    let request: AcceptRequest =
        serde_json::from_slice(body).map_err(|e| bad(format!("generation and reason are required: {e}")))?;
    if request.reason.trim().is_empty() || request.reason.chars().count() > REASON_CHARACTERS_MAX {
        return Err(bad(format!("the reason must have 1 to {REASON_CHARACTERS_MAX} characters")));
    }
    let generation =
        request.generation.parse().map_err(|_| bad("the generation must be 32 hexadecimal digits".into()))?;
    let shown = match (request.size, request.root.as_deref()) {
        (None, None) => None,
        (Some(size), Some(root)) => {
            let shown = decode_hash(root).map(|root| (size, root));
            Some(shown.ok_or_else(|| bad("the root must be 32 bytes in base64".into()))?)
        }
        _ => {
            return Err(
                bad("size and root must be given together; both are in `alarm.presented` of GET /nodes".into()),
            );
        }
    };
    let acceptance = Acceptance { generation, shown, message: request.reason.clone() };
    Ok((member, acceptance, request))
}
