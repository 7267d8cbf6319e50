//! The aggregator's own audit entries, recorded by the client library's layer as in any application.
//!
//! Every request under `/api/v1` is one entry, reads included, and no answer leaves before it is on disk. There are no
//! intents: whoever is not known yet must not be able to write, and a change is refused beforehand while it could not be
//! recorded.

use std::time::Duration;

use piperoll_client::{
    Category, ClientError, DeliveryPolicy, EmitError, Entry, NodeClient, OpenError, RecordLayer, Recorder,
};
use prometheus_client::registry::Registry;

/// For an entry to be on the node's disk. A restart of the node fits in; a reader should not wait much longer to be told.
const DEADLINE: Duration = Duration::from_secs(5);

/// Where this aggregator's entries go.
pub(crate) struct Audit {
    recorder: Recorder,
    node: NodeClient,
}

impl Audit {
    pub(crate) fn new(node: NodeClient) -> Result<Self, OpenError> {
        let recorder = Recorder::builder_for(node.clone()).policy_for_all(DeliveryPolicy::Strict).deadline(DEADLINE);
        Ok(Self { recorder: recorder.source("aggregator").open()?, node })
    }

    /// What goes around every route that leaves an entry.
    pub(crate) fn layer(&self) -> RecordLayer {
        RecordLayer::new(self.recorder.clone()).category(Category::Audit).record_intents(false).record_reads(true)
    }

    /// Records what the aggregator has to say by itself; an error means that it may not be on disk.
    pub(crate) async fn note(&self, entry: Entry) -> Result<(), EmitError> {
        self.recorder.emit(entry).await.map(drop)
    }

    /// Whether the node that records our entries does so now.
    pub(crate) async fn ready(&self) -> Result<(), ClientError> {
        self.node.health().await
    }

    /// Waits for requests that are under way, and records the counts of what was refused; false when that took too long.
    pub(crate) async fn close(&self, within: Duration) -> bool {
        self.recorder.clone().close(within).await
    }

    pub(crate) fn register(&self, registry: &mut Registry) {
        self.recorder.register(registry);
    }
}
