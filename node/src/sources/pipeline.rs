//! Turns records into entries: maps and redacts them, records the entries, and only then advances the position.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBuilder};
use hmac::{Hmac, KeyInit as _, Mac as _};
use piperoll_format::entry::lifecycle;
use piperoll_format::ids::EntryId;
use piperoll_net::atomic_file::replace;
use piperoll_redact::Redactor;
use serde_json::json;
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use super::attempt::Attempts;
use super::config::{IntakeConfig, Source};
use super::counts::IntakeCounts;
use super::join::JoinedRecords;
use super::mapping::{Mapped, Mapping, Outcome};
use super::mark::{Mark, MarkFile};
use super::record::{Cut, RECORD_BYTES_MAX, Record, SourceMessage};
use super::safe::Safe;
use super::syslog::Listeners;
use super::text::{Decoded, decode};
use super::{files, journal};
use crate::store::{AppendError, NewEntry, Store};

/// Maximum messages that wait to be recorded. Further messages that arrive over UDP are dropped and counted.
const MESSAGES_WAITING_MAX: usize = 2_048;
/// Maximum number of waiting records of a source that is read from files or a journal. Lower than `MESSAGES_WAITING_MAX`, because
/// these records may be longer.
const RECORDS_WAITING_MAX: usize = 256;
/// Maximum records in one append.
const BATCH_MAX: usize = 512;
/// Maximum bytes that are kept of a record that cannot be mapped.
const UNMAPPED_BYTES_MAX: usize = 16 * 1024;
/// Number of records that are processed one at a time after an unclean stop: a full batch, and the records that waited after it.
const CAREFUL_RECORDS: usize = BATCH_MAX + RECORDS_WAITING_MAX;
const PASSED: &str = "the node stopped uncleanly twice while processing this record, so the record was skipped";
/// Time to wait for the next line of a record; if no line arrives within this time, all incomplete records count as complete.
const JOIN_WAIT: Duration = Duration::from_secs(2);
/// File of the key from which ids are derived, in the directory of the position files.
const IDS_KEY: &str = "ids.key";
/// Delay between attempts to record.
const RETRY_MIN: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(5);
/// Maximum time that a stopping node waits for received records to be recorded.
const STOP_TIMEOUT: Duration = Duration::from_secs(2);

/// Input of a source.
pub(super) enum Opened {
    Listening(Listeners),
    /// Input is read from files or a journal. The paths are the node's own directories; files inside them must not be followed.
    Read(Vec<PathBuf>),
}

pub(super) struct Pipeline {
    store: Store,
    mapper: Arc<Mapper>,
    config: IntakeConfig,
    counts: IntakeCounts,
    marks: MarkFile,
    attempts: Attempts,
    /// Set if a batch could not be processed. The batch is read again after a restart, so no position after it may be stored.
    is_held: bool,
}

/// Maps records to entries. It has no access to the log, so it can run on any thread.
struct Mapper {
    redactor: Redactor,
    mapping: Mapping,
    name: String,
    via: Arc<str>,
    ids: Ids,
}

impl Pipeline {
    pub(super) fn new(
        store: Store,
        redactor: Redactor,
        config: IntakeConfig,
        mapping: Mapping,
        counts: IntakeCounts,
        ids: Ids,
        folder: &Path,
    ) -> Self {
        let via = Arc::from(format!("{} {}", config.source.word(), config.name));
        let marks = MarkFile::new(folder, &config.name);
        let attempts = Attempts::open(folder, &config.name);
        let mapper = Arc::new(Mapper { redactor, mapping, name: config.name.clone(), via, ids });
        Self { store, mapper, config, counts, marks, attempts, is_held: false }
    }

