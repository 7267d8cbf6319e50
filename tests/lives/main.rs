//! Runs random lives of clusters, chosen by a seed: rows are recorded, pruned, held and erased, keys change, logs are replaced,
//! restored and started over, members come and go, clocks are wrong, and the aggregator loses its state. After each step, every
//! statement is compared with a model that contains every row that was ever acknowledged.

#![allow(clippy::unwrap_used, reason = "a test that cannot continue panics")]

mod aggregators;
mod event;
mod model;
mod statements;
mod world;

use piperoll_tests::Rng;

use model::Range;
use world::World;

/// Environment variable with the first seed. For other seeds: `PIPEROLL_LIVES_SEED=7 PIPEROLL_LIVES=20 cargo test --test lives`.
const SEED_VARIABLE: &str = "PIPEROLL_LIVES_SEED";
/// Environment variable with the number of lives, shared between the two tests.
const NUMBER_VARIABLE: &str = "PIPEROLL_LIVES";
const EVENTS: usize = 14;
/// Number of events after which tails are followed again.
const TAIL_EVERY: usize = 7;

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
        world.wait_until_settled().await;
        let begin = if world.marks.is_empty() { 0 } else { *rng.pick(&world.marks) };
        let between = Range { from: begin, to: world::now() };
        let is_followed = events.len() % TAIL_EVERY == 0;
        // Compare an aggregator's statements with the part of the model that this aggregator can know.
        let asked = rng.below(world.cluster.aggregators());
        let known = world.known(asked);
        let whole = std::mem::replace(&mut world.model, known);
        world.cluster.turn_to(asked);
        let found = statements::check(&mut world, between, is_followed).await;
        world.cluster.turn_to(0);
        world.model = whole;
        if let Err(found) = found {
            world.cluster.dir.disable_cleanup(true);
            let folder = world.cluster.dir.path().display().to_string();
            panic!("life {seed}, after {events:?} (in {folder}): {found}");
        }
        world.heal().await;
        world.wait_until_settled().await;
        world.marks.push(world::now());
    }
    eprintln!("life {seed}: {EVENTS} events, statements compared: {}", statements::tally());
    world.end();
}

/// Runs every second life, beginning with the one at this offset from the first seed.
async fn lives(offset: u64) {
    let (first, number) = (variable(SEED_VARIABLE, 1), variable(NUMBER_VARIABLE, 2));
    for seed in (first + offset..first + number).step_by(2) {
        life(seed).await;
    }
}

// Two tests, so that two lives run in parallel.

#[tokio::test(flavor = "multi_thread")]
async fn every_statement_is_true_over_a_whole_life() {
    lives(0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_statement_is_true_over_another_life() {
    lives(1).await;
}

/// Tests the model itself: a comparison with the model is useful only if the model can contradict a statement.
#[test]
fn the_model_tells_what_is_missing_from_what_is_not() {
    use model::{Expected, Model, Node, Row, State};
    let row = |seq: u64, state| {
        let (id, micros) = (format!("id{seq}"), seq.cast_signed() * 10);
        Row { node: 0, log: 0, seq, id, micros, state }
    };
    let model = Model {
        nodes: vec![Node::new(0)],
        rows: vec![row(1, State::Here), row(2, State::Lost), row(3, State::Erased), row(4, State::Pruned)],
    };
    let range = |from, to| Range { from, to };
    for (from, to, expected) in [
        (0, 20, Expected::Complete),
        (0, 21, Expected::Incomplete),
        (21, 40, Expected::Complete),
        (40, 41, Expected::Incomplete),
    ] {
        assert_eq!(model.expected(0, range(from, to), false), expected, "{from} to {to}");
    }
    let with = |change: fn(&mut Node)| {
        let mut other = model.clone();
        change(&mut other.nodes[0]);
        other
    };
    let down = with(|node| node.is_up = false);
    assert_eq!(down.expected(0, range(21, 40), false), Expected::Incomplete);
    let retired = with(|node| (node.is_up, node.is_retired, node.clear_from) = (false, true, 35));
    assert_eq!(retired.expected(0, range(0, 20), false), Expected::Incomplete);
    assert_eq!(retired.expected(0, range(36, 39), false), Expected::Complete);
    let kept = with(|node| (node.is_up, node.is_retired, node.is_kept) = (false, true, true));
    assert_eq!(kept.expected(0, range(0, 20), false), Expected::Complete);
    let replaced = with(|node| (node.log, node.present_from) = (1, 50));
    for is_bundle in [false, true] {
        assert_eq!(
            replaced.expected(0, range(0, 20), is_bundle),
            Expected::Complete,
            "read from where it was put aside"
        );
    }
    let unproven = with(|node| (node.log, node.present_from, node.is_unproven) = (1, 50, true));
    assert_eq!(unproven.expected(0, range(0, 20), true), Expected::Either);
    assert_eq!(down.expected_of_tail(0, 21), Expected::Incomplete);
    assert_eq!(model.expected_of_tail(0, 20), Expected::Incomplete, "a row is lost");
    assert_eq!(model.expected_of_tail(0, 21), Expected::Complete, "what was pruned is no part of it");
    let later = with(|node| (node.is_up, node.joined) = (false, 100));
    assert_eq!(later.expected(0, range(41, 90), false), Expected::Either, "it joined later");
}
