//! `/acknowledgements`: acknowledges a violation. `/verdicts`: records a verdict on a flag. `/bundles/verify`: verifies a bundle.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::{Extension, Json};
use piperoll_evidence::bundle::{Outcome, Trust, render_verdict, verify_bundle};
use piperoll_format::verify::Integrity;
use piperoll_format::view::EntryView;
use piperoll_protocol::access::{Acknowledge, RecordVerdict};
use piperoll_protocol::problem::Problem;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::audited::AuditEntry;
use super::error::ApiError;
use super::identify::Caller;
use super::log::{OfLog, busy, find_entry};
use super::nodes::REASON_CHARACTERS_MAX;
use crate::state::App;

/// Maximum bytes of a bundle that is verified here, because it is held in memory; larger ones need `piperoll verify-bundle`.
pub(super) const UPLOAD_BYTES_MAX: usize = 256 * 1024 * 1024;
const UPLOAD_TIMEOUT: Duration = Duration::from_secs(300);
/// Maximum bytes of a verdict, which is one word such as `row_invalid`.
const VERDICT_BYTES_MAX: usize = 32;

/// Acknowledges a violation.
///
/// The audit entry of the request is the acknowledgement.
#[utoipa::path(post, path = "/acknowledgements", tag = "nodes", request_body = Acknowledge, responses(
    (status = 204, description = "Recorded that the caller has seen the finding; nothing else changes"),
    (status = 404, description = "No such node", body = Problem),
))]
pub(super) async fn acknowledge(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Extension(audit): Extension<AuditEntry>,
    body: Bytes,
) -> Result<StatusCode, ApiError> {
    let bad = |detail: String| ApiError::new(400, "bad_request", detail);
    let request: Acknowledge =
        serde_json::from_slice(&body).map_err(|e| bad(format!("node, verdict and reason are required: {e}")))?;
    // Callers must not acknowledge findings that they may not see: those about a row outside of their scope or about a whole log.
    if caller.scope().text().is_some() {
        match request.seq {
            Some(seq) => find_entry(&app, &caller, &request.node, &seq.to_string(), Ok(None)).await.map(|_| ())?,
            None => caller.require_everything()?,
        }
    }
    check_reason(&request.reason)?;
    if request.finding.as_ref().is_some_and(|finding| finding.chars().count() > REASON_CHARACTERS_MAX) {
        return Err(bad(format!("the finding may have at most {REASON_CHARACTERS_MAX} characters")));
    }
    let word = |c: char| c.is_ascii_lowercase() || c == '_';
    if request.verdict.is_empty() || request.verdict.len() > VERDICT_BYTES_MAX || !request.verdict.chars().all(word) {
        return Err(bad("the verdict must be one word, such as row_invalid or fork".to_owned()));
    }
    if !app.cluster.members.iter().any(|member| member.node.id.as_str() == request.node) {
        return Err(ApiError::new(404, "no_such_node", format!("{:?} is not in the roster", request.node)));
    }
    audit.details(json!({ "node": request.node, "seq": request.seq, "verdict": request.verdict,
        "finding": request.finding, "words": request.reason.trim() }));
    Ok(StatusCode::NO_CONTENT)
}

fn check_reason(reason: &str) -> Result<(), ApiError> {
    if reason.trim().is_empty() || reason.chars().count() > REASON_CHARACTERS_MAX {
        let detail = format!("the reason must have 1 to {REASON_CHARACTERS_MAX} characters");
        return Err(ApiError::new(400, "bad_request", detail));
    }
    Ok(())
}

