//! Checks the clock of this machine, which all daemons share.

use piperoll_format::time::Timestamp;
use piperoll_net::clock::{Clock as _, SystemClock, kernel_is_synced};

use super::finding::{Finding, Findings};

/// Date when this check was written; a clock that shows an earlier time is wrong.
const EARLIEST: &str = "2026-11-01T00:00:00Z";

pub(super) async fn check() -> Vec<Finding> {
    let mut findings = Findings::new("machine");
    let now = SystemClock.now();
    let earliest = Timestamp::parse_rfc3339(EARLIEST).unwrap_or(Timestamp::MIN);
    let advice = "set up chrony or systemd-timesyncd; entries of different nodes are ordered by their clocks";
    match kernel_is_synced().await {
        _ if now < earliest => findings.bad("clock", format!("shows {now}, which is in the past"), advice),
        Some(true) => findings.ok("clock", "synchronised"),
        Some(false) => findings.warn("clock", "not synchronised", advice),
        None => findings.unknown(
            "clock",
            "cannot tell whether the clock is synchronised (no timedatectl); compare with `piperoll nodes`",
        ),
    }
    findings.all
}
