//! Running the daemons: read the configuration, bind, say so, wait for a signal, drain.

use std::path::Path;
use std::sync::Arc;

use piperoll_node::Node;
use piperoll_node::config::NodeConfig;
use piperoll_shared::net::clock::SystemClock;
use piperoll_shared::net::telemetry;
use tokio_util::sync::CancellationToken;

use crate::args::AggregatorCommand;
use crate::exit::Exit;

pub(crate) async fn node(config: &Path) -> anyhow::Result<Exit> {
    let config = NodeConfig::load(config)?;
    telemetry::start(config.log_format);
    let node = Node::bind(config, Arc::new(SystemClock)).await?;
    let shutdown = CancellationToken::new();
    stop_on_signal(&shutdown)?;
    node.run(shutdown).await;
    Ok(Exit::Complete)
}

pub(crate) async fn aggregator(_command: AggregatorCommand) -> anyhow::Result<Exit> {
    anyhow::bail!("not built")
}

/// SIGTERM and Ctrl-C ask for an orderly end.
fn stop_on_signal(shutdown: &CancellationToken) -> anyhow::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    let shutdown = shutdown.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = tokio::signal::ctrl_c() => {}
        }
        shutdown.cancel();
    });
    Ok(())
}
