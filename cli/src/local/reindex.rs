//! `piperoll node reindex`: rebuilds the search index.

use std::time::Duration;

use anyhow::ensure;
use piperoll_node::store::{LogDir, make_index};
use piperoll_protocol::node::{IndexExtent, socket_path};
use serde_json::json;

use super::place::LogAccess;
use super::progress_bar;
use crate::args::PlaceArgs;
use crate::exit::Exit;
use crate::show::counted;

/// Interval at which the daemon is polled for its progress.
const PROGRESS_PAUSE: Duration = Duration::from_millis(200);

pub(super) async fn run(args: &PlaceArgs) -> anyhow::Result<Exit> {
    let bar = progress_bar();
    let made = match LogAccess::find(args).await? {
        LogAccess::Socket(client) => {
            let mut made: IndexExtent = client.admin_post(socket_path::REINDEX, &json!({})).await?;
            // Do not wait for rows that are recorded in the meantime.
            let wanted = made.of;
            bar.set_length(wanted);
            while made.rows < wanted {
                tokio::time::sleep(PROGRESS_PAUSE).await;
                let Some(index) = client.status().await?.index else { break };
                made = index;
                bar.set_position(made.rows.min(wanted));
            }
            made
        }
        LogAccess::Directory(config) => {
            let of = super::place::open(&config)?.extent()?;
            bar.set_length(of.head_seq.map_or(0, |head| head + 1 - of.oldest_seq.unwrap_or(0)));
            let progress = bar.clone();
            let work =
                move || make_index(&LogDir::new(&config.data_dir), &config.keys, |rows| progress.set_position(rows));
            let made = tokio::task::spawn_blocking(work).await??;
            ensure!(
                made.complete,
                "an index block could not be written (see the messages above); searches read the rows of that block directly"
            );
            made.extent
        }
    };
    bar.finish_and_clear();
    outln!(
        "{} indexed; {} stored, {} in total",
        counted(made.rows, "row is", "rows are"),
        counted(made.blocks, "full block", "full blocks"),
        counted(made.bytes, "byte", "bytes")
    );
    Ok(Exit::Complete)
}
