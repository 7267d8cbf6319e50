//! `/acknowledgements`: acknowledges a violation. `/judgements`: records a verdict on a flag. `/bundles/verify`: verifies a bundle.

use std::sync::Arc;

use axum::Extension;
use std::time::Duration;

use axum::body::{Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::Response;
use piperoll_evidence::bundle::{Outcome, Trust, verdict_words, verify_bundle};
use piperoll_format::verify::Integrity;
use piperoll_format::view::EntryView;
use piperoll_protocol::access::{Acknowledge, Judge, Permission};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::auth::{Caller, recordable};
use super::error::ApiError;
use super::log::{OfLog, busy, find_entry, with_done};
use super::nodes::REASON_CHARACTERS_MAX;
use crate::state::App;

/// A bundle that is checked here is held in memory; larger ones are for `piperoll verify-bundle`.
pub(super) const UPLOAD_BYTES_MAX: usize = 256 * 1024 * 1024;
const UPLOAD_TIMEOUT: Duration = Duration::from_secs(300);
/// A verdict is one word, such as `row_invalid`.
const VERDICT_BYTES_MAX: usize = 32;

/// `POST /acknowledgements`. The entry is all there is: who looks for acknowledgements reads the log.
pub(super) async fn acknowledge(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    body: Bytes,
) -> Response {
    let recordable = recordable(&app).await;
    let mut details = json!({});
    let bad = |detail: String| ApiError::new(400, "bad_request", detail);
    let request: Result<Acknowledge, _> =
        serde_json::from_slice(&body).map_err(|e| bad(format!("node, verdict and reason are needed: {e}")));
    // Nobody acknowledges what they may not see: a row outside of their scope, or a log as a whole.
    let within = match (&request, caller.scope().text()) {
        (Ok(request), Some(_)) => match request.seq {
            Some(seq) => find_entry(&app, &caller, &request.node, &seq.to_string(), Ok(None)).await.map(|_| ()),
            None => caller.require_everything(),
        },
        _ => Ok(()),
    };
    let read = (|| {
        caller.require(Permission::Verify)?;
        recordable?;
        let request = request?;
        within?;
        if request.reason.trim().is_empty() || request.reason.chars().count() > REASON_CHARACTERS_MAX {
            return Err(bad(format!("the reason has 1 to {REASON_CHARACTERS_MAX} characters")));
        }
        if request.finding.as_ref().is_some_and(|finding| finding.chars().count() > REASON_CHARACTERS_MAX) {
            return Err(bad(format!("the finding has at most {REASON_CHARACTERS_MAX} characters")));
        }
        let word = |c: char| c.is_ascii_lowercase() || c == '_';
        if request.verdict.is_empty() || request.verdict.len() > VERDICT_BYTES_MAX || !request.verdict.chars().all(word)
        {
            return Err(bad("the verdict is one word such as row_invalid or fork".to_owned()));
        }
        if !app.cluster.members.iter().any(|member| member.node.id.as_str() == request.node) {
            return Err(ApiError::new(404, "no_such_node", format!("{:?} is not in the roster", request.node)));
        }
        details = json!({ "node": request.node, "seq": request.seq, "verdict": request.verdict,
            "finding": request.finding, "words": request.reason.trim() });
        Ok::<_, ApiError>(StatusCode::NO_CONTENT)
    })();
    with_done(read, "audit.acknowledge", details)
}

/// `POST /judgements`. The flagged entry is read first: nobody judges what is not there, not flagged, or not theirs to see.
pub(super) async fn judge(State(app): State<Arc<App>>, Extension(caller): Extension<Caller>, body: Bytes) -> Response {
    let mut details = json!({});
    let judged = try_judge(&app, &caller, &body, &mut details).await;
    with_done(judged, "audit.judge", details)
}

async fn try_judge(app: &App, caller: &Caller, body: &Bytes, details: &mut Value) -> Result<StatusCode, ApiError> {
    caller.require(Permission::Verify)?;
    recordable(app).await?;
    let bad = |detail: String| ApiError::new(400, "bad_request", detail);
    let request: Judge =
        serde_json::from_slice(body).map_err(|e| bad(format!("node, seq, judgement and reason are needed: {e}")))?;
    if request.reason.trim().is_empty() || request.reason.chars().count() > REASON_CHARACTERS_MAX {
        return Err(bad(format!("the reason has 1 to {REASON_CHARACTERS_MAX} characters")));
    }
    let place = format!("{}/{}", request.node, request.seq);
    let log = OfLog { generation: request.generation.clone() }.generation();
    let (page, _) = find_entry(app, caller, &request.node, &request.seq.to_string(), log).await?;
    let row = page
        .rows
        .first()
        .ok_or_else(|| ApiError::new(503, "node_missing", format!("{} did not answer", request.node)))?;
    let view = EntryView::parse(&row.body).filter(|_| row.integrity == Integrity::Ok);
    let view = view.ok_or_else(|| {
        ApiError::new(409, "not_intact", format!("{place} cannot be judged by what it says: it is not intact"))
    })?;
    if view.flag_rules().is_empty() {
        return Err(ApiError::new(409, "not_flagged", format!("{place} is not flagged, so there is nothing to judge")));
    }
    *details = json!({ "entry": place, "node": request.node, "generation": view.generation, "seq": request.seq, "id": view.id,
        "flags": view.flag_rules(), "judgement": request.judgement, "words": request.reason.trim() });
    Ok(StatusCode::NO_CONTENT)
}

/// `POST /bundles/verify`: the same judgement as `piperoll verify-bundle`, with this aggregator's own trust file.
pub(super) async fn verify_upload(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Response {
    const ACTION: &str = "audit.bundle_verify";
    let mut details = json!({});
    if let Err(error) = caller.require(Permission::Verify) {
        return with_done(error, ACTION, details);
    }
    // There is room first, and only then are so many bytes taken.
    let room = match app.bundles.take(caller.name()) {
        Ok(room) => room,
        Err(full) => return with_done(busy(full), ACTION, details),
    };
    let upload = tokio::time::timeout(UPLOAD_TIMEOUT, to_bytes(request.into_body(), UPLOAD_BYTES_MAX)).await;
    let Ok(Ok(body)) = upload else {
        let detail = format!(
            "a bundle that is checked here has at most {UPLOAD_BYTES_MAX} bytes and comes within {} s; use piperoll verify-bundle",
            UPLOAD_TIMEOUT.as_secs()
        );
        return with_done(ApiError::new(413, "too_long", detail), ACTION, details);
    };
    details["bytes"] = json!(body.len());
    let trust = match Trust::parse(&app.exporter.trust) {
        Ok(trust) => trust,
        Err(error) => return with_done(ApiError::new(500, "internal", error.to_string()), ACTION, details),
    };
    let checked = tokio::task::spawn_blocking(move || {
        let _room = room;
        let digest = hex::encode(Sha256::digest(&body));
        let verdict = verify_bundle(&body, Some(&trust));
        let outcome = Outcome::of(&verdict);
        let mut answer = serde_json::to_value(&verdict).unwrap_or_default();
        answer["outcome"] = outcome.word().into();
        answer["words"] = verdict_words(&verdict, outcome).into();
        answer["sha256"] = digest.clone().into();
        (outcome, digest, answer)
    });
    match checked.await {
        Ok((outcome, digest, answer)) => {
            details["sha256"] = json!(digest);
            details["verdict"] = json!(outcome.word());
            with_done(([(CONTENT_TYPE, "application/json")], answer.to_string()), ACTION, details)
        }
        Err(error) => {
            tracing::error!(%error, "verifying a bundle failed");
            let error = ApiError::new(500, "internal", "checking the bundle failed; the daemon's log says why");
            with_done(error, ACTION, details)
        }
    }
}
