//! Checks the healed cluster against the model after every round.

use std::collections::HashSet;

use piperoll_format::time::Timestamp;
use piperoll_tests::piperoll;

use super::checks::{self, Outcome};
use super::faults::{NODES, Target};
use super::model::{Known, Row};
use super::probe::WRITTEN;
use super::setup;
use super::world::World;

/// Limit for the peak memory of a daemon, well above what these small logs need.
const MEMORY_KIB: u64 = 256 * 1024;

pub(crate) async fn round(world: &mut World, from: Timestamp) -> Outcome {
    world.wait_until_settled().await?;
    let mut union = Vec::new();
    for node in 0..NODES {
        union.extend(log(world, node).await?);
    }
    merged(world, &union).await?;
    let from = from.max(world.lost_until);
    let stream = world.asker.stream(from, "").await?;
    world.tally.check("healthy is complete", checks::is_complete(stream.is_complete, &stream.envelope))?;
    bundle(world, from).await?;
    alarms(world, from).await?;
    daemons(world).await
}

/// Verifies and exports the log of one node.
async fn log(world: &World, node: usize) -> Result<Vec<Row>, String> {
    let (id, generation) = (world.id(node), world.generations[node]);
    let status = setup::status(world, node).await?;
    if status.reader_panics > 0 {
        return Err(format!("{id} says that {} of its reads ended in a panic", status.reader_panics));
    }
    let first = status.oldest_seq.unwrap_or(0);
    let limit = world.prunable(node);
    if first > limit {
        return Err(format!("{id} begins at row {first}, and no row from {limit} on was old enough to prune"));
    }
    let run = world.on_node(node, &["verify"]).await?;
    let said = run.stdout + &run.stderr;
    world.tally.check("verify is clean", checks::verify_is_clean(&id, run.code, &said))?;
    let rows = exported(world, node, "", first > 0).await?;
    world.tally.check("numbers are dense", checks::dense(&id, &rows, first))?;
    let is_gone = |known: &Known| known.seq < first || world.model.is_erased(known);
    let known = world.model.of(&id, generation);
    world.tally.check("receipts", checks::receipts(&known, &rows, is_gone))?;
    let found = exported(world, node, WRITTEN, first > 0).await?;
    world.tally.check("receipts by filter", checks::receipts(&known, &found, is_gone))?;
    Ok(rows)
}

async fn exported(world: &World, node: usize, filter: &str, is_pruned: bool) -> Result<Vec<Row>, String> {
    let to = super::clock::ahead().to_text();
    let run = world.on_node(node, &["export", filter, "--from", "0001-01-01", "--to", &to]).await?;
    // Exit code 3: the range includes pruned rows.
    if run.code != if is_pruned { 3 } else { 0 } {
        return Err(format!("node export on {} ended with {}: {}", world.id(node), run.code, run.stderr));
    }
    let mut rows = Vec::new();
    for line in run.stdout.lines() {
        rows.extend(Row::parse(line)?);
    }
    Ok(rows)
}

/// Compares the merged export of everything with the nodes' own exports.
async fn merged(world: &World, union: &[Row]) -> Outcome {
    let stream = world.asker.stream(Timestamp::from_micros(0), "").await?;
    let rows: Vec<Row> = stream.rows.into_iter().filter(|row| row.node != "agg").collect();
    // The aggregator also returns the rows of replaced logs, which no export of a node contains. An erased row is identified by
    // its position alone.
    let place = |row: &Row| (row.node.clone(), row.seq, row.signature.clone());
    let present: HashSet<(String, u64, String)> = union.iter().map(place).collect();
    let is_replaced = |node: &str| (0..NODES).any(|index| world.id(index) == node && world.generations[index] > 0);
    let is_earlier = |row: &Row| is_replaced(&row.node) && !present.contains(&place(row));
    let (earlier, rows): (Vec<Row>, Vec<Row>) = rows.into_iter().partition(is_earlier);
    world.tally.check("merged is the union", checks::union(union, &rows))?;
    for node in 0..NODES {
        for generation in 0..world.generations[node] {
            let known = world.model.of(&world.id(node), generation);
            let outcome =
                checks::complete_is_true(stream.is_complete, &known, &earlier, |known| world.model.is_erased(known));
            world.tally.check("complete has what was put aside", outcome)?;
        }
    }
    let any_replaced = world.generations.iter().any(|generation| *generation > 0);
    let outcome = match (world.is_pruned, any_replaced) {
        (true, _) => checks::is_not_complete(stream.is_complete, "rows were pruned"),
        // The answer may be complete or not, depending on whether the replaced log still has every witnessed row.
        (false, true) => Ok(()),
        (false, false) => checks::is_complete(stream.is_complete, &stream.envelope),
    };
    world.tally.check("completeness of everything", outcome)
}