    /// Runs until the node stops.
    pub(super) async fn run(mut self, opened: Opened, mark: Option<Mark>, stop: CancellationToken) {
        let waiting_max =
            if matches!(opened, Opened::Listening(_)) { MESSAGES_WAITING_MAX } else { RECORDS_WAITING_MAX };
        let (messages, mut heard) = mpsc::channel(waiting_max);
        let from_now = self.config.from_now;
        let problems = self.counts.1.clone();
        let name = self.config.name.clone();
        let source = match (&self.config.source, opened) {
            (Source::Syslog(_), Opened::Listening(listeners)) => tokio::spawn(listeners.run(messages, stop.clone())),
            (Source::Journal { unit, directory }, _) => {
                let asked = journal::JournalConfig { name, unit: unit.clone(), directory: directory.clone(), from_now };
                tokio::spawn(journal::follow(asked, mark, messages, problems, stop.clone()))
            }
            (Source::File { path, owners, links_in }, Opened::Read(own)) => {
                let safe = Safe { owners: owners.clone(), links_in: links_in.clone(), own };
                let asked = files::FileConfig { name, path: path.clone(), safe, from_now };
                tokio::spawn(files::follow(asked, mark, messages, problems, stop.clone()))
            }
            (Source::Syslog(_), Opened::Read(_)) | (Source::File { .. }, Opened::Listening(_)) => return,
        };
        // If a record crashed the last run, it is among the first `CAREFUL_RECORDS` records, so process these one at a time.
        let mut careful = if self.attempts.ended_uncleanly() { CAREFUL_RECORDS } else { 0 };
        let mut joined = self.mapper.mapping.join().cloned().map(JoinedRecords::new);
        let recording = async {
            let mut batch = Vec::with_capacity(BATCH_MAX);
            loop {
                let most = if careful > 0 { 1 } else { BATCH_MAX };
                let waits = joined.as_ref().is_some_and(|joined| !joined.is_empty());
                let limit = if waits { JOIN_WAIT } else { Duration::MAX };
                let received = tokio::time::timeout(limit, heard.recv_many(&mut batch, most)).await;
                let taken = std::mem::take(&mut batch);
                let work = match &mut joined {
                    None => taken,
                    Some(joined) => joined_batch(joined, taken, received != Ok(0) && received.is_ok()),
                };
                if !work.is_empty() {
                    self.record(work, careful > 0).await;
                }
                if received == Ok(0) {
                    return;
                }
                careful = careful.saturating_sub(1);
            }
        };
        // Sources end when the node stops. If the log cannot be written, the node must still be able to stop; records with a
        // position are read again after the next start.
        let is_late = async {
            stop.cancelled().await;
            tokio::time::sleep(STOP_TIMEOUT).await;
        };
        tokio::select! { () = recording => {}, () = is_late => {} }
        source.abort();
    }

    /// Writes to disk that work on a batch begins. With `careful`, returns true if the batch must be skipped because the node
    /// crashed on its record before.
    async fn begin(&mut self, batch: &[SourceMessage], careful: bool) -> bool {
        let place = batch.iter().find_map(|heard| match heard {
            SourceMessage::Record(record) => record.place.clone(),
            _ => None,
        });
        // A record without a position is never read again, so it cannot crash the next start.
        let Some(place) = place else { return false };
        let mut attempts = std::mem::take(&mut self.attempts);
        let written = tokio::task::spawn_blocking(move || {
            let begun = if careful { attempts.begin_one(&place) } else { attempts.begin_batch(&place).map(|()| true) };
            (attempts, begun)
        });
        let Ok((attempts, begun)) = written.await else { return false };
        self.attempts = attempts;
        match begun {
            Ok(goes_on) => !goes_on,
            Err(error) => {
                tracing::warn!(intake = self.config.name, %error, "cannot store which record is in progress; continuing");
                false
            }
        }
    }

