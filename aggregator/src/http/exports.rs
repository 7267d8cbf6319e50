//! `POST /exports`: an evidence bundle. `GET /audit-log/{node}/{seq}/proof`: one row's proof, for any C2SP tool.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use piperoll_format::ids::Generation;
use piperoll_format::merkle::{decode_hash, encode_hash};
use piperoll_net::clock::{Clock as _, SystemClock};
use piperoll_protocol::aggregator::{EXPORT_WAIT_SECONDS_MAX, Envelope, ExportFormat, ExportRequest, IncompleteArg};
use piperoll_protocol::node::{ProofAnswer, peer_path};
use piperoll_protocol::problem::Problem;
use serde_json::json;
use tokio_util::io::ReaderStream;

use super::audited::AuditEntry;
use super::error::ApiError;
use super::identify::Caller;
use super::log::{
    AUDIT_COMPLETE, AUDIT_COMPLETE_SINCE, LogOfRow, answer_stream, busy, describe, describe_row, file_name, find_entry,
    known_nodes, log_of_row, no_such_log, outcome,
};
use super::nodes::REASON_CHARACTERS_MAX;
use crate::answer::export::{ExportJob, Incomplete, Outcome};
use crate::answer::stream::Output;
use crate::scan::query::{Query, Require};
use crate::state::App;

const WAIT_SECONDS_DEFAULT: u64 = 60;
const PROOF_TIMEOUT: Duration = Duration::from_secs(2);

/// Exports an evidence bundle, or rows.
#[utoipa::path(post, path = "/exports", tag = "evidence", request_body = ExportRequest, responses(
    (status = 200, description = "An evidence bundle (application/x-tar), or rows as text/csv or application/x-ndjson. The header audit-complete states whether every expected node is included in full, or is `pending` while a stream cannot know yet; on a bundle, audit-complete-since is the time since which nothing is missing; retention pruned older rows", content((Vec<u8> = "application/x-tar"), (String = "text/csv"), (String = "application/x-ndjson"))),
    (status = 400, description = "Missing reason, or invalid filter or range", body = Problem),
    (status = 429, description = "Too many concurrent exports and checks", body = Problem),
    (status = 503, description = "Expected nodes are missing, and no partial bundle was requested", body = Envelope),
    (status = 507, description = "Not enough space in the state directory", body = Problem),
))]
pub(super) async fn exports(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Extension(audit): Extension<AuditEntry>,
    body: Bytes,
) -> Result<Response, ApiError> {
    let (query, order, format) = read(&app, &caller, &body)?;
    audit.details(describe(&query));
    audit.details(json!({ "format": format, "words": order.reason }));
    known_nodes(&app, &query)?;
    let output = match format {
        ExportFormat::Bundle => None,
        ExportFormat::Csv => Some(Output::Csv),
        ExportFormat::Ndjson => Some(Output::Ndjson),
    };
    if let Some(output) = output {
        return answer_stream(&app, &caller, &audit, query, output, order.patience()).await;
    }
    let room = app.streams.take(caller.name()).map_err(busy)?;
    let made = app.exporter.export(&app.cluster, &query, order).await;
    drop(room);
    match made {
        Ok(Outcome::Made { file, manifest, envelope }) => {
            audit.details(outcome(&envelope));
            audit.details(json!({ "rows": manifest.rows }));
            download(file, &query, &envelope)
        }
        Ok(Outcome::Refused(envelope)) => {
            audit.details(outcome(&envelope));
            audit.reason("not_complete");
            let headers = [(CONTENT_TYPE, "application/json"), (AUDIT_COMPLETE, "false")];
            Ok((StatusCode::SERVICE_UNAVAILABLE, headers, Json(envelope)).into_response())
        }
        Err(error) => {
            tracing::error!(%error, "cannot assemble a bundle");
            let detail = format!("cannot assemble the bundle in the state directory: {error}");
            Err(ApiError::new(507, "insufficient_storage", detail))
        }
    }
}

/// Parses and checks the request.
fn read(app: &App, caller: &Caller, body: &[u8]) -> Result<(Query, ExportJob, ExportFormat), ApiError> {
    let bad = |detail: String| ApiError::new(400, "bad_request", detail);
    let request: ExportRequest =
        serde_json::from_slice(body).map_err(|error| bad(format!("a reason is needed: {error}")))?;
    let reason = request.reason.trim().to_owned();
    if reason.is_empty() || reason.chars().count() > REASON_CHARACTERS_MAX {
        return Err(bad(format!("the reason must have 1 to {REASON_CHARACTERS_MAX} characters")));
    }
    let seconds = request.wait_seconds.unwrap_or(WAIT_SECONDS_DEFAULT);
    if seconds > EXPORT_WAIT_SECONDS_MAX {
        return Err(bad(format!("wait_seconds must be at most {EXPORT_WAIT_SECONDS_MAX}")));
    }
    let incomplete = match request.incomplete {
        IncompleteArg::Refuse => Incomplete::Refuse,
        IncompleteArg::Wait => Incomplete::Wait(Duration::from_secs(seconds)),
        IncompleteArg::Partial => Incomplete::Partial,
    };
    let pair = |name: &str, value: Option<String>| value.map(|value| (name.to_owned(), value));
    let mut pairs = vec![("format".to_owned(), "ndjson".to_owned()), ("order".to_owned(), "asc".to_owned())];
    pairs.extend(pair("filter", request.filter).into_iter().chain(pair("from", request.from)));
    pairs.extend(pair("to", request.to));
    let mut query = Query::parse(pairs, SystemClock.now(), &app.cluster.cursor_key, caller.scope())?;
    query.sealed = request.format == ExportFormat::Bundle;
    if incomplete != Incomplete::Partial {
        query.require = Require::All;
    }
    Ok((query, ExportJob { by: caller.name().to_owned(), reason, incomplete }, request.format))
}

