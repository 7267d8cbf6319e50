//! Measures how fast a node forwards entries: `cargo bench -p piperoll-tests --bench forward`. One node has 200,000 entries, and a
//! receiver in this process discards them. The time is measured from the receiver's first connection until the node reports that all
//! entries arrived. Receiver and node share the machine.

#![allow(clippy::unwrap_used, reason = "a benchmark")]

use std::io::Read as _;
use std::time::{Duration, Instant};

use piperoll_tests::{Cluster, caller_entry, free_address};
use serde_json::Value;

const ENTRIES: usize = 200_000;

fn receive(address: &str) {
    let listener = std::net::TcpListener::bind(address).unwrap();
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            let mut connection = connection.unwrap();
            let mut buffer = vec![0; 1 << 20];
            while connection.read(&mut buffer).is_ok_and(|count| count > 0) {}
        }
    });
}

#[tokio::main]
async fn main() {
    piperoll_net::crypto::install();
    println!("{:<10} {:>10} {:>12}", "format", "seconds", "entries/s");
    for format in ["native", "ocsf", "ecs", "cef"] {
        let mut cluster = Cluster::made(&["mx1"], |_| None).await;
        let address = free_address();
        let config = cluster.nodes[0].folder.join("node.toml");
        let text = std::fs::read_to_string(&config).unwrap();
        let table = format!("[[forward]]\nname = \"x\"\nto = \"tcp://{address}\"\nformat = \"{format}\"\n");
        std::fs::write(&config, format!("{text}\n{table}")).unwrap();
        cluster.run_all().await;
        let lines: Vec<String> = (0..ENTRIES).map(caller_entry).collect();
        cluster.append(0, &lines).await;
        receive(&address);
        let status = || -> Value {
            let run = cluster.on_node(0, &["forward", "list", "--json"]);
            serde_json::from_str::<Value>(&run.stdout).unwrap()[0].clone()
        };
        while status()["rows_sent"] == 0 {
            std::thread::sleep(Duration::from_millis(10));
        }
        let (begun, before) = (Instant::now(), status()["rows_sent"].as_u64().unwrap());
        while status()["next_seq"].as_u64().unwrap() < ENTRIES as u64 {
            std::thread::sleep(Duration::from_millis(100));
        }
        let seconds = begun.elapsed().as_secs_f64();
        println!("{format:<10} {seconds:>10.2} {:>12.0}", (ENTRIES as f64 - before as f64) / seconds);
    }
}
