//! The aggregator's own audit entries, recorded by the client library's layer as in any application.
//!
//! Every request under `/api/v1`, reads included, is one entry, and no answer is sent before that entry is on disk. No
//! intents are recorded: the layer would record them before the client is identified, and an unidentified client must not
//! be able to write. Instead, a change is refused in advance while entries cannot be recorded.

use std::time::Duration;

use piperoll_client::{
    Category, ClientError, DeliveryPolicy, EmitError, Entry, NodeClient, OpenError, RecordLayer, Recorder,
};
use prometheus_client::registry::Registry;

/// Time limit for an entry to reach the node's disk: long enough for a restart of the node, and not too long for a client that waits for
/// the error.
const DEADLINE: Duration = Duration::from_secs(5);

/// Records this aggregator's own entries.
pub(crate) struct Audit {
    recorder: Recorder,
    node: NodeClient,
}

impl Audit {
    pub(crate) fn new(node: NodeClient) -> Result<Self, OpenError> {
        let recorder = Recorder::builder_for(node.clone()).policy_for_all(DeliveryPolicy::Strict).deadline(DEADLINE);
        Ok(Self { recorder: recorder.source("aggregator").open()?, node })
    }

    /// Returns the layer for every route that records an entry.
    pub(crate) fn layer(&self) -> RecordLayer {
        RecordLayer::new(self.recorder.clone()).category(Category::Audit).record_intents(false).record_reads(true)
    }

    /// Records an entry of the aggregator itself, outside of the layer. After an error, the entry may not be on disk.
    pub(crate) async fn note(&self, entry: Entry) -> Result<(), EmitError> {
        self.recorder.emit(entry).await.map(drop)
    }

    /// Checks whether the node that records this aggregator's entries is ready.
    pub(crate) async fn ready(&self) -> Result<(), ClientError> {
        self.node.health().await
    }

    /// Waits until requests in progress are finished and the counts of refused requests are recorded. Returns false if that took
    /// longer than `within`.
    pub(crate) async fn close(&self, within: Duration) -> bool {
        self.recorder.clone().close(within).await
    }

    pub(crate) fn register(&self, registry: &mut Registry) {
        self.recorder.register(registry);
    }
}
