//! Writers that keep the receipt of every entry. Like an application, a writer resends an entry under the same id until it is
//! acknowledged.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use piperoll_client::{ClientError, NodeClient, Receipt};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::checks::Outcome;
use super::model::Model;

/// Longest wait for the last receipts once all faults have ended.
const LAST_ANSWER: Duration = Duration::from_secs(120);
const BATCH: usize = 20;

/// The writers of one node.
pub(crate) struct Writers {
    node: String,
    is_over: Arc<AtomicBool>,
    tasks: JoinSet<Outcome>,
}

impl Writers {
    /// Starts one writer of single entries and one of batches.
    pub(crate) fn start(node: &str, socket: &Path, generation: usize, model: &Model) -> Result<Self, String> {
        let is_over = Arc::new(AtomicBool::new(false));
        let mut tasks = JoinSet::new();
        for (size, pause_millis) in [(1, 15), (BATCH, 150)] {
            let client = NodeClient::new(socket).map_err(|e| e.to_string())?;
            let writer = Writer { client, generation, model: model.clone(), size };
            let is_over = Arc::clone(&is_over);
            tasks.spawn(async move {
                while !is_over.load(Ordering::Relaxed) {
                    writer.record().await?;
                    tokio::time::sleep(Duration::from_millis(pause_millis)).await;
                }
                Ok(())
            });
        }
        Ok(Self { node: node.to_owned(), is_over, tasks })
    }

    /// Stops the writers once all their entries are acknowledged.
    pub(crate) async fn finish(mut self) -> Outcome {
        self.is_over.store(true, Ordering::Relaxed);
        let all = async {
            while let Some(done) = self.tasks.join_next().await {
                done.map_err(|e| e.to_string())??;
            }
            Ok(())
        };
        match tokio::time::timeout(LAST_ANSWER, all).await {
            Ok(outcome) => outcome.map_err(|e: String| format!("a writer on {}: {e}", self.node)),
            Err(_) => Err(format!("a writer on {} got no receipt within {LAST_ANSWER:?} after the faults", self.node)),
        }
    }
}

/// Records `count` entries at once and returns when all are acknowledged.
pub(crate) async fn record(socket: &Path, generation: usize, model: &Model, count: usize) -> Outcome {
    let client = NodeClient::new(socket).map_err(|e| e.to_string())?;
    Writer { client, generation, model: model.clone(), size: count }.record().await
}

struct Writer {
    client: NodeClient,
    generation: usize,
    model: Model,
    size: usize,
}

impl Writer {
    async fn record(&self) -> Outcome {
        let mut waiting: Vec<(Value, String)> = (0..self.size).map(|_| entry()).collect();
        while !waiting.is_empty() {
            let receipts = if let [(entry, _)] = &waiting[..] {
                vec![self.single(entry).await?]
            } else {
                self.batch(&waiting).await?
            };
            let before = waiting.len();
            waiting = waiting
                .into_iter()
                .zip(receipts)
                .filter_map(|((entry, text), receipt)| match receipt {
                    Some(receipt) => {
                        self.model.acknowledged(&receipt, self.generation, &text);
                        None
                    }
                    None => Some((entry, text)),
                })
                .collect();
            if waiting.len() == before {
                tokio::time::sleep(Duration::from_millis(25)).await;
            }
        }
        Ok(())
    }

    async fn single(&self, entry: &Value) -> Result<Option<Receipt>, String> {
        match self.client.append(entry).await {
            Ok(receipt) => Ok(Some(receipt)),
            Err(error) if may_pass(&error) => Ok(None),
            Err(error) => Err(format!("{entry} was refused: {error}")),
        }
    }

    async fn batch(&self, entries: &[(Value, String)]) -> Result<Vec<Option<Receipt>>, String> {
        let lines: String = entries.iter().map(|(entry, _)| format!("{entry}\n")).collect();
        let report = match self.client.append_lines(lines.into_bytes(), false).await {
            Ok(report) => report,
            Err(error) if may_pass(&error) => return Ok(vec![None; entries.len()]),
            Err(error) => return Err(format!("a batch was refused: {error}")),
        };
        let mut receipts = vec![None; entries.len()];
        for result in report.results {
            if result.status < 500 && result.receipt.is_none() {
                return Err(format!("line {} of a batch was refused: {result:?}", result.line));
            }
            receipts[result.line - 1] = result.receipt;
        }
        Ok(receipts)
    }
}

/// Returns whether the error is transient, so that the writer resends: the node is down or currently cannot write.
fn may_pass(error: &ClientError) -> bool {
    match error {
        ClientError::Refused(problem) => problem.status >= 500,
        ClientError::Permission { .. } => false,
        _ => true,
    }
}

fn entry() -> (Value, String) {
    let id = uuid::Uuid::now_v7().to_string();
    let text = format!("written under {id}");
    let entry = json!({
        "id": id, "category": "data", "action": "campaign.write", "user": "writer", "user_type": "service",
        "outcome": "success", "details": { "text": text },
    });
    (entry, text)
}