fn download(mut file: std::fs::File, query: &Query, envelope: &Envelope) -> Result<Response, ApiError> {
    use std::io::Seek as _;

    file.rewind().map_err(|error| ApiError::new(500, "internal", format!("cannot read the bundle back: {error}")))?;
    let name = format!("{}{}.tar", file_name(query), if envelope.is_whole() { "" } else { "_PARTIAL" });
    let mut response = Body::from_stream(ReaderStream::new(tokio::fs::File::from_std(file))).into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-tar"));
    headers.insert(AUDIT_COMPLETE, HeaderValue::from_static(if envelope.complete { "true" } else { "false" }));
    let since = envelope.complete_since.as_deref().and_then(|since| HeaderValue::from_str(since).ok());
    if let Some(since) = since {
        headers.insert(AUDIT_COMPLETE_SINCE, since);
    }
    if let Ok(value) = HeaderValue::from_str(&format!("attachment; filename=\"{name}\"")) {
        headers.insert(CONTENT_DISPOSITION, value);
    }
    Ok(response)
}

/// Proves one row to any C2SP tool.
#[utoipa::path(get, path = "/audit-log/{node}/{seq}/proof", tag = "evidence", params(
    ("node" = String, Path, description = "Node id", example = "mx1"),
    ("seq" = u64, Path, description = "Row number in that node's log", example = 1),
    ("generation" = Option<String>, Query, description = "Generation of the log that contains the row, as given in the row; the node's current log by default"),
), responses(
    (status = 200, description = "c2sp.org/tlog-proof@v1: proof of inclusion in the newest cosigned checkpoint; the leaf is SHA-256(0x00 ‖ entry ‖ signature)", body = String, content_type = "text/plain"),
    (status = 404, description = "No such node, or no cosigned checkpoint covers the row yet", body = Problem),
    (status = 503, description = "The node did not answer", body = Problem),
))]
pub(super) async fn proof(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Extension(audit): Extension<AuditEntry>,
    Path((node, seq)): Path<(String, String)>,
    log: LogOfRow,
) -> Result<Response, ApiError> {
    audit.details(describe_row(&node, &seq));
    let proof = find_proof(&app, &caller, &node, &seq, log_of_row(log)).await?;
    Ok(([(CONTENT_TYPE, "text/plain; charset=utf-8")], proof).into_response())
}

async fn find_proof(
    app: &App,
    caller: &Caller,
    node: &str,
    seq: &str,
    log: Result<Option<Generation>, ApiError>,
) -> Result<String, ApiError> {
    let log = log?;
    if caller.scope().text().is_some() {
        // A caller who must not see a row must not learn its position in the tree either. Check the row in the log that
        // the proof refers to, not in the one that the node presents now.
        let member = app.cluster.members.iter().find(|member| member.node.id.as_str() == node);
        let proven = log.or_else(|| member.and_then(|member| member.witness.pinned()).map(|pinned| pinned.generation));
        let (page, _) = find_entry(app, caller, node, seq, Ok(proven)).await?;
        if page.rows.is_empty() {
            let detail = format!("{node} did not return row {seq}, so it is not known whether you may see it");
            return Err(ApiError::new(503, "node_failed", detail));
        }
    }
    let member = app.cluster.members.iter().find(|member| member.node.id.as_str() == node);
    let member = member.ok_or_else(|| ApiError::new(404, "no_such_node", format!("{node:?} is not in the roster")))?;
    let seq: u64 = seq.parse().map_err(|_| ApiError::new(400, "bad_seq", format!("{seq:?} is not a row number")))?;
    let present = member.witness.pinned();
    let is_present = log.is_none_or(|log| present.as_ref().is_some_and(|pinned| pinned.generation == log));
    let pinned = match log {
        Some(log) if !is_present && member.witness.presents(log) => None,
        Some(log) if !is_present => member.witness.aside(log).ok_or_else(|| {
            if let Some(message) = member.witness.gone(log) {
                return ApiError::new(404, "no_such_log", message);
            }
            if member.witness.is_past(log) {
                let message = format!("{node} has not reported that it can still read its log of generation {log}");
                return ApiError::new(503, "node_failed", message);
            }
            no_such_log(node, Some(log))
        })?,
        _ => present,
    };
    let pinned = pinned.filter(|pinned| seq < pinned.size);
    let pinned = pinned.ok_or_else(|| {
        ApiError::new(404, "not_witnessed", format!("no witnessed checkpoint of {node} covers row {seq} yet"))
    })?;
    let path = format!("{}?generation={}&size={}&seq={seq}", peer_path::INCLUSION, pinned.generation, pinned.size);
    let answer: Result<ProofAnswer, _> = member.link.get_json(&path, PROOF_TIMEOUT).await;
    let answer =
        answer.map_err(|failure| ApiError::new(503, "node_failed", format!("{node}: {}", failure.reason())))?;
    let bad = || ApiError::new(503, "node_failed", format!("{node}: its proof is not a list of hashes"));
    let hashes = answer.hashes.iter().map(|hash| decode_hash(hash).map(|hash| encode_hash(&hash) + "\n"));
    let hashes: String = hashes.collect::<Option<_>>().ok_or_else(bad)?;
    Ok(format!("c2sp.org/tlog-proof@v1\nindex {seq}\n{hashes}\n{}", pinned.note))
}
