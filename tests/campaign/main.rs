//! Runs a seeded campaign of random faults, one or two at a time, against a running cluster. After every round, each acknowledged
//! entry must be present, and no statement of a node or the aggregator may be false.

#![allow(clippy::unwrap_used, reason = "a campaign that cannot continue panics")]

mod args;
mod checks;
mod clock;
mod damage;
mod faults;
mod inflict;
mod model;
mod orders;
mod probe;
mod report;
mod setup;
mod verdicts;
mod world;
mod writers;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use tokio::signal::unix::{SignalKind, signal};

use args::Args;
use checks::Outcome;
use faults::{Fault, NODES};
use piperoll_tests::Rng;
use report::Counters;
use world::World;

/// Minimum duration of a run that first fills a block of the index.
const LONG: Duration = Duration::from_secs(300);

#[tokio::main]
async fn main() -> ExitCode {
    piperoll_net::crypto::install();
    let args = match Args::parse(std::env::args().skip(1)) {
        Ok(args) => args,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(2);
        }
    };
    println!("campaign: seed {}, {} s; repeat with: {}", args.seed, args.duration.as_secs(), args.command());
    let (tally, folder) = (Counters::default(), Arc::new(OnceLock::new()));
    let task = tokio::spawn(campaign(args, tally.clone(), Arc::clone(&folder)));
    let abort = task.abort_handle();
    let mut terminate = signal(SignalKind::terminate()).unwrap();
    let interrupted = async move {
        tokio::select! {
            _ = tokio::signal::ctrl_c() => {}
            _ = terminate.recv() => {}
        }
        abort.abort();
        std::future::pending::<()>().await;
    };
    let outcome = tokio::select! {
        outcome = task => outcome,
        () = interrupted => unreachable!("it only aborts the task"),
    };
    finish(&args, &tally, outcome, folder.get())
}

/// Prints the result. The daemons were killed when the campaign's `World` was dropped; the folder is kept only after a violation.
fn finish(
    args: &Args,
    tally: &Counters,
    outcome: Result<Outcome, tokio::task::JoinError>,
    folder: Option<&PathBuf>,
) -> ExitCode {
    let found = match outcome {
        Ok(Ok(())) => None,
        Ok(Err(found)) => Some(found),
        Err(error) if error.is_cancelled() => {
            remove(folder);
            println!("{}", tally.closing(0));
            println!("campaign: interrupted");
            return ExitCode::from(130);
        }
        Err(error) => Some(format!("a step of the campaign panicked: {error}")),
    };
    if let Some(found) = &found {
        println!("campaign: VIOLATION: {found}");
        if let Some(folder) = folder {
            println!("campaign: the evidence is in {}", folder.display());
        }
        println!("campaign: repeat with: {}", args.command());
    } else {
        remove(folder);
    }
    println!("{}", tally.closing(usize::from(found.is_some())));
    if found.is_some() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn remove(folder: Option<&PathBuf>) {
    if let Some(folder) = folder
        && let Err(error) = std::fs::remove_dir_all(folder)
    {
        eprintln!("cannot remove {}: {error}", folder.display());
    }
}

async fn campaign(args: Args, tally: Counters, folder: Arc<OnceLock<PathBuf>>) -> Outcome {
    let mut world = setup::world(tally, args.duration >= LONG, |made| {
        let _ = folder.set(made.to_owned());
    })
    .await?;
    // The time for setup is not counted, so that even a slow machine runs some rounds.
    let begun = Instant::now();
    let mut number = 0;
    while begun.elapsed() < args.duration {
        let (faults, mut rng) = (faults::choose(args.seed, number), faults::generator(!args.seed, number));
        number += 1;
        eprintln!("round {number} ({} s): {faults:?}", begun.elapsed().as_secs());
        let outcome = round(&mut world, &faults, &mut rng).await;
        world.tally.entries(world.model.len());
        outcome.map_err(|found| format!("round {number}, {faults:?}: {found}"))?;
    }
    for target in [0, 1, 2].map(faults::Target::Node).into_iter().chain([faults::Target::Aggregator]) {
        world.end(target, nix::sys::signal::Signal::SIGTERM).await?;
    }
    verdicts::panics(&mut world)
}

/// Runs faults under load, ends them, and checks the cluster.
async fn round(world: &mut World, faults: &[Fault], rng: &mut Rng) -> Outcome {
    let from = clock::now();
    world.replaced.clear();
    for node in 0..NODES {
        world.start_writers(node)?;
    }
    let may_fail = faults.iter().any(|fault| fault.disturbs_the_aggregator());
    let probe = probe::Probe::start(world.asker.clone(), from, may_fail);
    let load = Duration::from_millis(400 + rng.below(1_200) as u64);
    for fault in faults {
        world.tally.fault(fault.kind());
        inflict::begin(world, *fault, rng).await?;
    }
    tokio::time::sleep(load).await;
    for fault in faults {
        inflict::act(world, *fault, rng).await?;
    }
    tokio::time::sleep(load).await;
    for fault in faults.iter().rev() {
        inflict::end(world, *fault).await?;
    }
    for node in 0..NODES {
        world.finish_writers(node).await?;
    }
    probe.end().await?;
    world.tally.round();
    verdicts::round(world, from).await
}
