//! `GET /archive` and `POST /archive/run`: the archive that this aggregator writes.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::State;
use axum::{Extension, Json};
use piperoll_archive::write::WriteError;
use piperoll_protocol::archive::{ArchiveRun, ArchiveRunRequest, ArchiveStatus};
use piperoll_protocol::problem::Problem;
use serde_json::json;

use super::audited::AuditEntry;
use super::error::ApiError;
use super::identify::Caller;
use crate::archiving::archiver::{ArchiveError, Archiver, Round};
use crate::state::App;

/// Returns the state of the archive, and how many rows of each node it has.
#[utoipa::path(get, path = "/archive", tag = "archive", responses(
    (status = 200, description = "State of the archive", body = ArchiveStatus),
    (status = 404, description = "This aggregator writes no archive", body = Problem),
))]
pub(super) async fn status(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Extension(audit): Extension<AuditEntry>,
) -> Result<Json<ArchiveStatus>, ApiError> {
    let mut status = archiver(&app)?.status(&app.cluster);
    if caller.scope().text().is_some() {
        // A caller with a scope sees whether the archive works, but not where it is.
        status.url = String::new();
        status.reason = status.reason.map(|_| "the last round failed".to_owned());
        status.pending_deletions.iter_mut().for_each(|file| {
            (file.name, file.reason) = ("a file".to_owned(), "the store keeps it".to_owned());
        });
        status.not_removed.iter_mut().for_each(|reason| "something could not be removed".clone_into(reason));
        status.missing.iter_mut().for_each(|missing| missing.reason = "could not be read".to_owned());
    }
    audit.details(json!({ "archive": status.archive, "step": status.step, "verdict": status.verdict }));
    Ok(Json(status))
}

/// Archives everything that is due, and returns when it is done.
#[utoipa::path(post, path = "/archive/run", tag = "archive", request_body = ArchiveRunRequest, responses(
    (status = 200, description = "What was added to the archive", body = ArchiveRun),
    (status = 400, description = "The body is not valid", body = Problem),
    (status = 404, description = "This aggregator writes no archive", body = Problem),
    (status = 409, description = "The archive was rolled back or replaced, or another writer uses it", body = Problem),
    (status = 502, description = "The archive's store does not answer, or a step failed", body = Problem),
))]
pub(super) async fn run(
    State(app): State<Arc<App>>,
    Extension(audit): Extension<AuditEntry>,
    body: Bytes,
) -> Result<Json<ArchiveRun>, ApiError> {
    let request: ArchiveRunRequest = if body.is_empty() {
        ArchiveRunRequest::default()
    } else {
        serde_json::from_slice(&body).map_err(|error| ApiError::new(400, "bad_request", error.to_string()))?
    };
    audit.details(json!({ "now": request.now }));
    archiver(&app)?;
    // The round continues if the caller disconnects, so that a step that was begun is finished.
    let running = Arc::clone(&app);
    let round = tokio::spawn(async move {
        let archiver = archiver(&running)?;
        archiver
            .round(&running.cluster, &running.audit, Round::Requested { now: request.now })
            .await
            .map_err(ApiError::from)
    });
    let failed = |error: tokio::task::JoinError| ApiError::new(500, "internal", error.to_string());
    let run = round.await.map_err(failed)??;
    audit.details(json!({ "steps": run.steps, "rows": run.rows }));
    Ok(Json(run))
}

fn archiver(app: &App) -> Result<&Archiver, ApiError> {
    let missing = || ApiError::new(404, "no_archive", "this aggregator writes no archive; see docs/archive.md");
    app.archiver.as_ref().ok_or_else(missing)
}

impl From<ArchiveError> for ApiError {
    fn from(error: ArchiveError) -> Self {
        let (status, code) = match &error {
            ArchiveError::Write(WriteError::Alarm { .. }) => (409, "archive_alarm"),
            ArchiveError::Write(WriteError::AnotherWriter { .. }) => (409, "another_writer"),
            ArchiveError::Write(WriteError::Unknown(_)) => (409, "unknown_archive"),
            ArchiveError::Record { .. } => (503, "not_recorded"),
            ArchiveError::Write(_) | ArchiveError::Read(_) => (502, "archive_failed"),
        };
        Self::new(status, code, error.to_string())
    }
}
