//! Damages one file of a stopped daemon at a time and checks the answers against the model. A daemon may refuse to start only if
//! its message names the file. No answer may falsely claim to be complete, and no row may falsely be marked as valid. The folders
//! are restored afterwards.

use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use piperoll_format::time::Timestamp;

use super::checks::{self, Outcome};
use super::faults::{Edit, NODES, Target};
use super::model::{Known, Row};
use super::probe::WRITTEN;
use super::setup;
use super::verdicts;
use super::world::World;
use piperoll_tests::Rng;

/// Longest wait for the aggregator to reach the damaged node. No check depends on it: even after a timeout the aggregator is
/// queried, and only a false answer is a violation.
const REACHED: Duration = Duration::from_secs(15);

/// Number of files damaged in one round, one after the other.
const FILES: usize = 2;

pub(crate) async fn damage(world: &mut World, target: Target, edit: Edit, rng: &mut Rng) -> Outcome {
    // Wait until every row is witnessed: any loss of a witnessed row must be noticed.
    for node in 0..NODES {
        world.finish_writers(node).await?;
    }
    world.wait_until_settled().await?;
    for node in (0..NODES).filter(|node| target != Target::Node(*node)) {
        world.start_writers(node)?;
    }
    let signal = if rng.coin() { Signal::SIGTERM } else { Signal::SIGKILL };
    world.end(Target::Aggregator, signal).await?;
    if target != Target::Aggregator {
        world.end(target, signal).await?;
    }
    let folders = folders(world, target);
    let kept = PathBuf::from(world.fresh("kept"));
    for (number, folder) in folders.iter().enumerate() {
        copy(folder, &kept.join(number.to_string()))?;
    }
    for _ in 0..FILES {
        // The first two of `folders` are the aggregator's, and the last one is the damaged node's.
        let (file, what) = edited(if target == Target::Aggregator { &folders } else { &folders[2..] }, edit, rng)?;
        eprintln!("  {what}");
        answers_are_true(world, target, &file).await.map_err(|found| format!("{what}, after {signal}: {found}"))?;
        for daemon in [target, Target::Aggregator] {
            if world.exit_code(daemon).is_none() {
                world.end(daemon, Signal::SIGKILL).await?;
            }
        }
        for (number, folder) in folders.iter().enumerate() {
            std::fs::remove_dir_all(folder).map_err(|e| e.to_string())?;
            copy(&kept.join(number.to_string()), folder)?;
        }
    }
    std::fs::remove_dir_all(&kept).map_err(|e| e.to_string())?;
    if target != Target::Aggregator {
        world.start(target).await?;
    }
    world.start(Target::Aggregator).await
}

/// Lists the folders to save and restore. A witness's memory must match the node's log, so both are restored together.
fn folders(world: &World, target: Target) -> Vec<PathBuf> {
    let aggregator = world.cluster.aggregator_folder();
    let mut folders = vec![aggregator.join("state"), aggregator.join("node/data")];
    if let Target::Node(node) = target {
        folders.push(world.cluster.nodes[node].folder.join("data"));
    }
    folders
}

fn copy(from: &Path, to: &Path) -> Outcome {
    let wrong = |e: std::io::Error| format!("{}: {e}", from.display());
    std::fs::create_dir_all(to).map_err(wrong)?;
    std::fs::set_permissions(to, std::fs::metadata(from).map_err(wrong)?.permissions()).map_err(wrong)?;
    for entry in std::fs::read_dir(from).map_err(wrong)? {
        let entry = entry.map_err(wrong)?;
        let target = to.join(entry.file_name());
        if entry.file_type().map_err(wrong)?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            std::fs::copy(entry.path(), target).map_err(wrong)?;
        }
    }
    Ok(())
}

fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            files(&path, found);
        } else if path.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.len() > 0) {
            found.push(path);
        }
    }
}

/// Edits one of the files; returns its path and a description of the edit.
fn edited(folders: &[PathBuf], edit: Edit, rng: &mut Rng) -> Result<(PathBuf, String), String> {
    let mut candidates = Vec::new();
    folders.iter().for_each(|folder| files(folder, &mut candidates));
    candidates.sort();
    let path = rng.pick(&candidates).clone();
    let wrong = |e: std::io::Error| format!("{}: {e}", path.display());
    let file = std::fs::OpenOptions::new().read(true).write(true).open(&path).map_err(wrong)?;
    let length = file.metadata().map_err(wrong)?.len();
    let how = match edit {
        Edit::Flip => {
            let at = rng.number() % length;
            let mut byte = [0];
            file.read_exact_at(&mut byte, at).map_err(wrong)?;
            let bit = rng.below(8);
            byte[0] ^= 1 << bit;
            file.write_all_at(&byte, at).map_err(wrong)?;
            format!("bit {bit} of byte {at} of {length} flipped")
        }
        Edit::Halve => {
            file.set_len(length / 2).map_err(wrong)?;
            "cut to half".to_owned()
        }
        Edit::Empty => {
            file.set_len(0).map_err(wrong)?;
            "emptied".to_owned()
        }
    };
    let what = format!("{}: {how}", path.display());
    Ok((path, what))
}

