//! Results of commands and HTTP requests, and functions that edit a log without the node.

use std::path::Path;
use std::process::Output;
use std::time::Duration;

use piperoll_node::store::Store;
use piperoll_protocol::node::{Finding, VerifyLine};
use serde_json::Value;

/// Exit code and output of a command.
#[derive(Debug)]
pub struct Run {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl From<Output> for Run {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// An HTTP response.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub complete_header: Option<String>,
    pub text: String,
    pub took: Duration,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|e| panic!("{e}: {}", self.text))
    }

    /// Returns the report of one node.
    pub fn node(&self, id: &str) -> Value {
        let nodes = self.json()["nodes"].clone();
        nodes
            .as_array()
            .unwrap()
            .iter()
            .find(|n| n["node_id"] == id)
            .unwrap_or_else(|| panic!("no {id}: {nodes}"))
            .clone()
    }

    pub fn status_of(&self, id: &str) -> String {
        self.node(id)["status"].as_str().unwrap().to_owned()
    }

    /// Returns `node/seq` of each row, in order.
    pub fn places(&self) -> Vec<String> {
        self.json()["entries"].as_array().unwrap().iter().map(place).collect()
    }
}

/// Returns `node/seq` of a row.
pub fn place(row: &Value) -> String {
    match row.get("found_at") {
        Some(found) => format!("{}/{}", found["node_id"].as_str().unwrap(), found["seq"]),
        None => format!("{}/{}", row["entry"]["node_id"].as_str().unwrap(), row["entry"]["seq"]),
    }
}

/// Runs SQL in one transaction that drops the append-only triggers and creates them again, so that afterwards only the rows
/// differ.
pub fn edit(database: &Path, sql: &str) {
    let conn = rusqlite::Connection::open(database).unwrap();
    conn.busy_timeout(Duration::from_secs(5)).unwrap();
    let triggers: Vec<(String, String)> = conn
        .prepare("SELECT name, sql FROM sqlite_schema WHERE type = 'trigger'")
        .unwrap()
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))
        .unwrap()
        .map(Result::unwrap)
        .collect();
    let mut script = "BEGIN IMMEDIATE;".to_owned();
    for (name, _) in &triggers {
        script += &format!("DROP TRIGGER {name};");
    }
    script += sql;
    for (_, sql) in &triggers {
        script += &format!(";{sql}");
    }
    conn.execute_batch(&(script + ";COMMIT;")).unwrap_or_else(|e| panic!("{sql}: {e}"));
}

/// Returns the findings of a full check of a store.
pub async fn findings(store: &Store) -> Vec<Finding> {
    let mut check = store.check();
    let mut found = Vec::new();
    while !check.done() {
        let (next, lines) = store.check_step(check).await.unwrap();
        check = next;
        found.extend(lines.into_iter().filter_map(|line| match line {
            VerifyLine::Finding(finding) => Some(finding),
            _ => None,
        }));
    }
    found
}

/// Copies a stopped node's log over the one in `to`.
pub fn copy_log(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for name in ["log.db", "log.db-wal", "log.json", "log.checkpoint"] {
        let _ = std::fs::remove_file(to.join(name));
        if from.join(name).exists() {
            std::fs::copy(from.join(name), to.join(name)).unwrap();
        }
    }
    let _ = std::fs::remove_file(to.join("log.db-shm"));
}
