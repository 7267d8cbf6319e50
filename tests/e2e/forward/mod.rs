//! Forwarding: every row arrives at least once and in order, whatever is stopped or killed, and appends never wait for a destination.

mod forms;
mod misbehaving;
mod pausing;
mod receiver;
mod syslog;
mod webhook;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use piperoll_tests::Cluster;
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(120);

/// Adds tables to the configuration of a node.
pub(crate) fn configure(cluster: &Cluster, index: usize, tables: &str) {
    let config = cluster.nodes[index].folder.join("node.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, format!("{text}\n{tables}")).unwrap();
}

fn statuses(cluster: &Cluster, index: usize) -> Vec<Value> {
    let run = cluster.on_node(index, &["forward", "list", "--json"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    serde_json::from_str(&run.stdout).unwrap()
}

fn status(cluster: &Cluster, index: usize, name: &str) -> Value {
    statuses(cluster, index).into_iter().find(|status| status["name"] == name).unwrap()
}

/// Waits until the status of a destination satisfies `is_so`, and returns the status.
fn wait_for(cluster: &Cluster, index: usize, name: &str, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
    let begun = Instant::now();
    loop {
        let status = status(cluster, index, name);
        if is_so(&status) {
            return status;
        }
        assert!(begun.elapsed() < PATIENCE, "{name}: not {what}: {status}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

pub(crate) fn wait_until_all_arrived(cluster: &Cluster, index: usize, name: &str) -> Value {
    wait_for(cluster, index, name, "all there", |status| status["lag_rows"] == 0)
}

/// Asserts that each row arrived, and that no row arrived for the first time before an earlier row had arrived.
fn assert_whole_and_in_order(seqs: &[u64], rows: u64) {
    let mut seen = BTreeSet::new();
    for seq in seqs {
        if seen.insert(*seq) {
            assert_eq!(Some(seq), seen.last(), "row {seq} arrived late");
        }
    }
    let missing: Vec<u64> = (0..rows).filter(|seq| !seen.contains(seq)).collect();
    assert!(
        missing.is_empty(),
        "{} of {rows} rows did not arrive: {:?}",
        missing.len(),
        &missing[..missing.len().min(20)]
    );
}