    /// Records a batch, retrying until it succeeds.
    async fn record(&mut self, batch: Vec<SourceMessage>, careful: bool) {
        let passed = self.begin(&batch, careful).await;
        let place = batch.iter().find_map(|heard| match heard {
            SourceMessage::Record(record) => record.place.clone(),
            _ => None,
        });
        let mapper = Arc::clone(&self.mapper);
        // Parsing and masking take time in proportion to the input, so keep them off the async worker threads.
        let worked = tokio::task::spawn_blocking(move || mapper.work(batch, passed)).await;
        let Work { mut new_entries, mark, passed_over, dropped } = match worked {
            Ok(work) => work,
            Err(error) => {
                tracing::error!(intake = self.config.name, %error, "cannot process a batch; it will be read again after a restart");
                self.is_held = true;
                return;
            }
        };
        self.counts.add(&self.config.name, "passed_over", passed_over);
        self.counts.add(&self.config.name, "dropped", dropped);
        self.leave_out_known(&mut new_entries).await;
        let mut delay = ExponentialBuilder::default()
            .with_min_delay(RETRY_MIN)
            .with_max_delay(RETRY_MAX)
            .with_jitter()
            .without_max_times()
            .build();
        while !new_entries.is_empty() {
            let results =
                self.store.append(new_entries.iter().map(|pending| pending.new_entry.clone()).collect()).await;
            let mut again = Vec::new();
            let mut problem = None;
            for (pending, result) in std::mem::take(&mut new_entries).into_iter().zip(results) {
                match result {
                    Ok(_) if pending.word == "dropped" => {}
                    Ok(_) => self.counts.add(&self.config.name, pending.word, 1),
                    // Another entry already has the id derived from this record's position: record it under a new id, and
                    // report the conflict.
                    Err(error @ AppendError::Conflict { .. }) if pending.new_entry.entry.id == pending.place => {
                        tracing::warn!(intake = self.config.name, %error, "the ID of a record is already in use; recording the record under a new ID");
                        self.counts.add(&self.config.name, "conflict", 1);
                        let mut fresh = pending;
                        (fresh.new_entry.entry.id, fresh.place) = (None, None);
                        again.push(fresh);
                    }
                    // The record's own id already belongs to another entry: record it under the id derived from its position.
                    Err(error @ AppendError::Conflict { .. }) => {
                        tracing::warn!(intake = self.config.name, %error, "the ID of a record already belongs to another entry; recording the record under an ID derived from its position");
                        self.counts.add(&self.config.name, "conflict", 1);
                        let mut other = pending;
                        other.new_entry.entry.id = other.place;
                        again.push(other);
                    }
                    Err(AppendError::Entry(error)) if pending.word != "unmapped" => {
                        again.extend(self.mapper.unmapped(&pending.text, pending.place, &error.to_string()));
                    }
                    Err(AppendError::Entry(error)) => {
                        tracing::error!(%error, "cannot record even the raw record");
                    }
                    Err(error) => {
                        problem = Some(error);
                        again.push(pending);
                    }
                }
            }
            new_entries = again;
            if let Some(error) = problem {
                tracing::warn!(intake = self.config.name, %error, waiting = new_entries.len(), "cannot append records to the log yet; retrying");
                tokio::time::sleep(delay.next().unwrap_or(RETRY_MAX)).await;
            }
        }
        if let (true, Some(place)) = (careful, &place) {
            self.attempts.end_one(place);
        }
        let Some(mark) = mark.filter(|_| !self.is_held) else { return };
        let marks = self.marks.clone();
        let mut attempts = std::mem::take(&mut self.attempts);
        // Write the position first: a crash between the two steps merely makes the next start process records one at a time
        // without need.
        let kept = tokio::task::spawn_blocking(move || {
            let kept = marks.write(&mark);
            if kept.is_ok() {
                attempts.done();
            }
            (attempts, kept)
        });
        let Ok((attempts, kept)) = kept.await else { return };
        self.attempts = attempts;
        if let Err(error) = kept {
            // The records are read again after the next start, and are then recognized as duplicates by their ids.
            tracing::warn!(intake = self.config.name, %error, "cannot store the offset of a source");
        }
    }

