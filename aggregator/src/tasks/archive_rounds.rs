//! Runs the archive's rounds periodically.

use std::sync::Arc;

use crate::state::App;

/// Archives what is due, again and again.
pub(crate) async fn run(app: Arc<App>) {
    let Some(archiver) = &app.archiver else { return };
    loop {
        if let Err(error) = archiver.round(&app.cluster, &app.audit, false).await {
            tracing::error!(%error, "cannot archive; trying again in {} s", archiver.interval().as_secs());
        }
        tokio::time::sleep(archiver.interval()).await;
    }
}
