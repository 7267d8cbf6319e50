//! Commands of an operator: prune, erase, change keys, begin a new generation.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use piperoll_format::time::Timestamp;
use serde_json::Value;

use super::checks::{self, Outcome};
use super::faults::{AGED, Target};
use super::model::Row;
use super::setup::AGES;
use super::world::{SETTLE_LIMIT, World, succeeded};
use piperoll_tests::Rng;

/// Time allowed after the last receipt from a replaced log, for the entries that the node itself appends at the end of the log.
const MARGIN_MICROS: i64 = 10_000_000;

/// Waits until the aggregator's report of a node satisfies `until`.
async fn reported(world: &World, node: usize, until: impl Fn(&Value) -> bool) -> Result<Value, String> {
    let (id, deadline) = (world.id(node), Instant::now() + SETTLE_LIMIT);
    loop {
        let nodes = world.nodes().await;
        let line = nodes.as_ref().ok().and_then(|nodes| nodes.iter().find(|line| line["node_id"] == id.as_str()));
        if let Some(line) = line.filter(|line| until(line)) {
            return Ok(line.clone());
        }
        if Instant::now() > deadline {
            return Err(format!("{id} does not get there within {SETTLE_LIMIT:?}: {nodes:?}"));
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn witnessed(world: &World, node: usize) -> Outcome {
    let is_witnessed = |line: &Value| {
        // Do not require that `unwitnessed` is 0: the writers are active, so it rarely is.
        let signed = line["witnessed"].as_u64().unwrap_or(0) > 0;
        line["verdict"] == "ok" && signed
    };
    reported(world, node, is_witnessed).await.map(|_| ())
}

pub(crate) async fn prune(world: &mut World, rng: &mut Rng) -> Outcome {
    let left = AGES.len().saturating_sub(world.number_of_prunes);
    if left == 0 || world.generations[AGED] > 0 {
        // No old rows are left; a dry run must still succeed.
        let run = world.on_node(AGED, &["prune", "--before", "300d", "--dry-run"]).await?;
        return succeeded("prune --dry-run", &run);
    }
    let before = format!("{}d", AGES[world.number_of_prunes] - 5);
    world.number_of_prunes += 1;
    let archive = world.fresh("archive.tar");
    let mut args = vec!["prune", "--before", &before, "--confirm", "--wait", "120s"];
    let with_archive = rng.coin();
    if with_archive {
        args.extend(["--archive", &archive]);
    }
    // Set before the command runs, because rows may be pruned even if it fails.
    world.is_pruned = true;
    let run = world.on_node(AGED, &args).await?;
    succeeded(&args.join(" "), &run)?;
    if with_archive {
        let trust = world.trust()?;
        let run = world.cli(&["verify-bundle", &archive, "--trust", &trust]).await?;
        world.tally.check("bundle verifies", checks::bundle_verifies(run.code, &(run.stdout + &run.stderr)))?;
    }
    Ok(())
}

pub(crate) async fn erase(world: &mut World, node: usize, rng: &mut Rng) -> Outcome {
    let (id, generation) = (world.id(node), world.generations[node]);
    let old = if node == AGED && generation == 0 { world.old_rows } else { 0 };
    let choices = world.model.known(|known| known.node == id && known.generation == generation && known.seq >= old);
    let choices: Vec<_> = choices.into_iter().filter(|known| !world.model.is_erased(known)).collect();
    if choices.is_empty() {
        return Ok(());
    }
    let known = rng.pick(&choices);
    world.model.erased(known);
    let run = world.on_node(node, &["erase", "--seq", &known.seq.to_string(), "--reason", "campaign"]).await?;
    succeeded(&format!("erase of {id}/{}", known.seq), &run)
}

/// Restarts the aggregator first and then the node, because the aggregator needs the new keys before the node uses them.
async fn restart_both(world: &mut World, node: usize) -> Outcome {
    world.restart(Target::Aggregator).await?;
    world.restart(Target::Node(node)).await
}

pub(crate) async fn rotate_mac(world: &mut World, node: usize) -> Outcome {
    world.on_cluster("rotate-mac", &[&world.id(node)]).await?;
    restart_both(world, node).await
}

/// Replaces the checkpoint key. The last step needs a checkpoint that is signed by both keys and cosigned by the witness.
pub(crate) async fn rotate_key(world: &mut World, node: usize) -> Outcome {
    let (id, note) = (world.id(node), world.fresh("both.note"));
    world.on_cluster("rotate-key", &[&id]).await?;
    restart_both(world, node).await?;
    let deadline = Instant::now() + SETTLE_LIMIT;
    loop {
        witnessed(world, node).await?;
        let both = world.on_node(node, &["checkpoint", "--witnessed"]).await?;
        std::fs::write(&note, &both.stdout).map_err(|e| e.to_string())?;
        let finished = world.on_cluster("rotate-key", &[&id, "--finish", &note]).await;
        match finished {
            Ok(()) => return restart_both(world, node).await,
            // The newest cosigned checkpoint may still be from before the restart.
            Err(found) if Instant::now() > deadline => return Err(found),
            Err(_) => tokio::time::sleep(Duration::from_millis(250)).await,
        }
    }
}

pub(crate) async fn new_generation(world: &mut World, node: usize, with_keys: bool) -> Outcome {
    let id = world.id(node);
    world.finish_writers(node).await?;
    reported(world, node, |line| line["verdict"] == "ok" && line["unwitnessed"] == 0).await?;
    let note = world.fresh("frozen.note");
    let frozen = world.on_node(node, &["checkpoint", "--witnessed"]).await?;
    std::fs::write(&note, &frozen.stdout).map_err(|e| e.to_string())?;
    world.end(Target::Node(node), Signal::SIGTERM).await?;
    let config = world.cluster.nodes[node].folder.join("node.toml");
    let config_before = std::fs::read_to_string(&config).map_err(|e| e.to_string())?;
    if with_keys {
        world.on_cluster("new-generation", &[&id, "--frozen", &note]).await?;
    }
    let run = world.on_node(node, &["new-generation", "--reason", "campaign"]).await?;
    succeeded("new-generation", &run)?;
    let generation = run.stdout.split_whitespace().nth(1).unwrap_or_default().to_owned();
    let old = run.stdout.lines().nth(1).and_then(|line| line.rsplit(' ').next()).unwrap_or_default().to_owned();
    replaced_log_is_whole(world, node, &config_before, &old).await?;
    let latest = world.model.of(&id, world.generations[node]).iter().map(|known| known.micros).max().unwrap_or(0);
    let latest = latest.max(super::clock::now().micros()).max(world.lost_until.micros());
    world.lost_until = Timestamp::from_micros(latest + MARGIN_MICROS);
    world.generations[node] += 1;
    world.replaced.insert(id.clone());
    if with_keys {
        world.restart(Target::Aggregator).await?;
    }
    world.start(Target::Node(node)).await?;
    reported(world, node, |line| line["verdict"] == "rollback" && !line["alarm"]["presented"].is_null()).await?;
    let args = ["nodes", "accept", &id, "--new-generation", &generation, "--reason", "campaign"];
    let run = world.cli(&args).await?;
    succeeded(&args.join(" "), &run)?;
    world.start_writers(node)
}

/// Checks that the replaced log still has every acknowledged entry.
async fn replaced_log_is_whole(world: &mut World, node: usize, config: &str, old: &str) -> Outcome {
    let (id, generation) = (world.id(node), world.generations[node]);
    // Put the copy of the configuration into the node's folder, because the paths in it are relative.
    let copy = world.cluster.nodes[node].folder.join(format!("old-{generation}.toml"));
    let lines: Vec<&str> = config.lines().filter(|line| !line.starts_with("data_dir")).collect();
    let text = format!("data_dir = {old:?}\n{}\n", lines.join("\n"));
    std::fs::write(&copy, text).map_err(|e| e.to_string())?;
    let to = super::clock::ahead().to_text();
    let mut command = std::process::Command::new(piperoll_tests::piperoll());
    command.args(["node", "export", "--direct", "--from", "0001-01-01", "--to", &to, "--config"]).arg(&copy);
    let run = World::run(command).await?;
    let limit = world.prunable(node);
    let is_pruned = limit > 0;
    if run.code != 0 && !(is_pruned && run.code == 3) {
        return Err(format!("the log of {id} that was put aside cannot be exported ({}): {}", run.code, run.stderr));
    }
    let mut rows = Vec::new();
    for line in run.stdout.lines() {
        rows.extend(Row::parse(line)?);
    }
    let there: HashSet<u64> = rows.iter().map(|row| row.seq).collect();
    let known = world.model.of(&id, generation);
    let is_gone = |known: &super::model::Known| {
        world.model.is_erased(known) || (known.seq < limit && !there.contains(&known.seq))
    };
    world.tally.check("receipts of a log that was put aside", checks::receipts(&known, &rows, is_gone))
}
