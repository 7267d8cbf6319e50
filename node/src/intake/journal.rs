//! The journal, through journalctl: it knows the files, their rotation and their formats, and gives every entry a cursor.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use serde::Deserialize;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Command;
use tokio_util::sync::CancellationToken;

use super::mark::Mark;
use super::{Heard, Heards, Record};

/// Before journalctl is started again that ended.
const RESTART_PAUSE: Duration = Duration::from_secs(2);

pub(super) struct Asked {
    pub(super) unit: Option<String>,
    pub(super) directory: Option<PathBuf>,
    pub(super) from_now: bool,
}

pub(super) async fn follow(asked: Asked, mark: Option<Mark>, heards: Heards, stop: CancellationToken) {
    let mut cursor = match mark {
        Some(Mark::Journal { cursor }) => Some(cursor),
        _ => None,
    };
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            problem = read_once(&asked, &mut cursor, &heards) => {
                tracing::warn!(unit = asked.unit, problem, "the journal cannot be followed; tried again");
            }
        }
        if heards.is_closed() {
            return;
        }
        tokio::select! { () = stop.cancelled() => return, () = tokio::time::sleep(RESTART_PAUSE) => {} }
    }
}

/// Until journalctl ends; says why.
async fn read_once(asked: &Asked, cursor: &mut Option<String>, heards: &Heards) -> String {
    #[derive(Deserialize)]
    struct Placed {
        #[serde(rename = "__CURSOR")]
        cursor: String,
    }
    let mut command = Command::new("journalctl");
    // All of a field, however long it is.
    command.args(["--follow", "--output=json", "--all", "--no-pager"]);
    if let Some(unit) = &asked.unit {
        command.arg(format!("--unit={unit}"));
    }
    if let Some(directory) = &asked.directory {
        command.arg("--directory").arg(directory);
    }
    match cursor {
        Some(cursor) => command.arg(format!("--after-cursor={cursor}")).arg("--lines=all"),
        None if asked.from_now => command.arg("--lines=0"),
        None => command.arg("--lines=all"),
    };
    let spawned = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true).spawn();
    let mut child = match spawned {
        Ok(child) => child,
        Err(error) => return format!("journalctl: {error}; is systemd installed?"),
    };
    let Some(stdout) = child.stdout.take() else { return "journalctl gives nothing".to_owned() };
    let mut lines = BufReader::new(stdout).lines();
    loop {
        match lines.next_line().await {
            Ok(Some(line)) => {
                // What has no cursor is not of the journal.
                let Ok(placed) = serde_json::from_str::<Placed>(&line) else { continue };
                *cursor = Some(placed.cursor.clone());
                let mark = Some(Mark::Journal { cursor: placed.cursor.clone() });
                let record = Record { text: line.into_bytes(), place: Some(placed.cursor), mark };
                if heards.send(Heard::Record(record)).await.is_err() {
                    return "stopping".to_owned();
                }
            }
            Ok(None) => {
                let status = child.wait().await.map_or_else(|e| e.to_string(), |status| status.to_string());
                return format!("journalctl ended ({status}); may this user read the journal? (group systemd-journal)");
            }
            Err(error) => return format!("journalctl: {error}"),
        }
    }
}
