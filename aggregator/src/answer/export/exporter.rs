//! Runs one export: reads all nodes and assembles the bundle.

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use piperoll_evidence::bundle::{self, Manifest};
use piperoll_format::time::Timestamp;
use piperoll_net::clock::{Clock as _, SystemClock};
use piperoll_protocol::aggregator::{Envelope, Status};

use super::archived::ArchivedExport;
use super::assemble::{Heading, assemble};
use super::collect::{Collected, collect, wait_until_witnessed};
use super::signer::Exporter;
use crate::answer::fanout::{Cursors, by_node, envelope};
use crate::answer::outcome::NodeOutcome;
use crate::cluster::roster::Cluster;
use crate::scan::plan::{NodePlan, ask, ask_asides};
use crate::scan::proof_verifier::RangeCompleteness;
use crate::scan::query::Query;

/// Pause between two attempts of an export that waits for missing nodes.
pub(crate) const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// Handling of missing nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Incomplete {
    Refuse,
    Wait(Duration),
    Partial,
}

/// Requester and reason of an export, and its handling of missing nodes.
#[derive(Debug, Clone)]
pub(crate) struct ExportJob {
    pub(crate) by: String,
    pub(crate) reason: String,
    pub(crate) incomplete: Incomplete,
}

impl ExportJob {
    /// Returns how long the export is retried while nodes are missing.
    pub(crate) fn patience(&self) -> Duration {
        match self.incomplete {
            Incomplete::Wait(patience) => patience,
            Incomplete::Refuse | Incomplete::Partial => Duration::ZERO,
        }
    }
}

/// A bundle, or the statement that names the missing nodes.
pub(crate) enum Outcome {
    Made { file: File, manifest: Box<Manifest>, envelope: Envelope },
    Refused(Envelope),
}

impl Exporter {
    /// Runs a query for witnessed rows (`Query::sealed`) and creates its bundle, or returns the completeness statement if nodes
    /// are missing and the export must not be partial.
    pub(crate) async fn export(
        self: &Arc<Self>,
        cluster: &Cluster,
        query: &Query,
        order: ExportJob,
    ) -> io::Result<Outcome> {
        let started = Instant::now();
        loop {
            let created = SystemClock.now();
            // Treat an end in the future as an open end, because rows may still be recorded before it.
            let to = if query.to > created { Timestamp::MAX } else { query.to };
            let query = &Query { to, ..query.clone() };
            let nodes = self.collect(cluster, query, created).await?;
            let logs: Vec<NodeOutcome> =
                nodes.iter().flat_map(|logs| logs.iter().map(|log| log.part.snapshot())).collect();
            let parts: Vec<NodeOutcome> =
                by_node(&logs).iter().map(|part| held_to_proof(part.within(query), query)).collect();
            let rows_of = |id: &_| {
                let logs = nodes.iter().flatten().filter(|log| &log.part.member.node.id == id);
                logs.map(Collected::rows).sum()
            };
            let envelope = envelope(&parts, query, &rows_of, None, Cursors::default());
            let incomplete = match order.incomplete {
                Incomplete::Wait(patience) if !envelope.complete && started.elapsed() + RETRY_PAUSE < patience => {
                    tokio::time::sleep(RETRY_PAUSE).await;
                    continue;
                }
                Incomplete::Refuse | Incomplete::Wait(_) if !envelope.complete => {
                    return Ok(Outcome::Refused(envelope));
                }
                Incomplete::Refuse => "refuse",
                Incomplete::Wait(_) => "wait",
                Incomplete::Partial => "partial",
            };
            let asked = bundle::BundleRequest {
                by: order.by,
                reason: order.reason,
                filter: query.filter.to_string(),
                from: query.from,
                to: query.to,
                incomplete: incomplete.to_owned(),
            };
            let heading = Heading { asked, created, complete: envelope.complete };
            let (exporter, reports) = (Arc::clone(self), envelope.nodes.clone());
            let assembled = tokio::task::spawn_blocking(move || assemble(&exporter, nodes, reports, heading)).await;
            let (file, manifest) = assembled.map_err(io::Error::other)??;
            return Ok(Outcome::Made { file, manifest: Box::new(manifest), envelope });
        }
    }

    /// Collects the rows of all nodes concurrently. The current log of each node comes first.
    async fn collect(
        self: &Arc<Self>,
        cluster: &Cluster,
        query: &Query,
        created: Timestamp,
    ) -> io::Result<Vec<Vec<Collected>>> {
        let mut reading = Vec::new();
        for member in &cluster.members {
            // This plan only decides whether the node is queried at all. The request itself depends on the checkpoint
            // that `wait_until_witnessed` waits for.
            let dialed = match ask(member, &Query { sealed: false, ..query.clone() }, None) {
                NodePlan::Absent => continue,
                NodePlan::Not { .. } => false,
                NodePlan::Scan(_) => true,
            };
            let (exporter, member, query, limits) =
                (Arc::clone(self), Arc::clone(member), query.clone(), cluster.limits);
            let archive = cluster.archive.clone();
            reading.push(tokio::spawn(async move {
                if dialed && member.circuit_open().is_none() {
                    wait_until_witnessed(&member).await;
                }
                let mut logs = vec![match ask(&member, &query, None) {
                    NodePlan::Scan(asked) => {
                        collect(Arc::clone(&member), *asked, limits, created, &exporter.dir).await?
                    }
                    NodePlan::Not { status, reason } => Collected::none(NodeOutcome::unasked(&member, status, reason)),
                    NodePlan::Absent => {
                        Collected::none(NodeOutcome::unasked(&member, Status::Excluded, "retired".to_owned()))
                    }
                }];
                // Without the node's current log, nothing shows which logs preceded it.
                let asides = if logs[0].proven.is_some() { ask_asides(&member, &query, None) } else { Vec::new() };
                for asked in asides {
                    logs.push(collect(Arc::clone(&member), asked, limits, created, &exporter.dir).await?);
                }
                if let Some(archive) = &archive {
                    let (query, limits, dir) = (&query, &limits, exporter.dir.as_path());
                    ArchivedExport { archive, query, limits, created, dir }.add_to(&member, &mut logs).await?;
                }
                io::Result::Ok(logs)
            }));
        }
        let mut nodes = Vec::with_capacity(reading.len());
        for task in reading {
            nodes.push(task.await.map_err(io::Error::other)??);
        }
        Ok(nodes)
    }
}

/// The outcome of a node in a bundle: without a filter, it has answered in full only if that is proven. A verifier makes the same check.
fn held_to_proof(mut part: NodeOutcome, query: &Query) -> NodeOutcome {
    let is_answered = matches!(part.status, Status::Ok | Status::Archived) && !part.from_archive.is_empty();
    if let (true, true, RangeCompleteness::Not(message)) = (is_answered, query.filter.is_empty(), &part.counters.proof)
    {
        (part.status, part.reason) = (Status::Error, Some(format!("not proven complete: {message}")));
    }
    part
}
