//! The cluster under test, and functions with time limits that start, stop and query its daemons.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use piperoll_client::NodeClient;
use piperoll_format::time::Timestamp;
use piperoll_tests::{Cluster, Interference, Run, piperoll};
use serde_json::Value;

use super::checks::{self, Outcome};
use super::faults::{AGED, NODES, Target};
use super::model::Model;
use super::probe::Asker;
use super::report::Counters;
use super::writers::Writers;

/// Time limits far above what a healthy run needs on a busy machine.
const COMMAND_LIMIT: Duration = Duration::from_secs(240);
const START_LIMIT: Duration = Duration::from_secs(120);
const STOP_LIMIT: Duration = Duration::from_secs(60);
pub(crate) const SETTLE_LIMIT: Duration = Duration::from_secs(180);

pub(crate) struct World {
    pub(crate) cluster: Cluster,
    pub(crate) model: Model,
    pub(crate) tally: Counters,
    pub(crate) asker: Asker,
    pub(crate) writers: Vec<Option<Writers>>,
    /// Number of each node's current log; see `Known::generation`.
    pub(crate) generations: [usize; NODES],
    /// Upper bound for the times of rows in replaced logs.
    pub(crate) lost_until: Timestamp,
    /// Rows at the beginning of the aged node's first log that are old enough to prune.
    pub(crate) old_rows: u64,
    pub(crate) is_pruned: bool,
    pub(crate) number_of_prunes: usize,
    /// Nodes whose log was replaced in this round, for which `rollback` is the right verdict.
    pub(crate) replaced: HashSet<String>,
    /// Whether the preloaded library can step a running node's clock; otherwise the node is restarted with another clock.
    pub(crate) has_shim: bool,
    pub(crate) has_strace: bool,
    pub(crate) interferences: Vec<Interference>,
    /// Bytes of each daemon's log that have already been searched for panics.
    pub(crate) log_read: HashMap<String, usize>,
    /// Counter for the names of new files.
    pub(crate) number: usize,
}

impl World {
    pub(crate) fn id(&self, node: usize) -> String {
        self.cluster.nodes[node].id.clone()
    }

    pub(crate) fn name(&self, target: Target) -> String {
        match target {
            Target::Node(node) => self.id(node),
            Target::Aggregator => "agg".to_owned(),
        }
    }

    pub(crate) fn socket(&self, node: usize) -> PathBuf {
        self.cluster.nodes[node].folder.join("node.sock")
    }

    /// Returns how many rows at the beginning of a node's current log may have been pruned.
    pub(crate) fn prunable(&self, node: usize) -> u64 {
        if node == AGED && self.generations[node] == 0 && self.is_pruned { self.old_rows } else { 0 }
    }

    /// Returns an unused path in the campaign's folder.
    pub(crate) fn fresh(&mut self, name: &str) -> String {
        self.number += 1;
        self.cluster.dir.path().join(format!("{}-{name}", self.number)).display().to_string()
    }

    // Writers.

    pub(crate) fn start_writers(&mut self, node: usize) -> Outcome {
        let writers = Writers::start(&self.id(node), &self.socket(node), self.generations[node], &self.model)?;
        self.writers[node] = Some(writers);
        Ok(())
    }

    pub(crate) async fn finish_writers(&mut self, node: usize) -> Outcome {
        match self.writers[node].take() {
            Some(writers) => writers.finish().await,
            None => Ok(()),
        }
    }

    // Commands.

    pub(crate) async fn run(command: Command) -> Result<Run, String> {
        let words = format!("{command:?}");
        let mut command = tokio::process::Command::from(command);
        let output = command.kill_on_drop(true).stdin(std::process::Stdio::null()).output();
        let output = tokio::time::timeout(COMMAND_LIMIT, output).await;
        let output = output.map_err(|_| format!("{words} did not end within {COMMAND_LIMIT:?}"))?;
        let run = Run::from(output.map_err(|e| format!("{words}: {e}"))?);
        if run.code < 0 || run.stderr.contains("panicked at") {
            return Err(format!("{words} crashed with {}: {}", run.code, run.stderr));
        }
        Ok(run)
    }

    /// Runs `piperoll <args>` as a user of the aggregator.
    pub(crate) async fn cli(&self, args: &[&str]) -> Result<Run, String> {
        Self::run(self.cluster.command(args)).await
    }

    /// Runs `piperoll node <args>` with the configuration of a node.
    pub(crate) async fn on_node(&self, node: usize, args: &[&str]) -> Result<Run, String> {
        let config = self.cluster.nodes[node].folder.join("node.toml");
        let mut command = Command::new(piperoll());
        command.arg("node").args(args).arg("--config").arg(config);
        Self::run(command).await
    }

    /// Runs `piperoll cluster <verb> <folder> <args>`, which must succeed.
    pub(crate) async fn on_cluster(&self, verb: &str, args: &[&str]) -> Outcome {
        let folder = self.cluster.authority_dir().display().to_string();
        let run = self.cli(&[&["cluster", verb, &folder], args].concat()).await?;
        succeeded(&format!("cluster {verb} {args:?}"), &run)
    }

    /// Writes the current trust file and returns its path.
    pub(crate) fn trust(&self) -> Result<String, String> {
        let path = self.cluster.dir.path().join("trust.toml");
        let trust = self.cluster.authority().trust().map_err(|e| e.to_string())?;
        std::fs::write(&path, trust.to_text()).map_err(|e| e.to_string())?;
        Ok(path.display().to_string())
    }

    // Processes.