    /// Removes records that this source recorded before, under the id derived from their position or under an id that an
    /// earlier version of Piperoll gave them. The field `via` proves this, because only the node itself sets it. The same
    /// position means the same record even if its text differs this time: a program may write its fields in another order after
    /// a restart.
    async fn leave_out_known(&self, new_entries: &mut Vec<Pending>) {
        let of_place = |pending: &Pending| pending.place.filter(|place| pending.new_entry.entry.id == Some(*place));
        // Look up all ids in one query, and remember how many of them belong to each record.
        let mut ids = Vec::new();
        let mut counts = Vec::with_capacity(new_entries.len());
        for pending in new_entries.iter() {
            let before = ids.len();
            ids.extend(of_place(pending).into_iter().chain(pending.old.iter().copied()).map(Some));
            counts.push(ids.len() - before);
        }
        if ids.is_empty() {
            return;
        }
        match self.store.recorded_via(ids, Arc::clone(&self.mapper.via)).await {
            Ok(known) => {
                let before = new_entries.len();
                let mut known = known.into_iter();
                let mut counts = counts.into_iter();
                new_entries.retain(|_| {
                    let of_this = counts.next().unwrap_or(0);
                    // `any` would stop early, and the rest of this record's results would be taken for those of the next
                    // record.
                    !known.by_ref().take(of_this).filter(|is_known| *is_known).count() > 0
                });
                self.counts.add(&self.config.name, "recorded", (before - new_entries.len()) as u64);
            }
            Err(error) => {
                tracing::warn!(intake = self.config.name, %error, "cannot check for duplicate records")
            }
        }
    }
}

/// Returns the complete records of a batch. If more lines may arrive (`more`), incomplete records are held back.
fn joined_batch(joined: &mut JoinedRecords, batch: Vec<SourceMessage>, more: bool) -> Vec<SourceMessage> {
    let mut whole = Vec::new();
    for heard in batch {
        match heard {
            SourceMessage::Record(record) => whole.extend(joined.push(record).into_iter().map(SourceMessage::Record)),
            SourceMessage::Offset(mark) => joined.place(mark),
            lost @ SourceMessage::Lost { .. } => whole.push(lost),
        }
    }
    if !more {
        whole.extend(joined.flush().into_iter().map(SourceMessage::Record));
    }
    whole.extend(joined.mark().map(SourceMessage::Offset));
    whole
}

/// Result of mapping a batch.
struct Work {
    new_entries: Vec<Pending>,
    mark: Option<Mark>,
    passed_over: u64,
    dropped: u64,
}

impl Mapper {
    /// Maps a batch. With `passed`, keeps only the length and hash of each record, because the node crashed on this batch before.
    fn work(&self, batch: Vec<SourceMessage>, passed: bool) -> Work {
        let mut work = Work { new_entries: Vec::new(), mark: None, passed_over: 0, dropped: 0 };
        for heard in batch {
            match heard {
                SourceMessage::Offset(place) => work.mark = Some(place),
                SourceMessage::Record(record) if passed => {
                    work.mark = record.mark.clone().or(work.mark);
                    let id = record.place.as_deref().map(|place| self.ids.of(&self.name, place));
                    tracing::error!(
                        intake = self.name,
                        bytes = record.text.len(),
                        "the node stopped uncleanly twice while processing a record; keeping only its hash"
                    );
                    work.new_entries.extend(self.named_only(&record.text, id, PASSED));
                }
                SourceMessage::Record(record) => {
                    work.mark = record.mark.clone().or(work.mark);
                    self.add_drafts(&record, &mut work);
                }
                SourceMessage::Lost { count, cause } => {
                    work.dropped += count.unwrap_or(1);
                    let details = json!({ "count": count, "cause": cause, "source": self.via.as_ref() });
                    let entry =
                        lifecycle("log.gap", "records of another system were lost before they were recorded", &details);
                    let new_entry = NewEntry { entry, via: Arc::from("node") };
                    work.new_entries.push(Pending {
                        new_entry,
                        word: "dropped",
                        text: Vec::new(),
                        place: None,
                        old: Vec::new(),
                    });
                }
            }
        }
        work
    }

