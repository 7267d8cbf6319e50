//! Starts the cluster: three nodes, one of them with rows old enough to prune, and an aggregator.

use std::path::Path;

use nix::sys::signal::Signal;
use piperoll_client::NodeClient;
use piperoll_format::time::Timestamp;
use piperoll_tests::{ClockShim, Cluster, Interference};

use super::checks::Outcome;
use super::faults::{AGED, NODES, Target};
use super::model::Model;
use super::probe::Asker;
use super::report::Counters;
use super::world::World;
use super::writers;

const IDS: [&str; NODES] = ["mx1", "mx2", "mx3"];
/// Ages of the old rows in days. Each prune deletes the rows of the oldest remaining age.
pub(crate) const AGES: [u64; 5] = [400, 380, 360, 340, 320];
/// Number of rows of one age: more than a tile of 256 rows, which is the unit of pruning.
const ROWS_OF_AN_AGE: usize = 270;
const DAY_SECONDS: u64 = 86_400;
const MAPPING: &str =
    "description = \"campaign\"\n[field.category]\nconstant = \"data\"\n[field.action]\nconstant = \"campaign.said\"\n";

fn ago(days: u64) -> String {
    format!("-{}s", days * DAY_SECONDS)
}

/// Number of rows that fills a block of the index (65,536 rows), so that the block is written to a file. Recorded in long runs
/// only.
const INDEXED: usize = 66_000;
const BATCH_MAX: usize = 6_000;

/// Starts the cluster. Calls `made` with the folder as soon as the folder exists, so that a failed start can be examined too.
pub(crate) async fn world(tally: Counters, is_long: bool, made: impl FnOnce(&Path)) -> Result<World, String> {
    let mut cluster = Cluster::made(&IDS, |id| (id == IDS[AGED]).then(|| ago(AGES[0]))).await;
    made(cluster.dir.path());
    // The folder is the evidence of a violation, so it must outlive the process. If there was no violation, main.rs removes it.
    cluster.dir.disable_cleanup(true);
    cluster.poll_every(250);
    other_systems(&cluster)?;
    let shim = ClockShim::compiled(cluster.dir.path());
    if shim.is_none() {
        tally.skipped("clock steps of a running node (no C compiler; clocks step by restarts)".to_owned());
    }
    for node in &mut cluster.nodes {
        if let Some(shim) = &shim {
            let clock = cluster.dir.path().join(format!("clock-{}", node.id));
            std::fs::write(&clock, "0").map_err(|e| e.to_string())?;
            node.environment.extend(shim.environment(&clock));
        }
    }
    let model = Model::default();
    let asker = Asker {
        http: cluster.browser_like(),
        url: cluster.url.clone(),
        token: cluster.token.clone(),
        model: model.clone(),
        tally: tally.clone(),
    };
    let has_strace = Interference::is_possible();
    if !has_strace {
        tally.skipped("ENOSPC, EIO and slow disks (no strace, or it may not attach here)".to_owned());
    }
    let mut world = World {
        cluster,
        model,
        tally,
        asker,
        writers: (0..NODES).map(|_| None).collect(),
        generations: [0; NODES],
        lost_until: Timestamp::from_micros(0),
        old_rows: 0,
        is_pruned: false,
        number_of_prunes: 0,
        replaced: Default::default(),
        has_shim: false,
        has_strace,
        interferences: Vec::new(),
        log_read: Default::default(),
        number: 0,
    };
    for target in [Target::Node(0), Target::Node(1), Target::Node(2), Target::Aggregator] {
        world.start(target).await?;
    }
    aged(&mut world).await?;
    if is_long {
        for _ in 0..INDEXED / BATCH_MAX {
            writers::record(&world.socket(0), 0, &world.model, BATCH_MAX).await?;
        }
    } else {
        world.tally.skipped("files of the index (a run of five minutes or more has one)".to_owned());
    }
    world.has_shim = shim.is_some() && follows_the_shim(&world).await?;
    if shim.is_some() && !world.has_shim {
        world.tally.skipped(
            "clock steps of a running node (a statically linked program preloads nothing; clocks step by restarts)"
                .to_owned(),
        );
    }
    world.wait_until_settled().await?;
    Ok(world)
}

/// Configures a destination on one node and a source on another, so that files with their offsets exist and can be damaged.
fn other_systems(cluster: &Cluster) -> Outcome {
    let append = |node: usize, table: String| {
        let config = cluster.nodes[node].folder.join("node.toml");
        let text = std::fs::read_to_string(&config).map_err(|e| e.to_string())?;
        std::fs::write(&config, format!("{text}\n{table}")).map_err(|e| e.to_string())
    };
    let (target, source) = (cluster.dir.path().join("out.ndjson"), cluster.dir.path().join("app.log"));
    std::fs::write(&source, "{\"number\":1}\n").map_err(|e| e.to_string())?;
    std::fs::write(cluster.nodes[1].folder.join("app.toml"), MAPPING).map_err(|e| e.to_string())?;
    append(0, format!("[[forward]]\nname = \"out\"\nto = \"file://{}\"\n", target.display()))?;
    append(1, format!("[[intake]]\nname = \"app\"\nfile = \"{}\"\nmap = \"app.toml\"\n", source.display()))
}

/// Records old rows, each batch with a clock closer to the present.
async fn aged(world: &mut World) -> Outcome {
    let node = Target::Node(AGED);
    for next in AGES[1..].iter().map(Some).chain([None]) {
        writers::record(&world.socket(AGED), 0, &world.model, ROWS_OF_AN_AGE).await?;
        world.end(node, Signal::SIGTERM).await?;
        match next {
            Some(days) => world.cluster.set_clock(AGED, &ago(*days)),
            None => world.cluster.clear_clock(AGED),
        }
        world.start(node).await?;
    }
    let status = status(world, AGED).await?;
    world.old_rows = status.head_seq.unwrap_or(0);
    Ok(())
}

pub(crate) async fn status(world: &World, node: usize) -> Result<piperoll_protocol::node::NodeStatus, String> {
    let client = NodeClient::new(&world.socket(node)).map_err(|e| e.to_string())?;
    client.status().await.map_err(|e| e.to_string())
}

async fn follows_the_shim(world: &World) -> Result<bool, String> {
    const AHEAD: i64 = 1_000;
    let clock = world.cluster.dir.path().join(format!("clock-{}", world.id(0)));
    std::fs::write(&clock, AHEAD.to_string()).map_err(|e| e.to_string())?;
    let ahead = status(world, 0).await?.now.micros() - super::clock::now().micros();
    std::fs::write(&clock, "0").map_err(|e| e.to_string())?;
    Ok(ahead > AHEAD * 1_000_000 / 2)
}
