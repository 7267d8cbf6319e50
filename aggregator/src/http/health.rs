//! Routes for machines that watch the aggregator.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use piperoll_protocol::problem::Problem;

use super::error::ApiError;
use crate::state::App;

/// Answers while the process runs.
#[utoipa::path(get, path = "/healthz", tag = "operations", responses((status = 200, description = "The process is running")))]
pub(super) async fn healthz() -> &'static str {
    "ok\n"
}

/// Reports whether requests can be recorded. A request that cannot be recorded is not answered.
#[utoipa::path(get, path = "/readyz", tag = "operations", responses(
    (status = 200, description = "Requests can be recorded, so they are answered"),
    (status = 503, description = "They cannot", body = Problem),
))]
pub(super) async fn readyz(State(app): State<Arc<App>>) -> Response {
    match app.audit.ready().await {
        Ok(()) => (StatusCode::OK, "ok\n").into_response(),
        Err(error) => ApiError::new(503, "not_ready", format!("requests cannot be recorded: {error}")).into_response(),
    }
}

/// Metrics in the OpenMetrics text format.
#[utoipa::path(get, path = "/metrics", tag = "operations", responses((status = 200, description = "OpenMetrics text")))]
pub(super) async fn metrics(State(app): State<Arc<App>>) -> Response {
    if let Some(archiver) = &app.archiver {
        app.metrics.set_archive(archiver.id(), &archiver.figures(&app.cluster));
    }
    app.metrics.page(&app.cluster.members, app.tls.current().not_after)
}
