//! A cluster in memory: logs with signed checkpoints, from which a writer reads.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use object_store::ObjectStore;
use object_store::local::LocalFileSystem;
use piperoll_archive::read::{Caches, Catalog, LogScan, ReadError, Reader, ScanRange};
use piperoll_archive::record::ArchiveKeys;
use piperoll_archive::row::{ArchivedRow, Content, LogId};
use piperoll_archive::store::Store;
use piperoll_archive::verify::{Report, Scope, verify};
use piperoll_archive::write::{Chunk, Due, Settings, Source, SourceError, StepOutcome, WriteError, Writer, initialize};
use piperoll_evidence::bundle::{ArchiveTrust, KeySpan, Membership, NodeTrust, Trust};
use piperoll_format::checkpoint::Checkpoint;
use piperoll_format::entry::{CallerEntry, NodeFields, lifecycle, write_body};
use piperoll_format::ids::{EntryId, Generation, NodeId};
use piperoll_format::merkle::{CompactRange, Cover, Hash, encode_hash};
use piperoll_format::note::{KeyKind, SigningKey, SigningSeed};
use piperoll_format::order::{Order, Position};
use piperoll_format::time::Timestamp;
use piperoll_format::verify::EpochSpan;
use piperoll_query::filter::Filter;
use uuid::Uuid;

pub const CLUSTER: &str = "test";
pub const ARCHIVE: &str = "main";
/// 2026-11-27T22:00:00Z: two hours before midnight.
pub const BEGIN_MICROS: i64 = 1_795_816_800_000_000;

fn seed(number: u8) -> SigningSeed {
    SigningSeed::from_bytes([number; 32])
}

/// One log.
pub struct Log {
    pub id: LogId,
    pub rows: Vec<ArchivedRow>,
    pub first_seq: u64,
    /// Checkpoints are signed and cosigned at this number of rows.
    pub signed: u64,
    key: SigningKey,
}

/// All logs, shared with the source.
#[derive(Clone)]
pub struct Logs(pub Arc<Mutex<BTreeMap<LogId, Log>>>, pub Arc<Mutex<BTreeSet<NodeId>>>);

impl Logs {
    pub fn new() -> Self {
        Self(Arc::default(), Arc::default())
    }

    pub fn add(&self, node: &str, generation: u8) -> LogId {
        let id = LogId { node_id: node.parse().unwrap(), generation: Generation::from_bytes([generation; 16]) };
        let key = seed(node.bytes().last().unwrap()).named(&id.origin(CLUSTER), KeyKind::Log).unwrap();
        let log = Log { id: id.clone(), rows: Vec::new(), first_seq: 0, signed: 0, key };
        self.0.lock().unwrap().insert(id.clone(), log);
        id
    }

    /// Appends rows, `step` microseconds apart.
    pub fn append(&self, id: &LogId, count: u64, step: i64) {
        for _ in 0..count {
            let seq = self.rows(id);
            let object = format!(
                r#"{{"category":"auth","action":"auth.login","outcome":"success","user":"user{}","ip_address":"10.0.0.{}","details":{{"n":{seq}}}}}"#,
                seq % 7,
                seq % 250
            );
            self.push(id, &CallerEntry::parse(object.as_bytes()).unwrap(), "socket uid=0", step, 0);
        }
    }

    pub fn rows(&self, id: &LogId) -> u64 {
        self.0.lock().unwrap()[id].rows.len() as u64
    }

