//! The wall clock, and whether it is synchronized.

use std::time::Duration;

use piperoll_format::time::Timestamp;

/// Time limit for a call of `timedatectl`.
const ASK_TIMEOUT: Duration = Duration::from_secs(2);

/// Wall clock, passed as an argument so that tests can control it.
pub trait Clock: Send + Sync {
    fn now(&self) -> Timestamp;
}

/// The operating system's clock. No other code reads the time for entries.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(chrono::Utc::now().timestamp_micros())
    }
}

/// Returns whether the machine's clock is synchronized, as systemd reports it from the kernel. Returns `None` if that cannot be
/// determined.
pub async fn kernel_is_synced() -> Option<bool> {
    let asking = tokio::process::Command::new("timedatectl")
        .args(["show", "--property=NTPSynchronized", "--value"])
        .stdin(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .kill_on_drop(true)
        .output();
    let answer = tokio::time::timeout(ASK_TIMEOUT, asking).await.ok()?.ok()?;
    match answer.stdout.trim_ascii() {
        b"yes" => Some(true),
        b"no" => Some(false),
        _ => None,
    }
}
