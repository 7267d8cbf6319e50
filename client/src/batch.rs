//! Combines the entries of many tasks into one request, so that they share the node's commit.

use std::time::Duration;

use piperoll_protocol::node::Receipt;
use piperoll_protocol::problem::Problem;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use super::ClientError;
use super::node::NodeClient;

/// Maximum number of entries, and of bytes, in one request.
const LINES_MAX: usize = 512;
const BYTES_MAX: usize = 4 * 1024 * 1024;
/// Maximum number of concurrent requests. The node commits in groups, so it can collect a second request while it syncs the first.
const UNDER_WAY_MAX: usize = 4;

/// Result for one entry of a batch.
pub(crate) type EntryResult = Result<Receipt, ClientError>;

/// An entry, and the channel on which its caller waits for the result.
#[derive(Debug)]
pub(crate) struct Submission {
    line: String,
    reply: oneshot::Sender<EntryResult>,
}

impl Submission {
    pub(crate) fn new(text: &str) -> (Self, oneshot::Receiver<EntryResult>) {
        let (reply, answer) = oneshot::channel();
        (Self { line: format!("{text}\n"), reply }, answer)
    }
}

pub(crate) struct Batcher {
    node: NodeClient,
    patience: Duration,
}

impl Batcher {
    pub(crate) fn new(node: NodeClient, patience: Duration) -> Self {
        Self { node, patience }
    }

    /// Sends batches until every sender has been dropped.
    pub(crate) async fn run(self, mut submissions: mpsc::Receiver<Submission>) {
        let mut under_way = JoinSet::new();
        while let Some(first) = submissions.recv().await {
            let mut bytes = first.line.len();
            let mut batch = vec![first];
            while batch.len() < LINES_MAX && bytes < BYTES_MAX {
                let Ok(next) = submissions.try_recv() else { break };
                bytes += next.line.len();
                batch.push(next);
            }
            while under_way.len() >= UNDER_WAY_MAX {
                under_way.join_next().await;
            }
            // Drop entries whose callers have stopped waiting: they need no answer, and nothing should be recorded for them.
            batch.retain(|submission| !submission.reply.is_closed());
            if batch.is_empty() {
                continue;
            }
            while under_way.try_join_next().is_some() {}
            under_way.spawn(send(self.node.clone(), self.patience, batch));
        }
        while under_way.join_next().await.is_some() {}
    }
}

async fn send(node: NodeClient, patience: Duration, batch: Vec<Submission>) {
    let (lines, replies): (Vec<String>, Vec<_>) = batch.into_iter().map(|one| (one.line, one.reply)).unzip();
    let answers = send_lines(&node, patience, lines.concat().into_bytes(), replies.len()).await;
    for (reply, answer) in replies.into_iter().zip(answers) {
        let _ = reply.send(answer);
    }
}

/// Sends `count` lines in one request and returns one answer for each line.
pub(crate) async fn send_lines(
    node: &NodeClient,
    patience: Duration,
    lines: Vec<u8>,
    count: usize,
) -> Vec<EntryResult> {
    let all = |error: &dyn Fn() -> ClientError| (0..count).map(|_| Err(error())).collect();
    match tokio::time::timeout(patience, node.append_lines(lines, false)).await {
        Err(_) => all(&|| ClientError::Unknown("the request timed out".to_owned())),
        // The node refused the request as a whole, not a single entry. Report a transient error, because the problem with the
        // endpoint may be fixed later.
        Ok(Err(ClientError::Refused(problem))) => all(&|| ClientError::Protocol(problem.detail.clone())),
        Ok(Err(error)) => all(&|| error.clone()),
        Ok(Ok(report)) if report.results.len() == count => report
            .results
            .into_iter()
            .map(|line| match line.receipt {
                Some(receipt) => Ok(receipt),
                None => Err(ClientError::Refused(Problem::new(line.status, "refused", line.error.unwrap_or_default()))),
            })
            .collect(),
        Ok(Ok(report)) => {
            all(&|| ClientError::Protocol(format!("{} results for {count} entries", report.results.len())))
        }
    }
}
