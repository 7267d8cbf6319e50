//! A cluster with its model, and the effect of each event on both.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::sys::signal::Signal;
use piperoll_client::NodeClient;
use piperoll_format::time::Timestamp;
use piperoll_net::clock::{Clock, SystemClock};
use piperoll_node::config::NodeConfig;
use piperoll_node::store::{LogDir, begin_generation};
use piperoll_tests::{Cluster, Rng, Run, copy_log, until};
use serde_json::Value;

use crate::event::{Event, NODES_MAX};
use crate::model::{Model, Node, Range, Row, State};
use crate::statements::Bundle;

pub(crate) const ACTION: &str = "lives.row";
/// More rows than a tile of the tree, which is the unit of pruning.
const BATCH: usize = 280;
/// Ages of the rows that a node begins with; rows younger than 90 days cannot be pruned.
const AGES_DAYS: [u64; 3] = [400, 300, 200];
const PRUNABLE_MICROS: i64 = 100 * 86_400 * SECOND;
/// Longest time after a node's last acknowledged entry during which the node may still write entries of its own.
const MARGIN_MICROS: i64 = 5_000_000;
const SECOND: i64 = 1_000_000;

pub(crate) fn now() -> i64 {
    SystemClock.now().micros()
}

/// A copy of a node's log, with the model at the time of the copy.
struct Backup {
    folder: PathBuf,
    log: usize,
    size: u64,
    model: Model,
}

/// An archived log, which was replaced by another one.
struct Earlier {
    node: usize,
    log: usize,
    folder: PathBuf,
    /// Time up to which the log may have had rows, as far as the aggregators know.
    until: i64,
}

pub(crate) struct World {
    pub(crate) cluster: Cluster,
    pub(crate) model: Model,
    pub(crate) bundles: Vec<Bundle>,
    /// Times between events, from which ranges are chosen.
    pub(crate) marks: Vec<i64>,
    pub(crate) number: usize,
    backups: HashMap<usize, Backup>,
    /// Nodes whose checkpoint key was replaced since their backup.
    new_keys_since_backup: HashSet<usize>,
    /// Nodes with revoked certificates: they run, but their certificates are not accepted.
    revoked: HashSet<usize>,
    pub(crate) aggregator_backup: Option<(PathBuf, Model)>,
    /// Time at which a second aggregator joined, and the rows lost before that time, which the second aggregator cannot know.
    pub(crate) second: Option<(i64, HashSet<String>)>,
    earlier: Vec<Earlier>,
    holds: Vec<(usize, usize, Range)>,
    /// Seconds by which a node's clock is ahead.
    ahead: HashMap<usize, i64>,
}

/// Sets how often an aggregator polls nodes and exchanges pins with the other aggregators. Takes effect at the aggregator's next
/// start.
pub(crate) fn configure(cluster: &Cluster) {
    cluster.configure_aggregator("[witness]\npoll_ms = 100\nexchange_seconds = 3\n");
}

/// A stopped clock.
struct Then(Timestamp);

impl Clock for Then {
    fn now(&self) -> Timestamp {
        self.0
    }
}

fn ago(days: u64) -> String {
    format!("-{}s", days * 86_400)
}

pub(crate) fn copy_folder(from: &Path, to: &Path) {
    let _ = std::fs::remove_dir_all(to);
    std::fs::create_dir_all(to).unwrap();
    for file in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(file.file_name());
        if file.file_type().unwrap().is_dir() {
            copy_folder(&file.path(), &target);
        } else if file.file_type().unwrap().is_file() {
            std::fs::copy(file.path(), target).unwrap();
        }
    }
}

impl World {
    pub(crate) async fn begin(nodes: usize) -> Self {
        let ids: Vec<String> = (1..=nodes).map(|number| format!("mx{number}")).collect();
        let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
        let mut cluster = Cluster::made(&ids, |_| Some(ago(AGES_DAYS[0]))).await;
        configure(&cluster);
        cluster.run_all().await;
        let model = Model { nodes: vec![Node::new(0); nodes], rows: Vec::new() };
        let mut world = Self {
            cluster,
            model,
            bundles: Vec::new(),
            marks: Vec::new(),
            number: 0,
            backups: HashMap::new(),
            new_keys_since_backup: HashSet::new(),
            revoked: HashSet::new(),
            aggregator_backup: None,
            second: None,
            earlier: Vec::new(),
            holds: Vec::new(),
            ahead: HashMap::new(),
        };
        for node in 0..nodes {
            // Append each batch with a clock closer to the present.
            for next in AGES_DAYS[1..].iter().map(Some).chain([None]) {
                world.append(node, BATCH).await;
                // One node begins a new generation at this point, so that its archived log has the oldest rows.
                if node == 1 && next == Some(&AGES_DAYS[1]) {
                    world.cluster.set_clock(node, &ago(AGES_DAYS[1]));
                    world.begin_aged_generation(node, AGES_DAYS[1]).await;
                    continue;
                }
                match next {
                    Some(days) => world.cluster.set_clock(node, &ago(*days)),
                    None => world.cluster.clear_clock(node),
                }
                world.restart(node).await;
            }
        }
        world.wait_until_settled().await;
        world.marks.push(now());
        world
    }

