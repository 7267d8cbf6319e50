//! All destinations of a node: their offsets, their tasks, pausing and resuming.

use std::sync::{Arc, Mutex};

use piperoll_format::time::Timestamp;
use piperoll_net::clock::Clock;
use piperoll_protocol::node::ForwardStatus;
use serde_json::json;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::store::{AdminError, Store};

use super::config::ForwardConfig;
use super::destination::{Destination, Progress, record, say};
use super::offset::{self, DesiredConfig, OffsetError, OffsetFile, Pause, StoredOffset};
use super::worker::Worker;

/// Directory of the offset files, in the node's data directory.
const FOLDER: &str = "forward";
/// Maximum length of the reason for a pause, in bytes of UTF-8.
const REASON_BYTES_MAX: usize = 1_024;

/// Returns the offset that replaces a damaged one. Nothing is sent until an operator resumes the destination, because it may have
/// been paused before. After that, everything is sent again, because it is unknown which rows have arrived.
fn lost_place(generation: &str, wanted: &DesiredConfig, now: Timestamp) -> StoredOffset {
    let reason = "its offset file was damaged; `piperoll node forward resume` forwards everything again from the start of the log";
    StoredOffset {
        generation: generation.to_owned(),
        next_seq: 0,
        wanted: wanted.clone(),
        paused: Some(Pause { by: "piperoll".to_owned(), reason: reason.to_owned(), since: now }),
    }
}

/// All destinations of a node.
pub(crate) struct Forwarding {
    store: Store,
    clock: Arc<dyn Clock>,
    outlets: Vec<Arc<Destination>>,
}

impl Forwarding {
    /// Reads every offset, and records in the log every change of the configuration since the last start. A damaged offset file
    /// pauses its destination: whether to forward everything again or to skip rows is a decision for an operator.
    pub(crate) async fn open(
        store: Store,
        clock: Arc<dyn Clock>,
        configs: &[ForwardConfig],
    ) -> Result<Self, OffsetError> {
        let folder = store.dir().path().join(FOLDER);
        let generation = store.generation().to_string();
        let mut outlets = Vec::new();
        for config in configs {
            let file = OffsetFile::new(&folder, &config.name);
            let wanted = DesiredConfig::of(config);
            let known = match file.read() {
                Err(OffsetError::Content { path, problem }) => {
                    let aside = file.set_aside()?;
                    tracing::error!(
                        file = %path.display(), aside = %aside.display(), problem,
                        "the offset file of a destination is damaged; the destination is paused"
                    );
                    Some(lost_place(&generation, &wanted, clock.now()))
                }
                read => read?,
            };
            let word = match &known {
                None => Some("log.forward_added"),
                Some(place) if place.wanted != wanted => Some("log.forward_changed"),
                Some(_) => None,
            };
            let begin = match config.from_now {
                true => store.health().head().map_or(0, |head| head + 1),
                false => 0,
            };
            let mut place = known.unwrap_or(StoredOffset {
                generation: generation.clone(),
                next_seq: begin,
                wanted: wanted.clone(),
                paused: None,
            });
            if place.generation != generation {
                let details = json!({ "name": config.name, "generation": place.generation, "from_seq": place.next_seq,
                    "cause": "a new generation of the log began before the rest of the old one was forwarded" });
                record(&store, "log.forward_gap", "rows of the previous generation were not forwarded", details).await;
                (place.generation, place.next_seq) = (generation.clone(), 0);
            }
            place.wanted = wanted;
            if let Some(action) = word {
                let details = json!({ "name": config.name, "to": place.wanted.to, "format": place.wanted.format,
                    "filter": place.wanted.filter, "settings": place.wanted.settings, "from_seq": place.next_seq });
                let description = match action {
                    "log.forward_added" => "a destination was added to the configuration",
                    _ => "a destination was changed in the configuration",
                };
                record(&store, action, description, details).await;
            }
            file.write(&place)?;
            let state = Progress {
                place,
                waits_since: None,
                arrived_at: None,
                rows_sent: 0,
                rows_reduced: 0,
                errors: 0,
                problem: None,
            };
            outlets.push(Arc::new(Destination {
                config: config.clone(),
                file,
                state: Arc::new(Mutex::new(state)),
                turn: Arc::default(),
                changed: Notify::new(),
            }));
        }
        for (name, place) in offset::others(&folder, configs)? {
            let details = json!({ "name": name, "to": place.wanted.to, "next_seq": place.next_seq });
            record(&store, "log.forward_removed", "a destination was removed from the configuration", details).await;
            OffsetFile::new(&folder, &name).remove()?;
        }
        Ok(Self { store, clock, outlets })
    }

