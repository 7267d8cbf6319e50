//! Runs the daemons: reads the configuration, binds, reports readiness, waits for a signal, drains.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use piperoll_aggregator::config::AggregatorConfig;
use piperoll_aggregator::{Aggregator, LocalLog};
use piperoll_format::ids::NodeId;
use piperoll_net::clock::SystemClock;
use piperoll_net::identity::Identity;
use piperoll_net::telemetry;
use piperoll_node::config::NodeConfig;
use piperoll_node::{KeptLog, Node};
use sd_notify::NotifyState;
use tokio_util::sync::CancellationToken;

use crate::args::AggregatorCommand;
use crate::exit::Exit;

const HEALTH_TIMEOUT: Duration = Duration::from_secs(3);

pub(crate) async fn node(config: &Path) -> anyhow::Result<Exit> {
    let config = NodeConfig::load(config)?;
    telemetry::start(config.log_format);
    outlive_size_limits()?;
    let node = Node::bind(config, Arc::new(SystemClock)).await?;
    let shutdown = CancellationToken::new();
    stop_on_signal(&shutdown)?;
    tell_service_manager(&shutdown);
    node.run(shutdown).await;
    Ok(Exit::Complete)
}

pub(crate) async fn aggregator(command: AggregatorCommand) -> anyhow::Result<Exit> {
    match command {
        AggregatorCommand::Serve { config } => serve_aggregator(&config).await,
        AggregatorCommand::Health { config } => health(&config).await,
        AggregatorCommand::Token(command) => crate::token::run(command).await,
    }
}

/// Runs the aggregator. Its embedded node starts first and stops last, because it records the aggregator's own entries.
async fn serve_aggregator(config: &Path) -> anyhow::Result<Exit> {
    let config = AggregatorConfig::load(config)?;
    telemetry::start(config.log_format);
    outlive_size_limits()?;
    let shutdown = CancellationToken::new();
    let node_shutdown = CancellationToken::new();
    let node = match &config.embedded_node {
        None => None,
        Some(path) => {
            let node_config = NodeConfig::load(path).context("the embedded node")?;
            let node = Node::bind(node_config, Arc::new(SystemClock)).await.context("the embedded node")?;
            Some(tokio::spawn(node.run(node_shutdown.clone())))
        }
    };
    let kept = kept_logs(&config).await;
    let aggregator = Aggregator::bind(config, &kept).await;
    let served = match aggregator {
        Ok(aggregator) => {
            stop_on_signal(&shutdown)?;
            tell_service_manager(&shutdown);
            aggregator.run(shutdown).await;
            Ok(Exit::Complete)
        }
        Err(error) => Err(error.into()),
    };
    node_shutdown.cancel();
    if let Some(node) = node {
        let _ = node.await;
    }
    served
}

/// Opens the logs of nodes that have left the cluster. A folder that cannot be read does not prevent the aggregator from
/// starting.
async fn kept_logs(config: &AggregatorConfig) -> HashMap<NodeId, Result<LocalLog, String>> {
    let mut logs = HashMap::new();
    for (node, path) in &config.kept {
        let opened = kept_log(node, path, config.identity()).await.map_err(|error| format!("{error:#}"));
        if let Err(error) = &opened {
            tracing::error!(%node, config = %path.display(), error, "cannot read the directory of a node that left the cluster");
        }
        logs.insert(node.clone(), opened);
    }
    logs
}

async fn kept_log(node: &NodeId, path: &Path, reader: Identity) -> anyhow::Result<LocalLog> {
    let config = NodeConfig::load(path)?;
    anyhow::ensure!(
        &config.node_id == node,
        "{} is the configuration of another node, {}",
        path.display(),
        config.node_id
    );
    let log = KeptLog::open(&config, Arc::new(SystemClock)).await?;
    Ok(Arc::new(move |stream| {
        tokio::spawn(log.clone().serve(stream, reader.clone()));
    }))
}

/// Asks the aggregator on this machine whether it is ready, trusting only this cluster's authority.
pub(crate) async fn health(config: &Path) -> anyhow::Result<Exit> {
    let config = AggregatorConfig::load(config)?;
    let (host, port) = config.listen.rsplit_once(':').unwrap_or(("127.0.0.1", "7400"));
    let here = match host {
        "0.0.0.0" => format!("127.0.0.1:{port}"),
        "[::]" => format!("[::1]:{port}"),
        _ => config.listen.clone(),
    };
    let address = tokio::net::lookup_host(&here)
        .await?
        .next()
        .with_context(|| format!("{here} does not resolve to an address"))?;
    // Every aggregator's certificate is also valid for this name, on any interface.
    let client = crate::remote::https_client_at(Some(&config.files.ca), "localhost", address)?;
    let answer = client.get(format!("https://localhost:{port}/readyz")).timeout(HEALTH_TIMEOUT).send().await?;
    anyhow::ensure!(answer.status().is_success(), "{}", answer.text().await?);
    Ok(Exit::Complete)
}

/// Notifies systemd, if it requests notifications, that the daemon is ready, alive and stopping (sd_notify(3)). The listeners are
/// already bound, so services that start after this one can connect.
fn tell_service_manager(shutdown: &CancellationToken) {
    let tell = |states: &[NotifyState<'_>]| {
        if let Err(error) = sd_notify::notify(states) {
            tracing::warn!(%error, "cannot notify the service manager");
        }
    };
    tell(&[NotifyState::Ready]);
    let shutdown = shutdown.clone();
    tokio::spawn(async move {
        match sd_notify::watchdog_enabled() {
            // Notify twice in each watchdog period.
            Some(period) => {
                let mut tick = tokio::time::interval(period / 2);
                while tokio::select! { () = shutdown.cancelled() => false, _ = tick.tick() => true } {
                    tell(&[NotifyState::Watchdog]);
                }
            }
            None => shutdown.cancelled().await,
        }
        tell(&[NotifyState::Stopping]);
    });
}

/// Makes a write that exceeds a file size limit (`LimitFSIZE=`) fail with an error, instead of ending the process.
fn outlive_size_limits() -> anyhow::Result<()> {
    // Registering a handler disables the signal's default action; the signal itself is ignored.
    let _ = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::from_raw(nix::libc::SIGXFSZ))?;
    Ok(())
}

/// Starts an orderly shutdown on SIGTERM or Ctrl-C.
fn stop_on_signal(shutdown: &CancellationToken) -> anyhow::Result<()> {
    let asked = asked_to_stop()?;
    let shutdown = shutdown.clone();
    tokio::spawn(async move {
        asked.await;
        shutdown.cancel();
    });
    Ok(())
}

/// Returns a future that resolves on SIGTERM or Ctrl-C. Signals are caught from this call on.
pub(crate) fn asked_to_stop() -> anyhow::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}