    /// Adds the entries of one record; a record may contain several.
    fn add_drafts(&self, record: &Record, work: &mut Work) {
        let id = record.place.as_deref().map(|place| self.ids.of(&self.name, place));
        let old = self.ids.earlier(&self.name, record);
        let with_old = |pending: Option<Pending>| pending.map(|pending| Pending { old: old.clone(), ..pending });
        if let Some(cut) = &record.cut {
            let problem = format!("the record is longer than the limit of {RECORD_BYTES_MAX} bytes");
            work.new_entries.extend(with_old(self.unmapped_cut(&record.text, cut, id, &problem)));
            return;
        }
        let text = match decode(&record.text) {
            Decoded::Binary => String::from_utf8_lossy(&record.text).into_owned(),
            text => text.into_text(&record.text),
        };
        let outcomes = match self.mapping.read(&text, &self.redactor) {
            Ok(outcomes) => outcomes,
            Err(error) => {
                work.new_entries.extend(with_old(self.unmapped(&record.text, id, &error.to_string())));
                return;
            }
        };
        for (at, Outcome { record: part, result }) in outcomes.into_iter().enumerate() {
            // The index of a record in its document is part of the record's position.
            let (id, old) = match at {
                0 => (id, old.clone()),
                _ => {
                    (record.place.as_deref().map(|place| self.ids.of(&self.name, &format!("{place}/{at}"))), Vec::new())
                }
            };
            let unmapped = |problem: String| {
                self.unmapped(part.as_bytes(), id, &problem).map(|pending| Pending { old: old.clone(), ..pending })
            };
            let drafted = match result {
                Ok(Mapped::PassedOver) => {
                    work.passed_over += 1;
                    continue;
                }
                Ok(Mapped::Entry { text, .. }) => self.new_entry(&text, part.as_bytes(), id, &old),
                Err(error) => Err(error.to_string()),
            };
            work.new_entries.extend(match drafted {
                Ok(pending) => Some(pending),
                Err(problem) => unmapped(problem),
            });
        }
    }

    /// Creates a new entry from a mapped record; the error says why the entry is not valid.
    fn new_entry(&self, mapped: &str, record: &[u8], id: Option<EntryId>, old: &[EntryId]) -> Result<Pending, String> {
        let mut entry = self.redactor.parse_entry(mapped.as_bytes()).map_err(|error| error.to_string())?;
        entry.check_size().map_err(|error| error.to_string())?;
        entry.id = entry.id.or(id);
        let new_entry = NewEntry { entry, via: Arc::clone(&self.via) };
        Ok(Pending { new_entry, word: "recorded", text: record.to_vec(), place: id, old: old.to_vec() })
    }

    /// Creates an entry about a record that could not be mapped, with the record's text and the reason.
    fn unmapped(&self, text: &[u8], id: Option<EntryId>, problem: &str) -> Option<Pending> {
        let whole = Cut { bytes: text.len() as u64, sha256: hex::encode(Sha256::digest(text)) };
        self.unmapped_cut(text, &whole, id, problem)
    }

    /// Does the same as `unmapped` for a record of which `text` is only the beginning. If the entry is too long, keeps less of
    /// the text.
    fn unmapped_cut(&self, text: &[u8], whole: &Cut, id: Option<EntryId>, problem: &str) -> Option<Pending> {
        for kept_max in [UNMAPPED_BYTES_MAX, UNMAPPED_BYTES_MAX / 4, UNMAPPED_BYTES_MAX / 16] {
            let kept = String::from_utf8_lossy(&text[..text.len().min(kept_max)]);
            let mut details = json!({ "problem": problem, "record": kept });
            if whole.bytes > kept_max as u64 {
                details["bytes"] = json!(whole.bytes);
                details["sha256"] = json!(whole.sha256);
                details["omitted"] = json!("the rest of the record");
            }
            if let Some(pending) = self.about_record(&details, id) {
                return Some(pending);
            }
        }
        self.named_only(text, id, problem)
    }

    /// Creates an entry that contains only the length and hash of a record.
    fn named_only(&self, text: &[u8], id: Option<EntryId>, problem: &str) -> Option<Pending> {
        let sha256 = hex::encode(Sha256::digest(text));
        let details = json!({ "problem": problem, "bytes": text.len(), "sha256": sha256, "omitted": "the record" });
        let pending = self.about_record(&details, id);
        if pending.is_none() {
            tracing::error!(intake = self.name, problem, "cannot record even the hash of a record");
        }
        pending
    }

