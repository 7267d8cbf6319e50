//! State that all request handlers share.

use std::collections::HashMap;
use std::sync::Arc;

use piperoll_format::ids::ClusterName;
use piperoll_net::fair_share::Shares;
use piperoll_net::tls::TlsStore;
use tokio_util::sync::CancellationToken;

use crate::access::rate_limit::RequestLimits;
use crate::access::saved_searches::Searches;
use crate::access::sessions::Sessions;
use crate::access::tokens::TokenStore;
use crate::answer::export::Exporter;
use crate::archiving::archiver::Archiver;
use crate::audit::Audit;
use crate::cluster::roster::Cluster;
use crate::config::{AggregatorConfig, User};
use crate::metrics::Metrics;

/// Maximum number of concurrent requests whose answer has not been read yet: in total, and per caller. Each may hold a page of
/// some megabytes.
pub(crate) const REQUESTS_MAX: usize = 256;
pub(crate) const REQUESTS_PER_CALLER_MAX: usize = 16;
/// Maximum number of full-size pages that have not been read yet; beyond it, pages are small.
pub(crate) const PAGES_MAX: usize = 16;
pub(crate) const PAGES_PER_CALLER_MAX: usize = 4;
/// Maximum number of concurrent streams. Each has a connection to every node and buffers of about a megabyte per node.
pub(crate) const STREAMS_MAX: usize = 32;
pub(crate) const STREAMS_PER_CALLER_MAX: usize = 8;
/// Maximum number of concurrent counts. Each holds up to 150 MB of values, and as much again for every node that is
/// counting by fields with very many values at the same time. Any client with read access can request a count.
pub(crate) const COUNTS_MAX: usize = 4;
pub(crate) const COUNTS_PER_CALLER_MAX: usize = 1;
/// Maximum number of concurrent tails. Each has a connection to every node, and up to 4,096 events that its client has not read yet.
pub(crate) const TAILS_MAX: usize = 32;
/// Maximum number of concurrent tails of one caller: enough for the pages that one person has open.
pub(crate) const TAILS_PER_CALLER_MAX: usize = 6;
/// Maximum number of bundles checked concurrently.
pub(crate) const BUNDLES_MAX: usize = 2;
pub(crate) const BUNDLES_PER_CALLER_MAX: usize = 1;

/// Shared state of all request handlers.
pub(crate) struct App {
    pub(crate) cluster: Cluster,
    pub(crate) audit: Audit,
    pub(crate) exporter: Arc<Exporter>,
    /// The archive that this aggregator writes, if it is configured.
    pub(crate) archiver: Option<Archiver>,
    pub(crate) tokens: TokenStore,
    pub(crate) users: HashMap<String, User>,
    pub(crate) cluster_name: ClusterName,
    pub(crate) metrics: Metrics,
    pub(crate) tls: Arc<TlsStore>,
    /// Capacity for requests of any kind, until their answer has been read.
    pub(crate) requests: Shares,
    /// Capacity for full-size pages.
    pub(crate) pages: Shares,
    /// Capacity for exports and checks.
    pub(crate) streams: Shares,
    /// Capacity for counts.
    pub(crate) counts: Shares,
    /// Capacity for live tails.
    pub(crate) tails: Shares,
    /// Capacity for checks of bundles.
    pub(crate) bundles: Shares,
    pub(crate) sessions: Sessions,
    pub(crate) searches: Searches,
    pub(crate) limits: RequestLimits,
    /// Cancelled when the aggregator begins to stop; live tails then end at once.
    pub(crate) stopping: CancellationToken,
}

impl App {
    pub(crate) fn new(
        cluster: Cluster,
        tokens: TokenStore,
        audit: Audit,
        exporter: Exporter,
        searches: Searches,
        tls: Arc<TlsStore>,
        config: &AggregatorConfig,
    ) -> Self {
        Self {
            cluster,
            metrics: Metrics::new(&audit),
            tls,
            audit,
            exporter: Arc::new(exporter),
            archiver: config.archive.clone().map(|archive| Archiver::new(archive, &config.state_dir)),
            tokens,
            users: config.users.clone(),
            cluster_name: config.cluster.clone(),
            requests: Shares::new(REQUESTS_MAX, REQUESTS_PER_CALLER_MAX),
            pages: Shares::new(PAGES_MAX, PAGES_PER_CALLER_MAX),
            streams: Shares::new(STREAMS_MAX, STREAMS_PER_CALLER_MAX),
            counts: Shares::new(COUNTS_MAX, COUNTS_PER_CALLER_MAX),
            tails: Shares::new(TAILS_MAX, TAILS_PER_CALLER_MAX),
            bundles: Shares::new(BUNDLES_MAX, BUNDLES_PER_CALLER_MAX),
            sessions: Sessions::new(config.session_idle),
            searches,
            limits: RequestLimits::new(config.rates),
            stopping: CancellationToken::new(),
        }
    }
}
