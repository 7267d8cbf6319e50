//! Tests `kill -9` under load: every acknowledged entry is recorded exactly once, and every signature is valid.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use piperoll_client::NodeClient;
use piperoll_tests::Cluster;
use serde_json::{Value, json};

const KILLS: usize = 50;
const WRITERS: usize = 4;

#[tokio::test(flavor = "multi_thread")]
async fn acknowledged_entries_survive_fifty_kills() {
    let mut cluster = Cluster::made(&["mx1"], |_| None).await;
    cluster.spawn(0);
    cluster.wait_for_node(&cluster.nodes[0]).await;
    let socket = cluster.nodes[0].folder.join("node.sock");
    let acknowledged = Arc::new(Mutex::new(Vec::new()));
    let stop = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let (socket, acknowledged, stop) = (socket.clone(), Arc::clone(&acknowledged), Arc::clone(&stop));
            tokio::spawn(async move {
                let client = NodeClient::new(&socket).unwrap();
                let mut number = 0;
                while !stop.load(Ordering::Relaxed) {
                    number += 1;
                    let id = uuid::Uuid::now_v7().to_string();
                    let entry = json!({ "id": id, "category": "data", "action": "load.write", "user": format!("w{writer}"), "details": { "n": number } });
                    // Retry with the same id until the node acknowledges the entry, as an application does.
                    loop {
                        match client.append(&entry).await {
                            Ok(receipt) => {
                                acknowledged.lock().unwrap().push((id, receipt));
                                break;
                            }
                            Err(_) if stop.load(Ordering::Relaxed) => return,
                            Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
                        }
                    }
                }
            })
        })
        .collect();
    for kill in 0..KILLS {
        tokio::time::sleep(Duration::from_millis(20 + (kill as u64 * 7) % 60)).await;
        cluster.kill(0);
        cluster.restart(0).await;
    }
    stop.store(true, Ordering::Relaxed);
    for writer in writers {
        writer.await.unwrap();
    }
    cluster.stop(0);

    let run = cluster.on_node(0, &["export", "--from", "0001-01-01"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    let rows: Vec<Value> = run.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let mut by_id = std::collections::HashMap::new();
    for row in rows.iter().filter(|row| row.get("entry").is_some()) {
        let twice = by_id.insert(row["entry"]["id"].as_str().unwrap().to_owned(), row.clone());
        assert!(twice.is_none(), "an id stands twice: {row}");
    }
    let acknowledged = acknowledged.lock().unwrap();
    assert!(acknowledged.len() > KILLS, "only {} entries in {KILLS} lives", acknowledged.len());
    for (id, receipt) in acknowledged.iter() {
        let row = by_id.get(id).unwrap_or_else(|| panic!("acknowledged and gone: {receipt:?}"));
        assert_eq!(row["entry"]["seq"], receipt.seq);
        assert_eq!(row["signature"], receipt.signature);
    }
    let starts: HashSet<u64> = rows
        .iter()
        .filter(|row| row["entry"]["action"] == "log.started")
        .map(|row| row["entry"]["seq"].as_u64().unwrap())
        .collect();
    assert_eq!(starts.len(), KILLS + 1);
    let gaps = rows.iter().filter(|row| row["entry"]["action"] == "log.gap").count();
    assert_eq!(gaps, KILLS, "every unclean stop is in the log");
    assert_eq!(rows[rows.len() - 2]["entry"]["action"], "log.stopped");
    cluster.verify_all();
}