    fn about_record(&self, details: &serde_json::Value, id: Option<EntryId>) -> Option<Pending> {
        let entry = json!({
            "category": "integration", "action": "intake.unmapped", "outcome": "failure", "reason": "unmapped",
            "details": details,
        });
        let mut entry = self.redactor.parse_entry(entry.to_string().as_bytes()).ok()?;
        entry.check_size().ok()?;
        entry.id = id;
        let new_entry = NewEntry { entry, via: Arc::clone(&self.via) };
        Some(Pending { new_entry, word: "unmapped", text: Vec::new(), place: id, old: Vec::new() })
    }
}

/// An entry that has not been recorded yet, and information about the record that it was mapped from.
struct Pending {
    new_entry: NewEntry,
    /// Value of the label `result` under which the entry is counted.
    word: &'static str,
    /// Text of the record, which is recorded as unmapped if the entry is refused.
    text: Vec<u8>,
    /// Id derived from the record's position in its source.
    place: Option<EntryId>,
    /// Ids that earlier versions gave the record.
    old: Vec<EntryId>,
}

/// Derives ids from the positions of records in their source, so that a record that is read again gets the same id. A key of this
/// node is mixed in, so that no client can compute the ids and use them first.
#[derive(Clone)]
pub(super) struct Ids {
    key: Option<Zeroizing<[u8; 32]>>,
}

impl Ids {
    /// Returns an instance for a node without sources.
    pub(super) fn none() -> Self {
        Self { key: None }
    }

    /// Reads the key from its file, or creates the key and the file.
    pub(super) fn load(folder: &Path) -> Result<Self, String> {
        let path = folder.join(IDS_KEY);
        let describe = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
        match std::fs::read_to_string(&path) {
            Ok(text) => {
                let text = Zeroizing::new(text);
                let mut key = Zeroizing::new([0; 32]);
                hex::decode_to_slice(text.trim(), key.as_mut_slice()).map_err(|_| {
                    describe(&"not a key of 64 hexadecimal digits; restore the file from a backup, or remove it and accept that records may be recorded twice")
                })?;
                Ok(Self { key: Some(key) })
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let mut key = Zeroizing::new([0; 32]);
                getrandom::fill(key.as_mut_slice()).map_err(|e| describe(&e))?;
                std::fs::create_dir_all(folder).map_err(|e| describe(&e))?;
                let text = Zeroizing::new(hex::encode(key.as_slice()));
                replace(&path, text.as_bytes()).map_err(|e| describe(&e))?;
                Ok(Self { key: Some(key) })
            }
            Err(error) => Err(describe(&error)),
        }
    }

    fn of(&self, name: &str, place: &str) -> EntryId {
        let digest = match &self.key {
            None => public(name, place),
            Some(key) => {
                let mut mac = Hmac::<Sha256>::new_from_slice(key.as_slice())
                    .unwrap_or_else(|_| unreachable!("HMAC accepts keys of any length"));
                for part in [name.as_bytes(), &[0], place.as_bytes()] {
                    mac.update(part);
                }
                mac.finalize().into_bytes().into()
            }
        };
        named(&digest)
    }

    /// Returns the ids that earlier versions of Piperoll gave a record: ids derived without the key, or from another form of
    /// the record's position.
    fn earlier(&self, name: &str, record: &Record) -> Vec<EntryId> {
        let Some(place) = &record.place else { return Vec::new() };
        let keyed = record.earlier_place.iter().map(|earlier| self.of(name, earlier));
        let keyless = record.earlier_place.iter().chain([place]).map(|place| named(&public(name, place)));
        keyed.chain(keyless.filter(|_| self.key.is_some())).collect()
    }
}

fn public(name: &str, place: &str) -> [u8; 32] {
    Sha256::new().chain_update(name.as_bytes()).chain_update([0]).chain_update(place.as_bytes()).finalize().into()
}

/// Returns a name-based UUID of a custom form (RFC 9562 section 5.8).
fn named(digest: &[u8; 32]) -> EntryId {
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest[..16]);
    EntryId::from_uuid(uuid::Builder::from_custom_bytes(bytes).into_uuid())
}
