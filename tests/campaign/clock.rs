//! The campaign's clock.

use piperoll_format::time::Timestamp;
use piperoll_net::clock::{Clock as _, SystemClock};

pub(crate) fn now() -> Timestamp {
    SystemClock.now()
}

/// Returns a time later than that of any row; because of clock steps, rows may be dated a few minutes ahead.
pub(crate) fn ahead() -> Timestamp {
    Timestamp::from_micros(now().micros() + 2 * 86_400 * 1_000_000)
}
