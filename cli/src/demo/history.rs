//! Demo steps about attacks that row signatures cannot detect (a truncated log, a restored copy), and about evidence for an auditor.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use piperoll_protocol::aggregator::NodesAnswer;

use super::cluster::DemoCluster;
use super::step::{expect, step};
use super::tamper;
use crate::exit::Exit;

/// Time limit for a verdict; the demo's witness polls twice a second.
const VERDICT_TIMEOUT: Duration = Duration::from_secs(45);
/// Index of the node whose history is rewritten.
const VICTIM: usize = 1;

/// Entries that the attacker wants to hide.
const LATE_ENTRIES: [&str; 5] = [
    r#"{"category":"auth","action":"auth.login","user":"m.keller","outcome":"success","ip_address":"203.0.113.77"}"#,
    r#"{"category":"data","action":"mailbox.export","user":"m.keller","outcome":"success","description":"the whole mailbox of finance"}"#,
    r#"{"category":"data","action":"mailbox.delete","user":"m.keller","outcome":"success"}"#,
    r#"{"category":"config","action":"forwarding.delete","user":"m.keller","outcome":"success"}"#,
    r#"{"category":"auth","action":"auth.logout","user":"m.keller","outcome":"success"}"#,
];

pub(super) async fn show_rewritten_history(cluster: &mut DemoCluster) -> anyhow::Result<()> {
    let id = cluster.nodes()[VICTIM].id.clone();
    let (kept, older) = (cluster.path("mx2.kept"), cluster.path("mx2.older"));
    cluster.stop_node(VICTIM).await;
    copy_log(&cluster.nodes()[VICTIM].data(), &older)?;
    cluster.restart(VICTIM).await?;
    let lines: Vec<String> = LATE_ENTRIES.iter().map(|line| (*line).to_owned()).collect();
    cluster.nodes()[VICTIM].append(&lines).await?;
    let verdict = wait_for(cluster, &id, "ok").await?;
    cluster.stop_node(VICTIM).await;
    copy_log(&cluster.nodes()[VICTIM].data(), &kept)?;

    step(7, &format!("Tampering: an attacker stops {id}, cuts off the end of its log, and removes every trace of it"));
    let rows = tamper::cut_tail(&cluster.nodes()[VICTIM].database(), LATE_ENTRIES.len() as u64 + 1)?;
    let _ = std::fs::remove_file(cluster.nodes()[VICTIM].data().join("log.checkpoint"));
    outln!("   {rows} rows are left; on the node itself every check passes again:");
    cluster.restart(VICTIM).await?;
    let config = cluster.nodes()[VICTIM].config().display().to_string();
    expect(cluster.run(&["node", "verify", "--config", &config], true).await?.0, Exit::Complete)?;
    outln!("\n   but the aggregator has cosigned more rows than that:");
    wait_for(cluster, &id, "rollback").await?;
    expect(cluster.run(&["nodes", "--table"], true).await?.0, Exit::Violation)?;
    put_back_and_accept(cluster, &id, &kept, &verdict, "the truncated log was replaced with the original").await?;
    cluster.stop_node(VICTIM).await;
    copy_log(&cluster.nodes()[VICTIM].data(), &kept)?;

    step(8, &format!("Tampering: an attacker replaces the entire log of {id} with an older copy"));
    copy_log(&older, &cluster.nodes()[VICTIM].data())?;
    cluster.restart(VICTIM).await?;
    wait_for(cluster, &id, "rollback").await?;
    expect(cluster.run(&["query", "node:mx2", "--limit", "1", "--table"], true).await?.0, Exit::Violation)?;
    put_back_and_accept(cluster, &id, &kept, &verdict, "the older copy was replaced with the original").await
}