/// Records a verdict on a flagged entry.
///
/// The flagged entry is read first: a verdict needs an entry that exists, is flagged, and is within the scope of the caller.
#[utoipa::path(post, path = "/verdicts", tag = "log", request_body = RecordVerdict, responses(
    (status = 204, description = "The verdict is recorded in an entry that refers to the flagged one, which stays unchanged"),
    (status = 404, description = "No such node or entry, or outside the caller's scope", body = Problem),
    (status = 409, description = "The entry is not flagged, or fails verification", body = Problem),
    (status = 503, description = "The node did not answer", body = Problem),
))]
pub(super) async fn record_verdict(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Extension(audit): Extension<AuditEntry>,
    body: Bytes,
) -> Result<StatusCode, ApiError> {
    let request: RecordVerdict = serde_json::from_slice(&body)
        .map_err(|e| ApiError::new(400, "bad_request", format!("node, seq, verdict and reason are required: {e}")))?;
    check_reason(&request.reason)?;
    let place = format!("{}/{}", request.node, request.seq);
    let log = OfLog { generation: request.generation.clone() }.generation();
    let (page, _) = find_entry(&app, &caller, &request.node, &request.seq.to_string(), log).await?;
    let row = page
        .rows
        .first()
        .ok_or_else(|| ApiError::new(503, "node_missing", format!("{} did not answer", request.node)))?;
    let view = EntryView::parse(&row.body).filter(|_| row.integrity == Integrity::Ok);
    let view = view.ok_or_else(|| {
        ApiError::new(
            409,
            "entry_invalid",
            format!("{place} fails verification, so no verdict can be recorded on its content"),
        )
    })?;
    if view.flag_rules().is_empty() {
        return Err(ApiError::new(
            409,
            "not_flagged",
            format!("{place} is not flagged; a verdict can be recorded only on a flagged entry"),
        ));
    }
    audit.details(json!({ "entry": place, "node": request.node, "generation": view.generation, "seq": request.seq,
        "id": view.id, "flags": view.flag_rules(), "judgement": request.verdict.recorded(), "words": request.reason.trim() }));
    Ok(StatusCode::NO_CONTENT)
}

/// Verifies a bundle with this aggregator's own trust file, as `piperoll verify-bundle` does.
#[utoipa::path(post, path = "/bundles/verify", tag = "evidence", request_body(content = Vec<u8>, content_type = "application/octet-stream"), responses(
    (status = 200, description = "The verdict of `piperoll verify-bundle --json` with this aggregator's own trust file, with `message` as readable text and the `sha256` of the uploaded file", body = serde_json::Value),
    (status = 413, description = "More than 256 MiB, or not received within five minutes", body = Problem),
))]
pub(super) async fn verify_upload(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Extension(audit): Extension<AuditEntry>,
    request: Request,
) -> Result<Json<Value>, ApiError> {
    // Take a slot before reading up to `UPLOAD_BYTES_MAX` bytes into memory.
    let room = app.bundles.take(caller.name()).map_err(busy)?;
    let upload = tokio::time::timeout(UPLOAD_TIMEOUT, to_bytes(request.into_body(), UPLOAD_BYTES_MAX)).await;
    let Ok(Ok(body)) = upload else {
        let detail = format!(
            "an uploaded bundle must not exceed {UPLOAD_BYTES_MAX} bytes and must arrive within {} s; use piperoll verify-bundle instead",
            UPLOAD_TIMEOUT.as_secs()
        );
        return Err(ApiError::new(413, "too_long", detail));
    };
    audit.details(json!({ "bytes": body.len() }));
    let trust = Trust::parse(&app.exporter.trust).map_err(|error| ApiError::new(500, "internal", error.to_string()))?;
    let checked = tokio::task::spawn_blocking(move || {
        let _room = room;
        let digest = hex::encode(Sha256::digest(&body));
        let verdict = verify_bundle(&body, Some(&trust));
        let outcome = Outcome::of(&verdict);
        let mut answer = serde_json::to_value(&verdict).unwrap_or_default();
        answer["outcome"] = outcome.word().into();
        let message = render_verdict(&verdict, outcome);
        // The former name of `message`, served for one release.
        answer["words"] = message.clone().into();
        answer["message"] = message.into();
        answer["sha256"] = digest.clone().into();
        (outcome, digest, answer)
    });
    let (outcome, digest, answer) = checked.await.map_err(|error| {
        tracing::error!(%error, "verifying a bundle failed");
        ApiError::new(500, "internal", "verifying the bundle failed; see the aggregator's log")
    })?;
    audit.details(json!({ "sha256": digest, "verdict": outcome.word() }));
    Ok(Json(answer))
}
