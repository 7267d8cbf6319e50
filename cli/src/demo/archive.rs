//! Demo step about the archive: a machine is gone, and its history can still be read and proven.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use piperoll_net::clock::{Clock as _, SystemClock};
use piperoll_protocol::aggregator::{NodesAnswer, Status};

use super::cluster::DemoCluster;
use super::history;
use super::step::{expect, step};
use crate::exit::Exit;

/// Index of the node whose machine is lost.
const LOST: usize = 2;
/// Time limit for the witness's next poll, and for the node's return.
const WAIT_TIMEOUT: Duration = Duration::from_secs(45);
const SECOND_MICROS: i64 = 1_000_000;

pub(super) async fn show_archive(cluster: &mut DemoCluster) -> anyhow::Result<()> {
    let id = cluster.nodes()[LOST].id.clone();
    step(10, &format!("The archive: the machine of {id} is lost, and what it recorded can still be read and proven"));
    history::wait_for(cluster, &id, "ok").await?;
    expect(cluster.run(&["archive", "run", "--now"], true).await?.0, Exit::Complete)?;
    let to = SystemClock.now().to_text();
    // The archive answers up to a second before the node was last witnessed.
    wait_until_witnessed(cluster, &id, &SystemClock.now().plus_micros(SECOND_MICROS).to_text()).await?;
    cluster.kill(LOST).await?;
    let (data, aside) = (cluster.nodes()[LOST].data(), cluster.path("mx3.lost"));
    std::fs::rename(&data, &aside)?;
    outln!("\n   {id} is killed and its data directory is gone:");
    let filter = format!("node:{id}");
    let query = ["query", &filter, "--to", &to, "--limit", "3", "--axis", "occurred", "--table"];
    expect(cluster.run(&query, true).await?.0, Exit::Complete)?;
    outln!("\n   Every row of every node up to then is read and verified:");
    expect(cluster.run(&["verify", "--from", "1d", "--to", &to], true).await?.0, Exit::Complete)?;
    let (_, answer) = cluster.query(&["query", "--all", "--to", &to, "--limit", "1000", "--json"]).await?;
    let node = answer.envelope.nodes.iter().find(|node| node.node_id == id).context("the node is not listed")?;
    let is_archived = node.status == Status::Archived && node.rows > 0;
    ensure!(is_archived, "{id} is {}, with {} rows", node.status.as_str(), node.rows);
    ensure!(answer.envelope.proven, "not proven: {}", answer.envelope.completeness);
    outln!("\n   Anybody can verify the archive with public keys only:");
    let (url, trust) = (cluster.archive_url(), cluster.path("trust.toml").display().to_string());
    expect(cluster.run(&["archive", "verify", "--url", &url, "--trust", &trust], true).await?.0, Exit::Complete)?;
    std::fs::rename(&aside, &data)?;
    cluster.restart(LOST).await?;
    let deadline = Instant::now() + WAIT_TIMEOUT;
    while !cluster.query(&["query", "--limit", "1", "--json"]).await?.0.success() {
        ensure!(Instant::now() < deadline, "{id} did not answer again in time");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    outln!("   (for the rest of the demo, the data directory is put back)");
    Ok(())
}

/// Waits until the node's log was witnessed after a time.
async fn wait_until_witnessed(cluster: &DemoCluster, id: &str, after: &str) -> anyhow::Result<()> {
    let deadline = Instant::now() + WAIT_TIMEOUT;
    loop {
        let (_, text) = cluster.run(&["nodes", "--json"], false).await?;
        let answer: NodesAnswer = serde_json::from_str(&text).context("cannot parse the list of nodes")?;
        let node = answer.nodes.iter().find(|node| node.report.node_id == id).context("the node is not listed")?;
        // Both are RFC 3339 in UTC with microseconds, so they compare as texts.
        if node.report.witnessed_at.as_deref().is_some_and(|witnessed| witnessed > after) {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "{id} was not witnessed in time");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
