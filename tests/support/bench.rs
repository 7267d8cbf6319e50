//! Helpers shared by the benchmarks.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use piperoll_detect::Rules;
use piperoll_format::mac::{EpochSecret, KeyRing};
use piperoll_format::note::SigningSeed;
use piperoll_net::clock::SystemClock;
use piperoll_node::store::{LogDir, LogKeys, NewEntry, Store, parse_new_entry};
use piperoll_redact::Redactor;

/// Returns an entry as a mail gateway would record it; its row has about 620 bytes.
pub fn caller_entry(n: usize) -> String {
    format!(
        "{{\"category\":\"data\",\"action\":\"quarantine.release\",\"outcome\":\"success\",\"user\":\"user-{}\",\"user_type\":\"admin\",\"entity_type\":\"mail\",\"entity_id\":\"{n:016x}\",\"target\":\"office@example.org\",\"domain\":\"example.org\",\"ip_address\":\"198.51.100.{}\",\"description\":\"released message {n:08x} to its recipient\"}}",
        n % 97,
        n % 250
    )
}

/// Parses an entry as the node's socket does, ready to be appended.
pub fn new_entry(text: &str, via: &Arc<str>) -> NewEntry {
    parse_new_entry(text.as_bytes(), via, Redactor::shared()).unwrap()
}

/// Returns the median.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Creates a new log in `dir`.
pub fn new_store(dir: &Path) -> Store {
    let ring = KeyRing::new("bench".parse().unwrap(), "mx1".parse().unwrap(), [(0, EpochSecret::from_bytes([1; 32]))]);
    let keys = LogKeys {
        ring,
        checkpoint: SigningSeed::from_bytes([2; 32]),
        next_checkpoint: None,
        witnesses: Vec::new(),
        archive: None,
    };
    Store::open(LogDir::new(dir), keys, Arc::new(SystemClock), Rules::default()).unwrap()
}

/// Measures durable rows per second with `writers` concurrent callers that await their receipts. Includes parsing, ids and MACs.
pub async fn append_in_flight(store: &Store, writers: usize, time: Duration) -> f64 {
    let started = Instant::now();
    let tasks: Vec<_> = (0..writers)
        .map(|writer| {
            let store = store.clone();
            tokio::spawn(async move {
                let via: Arc<str> = Arc::from("socket uid=0");
                let mut rows = 0;
                while started.elapsed() < time {
                    let new_entry = new_entry(&caller_entry(writer * 1_000_003 + rows), &via);
                    assert!(store.append(vec![new_entry]).await[0].is_ok());
                    rows += 1;
                }
                rows
            })
        })
        .collect();
    let mut rows = 0;
    for task in tasks {
        rows += task.await.unwrap();
    }
    rows as f64 / started.elapsed().as_secs_f64()
}