/// Restores the original log and accepts it, because only an operator can clear the verdict.
async fn put_back_and_accept(
    cluster: &mut DemoCluster,
    id: &str,
    kept: &Path,
    generation: &str,
    reason: &str,
) -> anyhow::Result<()> {
    cluster.stop_node(VICTIM).await;
    copy_log(kept, &cluster.nodes()[VICTIM].data())?;
    cluster.restart(VICTIM).await?;
    let accept = ["nodes", "accept", id, "--new-generation", generation, "--reason", reason];
    // The aggregator accepts only the log that the node presented at the last poll. Until the next poll this is the log that was
    // just replaced, so the aggregator refuses.
    let deadline = Instant::now() + VERDICT_TIMEOUT;
    while cluster.run(&accept, false).await?.0.code() != Some(Exit::Complete as i32) {
        ensure!(Instant::now() < deadline, "the restored log was not accepted in time");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    wait_for(cluster, id, "ok").await?;
    outln!(
        "   (the original log is back, and an operator cleared the alarm with a reason, which is recorded as an entry)"
    );
    Ok(())
}

/// Waits for a verdict about a node; returns the generation of the node's log.
pub(super) async fn wait_for(cluster: &DemoCluster, id: &str, verdict: &str) -> anyhow::Result<String> {
    let deadline = Instant::now() + VERDICT_TIMEOUT;
    loop {
        let (_, text) = cluster.run(&["nodes", "--json"], false).await?;
        let answer: NodesAnswer = serde_json::from_str(&text).context("cannot parse the list of nodes")?;
        let node = answer.nodes.iter().find(|node| node.report.node_id == id).context("the node is not listed")?;
        let settled = verdict != "ok" || node.report.unwitnessed == Some(0);
        if node.report.verdict.as_str() == verdict && settled {
            return Ok(node.report.generation.clone().unwrap_or_default());
        }
        ensure!(Instant::now() < deadline, "the verdict on {id} is {}, not {verdict}", node.report.verdict);
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Copies the log of a stopped node.
fn copy_log(from: &Path, to: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(to)?;
    for name in ["log.db", "log.db-wal", "log.db-shm", "log.json", "log.checkpoint"] {
        let target = to.join(name);
        if target.exists() {
            std::fs::remove_file(&target)?;
        }
        if from.join(name).exists() && name != "log.db-shm" {
            std::fs::copy(from.join(name), &target)?;
        }
    }
    Ok(())
}

pub(super) async fn show_evidence(cluster: &DemoCluster) -> anyhow::Result<()> {
    step(9, "An auditor exports evidence, and verifies it offline with public keys only");
    let trust = cluster.path("trust.toml");
    let (status, text) =
        cluster.run(&["cluster", "trust", &cluster.path("cluster").display().to_string()], false).await?;
    expect(status, Exit::Complete)?;
    std::fs::write(&trust, text)?;
    let bundle = cluster.path("evidence.tar");
    let (bundle_name, trust_name) = (bundle.display().to_string(), trust.display().to_string());
    let export = ["export", "--bundle", &bundle_name, "--reason", "this morning's intrusion"];
    expect(cluster.run(&export, true).await?.0, Exit::Complete)?;
    outln!();
    expect(cluster.run(&["verify-bundle", &bundle_name, "--trust", &trust_name], true).await?.0, Exit::Complete)?;
    outln!("\n   The same bundle after one letter of one entry is changed:");
    let changed = changed_copy(&bundle)?;
    let check = ["verify-bundle", &changed.display().to_string(), "--trust", &trust_name];
    expect(cluster.run(&check, true).await?.0, Exit::Violation)
}

fn changed_copy(bundle: &Path) -> anyhow::Result<PathBuf> {
    let mut bytes = std::fs::read(bundle)?;
    let word = b"\"outcome\":\"";
    let at = bytes.windows(word.len()).position(|window| window == word).context("no entry to change")?;
    bytes[at + word.len()] ^= 1;
    let changed = bundle.with_extension("changed.tar");
    std::fs::write(&changed, bytes)?;
    Ok(changed)
}
