//! The journal, through journalctl: it knows the files, their rotation and their formats, and gives every entry a cursor.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use serde::Deserialize;
use tokio::io::{AsyncBufRead, AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::process::Command;
use tokio_util::sync::CancellationToken;

use super::mark::Mark;
use super::{Heard, Heards, Problems, Record};

/// Before journalctl is started again that ended.
const RESTART_PAUSE: Duration = Duration::from_secs(2);
/// Of one entry with all its fields; a field may hold hundreds of megabytes, and anybody may write to the journal.
const LINE_BYTES_MAX: usize = 1024 * 1024;

pub(super) struct Asked {
    /// Of the source, for health.
    pub(super) name: String,
    pub(super) unit: Option<String>,
    pub(super) directory: Option<PathBuf>,
    pub(super) from_now: bool,
}

#[derive(Deserialize)]
pub(super) struct Placed {
    #[serde(rename = "__CURSOR")]
    pub(super) cursor: String,
}

pub(super) async fn follow(
    mut asked: Asked,
    mark: Option<Mark>,
    heards: Heards,
    problems: Problems,
    stop: CancellationToken,
) {
    let mut cursor = match mark {
        Some(Mark::Journal { cursor }) => Some(cursor),
        _ => None,
    };
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            problem = read_once(&mut asked, &mut cursor, &heards, &problems) => {
                problems.set(&asked.name, Some(problem.clone()));
                tracing::warn!(unit = asked.unit, problem, "the journal cannot be followed; tried again");
            }
        }
        if heards.is_closed() {
            return;
        }
        tokio::select! { () = stop.cancelled() => return, () = tokio::time::sleep(RESTART_PAUSE) => {} }
    }
}

fn journalctl(asked: &Asked) -> Command {
    let mut command = Command::new("journalctl");
    // All of a field, however long it is.
    command.args(["--output=json", "--all", "--no-pager"]);
    if let Some(unit) = &asked.unit {
        command.arg(format!("--unit={unit}"));
    }
    if let Some(directory) = &asked.directory {
        command.arg("--directory").arg(directory);
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
    command
}

/// Until journalctl ends; says why.
async fn read_once(asked: &mut Asked, cursor: &mut Option<String>, heards: &Heards, problems: &Problems) -> String {
    if asked.from_now && cursor.is_none() {
        match newest(asked).await {
            Ok(Some(newest)) => {
                // Kept at once: what comes while the node is down was asked for.
                let _ = heards.send(Heard::Place(Mark::Journal { cursor: newest.clone() })).await;
                *cursor = Some(newest);
            }
            // There is nothing yet, so everything comes later.
            Ok(None) => {}
            Err(problem) => return problem,
        }
        asked.from_now = false;
    }
    let mut command = journalctl(asked);
    command.args(["--follow", "--lines=all"]);
    // With the entry that was read last, so that it is seen whether it is still there.
    let mut awaited = cursor.clone();
    if let Some(cursor) = &awaited {
        command.arg(format!("--cursor={cursor}"));
    }
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => return format!("journalctl: {error}; is systemd installed?"),
    };
    let Some(stdout) = child.stdout.take() else { return "journalctl gives nothing".to_owned() };
    let mut lines = BufReader::new(stdout);
    loop {
        let line = match next_line(&mut lines).await {
            Ok(Some(Line::Whole(line))) => line,
            Ok(Some(Line::Long(bytes))) => {
                let cause = format!("an entry of the journal is {bytes} bytes long, more than {LINE_BYTES_MAX}");
                let _ = heards.send(Heard::Lost { count: Some(1), cause }).await;
                // It may have been the one that is waited for.
                awaited = None;
                continue;
            }
            Ok(None) => {
                let status = child.wait().await.map_or_else(|e| e.to_string(), |status| status.to_string());
                return format!("journalctl ended ({status}); may this user read the journal? (group systemd-journal)");
            }
            Err(error) => return format!("journalctl: {error}"),
        };
        // What has no cursor is not of the journal.
        let Ok(placed) = serde_json::from_slice::<Placed>(&line) else { continue };
        if let Some(awaited) = awaited.take() {
            if awaited == placed.cursor {
                continue;
            }
            let cause = "the journal was cleaned up further than it was read".to_owned();
            let _ = heards.send(Heard::Lost { count: None, cause }).await;
        }
        problems.set(&asked.name, None);
        *cursor = Some(placed.cursor.clone());
        let mark = Some(Mark::Journal { cursor: placed.cursor.clone() });
        let record = Record { text: line, place: Some(placed.cursor), mark };
        if heards.send(Heard::Record(record)).await.is_err() {
            return "stopping".to_owned();
        }
    }
}

/// The cursor of the newest entry.
async fn newest(asked: &Asked) -> Result<Option<String>, String> {
    let output = journalctl(asked).args(["--lines=1", "--output-fields=__CURSOR"]).output().await;
    let output = output.map_err(|error| format!("journalctl: {error}; is systemd installed?"))?;
    if !output.status.success() {
        return Err(format!(
            "journalctl ended ({}); may this user read the journal? (group systemd-journal)",
            output.status
        ));
    }
    let placed =
        output.stdout.split(|byte| *byte == b'\n').find_map(|line| serde_json::from_slice::<Placed>(line).ok());
    Ok(placed.map(|placed| placed.cursor))
}

pub(super) enum Line {
    Whole(Vec<u8>),
    /// Too long to be kept; its bytes.
    Long(usize),
}

pub(super) async fn next_line(lines: &mut (impl AsyncBufRead + Unpin)) -> std::io::Result<Option<Line>> {
    let mut line = Vec::new();
    let mut bytes = 0;
    loop {
        let mut part = Vec::new();
        bytes += (&mut *lines).take(LINE_BYTES_MAX as u64).read_until(b'\n', &mut part).await?;
        let is_end = part.last() == Some(&b'\n') || part.is_empty();
        match (is_end, bytes) {
            (_, 0) => return Ok(None),
            (true, bytes) if bytes > LINE_BYTES_MAX => return Ok(Some(Line::Long(bytes))),
            (true, _) => {
                line.append(&mut part);
                return Ok(Some(Line::Whole(line)));
            }
            // What does not fit is read and dropped.
            (false, bytes) if bytes >= LINE_BYTES_MAX => line.clear(),
            (false, _) => line.append(&mut part),
        }
    }
}