async fn bundle(world: &mut World, from: Timestamp) -> Outcome {
    let (path, trust) = (world.fresh("bundle.tar"), world.trust()?);
    let (from, to) = (from.to_text(), super::clock::ahead().to_text());
    let args = ["export", "--bundle", &path, "--from", &from, "--to", &to, "--reason", "campaign"];
    let run = world.cli(&args).await?;
    super::world::succeeded("export --bundle", &run)?;
    // Alternate between the two programs that verify bundles.
    let run = if world.number.is_multiple_of(2) {
        world.cli(&["verify-bundle", &path, "--trust", &trust]).await?
    } else {
        let mut command = std::process::Command::new(piperoll().with_file_name("piperoll-verify"));
        command.arg(&path).arg("--trust").arg(&trust);
        World::run(command).await?
    };
    world.tally.check("bundle verifies", checks::bundle_verifies(run.code, &(run.stdout + &run.stderr)))?;
    std::fs::remove_file(&path).map_err(|e| e.to_string())
}

/// Checks the verdicts that the aggregator recorded in this round.
async fn alarms(world: &mut World, from: Timestamp) -> Outcome {
    let path = "/api/v1/audit-log?filter=action:audit.witness_verdict%20reason:fork,rollback,row_invalid&limit=1000";
    let answer = world.asker.json(&format!("{path}&from={}", from.to_text())).await?;
    let entries = answer["entries"].as_array().cloned().unwrap_or_default();

    let alarms: Vec<(String, String)> = entries
        .iter()
        .filter(|row| row["entry"].is_object())
        .map(|row| {
            let text = |field: &str| row["entry"][field].as_str().unwrap_or_default().to_owned();
            (text("entity_id"), text("reason"))
        })
        .collect();
    let alarms = alarms.iter().map(|(node, verdict)| (node.as_str(), verdict.as_str()));
    let outcome = checks::no_false_alarm(alarms, |node| world.replaced.contains(node));
    world.tally.check("no false alarm", outcome)
}

/// Checks logs and memory of the daemons.
async fn daemons(world: &mut World) -> Outcome {
    panics(world)?;
    for node in 0..NODES {
        memory(world, Target::Node(node))?;
    }
    memory(world, Target::Aggregator)
}

fn memory(world: &World, target: Target) -> Outcome {
    let pid = match target {
        Target::Node(node) => world.cluster.pid(node),
        Target::Aggregator => world.cluster.aggregator_pid(),
    };
    let name = world.name(target);
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).map_err(|e| format!("{name}: {e}"))?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let peak = peak.and_then(|line| line.split_whitespace().next()?.parse().ok());
    let peak = peak.ok_or_else(|| format!("{name}: no VmHWM in its status"))?;
    world.tally.peak(&name, peak);
    world.tally.check("memory", checks::memory(&name, peak, MEMORY_KIB))
}

/// Checks the lines that the daemons logged since the last call.
pub(crate) fn panics(world: &mut World) -> Outcome {
    for target in [Target::Node(0), Target::Node(1), Target::Node(2), Target::Aggregator] {
        let name = world.name(target);
        let text = world.cluster.log_text(&name);
        let read = world.log_read.insert(name.clone(), text.len()).unwrap_or(0);
        let outcome = checks::no_panic(&name, text.get(read..).unwrap_or(&text));
        world.tally.check("no panic", outcome)?;
    }
    Ok(())
}
