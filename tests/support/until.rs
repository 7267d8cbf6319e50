//! Waiting for conditions in tests.

use std::time::{Duration, Instant};

/// Longest wait for something that happens asynchronously.
const PATIENCE: Duration = Duration::from_secs(60);

/// Calls `ask` until it returns a value; panics with `what` after `PATIENCE`.
pub async fn until<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = ask().await {
            return found;
        }
        assert!(begun.elapsed() < PATIENCE, "never: {what}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
