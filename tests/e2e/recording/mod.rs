//! Tests an application and its node when either of them is stopped, hangs or dies: `strict` fails, entries with `spool` arrive
//! exactly once, and losses with `best_effort` are counted exactly.

mod app;
mod disks;
mod examples;
mod layer;
mod policies;
mod secrets;

use std::collections::HashMap;

use piperoll_tests::Cluster;
use serde_json::Value;

/// Starts one node without an aggregator.
async fn one_node() -> Cluster {
    let mut cluster = Cluster::made(&["mx1"], |_| None).await;
    cluster.spawn(0);
    cluster.wait_for_node(&cluster.nodes[0]).await;
    cluster
}

fn socket(cluster: &Cluster) -> std::path::PathBuf {
    cluster.nodes[0].folder.join("node.sock")
}

/// Returns the entries of the log that match the filter, oldest first.
fn entries(cluster: &Cluster, filter: &str) -> Vec<Value> {
    let run = cluster.on_node(0, &["export", filter, "--from", "0001-01-01"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    let rows = run.stdout.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    rows.filter(|row| row.get("entry").is_some()).map(|row| row["entry"].clone()).collect()
}

/// Counts how often each id is in the log.
fn by_id(entries: &[Value]) -> HashMap<String, usize> {
    let mut counts = HashMap::new();
    for entry in entries {
        *counts.entry(entry["id"].as_str().unwrap().to_owned()).or_default() += 1;
    }
    counts
}