    /// Appends a row; `back` begins a new era.
    pub fn push(&self, id: &LogId, caller: &CallerEntry, via: &str, step: i64, back: i64) {
        let mut logs = self.0.lock().unwrap();
        let log = logs.get_mut(id).unwrap();
        let last = log.rows.last().map_or((BEGIN_MICROS, 0), |row| (row.timestamp.micros(), row.era));
        let era = last.1 + u32::from(back > 0);
        let seq = log.rows.len() as u64;
        let timestamp = Timestamp::from_micros(last.0 + step - back);
        let stamp = NodeFields {
            node_id: &id.node_id,
            generation: &id.generation,
            seq,
            era,
            salt: [seq as u8; 16],
            timestamp,
            id: EntryId::from_uuid(Uuid::from_u128(u128::from(seq) << 64 | u128::from(id.generation.as_bytes()[0]))),
            via,
        };
        let body = write_body(&stamp, caller, "").unwrap();
        let content = Content::Entry { epoch: 0, body: Bytes::from(body), mac: [seq as u8; 32] };
        log.rows.push(ArchivedRow { seq, era, timestamp, content });
    }

    /// Erases a row, and appends the entry that declares it.
    pub fn erase(&self, id: &LogId, seq: u64) {
        let (leaf, era, timestamp) = {
            let mut logs = self.0.lock().unwrap();
            let row = &mut logs.get_mut(id).unwrap().rows[seq as usize];
            let leaf = row.leaf();
            row.content = Content::Erased { leaf };
            (leaf, row.era, row.timestamp)
        };
        let details = format!(
            r#"{{"seq":{seq},"leaf":"{}","era":{era},"timestamp":"{timestamp}","reason":"test","by":"uid=0"}}"#,
            encode_hash(&leaf)
        );
        self.declare(id, &details);
    }

    /// Appends an entry that declares an erasure.
    pub fn declare(&self, id: &LogId, details: &str) {
        let entry = lifecycle("log.erased", "a row was erased", &serde_json::from_str(details).unwrap());
        self.push(id, &entry, "node", 1, 0);
    }

    pub fn prune(&self, id: &LogId, to_seq: u64) {
        self.0.lock().unwrap().get_mut(id).unwrap().first_seq = to_seq / 256 * 256;
    }

    /// The rows of a node cannot be read.
    pub fn down(&self, node: &str, is_down: bool) {
        let node: NodeId = node.parse().unwrap();
        let mut down = self.1.lock().unwrap();
        if is_down {
            down.insert(node)
        } else {
            down.remove(&node)
        };
    }

    /// Cosigned checkpoints of all logs.
    pub fn due(&self) -> Vec<Due> {
        let mut logs = self.0.lock().unwrap();
        let due = logs.values_mut().filter(|log| !log.rows.is_empty()).map(|log| {
            let size = log.rows.len() as u64;
            log.signed = size;
            let root = compact(log, size).root();
            let checkpoint = Checkpoint { origin: log.id.origin(CLUSTER), size, root };
            let note = checkpoint.sign(&log.key).unwrap();
            let cosignature = witness().cosign(note.text(), 1_795_816_800);
            Due { log: log.id.clone(), checkpoint: note.with(cosignature).to_string() }
        });
        due.collect()
    }

    pub fn trust(&self) -> Trust {
        let logs = self.0.lock().unwrap();
        let mut nodes: BTreeMap<NodeId, NodeTrust> = BTreeMap::new();
        for log in logs.values() {
            let span = KeySpan {
                public: log.key.public().public_bytes(),
                generation: None,
                from_size: 0,
                to_size: None,
                until: None,
            };
            nodes.entry(log.id.node_id.clone()).or_insert_with(|| NodeTrust {
                id: log.id.node_id.clone(),
                life: Membership::ALWAYS,
                moved: Vec::new(),
                keys: vec![span],
            });
        }
        Trust {
            cluster: CLUSTER.parse().unwrap(),
            nodes: nodes.into_values().collect(),
            witnesses: vec![witness().public().clone()],
            exporters: Vec::new(),
            retention: Vec::new(),
            archives: vec![archive_trust()],
        }
    }
}

fn compact(log: &Log, size: u64) -> CompactRange {
    let mut range = CompactRange::default();
    log.rows[..size as usize].iter().for_each(|row| {
        let _ = range.push(row.leaf());
    });
    range
}

pub fn witness() -> SigningKey {
    seed(200).named("test/aggregator/agg", KeyKind::Witness).unwrap()
}

