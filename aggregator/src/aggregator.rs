//! Runs an aggregator from its configuration until shutdown.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use piperoll_client::NodeClient;
use piperoll_format::ids::NodeId;
use piperoll_format::note::KeyKind;
use piperoll_net::clock::{Clock as _, SystemClock};
use piperoll_net::identity::{Identity, Kind};
use piperoll_net::serve::serve_tls;
use piperoll_net::tls::{ClientAuth, TlsError, TlsStore};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::access::saved_searches::Searches;
use crate::access::tokens::{TokenError, TokenStore};
use crate::answer::export::Exporter;
use crate::audit::Audit;
use crate::cluster::archive::ClusterArchive;
use crate::cluster::connection::{LocalLog, NodeConnection};
use crate::cluster::node_handle::NodeHandle;
use crate::cluster::roster::{Cluster, load_cursor_key};
use crate::cluster::witness::{log_start::Keeping, watch::NodeWitness};
use crate::config::AggregatorConfig;
use crate::http;
use crate::state::App;
use crate::tasks::roster_changes::Membership;
use crate::tasks::{archive_rounds, pin_exchange, witness_poll};

/// Reasons why an aggregator cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error(transparent)]
    Token(#[from] TokenError),
    #[error(
        "the certificate names {found}, but this aggregator is {expected}; copy the folder that was created for this aggregator"
    )]
    Identity { found: String, expected: String },
    #[error("cannot listen on {place}: {source}")]
    Listen { place: String, source: std::io::Error },
    #[error("cannot use the state directory {path} (cursor key, tokens): {source}")]
    State { path: std::path::PathBuf, source: std::io::Error },
    #[error("cannot use the node's socket: {0}")]
    Audit(#[from] piperoll_client::ClientError),
    #[error("cannot record: {0}")]
    Recorder(#[from] piperoll_client::OpenError),
}

/// Time limit at shutdown for storing the pins. Afterwards, requests that are still in progress, and whose callers are gone, have
/// the same time to finish.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);

/// An aggregator whose listener is bound but which does not serve requests yet.
pub struct Aggregator {
    app: Arc<App>,
    tls: Arc<TlsStore>,
    listener: TcpListener,
    config: AggregatorConfig,
    membership: Membership,
}

impl Aggregator {
    /// Opens the state and binds the listener. `kept` contains the logs of departed nodes whose folders are available
    /// to this aggregator, or the reasons why such logs cannot be read.
    pub async fn bind(
        config: AggregatorConfig,
        kept: &HashMap<NodeId, Result<LocalLog, String>>,
    ) -> Result<Self, StartError> {
        let tls = TlsStore::load(config.files.clone())?;
        let identity = tls.current().identity.clone();
        if identity != config.identity() {
            return Err(StartError::Identity { found: identity.to_string(), expected: config.identity().to_string() });
        }
        let state = |source| StartError::State { path: config.state_dir.clone(), source };
        let cursor_key = load_cursor_key(&config.state_dir).map_err(state)?;
        let tokens = TokenStore::open(&config.state_dir)?;
        let listener = TcpListener::bind(&config.listen)
            .await
            .map_err(|source| StartError::Listen { place: config.listen.clone(), source })?;
        let name = format!("{}/aggregator/{}", config.cluster, config.id);
        let cosigner = config.witness_key.named(&name, KeyKind::Witness);
        let cosigner =
            cosigner.ok_or_else(|| state(std::io::Error::other(format!("{name:?} is not a valid key name"))))?;
        let export_key = config.export_key.named(&name, KeyKind::Log);
        let export_key =
            export_key.ok_or_else(|| state(std::io::Error::other(format!("{name:?} is not a valid key name"))))?;
        let (cluster_name, dir, roster) = (config.cluster.clone(), &config.state_dir, &config.roster);
        let exporter = Exporter::new(cluster_name, export_key, cosigner.public(), dir, roster, &config.retention)
            .map_err(state)?;
        let keeping = Keeping {
            policies: config.retention.clone().into(),
            witnesses: config.witnesses.iter().chain([cosigner.public()]).cloned().collect(),
            day_checkpoints: config.archive.is_some(),
        };
        let membership = Membership::open(&config);
        let members = config.roster.iter().map(|node| {
            let expected = Identity::new(&config.cluster, Kind::Node, &node.id);
            let kept = kept.get(&node.id).map(Result::as_ref);
            let (local, unreadable) = (kept.and_then(Result::ok).cloned(), kept.and_then(Result::err).cloned());
            if local.is_some() && !node.life.has_ended_by(SystemClock.now()) {
                tracing::warn!(node = %node.id, "the folder of a retired node is configured, but the node is still a member; querying the node itself until it has left");
            }
            let link = NodeConnection::new(node.address.clone(), local, node.life, expected, Arc::clone(&tls), config.limits.connect);
            let witness =
                NodeWitness::open(&config.state_dir, node, &cosigner, keeping.clone(), membership.had_witnessed(&node.id))
                    .map_err(state)?;
            Ok(Arc::new(NodeHandle::new(node.clone(), link, unreadable, witness)))
        });
        let members = members.collect::<Result<_, StartError>>()?;
        let archive = config.archive.clone().map(|archive| Arc::new(ClusterArchive::new(archive)));
        let cluster = Cluster { members, limits: config.limits, cursor_key, archive };
        let audit = Audit::new(NodeClient::new(&config.audit_socket)?)?;
        let searches =
            Searches::open(&config.state_dir).map_err(|error| state(std::io::Error::other(error.to_string())))?;
        let app = Arc::new(App::new(cluster, tokens, audit, exporter, searches, Arc::clone(&tls), &config));
        Ok(Self { app, tls, listener, config, membership })
    }

    /// Serves until `shutdown`.
    pub async fn run(self, shutdown: CancellationToken) {
        let mut background = tokio::task::JoinSet::new();
        background.spawn(Arc::clone(&self.tls).watch());
        for member in &self.app.cluster.members {
            let member = Arc::clone(member);
            background.spawn(async move { member.watch().await });
        }
        for member in &self.app.cluster.members {
            background.spawn(witness_poll::watch(
                Arc::clone(&self.app),
                Arc::clone(member),
                self.config.witness_interval,
            ));
        }
        background.spawn(archive_rounds::run(Arc::clone(&self.app)));
        background.spawn(self.membership.watch(Arc::clone(&self.app)));
        let own = self.config.id.to_string();
        background.spawn(pin_exchange::run(Arc::clone(&self.app), own, self.config.witness_exchange));
        let app = Arc::clone(&self.app);
        background.spawn(async move { app.tidy_limits().await });
        let (stop, stopping) = (shutdown.clone(), self.app.stopping.clone());
        background.spawn(async move {
            stop.cancelled().await;
            stopping.cancel();
        });
        tracing::info!(
            aggregator = %self.config.id, listen = %self.config.listen, nodes = self.app.cluster.members.len(),
            "aggregator ready"
        );
        serve_tls(self.listener, Arc::clone(&self.tls), ClientAuth::Optional, http::routes(&self.app), shutdown).await;
        let written = tokio::time::timeout(DRAIN_TIMEOUT, pin_exchange::write_pins(&self.app)).await;
        if !matches!(written, Ok(Ok(()))) {
            tracing::warn!("cannot store pinned checkpoints at shutdown");
        }
        if !self.app.audit.close(DRAIN_TIMEOUT).await {
            tracing::warn!("requests were still in progress at shutdown, or refusals could not be recorded");
        }
        background.shutdown().await;
        tracing::info!(aggregator = %self.config.id, "aggregator stopped");
    }
}