    pub(crate) fn id(&self, node: usize) -> String {
        self.cluster.nodes[node].id.clone()
    }

    pub(crate) fn path(&mut self, name: &str) -> String {
        self.number += 1;
        self.cluster.dir.path().join(format!("{}-{name}", self.number)).display().to_string()
    }

    pub(crate) fn cluster_command(&self, verb: &str, args: &[&str]) -> Run {
        let folder = self.cluster.authority_dir().display().to_string();
        self.cluster.run(&[&["cluster", verb, &folder], args].concat())
    }

    pub(crate) fn trust(&mut self) -> String {
        let path = self.path("trust.toml");
        std::fs::write(&path, self.cluster.authority().trust().unwrap().to_text()).unwrap();
        path
    }

    pub(crate) async fn report(&self, node: usize) -> Option<Value> {
        let answer = self.cluster.get("/api/v1/nodes", Some(&self.cluster.token)).await;
        let id = self.id(node);
        answer.json()["nodes"].as_array()?.iter().find(|line| line["node_id"] == id.as_str()).cloned()
    }

    /// Waits until every aggregator reports that every running node has the verdict `ok` and all rows witnessed.
    pub(crate) async fn wait_until_settled(&mut self) {
        for index in 0..self.model.nodes.len() {
            if self.model.nodes[index].is_up && !self.model.nodes[index].is_retired {
                self.witnessed(index).await;
            }
        }
    }

    /// Waits until every aggregator has witnessed all rows of a node.
    pub(crate) async fn witnessed(&mut self, node: usize) {
        for aggregator in 0..self.cluster.aggregators() {
            self.cluster.turn_to(aggregator);
            self.witnessed_here(node).await;
        }
        self.cluster.turn_to(0);
    }

    async fn witnessed_here(&self, node: usize) {
        let is_settled = |line: &Value| line["verdict"] == "ok" && line["status"] == "ok" && line["unwitnessed"] == 0;
        self.reported(node, "ok and witnessed", is_settled).await;
    }

    pub(crate) async fn reported(&self, node: usize, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
        let mut last = Value::Null;
        let wait = until(what, async || {
            last = self.report(node).await.unwrap_or_default();
            is_so(&last).then(|| last.clone())
        });
        match tokio::time::timeout(std::time::Duration::from_secs(50), wait).await {
            Ok(line) => line,
            Err(_) => panic!("{} never became {what}: {last}", self.id(node)),
        }
    }

    pub(crate) async fn restart(&mut self, node: usize) {
        self.cluster.stop(node);
        self.cluster.restart(node).await;
    }

    async fn append(&mut self, node: usize, count: usize) {
        let socket = self.cluster.nodes[node].folder.join("node.sock");
        let client = NodeClient::new(&socket).unwrap();
        self.number += 1;
        let line = |n: usize| {
            let user = format!("u{}-{n}", self.number);
            serde_json::json!({ "category": "auth", "action": ACTION, "user": user, "outcome": "success" }).to_string()
        };
        let lines: Vec<String> = (0..count).map(line).collect();
        let report = client.append_lines((lines.join("\n") + "\n").into_bytes(), false).await.unwrap();
        for result in report.results {
            let receipt = result.receipt.unwrap_or_else(|| panic!("not recorded: {:?}", result.error));
            self.model.acknowledged(node, &receipt);
        }
    }

    /// Returns the end of the time range in which rows may be missing after a node's log was replaced.
    pub(crate) fn in_doubt(&mut self, node: usize) -> i64 {
        let ahead = self.ahead.get(&node).copied().unwrap_or(0).max(0);
        self.model.latest(node, now() + ahead * SECOND) + MARGIN_MICROS
    }