    fn pid(&self, target: Target) -> Pid {
        let pid = match target {
            Target::Node(node) => self.cluster.pid(node),
            Target::Aggregator => self.cluster.aggregator_pid(),
        };
        Pid::from_raw(pid.cast_signed())
    }

    /// Returns the exit code of a daemon that has ended, or -1 if a signal ended it; `None` while the daemon runs.
    pub(crate) fn exit_code(&mut self, target: Target) -> Option<i32> {
        let process = match target {
            Target::Node(node) => self.cluster.process(node),
            Target::Aggregator => self.cluster.aggregator_process(),
        };
        let status = process?.try_wait().ok()??;
        Some(status.code().unwrap_or(-1))
    }

    pub(crate) fn signal(&mut self, target: Target, signal: Signal) -> Outcome {
        if let Some(code) = self.exit_code(target) {
            let name = self.name(target);
            return Err(format!("{name} ended by itself with {code}: {}", tail(&self.cluster.log_text(&name))));
        }
        kill(self.pid(target), signal).map_err(|e| e.to_string())
    }

    /// Ends a daemon by SIGTERM or SIGKILL. Fails if the daemon had ended by itself.
    pub(crate) async fn end(&mut self, target: Target, signal: Signal) -> Outcome {
        self.signal(target, signal)?;
        let deadline = Instant::now() + STOP_LIMIT;
        loop {
            match self.exit_code(target) {
                Some(code) if signal == Signal::SIGTERM && code != 0 => {
                    let name = self.name(target);
                    return Err(format!("{name} stopped with {code}: {}", tail(&self.cluster.log_text(&name))));
                }
                Some(_) => return Ok(()),
                None if Instant::now() > deadline => {
                    return Err(format!("{} does not stop within {STOP_LIMIT:?}", self.name(target)));
                }
                None => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
    }

    pub(crate) fn spawn(&mut self, target: Target) {
        match target {
            Target::Node(node) => self.cluster.spawn(node),
            Target::Aggregator => self.cluster.spawn_aggregator(),
        }
    }

    /// Waits until a daemon answers or exits. Returns its exit code if it exited. An aggregator that answers that it is not ready
    /// counts as answering.
    pub(crate) async fn answers(&mut self, target: Target) -> Result<Option<i32>, String> {
        let deadline = Instant::now() + START_LIMIT;
        loop {
            if let Some(code) = self.exit_code(target) {
                return Ok(Some(code));
            }
            let is_here = match target {
                Target::Node(node) => {
                    let client = NodeClient::new(&self.socket(node)).map_err(|e| e.to_string())?;
                    client.status().await.is_ok()
                }
                Target::Aggregator => {
                    let request = self.asker.http.get(format!("{}/readyz", self.cluster.url));
                    request.timeout(Duration::from_secs(5)).send().await.is_ok()
                }
            };
            if is_here {
                return Ok(None);
            }
            if Instant::now() > deadline {
                return Err(format!("{} neither answers nor ends within {START_LIMIT:?}", self.name(target)));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Starts a daemon, which must succeed.
    pub(crate) async fn start(&mut self, target: Target) -> Outcome {
        self.spawn(target);
        match self.answers(target).await? {
            None => Ok(()),
            Some(code) => {
                let name = self.name(target);
                Err(format!("{name} does not start ({code}): {}", tail(&self.cluster.log_text(&name))))
            }
        }
    }

    pub(crate) async fn restart(&mut self, target: Target) -> Outcome {
        self.end(target, Signal::SIGTERM).await?;
        self.start(target).await
    }

    /// Returns the nodes as the aggregator reports them.
    pub(crate) async fn nodes(&self) -> Result<Vec<Value>, String> {
        let answer = self.asker.json("/api/v1/nodes").await?;
        Ok(answer["nodes"].as_array().cloned().unwrap_or_default())
    }

    /// Waits until every node accepts entries, has the verdict `ok`, and has no unwitnessed rows.
    pub(crate) async fn wait_until_settled(&self) -> Outcome {
        let is_settled = |line: &Value| {
            line["verdict"] == "ok"
                && line["status"] == "ok"
                && line["unwitnessed"] == 0
                && line["write_fault"].is_null()
        };
        let deadline = Instant::now() + SETTLE_LIMIT;
        loop {
            let found = self.nodes().await;
            let lines = found.iter().flatten();
            let alarms = lines.filter_map(|line| Some((line["node_id"].as_str()?, line["verdict"].as_str()?)));
            let alarms = alarms.filter(|(_, verdict)| ["fork", "rollback", "row_invalid"].contains(verdict));
            let outcome = checks::no_false_alarm(alarms, |node| self.replaced.contains(node));
            self.tally.check("no false alarm", outcome.map_err(|alarm| format!("{alarm}: {found:?}")))?;
            let wrong: Vec<String> = match &found {
                Ok(nodes) => nodes.iter().filter(|line| !is_settled(line)).map(Value::to_string).collect(),
                Err(error) => vec![error.clone()],
            };
            if wrong.is_empty() && found.is_ok_and(|nodes| nodes.len() == NODES + 1) {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(format!("the cluster does not recover within {SETTLE_LIMIT:?}: {}", wrong.join(", ")));
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

pub(crate) fn succeeded(what: &str, run: &Run) -> Outcome {
    if run.code == 0 { Ok(()) } else { Err(format!("{what} ended with {}: {}{}", run.code, run.stdout, run.stderr)) }
}

/// Returns the last lines of a daemon's log.
pub(crate) fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(8)..].join("\n")
}
