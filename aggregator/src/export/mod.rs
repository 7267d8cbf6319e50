//! Making an evidence bundle (docs/format.md, "Evidence bundle").
//!
//! Nodes are read at once, each to its end, up to a checkpoint that this aggregator has cosigned; only then is anything
//! put together, so that a bundle never says more than what every node gave.

mod assemble;
mod collect;
mod spool;

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use piperoll_shared::api::aggregator::{Envelope, Status};
use piperoll_shared::log::bundle::{self, KeySpan, Manifest, NodeTrust, Trust};
use piperoll_shared::log::ids::ClusterName;
use piperoll_shared::log::note::{SigningKey, VerifyingKey};
use piperoll_shared::log::time::Timestamp;
use piperoll_shared::net::clock::{Clock as _, SystemClock};

use super::Cluster;
use super::ask::{Ask, ask, ask_asides};
use super::config::RosterNode;
use super::fanout::{Cursors, Part, by_node, envelope};
use super::query::Query;
use assemble::{Heading, assemble};
use collect::{Collected, collect, settle};
use piperoll_shared::log::bundle::KeepPolicy;

/// Between two tries of a caller who waits for missing nodes.
pub(crate) const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// Who signs bundles, and where they are put together.
pub(crate) struct Exporter {
    pub(crate) cluster: ClusterName,
    pub(crate) key: SigningKey,
    pub(crate) dir: PathBuf,
    /// The text of the trust file that goes with a bundle.
    pub(crate) trust: String,
}

/// What to do about nodes that are missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Incomplete {
    Refuse,
    Wait(Duration),
    Partial,
}

/// Who asks, and why.
#[derive(Debug, Clone)]
pub(crate) struct Order {
    pub(crate) by: String,
    pub(crate) reason: String,
    pub(crate) incomplete: Incomplete,
}

impl Order {
    /// How long to try again while nodes are missing.
    pub(crate) fn patience(&self) -> Duration {
        match self.incomplete {
            Incomplete::Wait(patience) => patience,
            Incomplete::Refuse | Incomplete::Partial => Duration::ZERO,
        }
    }
}

/// A bundle, or the statement about who is missing.
pub(crate) enum Outcome {
    Made { file: File, manifest: Box<Manifest>, envelope: Envelope },
    Refused(Envelope),
}

impl Exporter {
    pub(crate) fn new(
        cluster: ClusterName,
        key: SigningKey,
        witness: &VerifyingKey,
        state_dir: &Path,
        roster: &[RosterNode],
        retention: &[KeepPolicy],
    ) -> io::Result<Self> {
        let dir = state_dir.join("exports");
        if !dir.exists() {
            std::os::unix::fs::DirBuilderExt::mode(std::fs::DirBuilder::new().recursive(true), 0o700).create(&dir)?;
        }
        let nodes = roster.iter().map(|node| NodeTrust {
            id: node.id.clone(),
            life: node.life,
            moved: node.moved.clone(),
            keys: node
                .checkpoint_key
                .map(|public| KeySpan { public, generation: None, from_size: 0, to_size: None, until: None })
                .into_iter()
                .collect(),
        });
        let trust = Trust {
            cluster: cluster.clone(),
            nodes: nodes.collect(),
            witnesses: vec![witness.clone()],
            exporters: vec![key.public().clone()],
            retention: retention.to_vec(),
        };
        Ok(Self { cluster, key, dir, trust: trust.to_text() })
    }

    /// Makes the bundle of a sealed query.
    pub(crate) async fn export(
        self: &Arc<Self>,
        cluster: &Cluster,
        query: &Query,
        order: Order,
    ) -> io::Result<Outcome> {
        let started = Instant::now();
        loop {
            let created = SystemClock.now();
            // An end that is still to come is an open one: nobody can say what will be recorded until then.
            let to = if query.to > created { Timestamp::MAX } else { query.to };
            let query = &Query { to, ..query.clone() };
            let nodes = self.collect(cluster, query, created).await?;
            let logs: Vec<Part> = nodes.iter().flat_map(|logs| logs.iter().map(|log| log.part.snapshot())).collect();
            let parts: Vec<Part> = by_node(&logs).iter().map(|part| part.within(query)).collect();
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
            let asked = bundle::Asked {
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

    /// All nodes at once; of each, its present log comes first.
    async fn collect(
        self: &Arc<Self>,
        cluster: &Cluster,
        query: &Query,
        created: Timestamp,
    ) -> io::Result<Vec<Vec<Collected>>> {
        let mut reading = Vec::new();
        for member in &cluster.members {
            // Only to learn whether it is asked at all: what it is asked for depends on the checkpoint it settles on.
            let dialled = match ask(member, &Query { sealed: false, ..query.clone() }, None) {
                Ask::Absent => continue,
                Ask::Not { .. } => false,
                Ask::Scan(_) => true,
            };
            let (exporter, member, query, limits) =
                (Arc::clone(self), Arc::clone(member), query.clone(), cluster.limits);
            reading.push(tokio::spawn(async move {
                if dialled && member.known_down().is_none() {
                    settle(&member).await;
                }
                let mut logs = vec![match ask(&member, &query, None) {
                    Ask::Scan(asked) => collect(Arc::clone(&member), *asked, limits, created, &exporter.dir).await?,
                    Ask::Not { status, reason } => Collected::none(Part::unasked(&member, status, reason)),
                    Ask::Absent => Collected::none(Part::unasked(&member, Status::Excluded, "retired".to_owned())),
                }];
                // Without its present log nothing says which ones were there before.
                let asides = if logs[0].proven.is_some() { ask_asides(&member, &query, None) } else { Vec::new() };
                for asked in asides {
                    logs.push(collect(Arc::clone(&member), asked, limits, created, &exporter.dir).await?);
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