    /// Applies an event if it is possible now. Returns whether it was applied.
    pub(crate) async fn happen(&mut self, event: Event, rng: &mut Rng) -> bool {
        if let Some(node) = target(event)
            && (node >= self.model.nodes.len() || self.model.nodes[node].is_retired)
        {
            return false;
        }
        match event {
            Event::Append(node) => self.append(node, 1 + rng.below(5)).await,
            Event::Batch(node) => self.append(node, BATCH).await,
            Event::Stop(node) => {
                self.cluster.stop(node);
                self.model.nodes[node].is_up = false;
            }
            Event::Kill(node) => {
                self.cluster.kill(node);
                self.cluster.restart(node).await;
            }
            Event::Prune(node) => return self.prune(node, rng).await,
            Event::Hold(node) => return self.hold(node, rng),
            Event::Erase(node) => return self.erase(node, rng),
            Event::RotateMac(node) => {
                succeeded(&self.cluster_command("rotate-mac", &[&self.id(node)]));
                self.restart_aggregator().await;
                self.restart(node).await;
            }
            Event::RotateKey(node) => self.rotate_key(node).await,
            Event::NewGeneration(node) => self.new_generation(node).await,
            Event::Backup(node) => self.back_up(node).await,
            Event::Restore(node, with_generation) => self.restore(node, with_generation).await,
            Event::Retire(node, with_folder) => return self.retire(node, with_folder).await,
            Event::AddNode => return self.add_node().await,
            Event::AddAggregator => return self.add_aggregator().await,
            Event::Renew(node) => {
                succeeded(&self.cluster_command("renew", &[&self.id(node)]));
                self.restart_aggregator().await;
                self.restart(node).await;
            }
            Event::Revoke(node) => {
                succeeded(&self.cluster_command("revoke", &[&self.id(node)]));
                self.restart_aggregator().await;
                self.revoked.insert(node);
                self.model.nodes[node].is_up = false;
            }
            Event::Clock(node, seconds) => {
                let sign = if seconds < 0 { "" } else { "+" };
                self.cluster.set_clock(node, &format!("{sign}{seconds}s"));
                self.restart(node).await;
                let ahead = self.ahead.entry(node).or_default();
                *ahead = seconds.max(*ahead);
            }
            Event::Forget(node, is_emptied) => self.forget(node, is_emptied).await,
            Event::RestartAggregator => self.restart_aggregator().await,
            Event::BackupAggregator => self.back_up_aggregator().await,
            Event::RestoreAggregator => self.restore_aggregator().await,
        }
        true
    }

    async fn prune(&mut self, node: usize, rng: &mut Rng) -> bool {
        let is_old = |row: &&Row| row.state == State::Here && row.micros < now() - PRUNABLE_MICROS;
        let times: Vec<i64> = self.model.present(node).filter(is_old).map(|row| row.micros).collect();
        if times.is_empty() {
            return false;
        }
        let before = *rng.pick(&times);
        let text = Timestamp::from_micros(before).to_text();
        let run = self.cluster.on_node(node, &["prune", "--before", &text, "--confirm", "--wait", "60s"]);
        succeeded(&run);
        let status = self.cluster.on_node(node, &["status", "--json"]);
        let status: Value = serde_json::from_str(&status.stdout).unwrap();
        let oldest = status["oldest_seq"].as_u64().unwrap_or(0);
        let log = self.model.nodes[node].log;
        for row in &mut self.model.rows {
            if (row.node, row.log) == (node, log)
                && row.seq < oldest
                && !matches!(row.state, State::Lost | State::Pruned)
            {
                assert!(row.micros < before, "{}/{} is gone, and is not older", self.cluster.nodes[node].id, row.seq);
                let is_held = |held: &&(usize, usize, Range)| (held.0, held.1) == (node, log) && held.2.holds(row);
                assert!(!self.holds.iter().any(|held| is_held(&held)), "row {} was held and is gone", row.seq);
                row.state = State::Pruned;
            }
        }
        if oldest > 0 {
            let node = &mut self.model.nodes[node];
            node.clear_from = node.clear_from.max(before);
        }
        let (gone, left) = std::mem::take(&mut self.earlier)
            .into_iter()
            .partition(|earlier: &Earlier| earlier.node == node && !earlier.folder.exists());
        self.earlier = left;
        self.went(gone, before);
        true
    }

    /// Marks the rows of the archived logs in `gone` as pruned. These logs were removed together with the first rows of the log
    /// that replaced them.
    fn went(&mut self, gone: Vec<Earlier>, before: i64) {
        for Earlier { node, log, until, .. } in gone {
            eprintln!("an earlier log of {} went", self.id(node));
            for row in &mut self.model.rows {
                if (row.node, row.log) == (node, log) && !matches!(row.state, State::Lost | State::LostUnknown) {
                    let is_held = self.holds.iter().any(|held| held.0 == node && held.2.holds(row));
                    assert!(row.micros < before && !is_held, "{row:?} of an earlier log is gone");
                    row.state = State::Pruned;
                }
            }
            let node = &mut self.model.nodes[node];
            node.clear_from = node.clear_from.max(until);
        }
    }

