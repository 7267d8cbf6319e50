//! Runs the archive's rounds periodically.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures::FutureExt as _;

use crate::archiving::archiver::Round;
use crate::state::App;

/// Archives what is due, again and again.
pub(crate) async fn run(app: Arc<App>) {
    let Some(archiver) = &app.archiver else { return };
    loop {
        let round = AssertUnwindSafe(archiver.round(&app.cluster, &app.audit, Round::Periodic)).catch_unwind();
        match round.await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => {
                tracing::error!(%error, "cannot archive; trying again in {} s", archiver.interval().as_secs());
            }
            // A round continues from what is stored, so the next one is not affected by what this one left in memory.
            Err(_) => {
                tracing::error!("a round of the archive panicked; trying again in {} s", archiver.interval().as_secs())
            }
        }
        tokio::time::sleep(archiver.interval()).await;
    }
}
