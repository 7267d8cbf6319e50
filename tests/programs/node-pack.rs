//! Runs many nodes in one process, each with its own log, certificate and listeners, so that a few processes on a test
//! machine form a cluster of a hundred nodes. The arguments are the paths of the nodes' node.toml files.

use std::path::Path;
use std::sync::Arc;

use piperoll_net::clock::SystemClock;
use piperoll_node::Node;
use piperoll_node::config::NodeConfig;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

#[tokio::main]
async fn main() {
    let shutdown = CancellationToken::new();
    let mut running = JoinSet::new();
    for path in std::env::args().skip(1) {
        let config = NodeConfig::load(Path::new(&path)).expect("a node's configuration");
        let node = Node::bind(config, Arc::new(SystemClock)).await.expect("a node");
        running.spawn(node.run(shutdown.clone()));
    }
    let mut terminate = signal(SignalKind::terminate()).expect("a signal handler");
    terminate.recv().await;
    shutdown.cancel();
    running.join_all().await;
}
