//! Maps errors to HTTP statuses; no other module does.

use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use piperoll_protocol::problem::Problem;

use crate::store::{AdminError, AppendError, CheckpointFault, ReadError, TreeError};

/// An error response.
pub(crate) struct ApiError(pub(crate) Problem);

impl ApiError {
    pub(crate) fn new(status: u16, code: &str, detail: impl Into<String>) -> Self {
        Self(Problem::new(status, code, detail))
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.0.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        (status, [(CONTENT_TYPE, Problem::MEDIA_TYPE)], serde_json::to_string(&self.0).unwrap_or_default())
            .into_response()
    }
}

/// Status and code of a refused entry.
pub(crate) fn append_status(error: &AppendError) -> (u16, &'static str) {
    use piperoll_format::entry::EntryError;
    match error {
        AppendError::Entry(EntryError::TooLarge { .. }) => (413, "too_large"),
        AppendError::Entry(entry) if entry.is_forbidden() => (403, "reserved"),
        AppendError::Entry(_) => (400, "bad_entry"),
        AppendError::Conflict { .. } => (409, "id_conflict"),
        AppendError::DiskFull => (507, "disk_full"),
        AppendError::Fault(_) => (503, "log_fault"),
        AppendError::Stopping => (503, "stopping"),
    }
}

impl From<AppendError> for ApiError {
    fn from(error: AppendError) -> Self {
        let (status, code) = append_status(&error);
        Self::new(status, code, error.to_string())
    }
}

impl From<AdminError> for ApiError {
    fn from(error: AdminError) -> Self {
        let message = error.to_string();
        match error {
            AdminError::Refused(_) => Self::new(409, "refused", message),
            AdminError::NotFound(_) => Self::new(404, "not_found", message),
            AdminError::Log(error) => error.into(),
            AdminError::Read(_) => Self::new(500, "unreadable", message),
        }
    }
}

impl From<CheckpointFault> for ApiError {
    fn from(error: CheckpointFault) -> Self {
        let (status, code) = match error {
            CheckpointFault::Refused(_) | CheckpointFault::Tree(_) => (503, "no_checkpoint"),
            CheckpointFault::Note(_) | CheckpointFault::NeverSigned(_) | CheckpointFault::Uncosigned => {
                (400, "bad_note")
            }
            CheckpointFault::Store(_) | CheckpointFault::Read(_) => (503, "log_fault"),
        };
        Self::new(status, code, error.to_string())
    }
}

impl From<ReadError> for ApiError {
    fn from(error: ReadError) -> Self {
        let (status, code) = match error {
            ReadError::Sqlite(_) => (500, "unreadable"),
            ReadError::Tree(TreeError::Pruned(_)) => (410, "pruned"),
            ReadError::Tree(_) => (500, "unreadable_tree"),
            ReadError::PrunedMeanwhile => (409, "pruned_meanwhile"),
            ReadError::Generation { .. } => (409, "other_generation"),
            ReadError::Filter(_) => (400, "bad_filter"),
            ReadError::Panicked => (500, "read_failed"),
            ReadError::Stopping => (503, "stopping"),
        };
        Self::new(status, code, error.to_string())
    }
}