pub fn keys() -> ArchiveKeys {
    ArchiveKeys::new(&CLUSTER.parse().unwrap(), &ARCHIVE.parse().unwrap(), &seed(201), &seed(202)).unwrap()
}

pub fn archive_trust() -> ArchiveTrust {
    let keys = keys();
    ArchiveTrust {
        id: ARCHIVE.parse().unwrap(),
        steps: keys.steps.public().clone(),
        mirror: keys.mirror.public().clone(),
    }
}

impl Source for Logs {
    async fn first_seq(&self, log: &LogId) -> Result<u64, SourceError> {
        self.reachable(log)?;
        Ok(self.0.lock().unwrap()[log].first_seq)
    }

    async fn rows(&self, log: &LogId, range: Range<u64>) -> Result<Chunk, SourceError> {
        self.reachable(log)?;
        let logs = self.0.lock().unwrap();
        let log = &logs[log];
        if range.start < log.first_seq {
            return Err(SourceError(format!("row {} was pruned", range.start)));
        }
        // Fewer rows than requested, as a node may return.
        let end = range.end.min(range.start + 777) as usize;
        let rows = log.rows[range.start as usize..end].to_vec();
        Ok(Chunk { rows, epochs: vec![EpochSpan { epoch: 0, first_seq: 0 }] })
    }

    async fn proof(&self, log: &LogId, range: Range<u64>, size: u64) -> Result<Vec<Hash>, SourceError> {
        self.reachable(log)?;
        let logs = self.0.lock().unwrap();
        let log = &logs[log];
        let mut rest = Cover::at(range.end);
        log.rows[range.end as usize..size as usize].iter().for_each(|row| rest.push(row.leaf(), |_, _| ()));
        Ok([compact(log, range.start).hashes(), rest.hashes()].concat())
    }
}

impl Logs {
    fn reachable(&self, log: &LogId) -> Result<(), SourceError> {
        if self.1.lock().unwrap().contains(&log.node_id) {
            return Err(SourceError("connection refused".to_owned()));
        }
        Ok(())
    }
}

/// A directory with an archive, and one with the writer's state.
pub struct Bench {
    pub objects: tempfile::TempDir,
    pub state: tempfile::TempDir,
    pub now: Timestamp,
}

impl Bench {
    pub async fn new() -> Self {
        let bench = Self {
            objects: tempfile::tempdir().unwrap(),
            state: tempfile::tempdir().unwrap(),
            now: Timestamp::from_micros(BEGIN_MICROS + 30 * 3_600_000_000),
        };
        assert!(initialize(&bench.store(), &bench.settings(), bench.now).await.unwrap());
        bench
    }

    pub fn inner(&self) -> Arc<dyn ObjectStore> {
        Arc::new(LocalFileSystem::new_with_prefix(self.objects.path()).unwrap())
    }

    pub fn store(&self) -> Store {
        Store::of(self.inner(), "file:///archive")
    }

    pub fn settings(&self) -> Settings {
        self.settings_in(self.state.path())
    }

    pub fn settings_in(&self, dir: &Path) -> Settings {
        Settings {
            cluster: CLUSTER.parse().unwrap(),
            archive: ARCHIVE.parse().unwrap(),
            keys: keys(),
            dir: dir.to_owned(),
            host: "here".to_owned(),
        }
    }

    /// One round of the writer with a store; returns the number of the committed step.
    pub async fn round(&self, store: Store, logs: &Logs, rows_max: u64) -> Result<Option<u64>, WriteError> {
        let mut writer = Writer::open(store, self.settings())?.with_step_rows_max(rows_max);
        let (history, unpublished) = writer.load(self.now).await?;
        if let Some(committed) = unpublished {
            writer.publish(&committed, self.now).await?;
            writer.published(committed.step.number)?;
        }
        match writer.step(logs, &history, &logs.due(), self.now).await? {
            StepOutcome::Nothing { .. } => Ok(None),
            StepOutcome::Committed { committed, .. } => {
                writer.publish(&committed, self.now).await?;
                writer.published(committed.step.number)?;
                Ok(Some(committed.step.number))
            }
        }
    }