/// Starts the stopped daemons again and checks all of their answers.
async fn answers_are_true(world: &mut World, target: Target, file: &Path) -> Outcome {
    let daemons = if target == Target::Aggregator { vec![target] } else { vec![target, Target::Aggregator] };
    for daemon in daemons {
        let before = world.cluster.log_text(&world.name(daemon)).len();
        world.spawn(daemon);
        if let Some(code) = world.answers(daemon).await? {
            let text = world.cluster.log_text(&world.name(daemon));
            let said = text.get(before..).unwrap_or_default();
            let outcome = checks::refusal_names(Some(code), said, &names(file));
            world.tally.check("a refusal names the file", outcome)?;
        }
    }
    verdicts::panics(world)?;
    if let Target::Node(node) = target {
        local(world, node).await?;
    }
    if world.exit_code(Target::Aggregator).is_none() {
        remote(world, target).await?;
    }
    verdicts::panics(world)
}

/// Returns the names by which an error message may refer to the file. For a `-wal` or `-shm` file of SQLite, these include the
/// name of the database.
fn names(file: &Path) -> Vec<String> {
    let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let stem = name.trim_end_matches("-wal").trim_end_matches("-shm").to_owned();
    vec![name, stem]
}

/// Checks the results of `verify` and `export` on a node, whether or not its daemon runs.
async fn local(world: &World, node: usize) -> Outcome {
    let (id, generation) = (world.id(node), world.generations[node]);
    let known = world.model.of(&id, generation);
    let verify = world.on_node(node, &["verify"]).await?;
    let to = super::clock::ahead().to_text();
    // The export of an intact log exits with 3 only if rows were pruned.
    let prunable = world.prunable(node);
    let first = match setup::status(world, node).await {
        Ok(status) => status.oldest_seq.unwrap_or(0).min(prunable),
        Err(_) => prunable,
    };
    let is_gone = |known: &Known| known.seq < first || world.model.is_erased(known);
    for filter in ["", WRITTEN] {
        let export = world.on_node(node, &["export", filter, "--from", "0001-01-01", "--to", &to]).await?;
        if [verify.code, export.code].iter().any(|code| ![0, 1, 3, 4].contains(code)) {
            return Err(format!("{id}: verify ended with {} and export with {}", verify.code, export.code));
        }
        let rows: Vec<Row> = export.stdout.lines().filter_map(|line| Row::parse(line).ok().flatten()).collect();
        let outcome = checks::nothing_changed_is_shown_as_sound(&known, &rows);
        world.tally.check("sound rows are unchanged", outcome)?;
        if export.code == 0 || (export.code == 3 && verify.code == 0 && first > 0) {
            let outcome = checks::receipts(&known, &rows, is_gone);
            let codes = format!("verify {}, export {filter:?} {}", verify.code, export.code);
            let outcome = outcome.map_err(|found| format!("{codes}, and {found}"));
            world.tally.check("what is called whole is whole", outcome)?;
        }
    }
    Ok(())
}

/// Queries the aggregator; `Asker::stream` checks its answers against the model.
async fn remote(world: &mut World, target: Target) -> Outcome {
    let deadline = Instant::now() + REACHED;
    while let Target::Node(node) = target {
        let nodes = world.nodes().await.unwrap_or_default();
        let id = world.id(node);
        let line = nodes.iter().find(|line| line["node_id"] == id.as_str());
        let is_reached = line.is_some_and(|line| line["status"] != "unreachable" && !line["head_seq"].is_null());
        if is_reached || Instant::now() > deadline || world.exit_code(target).is_some() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let since = world.lost_until;
    for (from, filter) in [(Timestamp::from_micros(0), ""), (since, ""), (since, WRITTEN)] {
        if let Err(found) = world.asker.stream(from, filter).await
            && super::probe::is_untrue(&found)
        {
            return Err(found);
        }
    }
    Ok(())
}
