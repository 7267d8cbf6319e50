//! Starts and ends faults.

use std::time::Duration;

use nix::sys::signal::Signal;
use piperoll_tests::{ClockShim, Fault as Broken, Interference, Rng};

use super::checks::{self, Outcome};
use super::faults::{Disk, Fault, Network, Target};
use super::orders;
use super::probe;
use super::world::World;

/// Starts a fault that lasts until `end` ends it. Does nothing for commands and damage, which `act` carries out.
pub(crate) async fn begin(world: &mut World, fault: Fault, rng: &mut Rng) -> Outcome {
    match fault {
        Fault::Kill(target) => {
            for _ in 0..rng.below(3) {
                world.end(target, Signal::SIGKILL).await?;
                world.start(target).await?;
                pause(rng, 300).await;
            }
            world.end(target, Signal::SIGKILL).await
        }
        Fault::Freeze(target) => world.signal(target, Signal::SIGSTOP),
        Fault::Restart(Target::Aggregator) => restart_while_asked(world, rng).await,
        Fault::Restart(target) => world.restart(target).await,
        Fault::Network(node, network) => {
            let proxy = &world.cluster.nodes[node].proxy;
            proxy.set(broken(network));
            if rng.coin() {
                proxy.cut();
            }
            Ok(())
        }
        Fault::Disk(node, disk) if world.has_strace => {
            match Interference::with(world.cluster.pid(node), injected(disk)) {
                Some(interference) => world.interferences.push(interference),
                None => world.tally.skipped("a disk fault (strace did not attach)".to_owned()),
            }
            Ok(())
        }
        Fault::Clock(node, seconds) => step(world, node, seconds).await,
        _ => Ok(()),
    }
}

/// Runs an operator's command or damages files. Does nothing for a fault that `begin` starts.
pub(crate) async fn act(world: &mut World, fault: Fault, rng: &mut Rng) -> Outcome {
    match fault {
        Fault::Prune => orders::prune(world, rng).await,
        Fault::Erase(node) => orders::erase(world, node, rng).await,
        Fault::RotateMac(node) => orders::rotate_mac(world, node).await,
        Fault::RotateKey(node) => orders::rotate_key(world, node).await,
        Fault::NewGeneration(node, with_keys) => orders::new_generation(world, node, with_keys).await,
        Fault::Renew(target) => world.on_cluster("renew", &[&world.name(target)]).await,
        Fault::Damage(target, edit) => super::damage::damage(world, target, edit, rng).await,
        _ => Ok(()),
    }
}

/// Ends a lasting fault.
pub(crate) async fn end(world: &mut World, fault: Fault) -> Outcome {
    match fault {
        Fault::Kill(target) => world.start(target).await,
        Fault::Freeze(target) => world.signal(target, Signal::SIGCONT),
        Fault::Network(node, _) => {
            world.cluster.nodes[node].proxy.heal();
            world.cluster.nodes[node].proxy.cut();
            Ok(())
        }
        Fault::Disk(node, disk) => {
            world.interferences.drain(..).for_each(Interference::end);
            // After some write errors a node refuses appends until a restart (docs/operations.md, "Troubleshooting").
            if matches!(disk, Disk::Broken | Disk::SyncFails) {
                world.end(Target::Node(node), Signal::SIGKILL).await?;
                world.start(Target::Node(node)).await?;
            }
            Ok(())
        }
        Fault::Clock(node, _) => step(world, node, 0).await,
        _ => Ok(()),
    }
}

fn broken(network: Network) -> Broken {
    match network {
        Network::Refused => Broken::Close,
        Network::Silent => Broken::Silent,
        Network::Trickle => Broken::Trickle,
        Network::Cut(bytes) => Broken::CutAfter(bytes),
        Network::Garbage => Broken::Garbage,
        Network::DelayMillis(millis) => Broken::Delay(Duration::from_millis(millis)),
        Network::Corrupt => Broken::Corrupt,
    }
}

fn injected(disk: Disk) -> &'static str {
    match disk {
        Disk::Full => "pwrite64:error=ENOSPC",
        Disk::Broken => "pwrite64:error=EIO:when=3+",
        Disk::SyncFails => "fdatasync,fsync:error=EIO:when=2+3",
        Disk::Slow => "fdatasync,fsync:delay_enter=700000",
    }
}

async fn step(world: &mut World, node: usize, seconds: i64) -> Outcome {
    if world.has_shim {
        let clock = world.cluster.dir.path().join(format!("clock-{}", world.id(node)));
        return ClockShim::set(&clock, seconds).map_err(|e| e.to_string());
    }
    world.end(Target::Node(node), Signal::SIGTERM).await?;
    match seconds {
        0 => world.cluster.clear_clock(node),
        seconds => world.cluster.set_clock(node, &format!("{seconds:+}s")),
    }
    world.start(Target::Node(node)).await
}

async fn pause(rng: &mut Rng, millis: usize) {
    tokio::time::sleep(Duration::from_millis(rng.below(millis) as u64)).await;
}

/// Restarts the aggregator while an export and a tail are running. If the export exits with 0, it must be complete; the tail must
/// not print a row twice.
async fn restart_while_asked(world: &mut World, rng: &mut Rng) -> Outcome {
    let (output, tailed) = (world.fresh("export.ndjson"), world.fresh("tail.ndjson"));
    let known = world.model.known(|known| known.micros >= world.lost_until.micros());
    let from = world.lost_until.to_text();
    let child = |args: &[&str], stdout: std::process::Stdio| {
        let mut command = tokio::process::Command::from(world.cluster.command(args));
        command.kill_on_drop(true).stdout(stdout).stderr(std::process::Stdio::null()).spawn().map_err(|e| e.to_string())
    };
    let ahead = super::clock::ahead().to_text();
    let mut export = child(&["export", "--from", &from, "--to", &ahead, "-o", &output], std::process::Stdio::null())?;
    let file = std::fs::File::create(&tailed).map_err(|e| e.to_string())?;
    let mut follower = child(&["tail", "-f", "-n", "100", "--json"], file.into())?;
    pause(rng, 700).await;
    world.end(Target::Aggregator, if rng.coin() { Signal::SIGTERM } else { Signal::SIGKILL }).await?;
    world.start(Target::Aggregator).await?;
    let limit = Duration::from_secs(120);
    let ended = tokio::time::timeout(limit, export.wait()).await;
    let ended = ended.map_err(|_| format!("an export did not end within {limit:?} of its aggregator"))?;
    if ended.is_ok_and(|status| status.success()) {
        let text = std::fs::read_to_string(&output).map_err(|e| format!("an export that exits with 0: {e}"))?;
        let stream = probe::parse(&text)?;
        let outcome = checks::is_complete(stream.is_complete, "an export that exits with 0");
        world.tally.check("exit code of an export", outcome)?;
        let outcome = checks::complete_is_true(true, &known, &stream.rows, |known| world.model.is_erased(known));
        world.tally.check("complete is true", outcome)?;
    }
    let _ = follower.kill().await;
    let text = std::fs::read_to_string(&tailed).map_err(|e| e.to_string())?;
    world.tally.check("a tail repeats nothing", checks::repeats_nothing(&text))?;
    for path in [&output, &tailed] {
        let _ = std::fs::remove_file(path);
    }
    Ok(())
}
