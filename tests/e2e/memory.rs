//! Tests that the memory of an export does not grow with its result.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};

use piperoll_tests::{Cluster, piperoll};

const ENTRIES_PER_NODE: usize = 333_334;
const RESIDENT_KIB_MAX: u64 = 100 * 1024;

/// Returns the peak resident memory of a process (`VmHWM`), in KiB.
fn peak_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_million_entries_are_exported_in_bounded_memory() {
    let cluster = Cluster::start(&["mx1", "mx2", "mx3"]).await;
    for index in 0..3 {
        let lines: Vec<String> = (0..ENTRIES_PER_NODE)
            .map(|n| {
                format!(
                    "{{\"category\":\"data\",\"action\":\"mail.view\",\"user\":\"u{}\",\"outcome\":\"success\",\"ip_address\":\"198.51.100.{}\",\"description\":\"looked at message {n:08x}\"}}",
                    n % 97, n % 250
                )
            })
            .collect();
        cluster.append(index, &lines).await;
    }
    cluster.wait_until_complete().await;
    let mut export = Command::new(piperoll())
        .args(["export", "--output", "-"])
        .env("PIPEROLL_URL", &cluster.url)
        .env("PIPEROLL_CA", cluster.ca())
        .env("PIPEROLL_TOKEN", &cluster.token)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let (mut rows, mut last, mut earlier) = (0, String::new(), String::new());
    for line in BufReader::new(export.stdout.take().unwrap()).lines() {
        last = line.unwrap();
        rows += 1;
        // Timestamps are 27 bytes long and sort as text, so each row's timestamp is compared with that of the row before it.
        if let Some(at) = last.find("\"timestamp\":\"") {
            let time = &last[at + 13..at + 40];
            assert!(*earlier <= *time, "out of order at row {rows}");
            earlier.replace_range(.., time);
        }
    }
    assert_eq!(export.wait().unwrap().code(), Some(0));
    assert!(rows > 3 * ENTRIES_PER_NODE, "{rows}");
    let last: serde_json::Value = serde_json::from_str(&last).unwrap();
    assert_eq!(last["final"]["complete"], true);
    assert_eq!(last["final"]["count"], rows - 1);
    let peak = peak_kib(cluster.aggregator_pid());
    eprintln!("{} rows exported, the aggregator's peak is {peak} KiB", rows - 1);
    assert!(peak < RESIDENT_KIB_MAX, "the aggregator needed {peak} KiB");
}
