//! Random lives of a cluster with an archive: rows are recorded, archived, pruned and erased, clocks are set back, logs are replaced and lost,
//! nodes and the aggregator stop. After every event, answers over live and archived rows are compared with a model of all rows that were
//! acknowledged.

use std::collections::HashMap;

use piperoll_client::NodeClient;
use piperoll_net::clock::{Clock as _, SystemClock};
use piperoll_tests::{Cluster, Rng, entry, until};
use serde_json::Value;

use crate::archive::{directory, on_aggregator, unstarted_cluster, until_archive_is_read, witnessed_after};
use crate::witness::{report, witnessed};

/// Environment variables with the seed of the first life, and the number of lives.
const SEED_VARIABLE: &str = "PIPEROLL_ARCHIVE_SEED";
const LIVES_VARIABLE: &str = "PIPEROLL_ARCHIVE_LIVES";
const EVENTS: usize = 9;
/// More rows than a tile, which is the unit of pruning.
const BATCH: usize = 280;
const DAY_SECONDS: i64 = 86_400;

struct Row {
    node: usize,
    id: String,
    generation: String,
    seq: u64,
    micros: i64,
    is_erased: bool,
    is_pruned: bool,
    is_archived: bool,
}

struct World {
    cluster: Cluster,
    rows: Vec<Row>,
    generations: [String; 2],
    /// Age of the rows that each node records now, in days.
    ages: [i64; 2],
    is_down: [bool; 2],
    is_archive_away: bool,
    /// A time before which every row of a node that is down was witnessed and archived.
    covered: Option<String>,
}

fn text(micros: i64) -> String {
    piperoll_format::time::Timestamp::from_micros(micros).to_text()
}

impl World {
    async fn begin(waits: bool) -> Self {
        let clock = format!("-{}s", 400 * DAY_SECONDS);
        let mut cluster = unstarted_cluster(Some(&clock), waits).await;
        cluster.run_all().await;
        assert_eq!(on_aggregator(&cluster, &["init"]).code, 0);
        let mut world = Self {
            cluster,
            rows: Vec::new(),
            generations: [String::new(), String::new()],
            ages: [400; 2],
            is_down: [false; 2],
            is_archive_away: false,
            covered: None,
        };
        for node in 0..2 {
            world.append(node, BATCH + 40 * node).await;
        }
        world
    }

