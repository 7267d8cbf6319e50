//! Metrics of an aggregator.

use std::sync::atomic::AtomicU64;
use std::sync::{Mutex, PoisonError};

use piperoll_format::time::Timestamp;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::archiving::archiver::Figures;
use crate::audit::Audit;
use crate::cluster::node_handle::NodeHandle;
use crate::cluster::witness::status::VERDICTS;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct NodeLabel {
    node: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabel {
    action: &'static str,
    status: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct VerdictLabel {
    node: String,
    verdict: &'static str,
}

/// Request counters and node gauges.
pub(crate) struct Metrics {
    registry: Mutex<Registry>,
    requests: Family<RequestLabel, Counter>,
    node_down: Family<NodeLabel, Gauge>,
    clock_offset: Family<NodeLabel, Gauge<f64, AtomicU64>>,
    /// Clock offset in microseconds, under the metric name of earlier versions.
    clock_offset_micros: Family<NodeLabel, Gauge>,
    witnessed_rows: Family<NodeLabel, Gauge>,
    verdict: Family<VerdictLabel, Gauge>,
    certificate_not_after: Gauge,
    archive: ArchiveMetrics,
}

/// Metrics of the archive. They have no samples unless an archive is configured.
#[derive(Default)]
struct ArchiveMetrics {
    step: Family<ArchiveLabel, Gauge>,
    last_step: Family<ArchiveLabel, Gauge>,
    errors: Family<ArchiveLabel, Counter>,
    rows: Family<ArchiveLabel, Counter>,
    bytes: Family<ArchiveLabel, Counter>,
    pending_deletions: Family<ArchiveLabel, Gauge>,
    node_rows: Family<NodeLabel, Gauge>,
    lag_rows: Family<NodeLabel, Gauge>,
    lag_seconds: Family<NodeLabel, Gauge<f64, AtomicU64>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ArchiveLabel {
    archive: String,
}

impl ArchiveMetrics {
    fn register(registry: &mut Registry) -> Self {
        let all = Self::default();
        registry.register("archive_step", "Number of the archive's newest step", all.step.clone());
        let help = "Time of the last step that this aggregator committed since it started";
        registry.register("archive_last_step_timestamp_seconds", help, all.last_step.clone());
        registry.register("archive_errors", "Failed rounds of the archive", all.errors.clone());
        registry.register("archive_added_rows", "Rows that this aggregator archived", all.rows.clone());
        registry.register("archive_added_bytes", "Bytes of the files that this aggregator archived", all.bytes.clone());
        let help = "Files that were replaced or removed, and that the archive's store keeps";
        registry.register("archive_pending_deletions", help, all.pending_deletions.clone());
        registry.register("archive_node_rows", "Archived rows of a node's log", all.node_rows.clone());
        registry.register("archive_lag_rows", "Witnessed rows of a node that are not archived", all.lag_rows.clone());
        let help = "Age of the newest archived row of a node that has rows to archive";
        registry.register("archive_lag_seconds", help, all.lag_seconds.clone());
        all
    }

    fn set(&self, archive: String, figures: &Figures) {
        let number = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        let label = ArchiveLabel { archive };
        self.step.get_or_create(&label).set(number(figures.step));
        let raise = |counter: &Counter, to: u64| {
            counter.inc_by(to.saturating_sub(counter.get()));
        };
        raise(&self.errors.get_or_create(&label), figures.errors);
        raise(&self.rows.get_or_create(&label), figures.rows);
        raise(&self.bytes.get_or_create(&label), figures.bytes);
        self.pending_deletions.get_or_create(&label).set(number(figures.pending_deletions));
        if let Some(at) = figures.last_step_at {
            self.last_step.get_or_create(&label).set(at.micros() / 1_000_000);
        }
        for (node, rows, pending, age) in &figures.nodes {
            let label = NodeLabel { node: node.clone() };
            self.node_rows.get_or_create(&label).set(number(*rows));
            self.lag_rows.get_or_create(&label).set(number(*pending));
            self.lag_seconds.get_or_create(&label).set(*age);
        }
    }
}

impl Metrics {
    pub(crate) fn new(audit: &Audit) -> Self {
        let mut all = Registry::default();
        audit.register(&mut all);
        let registry = all.sub_registry_with_prefix("piperoll_aggregator");
        let (requests, node_down, clock_offset) = (Family::default(), Family::default(), Family::default());
        registry.register("requests", "Answered requests by action and status", Family::clone(&requests));
        registry.register("node_down", "1 while a node is known to be down", Family::clone(&node_down));
        let help = "Offset of a node's clock from this machine's clock";
        registry.register("node_clock_offset_seconds", help, Family::clone(&clock_offset));
        let (clock_offset_micros, help) = (Family::default(), "Deprecated: use node_clock_offset_seconds");
        registry.register("node_clock_offset_micros", help, Family::clone(&clock_offset_micros));
        let (witnessed_rows, verdict) = (Family::default(), Family::default());
        registry.register(
            "node_witnessed_rows",
            "Rows covered by the cosigned checkpoint",
            Family::clone(&witnessed_rows),
        );
        registry.register("node_verdict", "1 for the witness's current verdict on a node", Family::clone(&verdict));
        let certificate_not_after = Gauge::default();
        let help = "Expiry of this aggregator's certificate";
        registry.register("certificate_not_after_seconds", help, certificate_not_after.clone());
        let archive = ArchiveMetrics::register(registry);
        let registry = Mutex::new(all);
        Self {
            registry,
            requests,
            node_down,
            clock_offset,
            clock_offset_micros,
            witnessed_rows,
            verdict,
            certificate_not_after,
            archive,
        }
    }

    pub(crate) fn count(&self, action: &'static str, status: u16) {
        self.requests.get_or_create(&RequestLabel { action, status }).inc();
    }

    /// Sets the figures of the archive.
    pub(crate) fn set_archive(&self, archive: String, figures: &Figures) {
        self.archive.set(archive, figures);
    }

    /// Renders the metrics page. `not_after` is the expiry of the certificate in use.
    pub(crate) fn page(
        &self,
        members: &[std::sync::Arc<NodeHandle>],
        not_after: Timestamp,
    ) -> axum::response::Response {
        self.certificate_not_after.set(not_after.micros() / 1_000_000);
        for member in members {
            let label = NodeLabel { node: member.node.id.to_string() };
            self.node_down.get_or_create(&label).set(i64::from(member.circuit_open().is_some()));
            let standing = member.witness.standing();
            let rows = i64::try_from(standing.size.unwrap_or_default()).unwrap_or(i64::MAX);
            self.witnessed_rows.get_or_create(&label).set(rows);
            for verdict in VERDICTS {
                let label = VerdictLabel { node: member.node.id.to_string(), verdict: verdict.as_str() };
                self.verdict.get_or_create(&label).set(i64::from(standing.verdict == verdict));
            }
            if let Some(clock) = member.clock() {
                self.clock_offset.get_or_create(&label).set(clock.offset_micros as f64 / 1e6);
                self.clock_offset_micros.get_or_create(&label).set(clock.offset_micros);
            }
        }
        piperoll_net::metrics::page(&self.registry.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
