//! What every daemon on this machine shares.

use piperoll_shared::log::time::Timestamp;
use piperoll_shared::net::clock::{Clock as _, SystemClock, kernel_is_synced};

use super::finding::{Finding, Findings};

/// No machine that runs this has a clock before the day this was written.
const EARLIEST: &str = "2026-11-01T00:00:00Z";

pub(super) async fn look() -> Vec<Finding> {
    let mut findings = Findings::new("machine");
    let now = SystemClock.now();
    let earliest = Timestamp::parse_rfc3339(EARLIEST).unwrap_or(Timestamp::MIN);
    let advice = "set up chrony or systemd-timesyncd; order between nodes is only as good as their clocks";
    match kernel_is_synced().await {
        _ if now < earliest => findings.bad("clock", format!("it says {now}, which is in the past"), advice),
        Some(true) => findings.ok("clock", "it is kept right"),
        Some(false) => findings.warn("clock", "nothing keeps it right", advice),
        None => findings.unknown(
            "clock",
            "whether something keeps it right cannot be seen from here (no timedatectl); compare `piperoll nodes`",
        ),
    }
    findings.all
}
