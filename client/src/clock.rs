//! Reads the wall clock.

use std::time::{SystemTime, UNIX_EPOCH};

use piperoll_format::time::Timestamp;

/// Returns the current time in microseconds, or 1970 if the clock is set to an earlier time.
pub(crate) fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_micros(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}
