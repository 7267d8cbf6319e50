//! Events of the aggregators: a second one joins, or one loses its state or is restored. Also derives the part of the model that
//! each aggregator can know.

use std::path::Path;

use serde_json::Value;

use crate::model::{Model, Row, State};
use crate::world::{World, configure, copy_folder, succeeded};

impl World {
    /// Restarts all aggregators, one after the other.
    pub(crate) async fn restart_aggregator(&mut self) {
        for aggregator in 0..self.cluster.aggregators() {
            self.cluster.turn_to(aggregator);
            self.cluster.stop_aggregator();
            self.start_aggregator().await;
        }
        self.cluster.turn_to(0);
    }

    /// Returns the part of the model that this aggregator can know.
    pub(crate) fn known(&self, aggregator: usize) -> Model {
        let mut known = self.model.clone();
        let Some((joined, unknown)) = self.second.as_ref().filter(|_| aggregator == 1) else { return known };
        for row in &mut known.rows {
            row.state = match row.state {
                State::Lost | State::LostUnknown if unknown.contains(&row.id) => State::LostUnknown,
                // Only the first aggregator was restored to a time before it knew of the row; the second knows of the loss.
                State::LostUnknown => State::Lost,
                state => state,
            };
        }
        for node in &mut known.nodes {
            node.clear_from = node.clear_from.max(*joined);
        }
        known
    }

    pub(crate) async fn add_aggregator(&mut self) -> bool {
        if self.second.is_some() {
            return false;
        }
        self.cluster.add_aggregator("agg2");
        configure(&self.cluster);
        for node in 0..self.model.nodes.len() {
            if self.model.nodes[node].is_kept {
                self.hand_over(node, 1);
            }
        }
        self.cluster.turn_to(1);
        self.start_aggregator().await;
        // Restart the first aggregator so that it learns of the new node, and the nodes so that they learn of the new
        // aggregator's witness key.
        self.cluster.turn_to(0);
        self.cluster.stop_aggregator();
        self.start_aggregator().await;
        for node in 0..self.model.nodes.len() {
            if self.model.nodes[node].is_up {
                self.restart(node).await;
            }
        }
        let is_lost = |row: &&Row| matches!(row.state, State::Lost | State::LostUnknown);
        let lost = self.model.rows.iter().filter(is_lost).map(|row| row.id.clone()).collect();
        let joined = (0..self.model.nodes.len()).map(|node| self.in_doubt(node)).max().unwrap_or_default();
        self.second = Some((joined, lost));
        true
    }

    pub(crate) async fn start_aggregator(&mut self) {
        self.cluster.spawn_aggregator();
        self.cluster.wait_for_aggregator().await;
    }

    /// Accepts a node's log at every aggregator; see [`Self::accept_here`].
    pub(crate) async fn accept(&mut self, node: usize, generation: Option<&str>) {
        for aggregator in 0..self.cluster.aggregators() {
            self.cluster.turn_to(aggregator);
            self.accept_here(node, generation).await;
        }
        self.cluster.turn_to(0);
    }

    /// Waits for the alarm about a node's log, and accepts the log that the node presents.
    pub(crate) async fn accept_here(&mut self, node: usize, generation: Option<&str>) {
        let is_alarm = |line: &Value| {
            ["rollback", "fork", "first_seen_again"].iter().any(|verdict| line["verdict"] == *verdict)
                && generation.is_none_or(|generation| line["generation"] == generation)
                && (line["verdict"] == "first_seen_again" || !line["alarm"]["presented"].is_null())
        };
        let line = self.reported(node, "an alarm", is_alarm).await;
        let generation = generation.or(line["generation"].as_str()).unwrap().to_owned();
        let id = self.id(node);
        succeeded(&self.cluster.run(&["nodes", "accept", &id, "--new-generation", &generation, "--reason", "a life"]));
    }

    /// Adds the folder of a retired node to the configuration of an aggregator. A second aggregator gets a copy, because a folder
    /// may be read by only one aggregator.
    pub(crate) fn hand_over(&mut self, node: usize, aggregator: usize) {
        let mut folder = self.cluster.nodes[node].folder.clone();
        if aggregator > 0 {
            let copy = self.cluster.dir.path().join(format!("kept-{node}"));
            copy_folder(&folder, &copy);
            folder = copy;
        }
        self.cluster.turn_to(aggregator);
        let config = self.cluster.aggregator_folder().join("aggregator.toml");
        let mut table: toml::Table = std::fs::read_to_string(&config).unwrap().parse().unwrap();
        let mut kept = toml::Table::new();
        kept.insert("node".to_owned(), self.id(node).into());
        kept.insert("folder".to_owned(), folder.display().to_string().into());
        table.entry("retired").or_insert(toml::Value::Array(Vec::new())).as_array_mut().unwrap().push(kept.into());
        std::fs::write(&config, table.to_string()).unwrap();
        self.cluster.turn_to(0);
    }

    pub(crate) async fn forget(&mut self, node: usize, is_emptied: bool) {
        self.witnessed(node).await;
        self.cluster.stop_aggregator();
        let memory = self.cluster.aggregator_folder().join(format!("state/witness/{}.json", self.id(node)));
        if is_emptied {
            std::fs::write(&memory, b"").unwrap();
        } else {
            std::fs::remove_file(&memory).unwrap();
        }
        self.start_aggregator().await;
        self.accept_here(node, None).await;
    }

    pub(crate) fn copy_aggregator(&self, copy: &Path, is_out: bool) {
        let folder = self.cluster.aggregator_folder();
        for name in ["state", "node/data"] {
            let (here, there) = (folder.join(name), copy.join(name));
            if is_out { copy_folder(&here, &there) } else { copy_folder(&there, &here) }
        }
    }

    pub(crate) async fn back_up_aggregator(&mut self) {
        self.cluster.stop_aggregator();
        let copy = self.cluster.dir.path().join("aggregator-backup");
        self.copy_aggregator(&copy, true);
        self.aggregator_backup = Some((copy, self.model.clone()));
        self.start_aggregator().await;
    }

    pub(crate) async fn restore_aggregator(&mut self) {
        let Some((copy, then)) = self.aggregator_backup.clone() else { return self.back_up_aggregator().await };
        self.wait_until_settled().await;
        self.cluster.stop_aggregator();
        self.copy_aggregator(&copy, false);
        let mut replaced = Vec::new();
        for (number, row) in self.model.rows.iter_mut().enumerate() {
            let before = then.rows.get(number).map(|row| row.state);
            if row.state == State::Lost && before != Some(State::Lost) {
                row.state = State::LostUnknown;
                replaced.push(row.node);
            }
        }
        for (index, node) in self.model.nodes.iter().enumerate() {
            if then.nodes.get(index).is_some_and(|before| before.log != node.log) {
                replaced.push(index);
            }
        }
        self.start_aggregator().await;
        for index in 0..self.model.nodes.len() {
            let node = &self.model.nodes[index];
            if node.is_retired || !node.is_up {
                continue;
            }
            // The restored aggregator raises an alarm about a log that was replaced since the backup, if it had pinned more rows
            // of the old log than the new log has now.
            let is_judged = |line: &Value| {
                (line["verdict"] == "ok" && line["unwitnessed"] == 0)
                    || (line["verdict"] != "unreachable" && !line["alarm"]["presented"].is_null())
            };
            let line = self.reported(index, "judged", is_judged).await;
            if line["verdict"] != "ok" {
                assert!(replaced.contains(&index), "nobody replaced this log: {line}");
                self.accept_here(index, None).await;
                self.model.nodes[index].clear_from = self.in_doubt(index);
            }
        }
    }
}
