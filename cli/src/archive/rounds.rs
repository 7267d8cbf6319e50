//! Commands that ask the aggregator that writes the archive.

use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use piperoll_format::entry::Prefix;
use piperoll_format::merkle::leaf_hash;
use piperoll_format::row::RowLine;
use piperoll_format::terminal::escape;
use piperoll_format::verify::Integrity;
use piperoll_protocol::ArchivedRowRef;
use piperoll_protocol::archive::{ArchiveRun, ArchiveRunRequest, ArchiveStatus, ArchiveVerdict, MissingNode};
use reqwest::Method;
use serde::Deserialize;

use crate::address::RowAddress;
use crate::args::ConnectionArgs;
use crate::exit::Exit;
use crate::remote::question::row_path;
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
        ArchiveVerdict::Ok
            if status.missing.is_empty() && status.pending_deletions.is_empty() && status.not_removed.is_empty() =>
        {
            Exit::Complete
        }
        ArchiveVerdict::Rollback | ArchiveVerdict::Fork => Exit::Violation,
        _ => Exit::Incomplete,
    })
}

/// Rows of an answer.
#[derive(Deserialize)]
struct Rows<'a> {
    #[serde(borrow)]
    entries: Vec<RowLine<'a>>,
}

/// Prints what an entry about the erasure of a row states about it.
pub(super) async fn row(connection: &ConnectionArgs, entry: RowAddress) -> anyhow::Result<Exit> {
    let (node, seq, generation) = entry.with_node()?;
    let connection = Connection::open(connection)?;
    let path = row_path(&node, seq, generation.as_deref(), "");
    let response = match connection.send(connection.request(Method::GET, &path).timeout(PAGE_TIMEOUT)).await? {
        Answer::Good(response) => response,
        Answer::Unavailable(envelope) => return Ok(connection.refused(&envelope)),
    };
    let text = response.text().await?;
    let rows: Rows<'_> = serde_json::from_str(&text).context("the answer has another form")?;
    let found = rows.entries.first().with_context(|| format!("there is no row {node}/{seq}"))?;
    if let Some(gone) = &found.erased {
        bail!("row {node}/{seq} was erased already: {}", gone.describe());
    }
    ensure!(found.integrity == Integrity::Ok, "row {node}/{seq} fails verification, so it is kept as evidence");
    let body = found.entry.get().as_bytes();
    let prefix = Prefix::parse(body).context("the row is not an entry")?;
    let mac = hex::decode(&*found.signature).context("the row's signature is not hexadecimal")?;
    let row = ArchivedRowRef {
        node_id: prefix.node_id.parse()?,
        generation: prefix.generation.parse()?,
        seq: prefix.seq,
        era: prefix.era,
        timestamp: prefix.timestamp,
        leaf: leaf_hash(body, &mac),
    };
    outln!("{row}");
    Ok(Exit::Complete)
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
    for file in &status.pending_deletions {
        let until = file.until.as_deref().map(|until| format!(" until {}", escape(until))).unwrap_or_default();
        outln!("NOT DELETED {}: the store keeps it{until}: {}", escape(&file.name), escape(&file.reason));
    }
    for reason in &status.not_removed {
        outln!("NOT REMOVED {}", escape(reason));
    }
}

fn name_missing(missing: &[MissingNode]) {
    for node in missing {
        outln!("MISSING {}: {}", escape(&node.node_id), escape(&node.reason));
    }
}
