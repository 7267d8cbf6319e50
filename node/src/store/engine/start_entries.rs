//! Entries that a node records in its log when it starts.

use std::sync::Arc;

use piperoll_format::entry::lifecycle;
use piperoll_format::ids::Generation;
use piperoll_format::note::KeyKind;
use serde_json::json;

use super::writer::Writer;
use crate::store::table::keys::LogKeys;
use crate::store::table::new_entry::NewEntry;

/// Records the start of the node. A log that refuses appends is opened anyway, so that it can be read, but its start is not
/// recorded.
pub(in crate::store) fn record_start(writer: &mut Writer, last_stop: Option<bool>) {
    let word = match last_stop {
        None => "none",
        Some(true) => "clean",
        Some(false) => "unclean",
    };
    let via: Arc<str> = Arc::from("node");
    let started = lifecycle(
        "log.started",
        "the node started",
        &json!({ "last_stop": word, "version": env!("CARGO_PKG_VERSION") }),
    );
    let mut new_entries = vec![NewEntry { entry: started, via: Arc::clone(&via) }];
    if last_stop == Some(false) {
        let gap = lifecycle(
            "log.gap",
            "the node did not stop cleanly; events in flight that were never acknowledged may be missing",
            &json!({ "count": null, "cause": "unclean stop" }),
        );
        new_entries.push(NewEntry { entry: gap, via });
    }
    if let Err(error) = writer.append(new_entries) {
        tracing::error!(%error, "cannot record the start; the log is read-only");
    }
}

/// Records the next checkpoint key while a rotation is in progress.
pub(in crate::store) fn record_next_key(writer: &mut Writer, keys: &LogKeys, generation: Generation) {
    let next = keys.next_checkpoint.as_ref().and_then(|next| next.named(&keys.origin(generation), KeyKind::Log));
    let Some(next) = next else { return };
    let entry = lifecycle(
        "log.checkpoint_key_rotated",
        "a new key also signs checkpoints from now on and will replace the current key",
        &json!({ "vkey": next.public().to_string() }),
    );
    if let Err(error) = writer.append(vec![NewEntry { entry, via: Arc::from("node") }]) {
        tracing::error!(%error, "cannot record the next checkpoint key");
    }
}
