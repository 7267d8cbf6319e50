//! Lives of clusters, chosen by a seed: rows are recorded, pruned, held and erased, keys change, logs are replaced, put back
//! and begun again, members come and go, clocks are wrong, and the aggregator forgets. After each step every statement is
//! compared with a model that knows every row that was ever acknowledged.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]

mod event;
mod model;
mod statements;
mod world;

use piperoll_tests::Rng;

use model::Range;
use world::World;

/// The first seed; lives of other seeds: `PIPEROLL_LIVES_SEED=7 PIPEROLL_LIVES=20 cargo test --test lives`.
const SEED_VARIABLE: &str = "PIPEROLL_LIVES_SEED";
/// How many lives each test lives.
const NUMBER_VARIABLE: &str = "PIPEROLL_LIVES";
const EVENTS: usize = 14;

fn variable(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |text| text.parse().unwrap())
}

async fn life(seed: u64) {
    let mut rng = Rng::new(seed);
    let mut world = World::begin(2).await;
    let mut events = Vec::new();
    while events.len() < EVENTS {
        let event = event::choose(&mut rng, world.model.nodes.len());
        eprintln!("life {seed}: {event:?}");
        if !world.happen(event, &mut rng).await {
            continue;
        }
        events.push(event);
        world.settle().await;
        let begin = if world.marks.is_empty() { 0 } else { *rng.pick(&world.marks) };
        let between = Range { from: begin, to: world::now() };
        if let Err(found) = statements::check(&mut world, between).await {
            world.cluster.dir.disable_cleanup(true);
            let folder = world.cluster.dir.path().display().to_string();
            panic!("life {seed}, after {events:?} (in {folder}): {found}");
        }
        world.heal().await;
        world.settle().await;
        world.marks.push(world::now());
    }
    eprintln!("life {seed}: {EVENTS} events, statements compared: {}", statements::tally());
    world.end();
}

#[tokio::test(flavor = "multi_thread")]
async fn every_statement_is_true_over_a_whole_life() {
    let (first, number) = (variable(SEED_VARIABLE, 1), variable(NUMBER_VARIABLE, 2));
    for seed in first..first + number {
        life(seed).await;
    }
}
