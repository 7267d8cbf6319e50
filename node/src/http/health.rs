//! Health of the node, for health checks.

use std::sync::Arc;

use axum::extract::State;

use super::app::App;
use super::error::ApiError;

/// Returns 200 while entries can be recorded, and 503 with the cause while they cannot. Problems with reading are reported in the body,
/// but do not change the status.
pub(super) async fn healthz(State(app): State<Arc<App>>) -> Result<String, ApiError> {
    match app.store.health().append_fault() {
        None => {
            let mut message = "ok\n".to_owned();
            if let count @ 1.. = app.store.health().reader_panics() {
                message += &format!("reads: {count} panicked; see the daemon's log\n");
            }
            for source in app.metrics.intake.1.all() {
                message += &format!("source {}: {}\n", source.name, source.problem);
            }
            Ok(message)
        }
        Some(fault) => Err(ApiError::new(503, "log_fault", fault)),
    }
}
