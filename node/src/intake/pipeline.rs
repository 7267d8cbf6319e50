//! From records to entries: mapped, masked, recorded, and only then marked as read.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBuilder};
use piperoll_shared::log::entry::{CallerEntry, lifecycle};
use piperoll_shared::log::ids::EntryId;
use piperoll_shared::log::limits::CALLER_ENTRY_BYTES_MAX;
use piperoll_shared::log::redact::Redactor;
use serde_json::json;
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::config::{IntakeConfig, Source};
use super::mapping::Mapping;
use super::mark::{Mark, MarkFile};
use super::syslog::Listeners;
use super::{Heard, IntakeCounts, Record, journal, lines};
use crate::store::{AppendError, Draft, Store};

/// Messages that wait to be recorded. Over UDP more than that are dropped and counted.
const MESSAGES_WAITING_MAX: usize = 2_048;
/// The same for records that can be read again, and may be longer.
const RECORDS_WAITING_MAX: usize = 256;
/// Records in one append.
const BATCH_MAX: usize = 512;
/// Of a record that cannot be mapped, this much is kept.
const UNMAPPED_BYTES_MAX: usize = 16 * 1024;
/// Between two tries to record.
const RETRY_MIN: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(5);
/// For what has come in to be recorded when the node stops.
const STOP_TIMEOUT: Duration = Duration::from_secs(2);

pub(super) struct Pipeline {
    store: Store,
    redactor: Redactor,
    config: IntakeConfig,
    mapping: Mapping,
    counts: IntakeCounts,
    marks: MarkFile,
    via: Arc<str>,
}

impl Pipeline {
    pub(super) fn new(
        store: Store,
        redactor: Redactor,
        config: IntakeConfig,
        mapping: Mapping,
        counts: IntakeCounts,
        folder: &Path,
    ) -> Self {
        let via = Arc::from(format!("{} {}", config.source.word(), config.name));
        let marks = MarkFile::new(folder, &config.name);
        Self { store, redactor, config, mapping, counts, marks, via }
    }

    /// Until the node stops.
    pub(super) async fn run(self, listeners: Option<Listeners>, mark: Option<Mark>, stop: CancellationToken) {
        let waiting_max = if listeners.is_some() { MESSAGES_WAITING_MAX } else { RECORDS_WAITING_MAX };
        let (heards, mut heard) = mpsc::channel(waiting_max);
        let from_now = self.config.from_now;
        let source = match (&self.config.source, listeners) {
            (Source::Syslog(_), Some(listeners)) => tokio::spawn(listeners.run(heards, stop.clone())),
            (Source::Journal { unit, directory }, _) => {
                let asked = journal::Asked { unit: unit.clone(), directory: directory.clone(), from_now };
                tokio::spawn(journal::follow(asked, mark, heards, stop.clone()))
            }
            (Source::File { path }, _) => {
                tokio::spawn(lines::follow(path.clone(), mark, from_now, heards, stop.clone()))
            }
            (Source::Syslog(_), None) => return,
        };
        let recording = async {
            let mut batch = Vec::with_capacity(BATCH_MAX);
            while heard.recv_many(&mut batch, BATCH_MAX).await > 0 {
                self.record(std::mem::take(&mut batch)).await;
            }
        };
        // Sources end when the node stops. A log that cannot be written must not keep it from stopping; what has a place is read again.
        let is_late = async {
            stop.cancelled().await;
            tokio::time::sleep(STOP_TIMEOUT).await;
        };
        tokio::select! { () = recording => {}, () = is_late => {} }
        source.abort();
    }

