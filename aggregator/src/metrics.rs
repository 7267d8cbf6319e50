//! Metrics of an aggregator.

use std::sync::atomic::AtomicU64;
use std::sync::{Mutex, PoisonError};

use piperoll_format::time::Timestamp;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

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
        }
    }

    pub(crate) fn count(&self, action: &'static str, status: u16) {
        self.requests.get_or_create(&RequestLabel { action, status }).inc();
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