    fn id(node: usize) -> &'static str {
        ["mx1", "mx2"][node]
    }

    async fn append(&mut self, node: usize, count: usize) {
        let client = NodeClient::new(&self.cluster.nodes[node].folder.join("node.sock")).unwrap();
        let lines: Vec<String> = (0..count).map(|n| entry(&format!("u{}", n % 11), "lives.row")).collect();
        let report = client.append_lines((lines.join("\n") + "\n").into_bytes(), false).await.unwrap();
        witnessed(&self.cluster, Self::id(node)).await;
        if self.generations[node].is_empty() {
            let line = report_of(&self.cluster, node).await;
            self.generations[node] = line["generation"].as_str().unwrap().to_owned();
        }
        for result in report.results {
            let receipt = result.receipt.unwrap();
            self.rows.push(Row {
                node,
                id: receipt.id.to_string(),
                generation: self.generations[node].clone(),
                seq: receipt.seq,
                micros: receipt.timestamp.micros(),
                is_erased: false,
                is_pruned: false,
                is_archived: false,
            });
        }
    }

    async fn wait_until_settled(&self) {
        for node in (0..2).filter(|node| !self.is_down[*node]) {
            witnessed(&self.cluster, Self::id(node)).await;
        }
    }

    async fn archive(&mut self) {
        self.wait_until_settled().await;
        let run = self.cluster.run(&["archive", "run", "--now"]);
        assert!(run.code == 0 || (run.code == 3 && self.is_down.contains(&true)), "{}{}", run.stdout, run.stderr);
        for row in self.rows.iter_mut().filter(|row| !self.is_down[row.node]) {
            // Rows that were pruned before they were archived never come into the archive.
            row.is_archived |= !row.is_pruned;
        }
    }

    async fn prune(&mut self, node: usize) {
        // A node prunes rows that are old by its own clock.
        self.change_clock(node, 0).await;
        witnessed(&self.cluster, Self::id(node)).await;
        let run = self.cluster.on_node(node, &["prune", "--before", "100d", "--confirm", "--wait", "60s"]);
        assert_eq!(run.code, 0, "{}{}", run.stdout, run.stderr);
        witnessed(&self.cluster, Self::id(node)).await;
        let status: Value = serde_json::from_str(&self.cluster.on_node(node, &["status", "--json"]).stdout).unwrap();
        let oldest = status["oldest_seq"].as_u64().unwrap_or(0);
        let folder = &self.cluster.nodes[node].folder;
        for row in self.rows.iter_mut().filter(|row| row.node == node) {
            row.is_pruned |= match row.generation == self.generations[node] {
                true => row.seq < oldest,
                false => !folder.join(format!("data.{}", row.generation)).exists(),
            };
        }
    }

    fn erase(&mut self, node: usize, rng: &mut Rng) {
        let generation = self.generations[node].clone();
        let fits =
            |row: &&mut Row| row.node == node && row.generation == generation && !row.is_pruned && !row.is_erased;
        let mut rows: Vec<&mut Row> = self.rows.iter_mut().filter(fits).collect();
        if rows.is_empty() {
            return;
        }
        let index = rng.below(rows.len());
        let row = &mut rows[index];
        let erased = self.cluster.on_node(node, &["erase", "--seq", &row.seq.to_string(), "--reason", "asked to"]);
        assert_eq!(erased.code, 0, "{}", erased.stderr);
        row.is_erased = true;
    }

    async fn change_clock(&mut self, node: usize, days: i64) {
        self.ages[node] = days;
        self.cluster.stop(node);
        self.cluster.set_clock(node, &format!("-{}s", days * DAY_SECONDS));
        self.cluster.restart(node).await;
        witnessed(&self.cluster, Self::id(node)).await;
    }

    /// The node begins another log. The old one is lost if it is archived.
    async fn replace_log(&mut self, node: usize) {
        witnessed(&self.cluster, Self::id(node)).await;
        self.cluster.stop(node);
        let begun = self.cluster.on_node(node, &["new-generation", "--reason", "a life"]);
        assert_eq!(begun.code, 0, "{}", begun.stderr);
        let generation = begun.stdout.split_whitespace().nth(1).unwrap().to_owned();
        self.cluster.restart(node).await;
        let id = Self::id(node);
        report(&self.cluster, id, |line| line["generation"] == generation.as_str()).await;
        until("the new log to be accepted", async || {
            let accept = ["nodes", "accept", id, "--new-generation", &generation, "--reason", "a life"];
            (self.cluster.run(&accept).code == 0).then_some(())
        })
        .await;
        self.generations[node] = generation;
        witnessed(&self.cluster, id).await;
    }

    /// Stops a node for one check, after its rows have been witnessed and, perhaps, archived.
    async fn take_down(&mut self, node: usize, with_archive: bool) {
        if with_archive {
            self.archive().await;
            self.covered = Some(SystemClock.now().to_text());
            witnessed_after(&self.cluster, Self::id(node)).await;
        }
        self.cluster.kill(node);
        self.is_down[node] = true;
    }

    async fn heal(&mut self) {
        for node in 0..2 {
            if std::mem::take(&mut self.is_down[node]) {
                self.cluster.restart(node).await;
                self.covered = None;
            }
        }
        if std::mem::take(&mut self.is_archive_away) {
            std::fs::rename(directory(&self.cluster).with_extension("away"), directory(&self.cluster)).unwrap();
        }
        self.cluster.wait_until_answered("mx1").await;
        self.cluster.wait_until_answered("mx2").await;
        self.wait_until_settled().await;
    }

    async fn happen(&mut self, rng: &mut Rng) -> String {
        let node = rng.below(2);
        let event = rng.below(13);
        match event {
            0..=2 => self.append(node, BATCH).await,
            3 | 4 => self.archive().await,
            5 | 6 => self.prune(node).await,
            7 => self.erase(node, rng),
            8 => {
                let days = *rng.pick(&[410, 350, 300, 200, 120]);
                self.change_clock(node, days).await;
                self.append(node, BATCH / 2).await;
            }
            9 => {
                self.replace_log(node).await;
                self.append(node, 20).await;
            }
            10 => {
                self.cluster.kill_aggregator();
                self.cluster.spawn_aggregator();
                self.cluster.wait_for_aggregator().await;
                until_archive_is_read(&self.cluster).await;
            }
            11 => {
                let with_archive = rng.coin();
                self.take_down(node, with_archive).await;
            }
            _ => {
                std::fs::rename(directory(&self.cluster), directory(&self.cluster).with_extension("away")).unwrap();
                self.is_archive_away = true;
            }
        }
        format!("{event} on {}", Self::id(node))
    }

    /// Reads a range as a stream and as pages, and compares both with the model.
    async fn check(&self, from: i64, to: i64, rng: &mut Rng) -> Result<(), String> {
        let parameters =
            format!("from={}&to={}&filter=node:mx1,mx2%20action:lives.row%20OR%20is:erased", text(from), text(to));
        let stream = self.cluster.page(&format!("format=ndjson&{parameters}")).await;
        let mut lines: Vec<Value> = stream.text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        let last = lines.pop().ok_or("an empty answer")?;
        let statement = if last["final"].is_object() { last["final"].clone() } else { last };
        self.compare("a stream", from, to, &lines, &statement)?;
        let (mut rows, mut cursor, mut all_complete) = (Vec::new(), String::new(), true);
        let limit = *rng.pick(&[190, 256, 900]);
        let order = *rng.pick(&["asc", "desc"]);
        let statement = loop {
            let page = self.cluster.page(&format!("limit={limit}&order={order}&{parameters}{cursor}")).await.json();
            rows.extend(page["entries"].as_array().cloned().unwrap_or_default());
            all_complete &= page["complete"] == true;
            match page["next_cursor"].as_str().filter(|_| page["more"] == true) {
                Some(next) => cursor = format!("&cursor={next}"),
                None => break page,
            }
        };
        let mut statement = statement;
        statement["complete"] = all_complete.into();
        statement.as_object_mut().map(|statement| statement.remove("entries"));
        self.compare(&format!("pages of {limit}, {order}"), from, to, &rows, &statement)
    }

    fn compare(&self, what: &str, from: i64, to: i64, shown: &[Value], statement: &Value) -> Result<(), String> {
        let fail = |message: String| Err(format!("{what}: {message}: {statement}"));
        let is_complete = statement["complete"] == true;
        let mut seen: HashMap<String, usize> = HashMap::new();
        let mut erased: HashMap<(String, u64), usize> = HashMap::new();
        for row in shown {
            match row["integrity"].as_str() {
                Some("ok") => *seen.entry(row["entry"]["id"].as_str().unwrap_or_default().to_owned()).or_default() += 1,
                Some("erased") => {
                    let place = &row["found_at"];
                    let node = place["node_id"].as_str().unwrap_or_default().to_owned();
                    *erased.entry((node, place["seq"].as_u64().unwrap_or(u64::MAX))).or_default() += 1;
                }
                _ => return fail(format!("nobody touched this row: {row}")),
            }
        }
        let known: HashMap<&str, &Row> = self.rows.iter().map(|row| (row.id.as_str(), row)).collect();
        for (id, count) in &seen {
            match known.get(id.as_str()) {
                Some(row) if *count == 1 && !row.is_erased && (from..to).contains(&row.micros) => {}
                row => return fail(format!("{id} is shown {count} times: {:?}", row.map(|row| (row.node, row.seq)))),
            }
        }
        for row in self.rows.iter().filter(|row| (from..to).contains(&row.micros)) {
            let is_live = !self.is_down[row.node] && !row.is_pruned;
            let is_in_archive = row.is_archived && !self.is_archive_away;
            let is_shown = match row.is_erased {
                true => erased.contains_key(&(Self::id(row.node).to_owned(), row.seq)),
                false => seen.contains_key(&row.id),
            };
            if !is_shown && (is_complete || is_live || (is_in_archive && !self.is_down[row.node])) {
                let place = (Self::id(row.node), row.seq, row.is_erased, row.is_pruned, row.is_archived);
                return fail(format!("{place:?} is missing"));
            }
        }
        let lacks = |row: &Row| row.is_pruned && (!row.is_archived || self.is_archive_away);
        let may_lack = self.rows.iter().any(lacks);
        let is_covered = self.covered.as_ref().is_some_and(|covered| text(to) <= *covered);
        let is_silent = self.is_down.contains(&true) && !is_covered;
        if !is_complete && !may_lack && !is_silent && !self.is_archive_away {
            return fail("it is not complete, and nothing is missing".to_owned());
        }
        Ok(())
    }
}