    /// Tries until it is recorded.
    async fn record(&self, batch: Vec<Heard>) {
        let mut mark = None;
        let mut drafts = Vec::new();
        for heard in batch {
            match heard {
                Heard::Place(place) => mark = Some(place),
                Heard::Record(record) => {
                    mark = record.mark.clone().or(mark);
                    drafts.extend(self.draft(&record));
                }
                Heard::Lost { count, cause } => {
                    self.counts.add(&self.config.name, "dropped", count.unwrap_or(1));
                    let details = json!({ "count": count, "cause": cause, "source": self.via.as_ref() });
                    let entry = lifecycle("log.gap", "records of another system were lost on their way in", &details);
                    let draft = Draft { entry, via: Arc::from("node") };
                    drafts.push(Pending { draft, word: "dropped", text: Vec::new(), place: None });
                }
            }
        }
        let mut delay = ExponentialBuilder::default()
            .with_min_delay(RETRY_MIN)
            .with_max_delay(RETRY_MAX)
            .with_jitter()
            .without_max_times()
            .build();
        while !drafts.is_empty() {
            let results = self.store.append(drafts.iter().map(|pending| pending.draft.clone()).collect()).await;
            let mut again = Vec::new();
            let mut problem = None;
            for (pending, result) in std::mem::take(&mut drafts).into_iter().zip(results) {
                match result {
                    Ok(_) if pending.word == "dropped" => {}
                    Ok(_) => self.counts.add(&self.config.name, pending.word, 1),
                    // Under the id of its place something else was recorded: the same record, mapped differently then.
                    Err(AppendError::Conflict { .. }) if pending.draft.entry.id == pending.place => {
                        self.counts.add(&self.config.name, pending.word, 1);
                    }
                    // Under an id that it brought along: it is another record.
                    Err(error @ AppendError::Conflict { .. }) => {
                        again.extend(self.unmapped(&pending.text, pending.place, &error.to_string()));
                    }
                    Err(AppendError::Entry(error)) if pending.word != "unmapped" => {
                        again.extend(self.unmapped(&pending.text, pending.place, &error.to_string()));
                    }
                    Err(AppendError::Entry(error)) => {
                        tracing::error!(%error, "a record could not even be kept as it is");
                    }
                    Err(error) => {
                        problem = Some(error);
                        again.push(pending);
                    }
                }
            }
            drafts = again;
            if let Some(error) = problem {
                tracing::warn!(intake = self.config.name, %error, waiting = drafts.len(), "records wait for the log");
                tokio::time::sleep(delay.next().unwrap_or(RETRY_MAX)).await;
            }
        }
        let Some(mark) = mark else { return };
        let marks = self.marks.clone();
        let kept = tokio::task::spawn_blocking(move || marks.write(&mark)).await.unwrap_or_else(|e| Err(e.into()));
        if let Err(error) = kept {
            // Read again after the next start, and then known by their ids.
            tracing::warn!(intake = self.config.name, %error, "how far was read could not be kept");
        }
    }

    /// What becomes of one record; nothing when the mapping passes over it.
    fn draft(&self, record: &Record) -> Option<Pending> {
        let id = record.place.as_deref().map(|place| id_of(&self.config.name, place));
        let text = String::from_utf8_lossy(&record.text);
        let mapped = match self.mapping.apply(&text) {
            Ok(Some(mapped)) => mapped,
            Ok(None) => {
                self.counts.add(&self.config.name, "passed_over", 1);
                return None;
            }
            Err(error) => return self.unmapped(&record.text, id, &error.to_string()),
        };
        let parsed = CallerEntry::parse_redacted(mapped.as_bytes(), &self.redactor)
            .and_then(|entry| entry.check_size().map(|()| entry));
        match parsed {
            Ok(mut entry) => {
                entry.id = entry.id.or(id);
                let draft = Draft { entry, via: Arc::clone(&self.via) };
                Some(Pending { draft, word: "recorded", text: record.text.clone(), place: id })
            }
            Err(error) => self.unmapped(&record.text, id, &error.to_string()),
        }
    }

    /// An entry about a record that is none: what it said, and why that is no entry. Of what is too long as JSON less is kept.
    fn unmapped(&self, text: &[u8], id: Option<EntryId>, problem: &str) -> Option<Pending> {
        for kept_max in [UNMAPPED_BYTES_MAX, UNMAPPED_BYTES_MAX / 4, UNMAPPED_BYTES_MAX / 16, 0] {
            let kept = String::from_utf8_lossy(&text[..text.len().min(kept_max)]);
            let mut details = json!({ "problem": problem, "record": kept });
            if text.len() > kept_max {
                details["bytes"] = json!(text.len());
                details["sha256"] = json!(hex::encode(Sha256::digest(text)));
                details["omitted"] = json!("the rest of the record");
            }
            let entry = json!({
                "category": "integration", "action": "intake.unmapped", "outcome": "failure", "reason": "unmapped",
                "details": details,
            });
            let parsed = CallerEntry::parse_redacted(entry.to_string().as_bytes(), &self.redactor);
            if let Some(mut entry) = parsed.ok().filter(|entry| entry.check_size().is_ok()) {
                entry.id = id;
                let draft = Draft { entry, via: Arc::clone(&self.via) };
                return Some(Pending { draft, word: "unmapped", text: Vec::new(), place: id });
            }
        }
        tracing::error!(intake = self.config.name, problem, "a record could not even be kept as it is");
        None
    }
}

/// An entry that is not recorded yet.
struct Pending {
    draft: Draft,
    /// What it will count as.
    word: &'static str,
    /// The record, in case the entry is refused.
    text: Vec<u8>,
    /// The id of where it stands.
    place: Option<EntryId>,
}

/// The same record read again is the same entry.
fn id_of(name: &str, place: &str) -> EntryId {
    let digest =
        Sha256::new().chain_update(name.as_bytes()).chain_update([0]).chain_update(place.as_bytes()).finalize();
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest[..16]);
    // A name-based id of our own making (RFC 9562 section 5.8).
    EntryId::from_uuid(uuid::Builder::from_custom_bytes(bytes).into_uuid())
}

/// Longest record; what is longer is cut there and said to be.
pub(super) const RECORD_BYTES_MAX: usize = CALLER_ENTRY_BYTES_MAX;
