//! State that all request handlers share.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::response::Response;
use axum::routing::get;
use piperoll_format::ids::{ClusterName, NodeId};
use piperoll_format::time::Timestamp;
use piperoll_net::clock::Clock;
use piperoll_net::fair_share::Shares;
use piperoll_net::tls::TlsStore;
use piperoll_protocol::node::NodeStatus;
use piperoll_redact::Redactor;
use tokio_util::sync::CancellationToken;

use super::quota::Quotas;
use super::room::Room;
use crate::config::NodeConfig;
use crate::metrics::Metrics;
use crate::retention::Retention;
use crate::sinks::Forwarding;
use crate::store::{ReadError, Store};
use crate::tokens::RecordingTokens;

/// Maximum number of concurrent scans: over the socket in total and per user, and over the peer port in total and per aggregator.
/// Each scan may hold about a megabyte of rows until the client has read them.
const SCANS_MAX: usize = 32;
const SCANS_PER_CALLER_MAX: usize = 12;
const PEER_SCANS_MAX: usize = 128;
const PEER_SCANS_PER_CALLER_MAX: usize = 96;
/// Maximum time that a scrape waits for values that are read from the database.
const METRICS_WAIT: Duration = Duration::from_secs(1);

/// State that every handler works with.
pub(crate) struct App {
    pub(super) store: Store,
    pub(super) clock: Arc<dyn Clock>,
    /// `None` for a log that is opened read-only.
    pub(super) tls: Option<Arc<TlsStore>>,
    pub(super) cluster: ClusterName,
    pub(super) node_id: NodeId,
    /// Users who may read through the socket.
    pub(super) readers: Vec<u32>,
    pub(super) started_at: Timestamp,
    pub(super) metrics: Metrics,
    pub(super) batch_room: Room,
    pub(super) quotas: Quotas,
    /// Slots for scans and checks, each held until the client has read the end of the response.
    pub(super) scans: Shares,
    pub(super) peer_scans: Shares,
    pub(super) redactor: Redactor,
    pub(super) tokens: RecordingTokens,
    pub(super) retention: Retention,
    pub(super) forwarding: Forwarding,
    /// Cancelled when the node begins to stop, so that the stop does not wait for clients that follow the log.
    pub(crate) stopping: CancellationToken,
}

impl App {
    pub(crate) fn new(
        store: Store,
        clock: Arc<dyn Clock>,
        tls: Option<Arc<TlsStore>>,
        config: &NodeConfig,
        forwarding: Forwarding,
    ) -> Self {
        let mut readers = config.socket.readers.clone();
        readers.extend([0, nix::unistd::geteuid().as_raw()]);
        let retention = Retention::new(store.clone(), Arc::clone(&clock), config.retention);
        let metrics = Metrics::new(store.health());
        Self {
            store,
            retention,
            tls,
            cluster: config.cluster.clone(),
            node_id: config.node_id.clone(),
            readers,
            started_at: clock.now(),
            clock,
            metrics,
            batch_room: Room::new(),
            scans: Shares::new(SCANS_MAX, SCANS_PER_CALLER_MAX),
            peer_scans: Shares::new(PEER_SCANS_MAX, PEER_SCANS_PER_CALLER_MAX),
            quotas: Quotas::new(config.socket.bytes_per_hour),
            redactor: config.redactor.clone(),
            tokens: RecordingTokens::new(&config.http.tokens),
            forwarding,
            stopping: CancellationToken::new(),
        }
    }

    pub(crate) fn retention(&self) -> Retention {
        self.retention.clone()
    }

    pub(crate) fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    pub(crate) fn forwarding(&self) -> &Forwarding {
        &self.forwarding
    }

    pub(super) async fn metrics_page(&self) -> Response {
        // A hanging disk must not delay the report of faults.
        let status = tokio::time::timeout(METRICS_WAIT, self.status()).await.ok().and_then(Result::ok);
        self.metrics.page(self.store.health(), status.as_ref(), &self.forwarding.statuses())
    }

    pub(super) async fn status(&self) -> Result<NodeStatus, ReadError> {
        self.store.check_file().await;
        let extent = self.store.extent().await?;
        let health = self.store.health();
        let database = self.store.dir().database();
        // A log start or a hold that cannot be read is reported by `verify`; the status still contains everything else.
        let floor = self.store.floor().await.ok().flatten();
        let retention = self.retention.status().await.ok();
        Ok(NodeStatus {
            cluster: self.cluster.clone(),
            node_id: self.node_id.clone(),
            generation: self.store.generation(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            head_seq: health.head(),
            rows_stored: Some(extent.head_seq.map_or(0, |head| head + 1)),
            oldest_seq: extent.oldest_seq,
            last_timestamp: extent.last_timestamp,
            now: self.clock.now(),
            started_at: self.started_at,
            write_fault: health.append_fault(),
            read_fault: health.read_fault(),
            // The database includes SQLite's write-ahead log: rows stay in it until a checkpoint of SQLite moves them to the main
            // file.
            database_bytes: [database.clone(), database.with_extension("db-wal")]
                .iter()
                .map(|path| std::fs::metadata(path).map_or(0, |meta| meta.len()))
                .sum(),
            disk_free_bytes: disk_free(self.store.dir().path()),
            reader_panics: health.reader_panics(),
            signed_size: health.signed_size(),
            witnessed_size: health.witnessed_size(),
            pruned: floor.map(|floor| floor.rows()),
            index: Some(self.store.index()),
            retention,
            forward: self.forwarding.statuses(),
            intake: self.metrics.intake.1.all(),
            certificate_not_after: self.tls.as_ref().map(|tls| tls.current().not_after),
        })
    }
}

/// Returns the routes of the metrics listener, which serves only `/metrics`, for a scraper on this machine.
pub(crate) fn metrics_routes(app: &Arc<App>) -> Router {
    let app = Arc::clone(app);
    Router::new().route("/metrics", get(move || async move { app.metrics_page().await }))
}

/// Returns the number of free bytes on the file system of `path`, for the daemon's own status.
fn disk_free(path: &Path) -> u64 {
    nix::sys::statvfs::statvfs(path).map_or(0, |stat| stat.blocks_available().saturating_mul(stat.fragment_size()))
}