async fn report_of(cluster: &Cluster, node: usize) -> Value {
    report(cluster, World::id(node), |line| line["generation"].is_string()).await
}

async fn life(seed: u64) {
    let mut rng = Rng::new(seed);
    let mut world = World::begin(seed.is_multiple_of(2)).await;
    let mut events = Vec::new();
    for _ in 0..EVENTS {
        let event = world.happen(&mut rng).await;
        eprintln!("life {seed}: {event}");
        events.push(event);
        let times: Vec<i64> = world.rows.iter().map(|row| row.micros).collect();
        let (one, other) = (*rng.pick(&times), *rng.pick(&times));
        let now = SystemClock.now().micros();
        let to = world.covered.as_ref().map_or(now, |_| now - 3_600_000_000);
        for (from, to) in [(0, now), (0, to), (one.min(other), one.max(other) + 1)] {
            if let Err(found) = world.check(from, to, &mut rng).await {
                world.cluster.dir.disable_cleanup(true);
                panic!("life {seed}, after {events:?}, {} to {}: {found}", text(from), text(to));
            }
        }
        world.heal().await;
    }
    world.cluster.verify_all();
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_over_live_and_archived_rows_is_right() {
    let variable = |name: &str| std::env::var(name).ok().map_or(1, |text| text.parse::<u64>().unwrap());
    let first = variable(SEED_VARIABLE);
    for seed in first..first + variable(LIVES_VARIABLE) {
        life(seed).await;
    }
}