    /// Starts one task per destination; the tasks end when `stop` is cancelled.
    pub(crate) fn start(&self, stop: &CancellationToken, cluster: &str, node_id: &str) -> TaskTracker {
        let tasks = TaskTracker::new();
        for outlet in &self.outlets {
            let worker = Worker::new(self.store.clone(), Arc::clone(&self.clock), Arc::clone(outlet), cluster, node_id);
            tasks.spawn(worker.run(stop.clone()));
        }
        tasks.close();
        tasks
    }

    pub(crate) fn statuses(&self) -> Vec<ForwardStatus> {
        let rows = self.store.health().head().map_or(0, |head| head + 1);
        self.outlets.iter().map(|outlet| outlet.status(rows, self.clock.now())).collect()
    }

    /// Pauses a destination. The pause is recorded before it takes effect, so that no pause can be missing from the log.
    pub(crate) async fn pause(&self, name: &str, reason: &str, by: &str) -> Result<ForwardStatus, AdminError> {
        if reason.trim().is_empty() || reason.len() > REASON_BYTES_MAX {
            return Err(AdminError::Refused(format!("the reason must be 1 to {REASON_BYTES_MAX} bytes of text")));
        }
        let outlet = self.find(name)?;
        if outlet.state().place.paused.is_some() {
            return Err(AdminError::Refused(format!("{name:?} is already paused")));
        }
        let details = json!({ "name": name, "reason": reason, "by": by, "next_seq": outlet.state().place.next_seq });
        self.say("log.forward_paused", "forwarding was paused", details).await?;
        let pause = Pause { by: by.to_owned(), reason: reason.to_owned(), since: self.clock.now() };
        outlet.change(|place| place.paused = Some(pause)).await?;
        self.status_of(&outlet)
    }

    pub(crate) async fn resume(&self, name: &str, by: &str) -> Result<ForwardStatus, AdminError> {
        let outlet = self.find(name)?;
        if outlet.state().place.paused.is_none() {
            return Err(AdminError::Refused(format!("{name:?} is not paused")));
        }
        let details = json!({ "name": name, "by": by, "next_seq": outlet.state().place.next_seq });
        self.say("log.forward_resumed", "forwarding was resumed", details).await?;
        outlet.change(|place| place.paused = None).await?;
        self.status_of(&outlet)
    }

    fn status_of(&self, outlet: &Destination) -> Result<ForwardStatus, AdminError> {
        Ok(outlet.status(self.store.health().head().map_or(0, |head| head + 1), self.clock.now()))
    }

    fn find(&self, name: &str) -> Result<Arc<Destination>, AdminError> {
        let known: Vec<&str> = self.outlets.iter().map(|outlet| outlet.config.name.as_str()).collect();
        let found = self.outlets.iter().find(|outlet| outlet.config.name == name).cloned();
        found.ok_or_else(|| match known.is_empty() {
            true => AdminError::NotFound("this node has no destinations; add [[forward]] to node.toml".to_owned()),
            false => AdminError::NotFound(format!("no destination named {name:?}; configured: {}", known.join(", "))),
        })
    }

    async fn say(&self, action: &str, message: &str, details: serde_json::Value) -> Result<(), AdminError> {
        Ok(say(&self.store, action, message, &details).await?)
    }
}