    /// A reader of the rows that the archive has now.
    pub async fn reader(&self) -> Reader {
        let (cluster, archive) = (CLUSTER.parse().unwrap(), ARCHIVE.parse().unwrap());
        let catalog = Catalog::load(&self.store(), keys().steps.public(), &cluster, &archive).await.unwrap();
        Reader::new(self.store(), Arc::new(catalog), Arc::new(Caches::default()))
    }

    /// Removes the content of rows that archived entries declare as erased; returns the number of the committed step.
    pub async fn erase_round(&self, store: Store) -> Result<Option<u64>, WriteError> {
        let mut writer = Writer::open(store, self.settings())?;
        let (history, unpublished) = writer.load(self.now).await?;
        if let Some(committed) = unpublished {
            writer.publish(&committed, self.now).await?;
            writer.published(committed.step.number)?;
        }
        let due = self.reader().await.due_erasures(writer.searched(), keys().steps.public()).await.unwrap();
        assert!(due.refused.is_empty(), "{:?}", due.refused);
        match writer.replace(&history, due.files, self.now).await?.outcome {
            StepOutcome::Nothing { .. } => {
                writer.set_searched(history.head.number, Vec::new())?;
                Ok(None)
            }
            StepOutcome::Committed { committed, .. } => {
                writer.publish(&committed, self.now).await?;
                writer.published(committed.step.number)?;
                Ok(Some(committed.step.number))
            }
        }
    }

    /// Rounds until nothing is due.
    pub async fn archive_all(&self, logs: &Logs, rows_max: u64) {
        while self.round(self.store(), logs, rows_max).await.unwrap().is_some() {}
    }

    pub async fn verify(&self, logs: &Logs) -> Report {
        verify(&self.store(), &logs.trust(), &archive_trust(), Scope::default(), |_, _| ()).await.unwrap()
    }
}

/// A scan of all rows of a log.
pub fn whole_log(log: &LogId, order: Order, filter: Filter) -> ScanRange {
    ScanRange {
        log: log.clone(),
        begin: Position { timestamp: Timestamp::MIN, seq: 0 },
        end: Position { timestamp: Timestamp::MAX, seq: 0 },
        order,
        rows: 0..u64::MAX,
        filter: Arc::new(filter),
        erased: Arc::default(),
    }
}

/// All archived rows of a log.
pub async fn scanned(reader: &Reader, log: &LogId) -> Result<Vec<ArchivedRow>, ReadError> {
    let range = whole_log(log, Order::Asc, Filter::default());
    let Some(mut scan) = LogScan::new(reader.clone(), range) else { return Ok(Vec::new()) };
    let mut rows = Vec::new();
    while let Some(row) = scan.next().await? {
        rows.push(row);
    }
    Ok(rows)
}

/// The files of rows in a directory.
pub fn data_files(dir: &Path) -> Vec<Bytes> {
    let days = std::fs::read_dir(dir.join("data")).into_iter().flatten().flatten();
    let files = days.flat_map(|day| std::fs::read_dir(day.path()).unwrap().flatten());
    files.map(|file| Bytes::from(std::fs::read(file.path()).unwrap())).collect()
}

/// The rows of all files in a directory, as engines that list the folder see them.
pub fn globbed(dir: &Path) -> Vec<(LogId, ArchivedRow)> {
    let mut rows = Vec::new();
    for bytes in data_files(dir) {
        piperoll_archive::file::decode::decode::<piperoll_archive::file::DecodeError>(&bytes, |decoded| {
            rows.push((decoded.log, decoded.row));
            Ok(())
        })
        .unwrap();
    }
    rows.sort_by(|a, b| (&a.0, a.1.seq).cmp(&(&b.0, b.1.seq)));
    rows
}