    fn hold(&mut self, node: usize, rng: &mut Rng) -> bool {
        let rows: Vec<i64> = self.model.rows.iter().filter(|row| row.node == node).map(|row| row.micros).collect();
        if rows.is_empty() {
            return false;
        }
        let (one, other) = (*rng.pick(&rows), *rng.pick(&rows));
        let range = Range { from: one.min(other), to: one.max(other) + 1 };
        let text = |micros| Timestamp::from_micros(micros).to_text();
        self.number += 1;
        let name = format!("case-{}", self.number);
        let (from, to) = (text(range.from), text(range.to));
        succeeded(
            &self.cluster.on_node(node, &["hold", "add", &name, "--from", &from, "--to", &to, "--reason", "a case"]),
        );
        self.holds.push((node, self.model.nodes[node].log, range));
        true
    }

    fn erase(&mut self, node: usize, rng: &mut Rng) -> bool {
        let log = self.model.nodes[node].log;
        let is_held = |row: &Row| self.holds.iter().any(|held| (held.0, held.1) == (node, log) && held.2.holds(row));
        let rows = self.model.present(node).filter(|row| row.state == State::Here && !is_held(row));
        let choices: Vec<u64> = rows.map(|row| row.seq).collect();
        if choices.is_empty() {
            return false;
        }
        let seq = *rng.pick(&choices);
        succeeded(&self.cluster.on_node(node, &["erase", "--seq", &seq.to_string(), "--reason", "asked to"]));
        for row in &mut self.model.rows {
            if (row.node, row.log, row.seq) == (node, log, seq) {
                row.state = State::Erased;
            }
        }
        true
    }

    async fn rotate_key(&mut self, node: usize) {
        let id = self.id(node);
        self.new_keys_since_backup.insert(node);
        self.model.nodes[node].is_unproven = self.model.nodes[node].log > 0;
        succeeded(&self.cluster_command("rotate-key", &[&id]));
        self.restart_aggregator().await;
        self.restart(node).await;
        let note = self.path("both.note");
        let finished = until("both keys signed", async || {
            self.witnessed_here(node).await;
            let both = self.cluster.on_node(node, &["checkpoint", "--witnessed"]);
            std::fs::write(&note, both.stdout).unwrap();
            (self.cluster_command("rotate-key", &[&id, "--finish", &note]).code == 0).then_some(())
        });
        finished.await;
        self.restart_aggregator().await;
        self.restart(node).await;
    }

    /// Begins a new log on a stopped node, starts it, and accepts the log.
    async fn begin_generation(&mut self, node: usize) {
        let begun = self.cluster.on_node(node, &["new-generation", "--reason", "a life"]);
        succeeded(&begun);
        let generation = begun.stdout.split_whitespace().nth(1).unwrap().to_owned();
        let old = begun.stdout.lines().find_map(|line| line.strip_prefix("the old log is kept unchanged in ")).unwrap();
        self.begun(node, &generation, PathBuf::from(old)).await;
    }

    /// Does the same as [`Self::begin_generation`], with a clock `days` in the past, which the command does not support.
    async fn begin_aged_generation(&mut self, node: usize, days: u64) {
        self.witnessed(node).await;
        self.cluster.stop(node);
        let config = NodeConfig::load(&self.cluster.nodes[node].folder.join("node.toml")).unwrap();
        let then = Arc::new(Then(SystemClock.now().minus(std::time::Duration::from_hours(24 * days))));
        let begun = begin_generation(&LogDir::new(&config.data_dir), &config.keys, then, "a life", "uid=0").unwrap();
        self.begun(node, &begun.generation.to_string(), begun.old).await;
    }

    async fn begun(&mut self, node: usize, generation: &str, old: PathBuf) {
        let until = self.in_doubt(node);
        self.earlier.push(Earlier { node, log: self.model.nodes[node].log, folder: old, until });
        self.model.nodes[node].log += 1;
        self.model.nodes[node].present_from = until;
        self.cluster.restart(node).await;
        self.accept(node, Some(generation)).await;
    }

    async fn new_generation(&mut self, node: usize) {
        self.witnessed(node).await;
        self.cluster.stop(node);
        self.begin_generation(node).await;
    }

