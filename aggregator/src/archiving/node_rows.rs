//! Reads rows of the nodes for the archive.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use piperoll_archive::row::{ArchivedRow, Content, LogId};
use piperoll_archive::write::{Chunk, Source, SourceError};
use piperoll_format::entry::Prefix;
use piperoll_format::merkle::{Hash, decode_hash};
use piperoll_format::order::Order;
use piperoll_format::time::Timestamp;
use piperoll_format::verify::Integrity;
use piperoll_protocol::aggregator::Status;
use piperoll_protocol::node::{ProofAnswer, ProofRequest, ScanRequest, peer_path};

use crate::access::scope::Scope;
use crate::cluster::connection::{Channel, Failure};
use crate::cluster::node_handle::NodeHandle;
use crate::cluster::roster::Cluster;
use crate::scan::node_reader::{NodeReader, conclude};
use crate::scan::plan::NodeRequest;
use crate::scan::verified_row::VerifiedRow;

/// Bytes of rows that one chunk may have. A chunk with more is read again with half of the rows.
const CHUNK_BYTES_MAX: usize = 24 * 1024 * 1024;
/// Maximum size of a proof's answer, and time limit for it.
const PROOF_BYTES_MAX: usize = 64 * 1024;
const PROOF_TIMEOUT: Duration = Duration::from_secs(10);

/// Rows of the cluster's nodes.
pub(super) struct NodeRows<'a>(pub(super) &'a Cluster);

impl NodeRows<'_> {
    fn member(&self, log: &LogId) -> Result<&Arc<NodeHandle>, SourceError> {
        let member = self.0.members.iter().find(|member| member.node.id == log.node_id);
        let member = member.ok_or_else(|| SourceError("it is not in the roster".to_owned()))?;
        if member.is_out_of_reach() {
            return Err(SourceError("it left the cluster, and this aggregator cannot read its folder".to_owned()));
        }
        match member.circuit_open() {
            Some((_, reason)) => Err(SourceError(reason)),
            None => Ok(member),
        }
    }

    async fn open(&self, log: &LogId, range: Range<u64>, limit: Option<u64>) -> Result<NodeReader, SourceError> {
        let member = self.member(log)?;
        let request = ScanRequest {
            filter: String::new(),
            from: Timestamp::MIN,
            to: Timestamp::MAX,
            order: Order::Asc,
            limit,
            after: None,
            from_seq: Some(range.start),
            head: Some(range.end - 1),
            generation: Some(log.generation),
            count: None,
            follow: false,
            // The rows are compared with the checkpoint as a whole, which proves each of them.
            prove: None,
        };
        let asked = NodeRequest {
            request,
            pinned: None,
            all_there: true,
            scope: Scope::default(),
            aside: None,
            archived: None,
        };
        let reader = NodeReader::open(member, &asked, &self.0.limits, Channel::Own).await;
        let reader = reader.map_err(|failure| failed(member, &failure))?;
        if reader.head.generation != log.generation {
            let reason = format!("it answers from the log of generation {}", reader.head.generation);
            return Err(SourceError(reason));
        }
        Ok(reader)
    }

    /// Reads the rows of a range; `None` if they have too many bytes.
    async fn read(&self, log: &LogId, range: Range<u64>) -> Result<Option<Chunk>, SourceError> {
        let mut reader = self.open(log, range.clone(), None).await?;
        let (mut rows, mut bytes) = (Vec::new(), 0);
        let failure = loop {
            match reader.next().await {
                Ok(Some(row)) => {
                    let row = archived(&row)?;
                    bytes += row.bytes();
                    if bytes > CHUNK_BYTES_MAX && range.end - range.start > 1 {
                        return Ok(None);
                    }
                    rows.push(row);
                }
                Ok(None) => break None,
                Err(failure) => break Some(failure),
            }
        };
        if let Some(failure) = failure {
            return Err(failed(self.member(log)?, &failure));
        }
        if let (status, Some(reason)) = conclude(&reader.counters, true, None)
            && status != Status::Ok
        {
            return Err(SourceError(reason));
        }
        // Rows of several eras arrive in the order of their times.
        rows.sort_by_key(|row| row.seq);
        Ok(Some(Chunk { rows, epochs: reader.head.epochs }))
    }
}

fn failed(member: &NodeHandle, failure: &Failure) -> SourceError {
    member.failed(failure);
    SourceError(failure.reason().to_owned())
}

/// Converts a row whose MAC, or whose erasure, was verified.
fn archived(row: &VerifiedRow) -> Result<ArchivedRow, SourceError> {
    let seq = row.key.seq;
    let invalid = || {
        let reason = row.reason.unwrap_or("it cannot be verified");
        SourceError(format!("row {seq} fails verification: {reason}"))
    };
    match (row.integrity, &row.erased) {
        (Integrity::Erased, Some(gone)) => Ok(ArchivedRow {
            seq,
            era: gone.said.era,
            timestamp: gone.said.timestamp,
            content: Content::Erased { leaf: gone.said.leaf },
        }),
        (Integrity::Ok, None) => {
            let prefix = Prefix::parse(&row.body).ok_or_else(invalid)?;
            let mac = row.mac.as_ref().try_into().map_err(|_| invalid())?;
            Ok(ArchivedRow {
                seq,
                era: prefix.era,
                timestamp: prefix.timestamp,
                content: Content::Entry { epoch: row.epoch, body: row.body.clone(), mac },
            })
        }
        _ => Err(invalid()),
    }
}

impl Source for NodeRows<'_> {
    async fn first_seq(&self, log: &LogId) -> Result<u64, SourceError> {
        let mut reader = self.open(log, 0..u64::MAX >> 1, Some(1)).await?;
        let _ = reader.next().await.map_err(|failure| SourceError(failure.reason().to_owned()))?;
        Ok(reader.head.pruned.map_or(0, |pruned| pruned.to_seq))
    }

    async fn rows(&self, log: &LogId, range: Range<u64>) -> Result<Chunk, SourceError> {
        let mut end = range.end;
        loop {
            if let Some(chunk) = self.read(log, range.start..end).await? {
                return Ok(chunk);
            }
            end = range.start + (end - range.start).div_ceil(2);
        }
    }

    async fn proof(&self, log: &LogId, range: Range<u64>, size: u64) -> Result<Vec<Hash>, SourceError> {
        let member = self.member(log)?;
        let request = ProofRequest { generation: log.generation, size, runs: vec![(range.start, range.end)] };
        let answer: Result<ProofAnswer, Failure> =
            member.link.post_json(peer_path::PROOF, &request, PROOF_BYTES_MAX, PROOF_TIMEOUT).await;
        let answer = answer.map_err(|failure| failed(member, &failure))?;
        let hashes: Option<Vec<Hash>> = answer.hashes.iter().map(|hash| decode_hash(hash)).collect();
        hashes.ok_or_else(|| SourceError("its proof is not a list of hashes".to_owned()))
    }
}
