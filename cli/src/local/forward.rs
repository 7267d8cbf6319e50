//! `piperoll node forward`: lists, pauses and resumes the destinations of the running node.

use std::time::Duration;

use anyhow::bail;
use comfy_table::{ContentArrangement, Table};
use piperoll_client::NodeClient;
use piperoll_format::terminal::escape;
use piperoll_format::time::span;
use piperoll_protocol::node::{ForwardPauseRequest, ForwardResumeRequest, ForwardStatus, socket_path};

use super::place::LogAccess;
use crate::args::{ForwardCommand, PlaceArgs};
use crate::exit::Exit;
use crate::show::{counted, group_digits, width};

pub(super) async fn run(command: ForwardCommand) -> anyhow::Result<Exit> {
    match command {
        ForwardCommand::List { place, json } => {
            let statuses: Vec<ForwardStatus> = daemon(&place).await?.admin_get(socket_path::FORWARD).await?;
            if json {
                outln!("{}", serde_json::to_string(&statuses)?);
            } else if statuses.is_empty() {
                outln!("this node forwards nothing; see docs/forwarding.md");
            } else {
                outln!("{}", table(&statuses));
            }
        }
        ForwardCommand::Pause { name, reason, place } => {
            let request = ForwardPauseRequest { name, reason };
            let status: ForwardStatus = daemon(&place).await?.admin_post(socket_path::FORWARD_PAUSE, &request).await?;
            outln!("{} is paused at row {}; this was recorded", status.name, group_digits(status.next_seq));
        }
        ForwardCommand::Resume { name, place } => {
            let request = ForwardResumeRequest { name };
            let status: ForwardStatus = daemon(&place).await?.admin_post(socket_path::FORWARD_RESUME, &request).await?;
            outln!("{} resumes at row {}; this was recorded", status.name, group_digits(status.next_seq));
        }
    }
    Ok(Exit::Complete)
}

async fn daemon(place: &PlaceArgs) -> anyhow::Result<NodeClient> {
    match LogAccess::find(place).await? {
        LogAccess::Socket(client) => Ok(client),
        LogAccess::Directory(_) => bail!("the node is not running, so nothing is forwarded; start it first"),
    }
}

fn table(statuses: &[ForwardStatus]) -> String {
    let mut table = Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.set_content_arrangement(ContentArrangement::Dynamic);
    table.set_width(width());
    table.set_header(["NAME", "TO", "FORMAT", "NEXT ROW", "BEHIND", "ERRORS", "STATE"]);
    for status in statuses {
        table.add_row([
            escape(&status.name).into_owned(),
            escape(&status.to).into_owned(),
            status.format.clone(),
            group_digits(status.next_seq),
            behind(status),
            group_digits(status.errors),
            state(status),
        ]);
    }
    table.to_string().lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
}

/// Formats the lag of a destination in rows and time.
pub(crate) fn behind(status: &ForwardStatus) -> String {
    match status.lag_rows {
        0 => "-".to_owned(),
        rows if status.lag_seconds >= 1.0 => {
            // Round a lag of an hour or more to minutes.
            let seconds = if status.lag_seconds < 3_600.0 {
                status.lag_seconds
            } else {
                (status.lag_seconds / 60.0).round() * 60.0
            };
            format!("{}, {}", counted(rows, "row", "rows"), span(Duration::from_secs(seconds as u64)))
        }
        rows => counted(rows, "row", "rows"),
    }
}

pub(crate) fn state(status: &ForwardStatus) -> String {
    match (&status.paused, &status.problem) {
        (Some(paused), _) => format!("paused since {}", escape(paused)),
        (None, Some(problem)) => {
            format!("failing since {}: {}", status.problem_since.as_deref().unwrap_or("?"), escape(problem))
        }
        (None, None) => "ok".to_owned(),
    }
}