    async fn back_up(&mut self, node: usize) {
        self.witnessed(node).await;
        self.cluster.stop(node);
        let folder = self.cluster.dir.path().join(format!("backup-{node}"));
        copy_log(&self.cluster.nodes[node].folder.join("data"), &folder);
        let rows: u64 = rusqlite::Connection::open(folder.join("log.db"))
            .unwrap()
            .query_row("SELECT max(seq) + 1 FROM entries", [], |row| row.get(0))
            .unwrap();
        let backup = Backup { folder, log: self.model.nodes[node].log, size: rows, model: self.model.clone() };
        self.backups.insert(node, backup);
        self.new_keys_since_backup.remove(&node);
        self.cluster.restart(node).await;
    }

    async fn restore(&mut self, node: usize, with_generation: bool) {
        if self.backups.get(&node).is_none_or(|backup| backup.log != self.model.nodes[node].log) {
            self.back_up(node).await;
        }
        let backup = &self.backups[&node];
        let (folder, size, then) = (backup.folder.clone(), backup.size, backup.model.clone());
        self.append(node, 3).await;
        self.witnessed(node).await;
        self.cluster.stop(node);
        copy_log(&folder, &self.cluster.nodes[node].folder.join("data"));
        let log = self.model.nodes[node].log;
        // Rows erased or pruned since the backup are present again.
        for (row, before) in self.model.rows.iter_mut().zip(&then.rows) {
            if (row.node, row.log) == (node, log) && row.seq < size {
                row.state = before.state;
            }
        }
        self.model.lost(node, size);
        self.model.nodes[node].clear_from = self.in_doubt(node);
        // A log signed with the replaced key cannot continue under the new key.
        if with_generation || self.new_keys_since_backup.contains(&node) {
            self.begin_generation(node).await;
        } else {
            self.cluster.restart(node).await;
            self.accept(node, None).await;
        }
    }

    async fn retire(&mut self, node: usize, with_folder: bool) -> bool {
        // At least one node remains a member.
        if node == 0 {
            return false;
        }
        self.witnessed(node).await;
        self.cluster.stop(node);
        succeeded(&self.cluster_command("retire", &[&self.id(node)]));
        let cleared = self.in_doubt(node);
        let retired = &mut self.model.nodes[node];
        (retired.is_up, retired.is_retired, retired.is_kept) = (false, true, with_folder);
        if with_folder {
            for aggregator in 0..self.cluster.aggregators() {
                self.hand_over(node, aggregator);
            }
        } else {
            retired.clear_from = cleared;
        }
        self.restart_aggregator().await;
        true
    }

    async fn add_node(&mut self) -> bool {
        if self.model.nodes.len() >= NODES_MAX {
            return false;
        }
        let id = format!("mx{}", self.model.nodes.len() + 1);
        self.model.nodes.push(Node::new(now()));
        self.cluster.add_node(&id).await;
        self.restart_aggregator().await;
        true
    }

    /// Starts the nodes that the previous event stopped, and renews the certificates that it revoked.
    pub(crate) async fn heal(&mut self) {
        for node in std::mem::take(&mut self.revoked) {
            succeeded(&self.cluster_command("renew", &[&self.id(node)]));
            self.restart_aggregator().await;
            self.cluster.stop(node);
        }
        for index in 0..self.model.nodes.len() {
            if !self.model.nodes[index].is_up && !self.model.nodes[index].is_retired {
                self.cluster.restart(index).await;
                self.model.nodes[index].is_up = true;
            }
        }
    }

    /// Stops every process in an orderly way.
    pub(crate) fn end(mut self) {
        for aggregator in 0..self.cluster.aggregators() {
            self.cluster.turn_to(aggregator);
            self.cluster.stop_aggregator();
        }
        for (index, node) in self.model.nodes.iter().enumerate() {
            if node.is_up {
                self.cluster.signal(index, Signal::SIGTERM);
            }
        }
    }
}

fn target(event: Event) -> Option<usize> {
    match event {
        Event::Append(node) | Event::Batch(node) | Event::Stop(node) | Event::Kill(node) | Event::Prune(node) => {
            Some(node)
        }
        Event::Hold(node) | Event::Erase(node) | Event::RotateMac(node) | Event::RotateKey(node) => Some(node),
        Event::NewGeneration(node) | Event::Backup(node) | Event::Restore(node, _) | Event::Retire(node, _) => {
            Some(node)
        }
        Event::Renew(node) | Event::Revoke(node) | Event::Clock(node, _) | Event::Forget(node, _) => Some(node),
        Event::AddNode
        | Event::AddAggregator
        | Event::RestartAggregator
        | Event::BackupAggregator
        | Event::RestoreAggregator => None,
    }
}

pub(crate) fn succeeded(run: &Run) {
    assert_eq!(run.code, 0, "{}{}", run.stdout, run.stderr);
}
