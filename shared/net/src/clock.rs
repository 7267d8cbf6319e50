//! The clock.

use std::time::Duration;

use piperoll_format::time::Timestamp;

/// For the answer about synchronisation.
const ASK_TIMEOUT: Duration = Duration::from_secs(2);

/// The wall clock, as an argument, so that tests own it.
pub trait Clock: Send + Sync {
    fn now(&self) -> Timestamp;
}

/// The operating system's clock. The only place that reads it for entries.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(chrono::Utc::now().timestamp_micros())
    }
}

/// Whether the machine's clock is kept right by somebody, as far as systemd knows of the kernel; none when nobody can say.
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
