//! Tests hostile input: deeply nested texts, forged rows, greedy callers, and followed files. The name of each test states what
//! must hold.

mod callers;
mod rows;
mod sources;

use piperoll_tests::{Cluster, until};
use serde_json::Value;

/// Sends a request to a node's socket and returns status and body.
fn on_socket(cluster: &Cluster, index: usize, path: &str, body: Option<&str>) -> (u16, String) {
    let socket = cluster.nodes[index].folder.join("node.sock");
    let mut command = std::process::Command::new("curl");
    command.args(["-sS", "-m", "60", "-w", "\n%{http_code}", "--unix-socket"]).arg(socket);
    command.arg(format!("http://node{path}"));
    if body.is_some() {
        command.args(["-H", "content-type: application/json", "--data-binary", "@-"]);
    }
    let mut child = command.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped()).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    let text = body.unwrap_or_default().to_owned();
    let writer = std::thread::spawn(move || {
        let _ = std::io::Write::write_all(&mut input, text.as_bytes());
    });
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let (body, status) = text.rsplit_once('\n').unwrap();
    (status.parse().unwrap(), body.to_owned())
}

/// Returns the entries of a node, as the node itself reads them.
fn entries(cluster: &Cluster, filter: &str) -> Vec<Value> {
    let run = cluster.on_node(0, &["query", filter, "--limit", "5000", "--order", "asc", "--json"]);
    let rows = run.stdout.lines().filter(|line| line.starts_with("{\"entry\""));
    rows.map(|line| serde_json::from_str::<Value>(line).unwrap()["entry"].clone()).collect()
}

fn configure(cluster: &Cluster, tables: &str) {
    let config = cluster.nodes[0].folder.join("node.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, format!("{text}\n{tables}")).unwrap();
}

/// Returns the peak resident memory of a process (`VmHWM`), in MiB.
fn peak_mib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
}

/// Builds a JSON text with brackets nested `levels` deep.
fn deep(levels: usize) -> String {
    format!("{}\"x\"{}", "[".repeat(levels), "]".repeat(levels))
}
