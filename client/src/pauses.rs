//! Pauses between attempts.

use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBuilder};

/// Returns an endless sequence of pauses that double from `first` to `max`. Jitter keeps many processes from trying at the same
/// moment.
pub(crate) fn pauses(first: Duration, max: Duration) -> impl Iterator<Item = Duration> {
    ExponentialBuilder::default()
        .with_min_delay(first)
        .with_max_delay(max)
        .with_jitter()
        .without_max_times()
        .build()
        .map(move |pause| pause.min(max))
}
