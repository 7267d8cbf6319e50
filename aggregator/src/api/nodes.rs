//! `GET /nodes`: every node of the roster, asked now.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use piperoll_shared::api::aggregator::{NodeInfo, NodesAnswer, Status};
use piperoll_shared::api::node::{NodeStatus, peer_path};
use piperoll_shared::log::time::Timestamp;
use serde_json::json;

use super::App;
use super::auth::{Caller, Done, Permission};
use crate::config::{Life, Limits};
use crate::fanout::Part;
use crate::member::Member;
use crate::read::conclude;

pub(super) async fn nodes(State(app): State<Arc<App>>, Extension(caller): Extension<Caller>) -> Response {
    if let Err(error) = caller.require(Permission::View) {
        return error.into_response();
    }
    let limits = app.cluster.limits;
    let asking: Vec<_> =
        app.cluster.members.iter().map(|member| tokio::spawn(ask(Arc::clone(member), limits))).collect();
    let mut nodes = Vec::with_capacity(asking.len());
    for task in asking {
        match task.await {
            Ok(info) => nodes.push(info),
            Err(error) => tracing::error!(%error, "asking a node failed"),
        }
    }
    let active = || nodes.iter().filter(|node| node.roster_status == "active");
    let (expected, answered) = (active().count(), active().filter(|node| node.report.status == Status::Ok).count());
    let answer = NodesAnswer { complete: expected == answered, expected, answered, nodes };
    let details = json!({ "expected": expected, "answered": answered });
    let mut response = Json(answer).into_response();
    response.extensions_mut().insert(Done { action: "audit.nodes", details });
    response
}

async fn ask(member: Arc<Member>, limits: Limits) -> NodeInfo {
    if member.node.life != Life::Active {
        let part = Part::unasked(&member, Status::Excluded, "retired".to_owned());
        return info(&member, &part, None);
    }
    if let Some(reason) = member.known_down() {
        return info(&member, &Part::unasked(&member, Status::Unreachable, reason), None);
    }
    let started = Instant::now();
    let answer: Result<NodeStatus, _> = member.link.get_json(peer_path::STATUS, limits.first_row).await;
    let mut part = Part::asked(&member, started);
    match answer {
        Ok(status) => {
            member.seen();
            part.generation = Some(status.generation);
            part.head_seq = status.head_seq;
            part.oldest_seq = status.oldest_seq;
            if let Some(fault) = &status.read_fault {
                part.tally.faults.push(fault.clone());
                (part.status, part.reason) = conclude(&part.tally, true, None);
            }
            info(&member, &part, Some(&status))
        }
        Err(failure) => {
            member.failed(&failure);
            (part.status, part.reason) = conclude(&part.tally, false, Some(&failure));
            info(&member, &part, None)
        }
    }
}

fn info(member: &Member, part: &Part, status: Option<&NodeStatus>) -> NodeInfo {
    NodeInfo {
        report: part.report(status.and_then(|s| s.head_seq).map_or(0, |head| head + 1)),
        address: member.node.address.clone(),
        roster_status: if member.node.life == Life::Active { "active" } else { "retired" }.to_owned(),
        version: status.map(|s| s.version.clone()),
        last_timestamp: status.and_then(|s| s.last_timestamp).map(Timestamp::to_text),
        write_fault: status.and_then(|s| s.write_fault.clone()),
        database_bytes: status.map(|s| s.database_bytes),
        disk_free_bytes: status.map(|s| s.disk_free_bytes),
        certificate_not_after: status.and_then(|s| s.certificate_not_after).map(Timestamp::to_text),
    }
}
