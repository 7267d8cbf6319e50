//! Runs a node with a separate clock, for tests in which clocks differ, are equal or step. The shipped program has no such
//! switch. `PIPEROLL_TEST_CLOCK` is `+60s` or `-7s` for an offset, or `@1776240000` for a stopped clock.

use std::path::Path;
use std::sync::Arc;

use piperoll_format::time::Timestamp;
use piperoll_net::clock::{Clock, SystemClock};
use piperoll_node::Node;
use piperoll_node::config::NodeConfig;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

const MICROS: i64 = 1_000_000;

enum TestClock {
    Offset(i64),
    Still(Timestamp),
}

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        match self {
            Self::Offset(micros) => Timestamp::from_micros(SystemClock.now().micros() + micros),
            Self::Still(timestamp) => *timestamp,
        }
    }
}

fn parse(text: &str) -> Option<TestClock> {
    if let Some(seconds) = text.strip_prefix('@') {
        return Some(TestClock::Still(Timestamp::from_micros(seconds.parse::<i64>().ok()? * MICROS)));
    }
    Some(TestClock::Offset(text.strip_suffix('s')?.parse::<i64>().ok()? * MICROS))
}

#[tokio::main]
async fn main() {
    piperoll_net::crypto::install();
    let clock = std::env::var("PIPEROLL_TEST_CLOCK").ok().and_then(|text| parse(&text));
    let clock = clock.expect("PIPEROLL_TEST_CLOCK is an offset such as +60s or a moment such as @1776240000");
    let config = std::env::args().next_back().expect("the path of node.toml as the last argument");
    let config = NodeConfig::load(Path::new(&config)).expect("a node's configuration");
    let node = Node::bind(config, Arc::new(clock)).await.expect("a node");
    let shutdown = CancellationToken::new();
    let mut terminate = signal(SignalKind::terminate()).expect("a signal handler");
    let stop = shutdown.clone();
    tokio::spawn(async move {
        terminate.recv().await;
        stop.cancel();
    });
    node.run(shutdown).await;
}
