//! Commands that ask the aggregator that writes the archive.

use std::time::Duration;

use piperoll_format::terminal::escape;
use piperoll_protocol::archive::{ArchiveRun, ArchiveRunRequest, ArchiveStatus, ArchiveVerdict, MissingNode};
use reqwest::Method;

use crate::args::ConnectionArgs;
use crate::exit::Exit;
use crate::remote::{Answer, Connection, PAGE_TIMEOUT};
use crate::show::counted;

/// Time limit for a round. The first one may read years of rows.
const ROUND_TIMEOUT: Duration = Duration::from_hours(24);

pub(super) async fn run(connection: &ConnectionArgs, now: bool, json: bool) -> anyhow::Result<Exit> {
    let connection = Connection::open(connection)?;
    let request = connection.request(Method::POST, "/api/v1/archive/run").json(&ArchiveRunRequest { now });
    let response = match connection.send(request.timeout(ROUND_TIMEOUT)).await? {
        Answer::Good(response) => response,
        Answer::Unavailable(envelope) => return Ok(connection.refused(&envelope)),
    };
    let text = response.text().await?;
    let run: ArchiveRun = serde_json::from_str(&text)?;
    if json {
        outln!("{text}");
    } else if run.steps.is_empty() {
        outln!("nothing was due");
    } else {
        let steps: Vec<String> = run.steps.iter().map(u64::to_string).collect();
        outln!(
            "archived {} in {} ({} {})",
            counted(run.rows, "row", "rows"),
            counted(run.files, "file", "files"),
            if steps.len() == 1 { "step" } else { "steps" },
            steps.join(", ")
        );
    }
    if !json {
        name_missing(&run.missing);
    }
    Ok(if run.missing.is_empty() { Exit::Complete } else { Exit::Incomplete })
}

pub(super) async fn status(connection: &ConnectionArgs, json: bool) -> anyhow::Result<Exit> {
    let connection = Connection::open(connection)?;
    let request = connection.request(Method::GET, "/api/v1/archive").timeout(PAGE_TIMEOUT);
    let response = match connection.send(request).await? {
        Answer::Good(response) => response,
        Answer::Unavailable(envelope) => return Ok(connection.refused(&envelope)),
    };
    let text = response.text().await?;
    let status: ArchiveStatus = serde_json::from_str(&text)?;
    if json {
        outln!("{text}");
    } else {
        print(&status);
    }
    Ok(match status.verdict {
        ArchiveVerdict::Ok if status.missing.is_empty() => Exit::Complete,
        ArchiveVerdict::Rollback | ArchiveVerdict::Fork => Exit::Violation,
        _ => Exit::Incomplete,
    })
}

fn print(status: &ArchiveStatus) {
    outln!("archive {} at {}", escape(&status.archive), escape(&status.url));
    let running = if status.running { ", a round is running" } else { "" };
    outln!("verdict: {}{running}", status.verdict.as_str());
    if let Some(reason) = &status.reason {
        outln!("reason: {}", escape(reason));
    }
    match &status.sha256 {
        Some(digest) if status.step > 0 => outln!("newest step: {} (SHA-256 {})", status.step, escape(digest)),
        _ => outln!("newest step: none"),
    }
    outln!("{:<24} {:>14} {:>12}  ARCHIVED THROUGH", "NODE", "ARCHIVED ROWS", "PENDING");
    for node in &status.nodes {
        let former = if node.witnessed_rows.is_none() && node.archived_rows > 0 { " (replaced log)" } else { "" };
        let through = node.archived_through.as_deref().unwrap_or("-");
        outln!(
            "{:<24} {:>14} {:>12}  {}{former}",
            escape(&node.node_id),
            node.archived_rows,
            node.pending_rows,
            escape(through)
        );
    }
    name_missing(&status.missing);
}

fn name_missing(missing: &[MissingNode]) {
    for node in missing {
        outln!("MISSING {}: {}", escape(&node.node_id), escape(&node.reason));
    }
}
