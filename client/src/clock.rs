//! The wall clock.

use std::time::{SystemTime, UNIX_EPOCH};

use piperoll_format::time::Timestamp;

/// Now, in microseconds; 1970 on a machine whose clock is before that.
pub(crate) fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_micros(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}
