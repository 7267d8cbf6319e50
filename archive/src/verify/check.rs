//! Verifies all objects of an archive: the chain of steps, the checkpoints, the files, the tiles, and that there is nothing else.

use std::collections::{BTreeMap, HashSet};

use bytes::Bytes;
use futures::{StreamExt as _, stream};
use piperoll_evidence::bundle::{ArchiveTrust, Trust};
use piperoll_format::checkpoint::Checkpoint;
use piperoll_format::merkle::CompactRange;
use piperoll_format::note::{KeyKind, Note, VerifyingKey};
use piperoll_format::time::Timestamp;

use super::report::{FindingKind, Report};
use super::resume::Resume;
use crate::history::{Head, History, UpperTile, checkpoint_of};
use crate::record::names::{self, ARCHIVE, CHECKPOINTS, DATA, PLANS, PROBE, STEPS, TILES};
use crate::record::{
    About, Digest, FileRecord, LogRange, Plan, STEP_BYTES_MAX, Step, TREE_BYTES_MAX, Trees, digest_of,
};
use crate::row::{Day, LogId};
use crate::store::{Listed, Store, StoreError};

/// Maximum number of plans after the newest step that are read. There is one, or a few if attempts were interrupted.
const PLANS_MAX: usize = 256;
/// Maximum size of small objects.
const SMALL_BYTES_MAX: u64 = 64 * 1024;
/// Maximum number of attempts if steps are committed meanwhile.
const ATTEMPTS_MAX: usize = 3;
/// Tiles that are read at the same time.
const TILES_AT_ONCE: usize = 16;

/// Extent of a verification.
#[derive(Debug, Clone, Copy, Default)]
pub struct Scope {
    /// First and last UTC day of the rows that are read. Steps, checkpoints and tiles are always verified.
    pub from: Option<Day>,
    pub to: Option<Day>,
    /// Newest step that is known from elsewhere. An archive with fewer steps, or with another step under this number, was rolled
    /// back or replaced.
    pub seen: Option<Head>,
}

impl Scope {
    pub(super) fn has(&self, file: &FileRecord) -> bool {
        let day = |run: &crate::record::Run| Day::of(run.first);
        self.is_whole()
            || file
                .runs
                .iter()
                .map(day)
                .any(|day| self.from.is_none_or(|from| from <= day) && self.to.is_none_or(|to| day <= to))
    }

    fn is_whole(&self) -> bool {
        self.from.is_none() && self.to.is_none()
    }
}

/// Verifies the archive `archive` that the trust file names. `progress` is called with the number of verified rows and of all rows.
///
/// # Errors
/// Fails only if the store cannot be listed; everything else is a finding.
pub async fn verify(
    store: &Store,
    trust: &Trust,
    archive: &ArchiveTrust,
    scope: Scope,
    progress: impl FnMut(u64, u64),
) -> Result<Report, StoreError> {
    verify_resumed(store, trust, archive, scope, None, progress).await
}

/// Like [`verify`], but does not read the files again that an interrupted verification found in order, and remembers those that this one
/// does.
///
/// # Errors
/// As for [`verify`].
pub async fn verify_resumed(
    store: &Store,
    trust: &Trust,
    archive: &ArchiveTrust,
    scope: Scope,
    mut resume: Option<&mut Resume>,
    mut progress: impl FnMut(u64, u64),
) -> Result<Report, StoreError> {
    let mut attempts = 0;
    loop {
        attempts += 1;
        let report = verify_once(store, trust, archive, scope, resume.as_deref_mut(), &mut progress).await?;
        // A step that was committed meanwhile may have replaced files that this verification looked for.
        let newest = report.head.map_or(0, |head| head.number);
        if report.is_verified() || attempts == ATTEMPTS_MAX || numbers_of(store).await?.last() <= Some(&newest) {
            return Ok(report);
        }
    }
}

/// Numbers of the steps, ascending.
async fn numbers_of(store: &Store) -> Result<Vec<u64>, StoreError> {
    let steps = store.list(STEPS).await?;
    let mut numbers: Vec<u64> = steps.iter().filter_map(|listed| names::number_in(STEPS, &listed.name)).collect();
    numbers.sort_unstable();
    Ok(numbers)
}

async fn verify_once(
    store: &Store,
    trust: &Trust,
    archive: &ArchiveTrust,
    scope: Scope,
    resume: Option<&mut Resume>,
    mut progress: impl FnMut(u64, u64),
) -> Result<Report, StoreError> {
    let mut report = Report {
        cluster: trust.cluster.to_string(),
        archive: archive.id.to_string(),
        whole: scope.is_whole(),
        ..Report::default()
    };
    let mut listed: BTreeMap<String, u64> = BTreeMap::new();
    // List the steps first: the writer may be adding one meanwhile, and its objects then belong to a step after the newest one.
    let numbers = numbers_of(store).await?;
    let newest = numbers.last().copied().unwrap_or(0);
    listed.extend(store.list("").await?.into_iter().map(|Listed { name, bytes }| (name, bytes)));
    let mut checker = Checker { store, trust, archive, report: &mut report, named: HashSet::new(), resume };
    let mut chain = checker.chain(&numbers, scope.seen).await;
    if !checker.report.is_read() {
        // Without all steps, every other finding could be a consequence of the missing one.
        return Ok(report);
    }
    checker.resolve(&mut chain);
    checker.report.rows = chain.steps.iter().map(Step::rows).sum();
    checker.checkpoints(&chain, &listed).await;
    checker.tiles(&chain).await;
    checker.files(&chain, &listed, scope, &mut progress).await;
    checker.extras(&chain, newest, &listed).await;
    Ok(report)
}

/// The steps that could be read.
#[derive(Default)]
pub(super) struct Chain {
    pub(super) steps: Vec<Step>,
    pub(super) trees: Vec<Trees>,
    pub(super) digests: BTreeMap<u64, Digest>,
    head: Option<Head>,
    tiles: Vec<(LogId, UpperTile)>,
    /// Files that a step replaced or removed, with its number.
    pub(super) removed: BTreeMap<String, u64>,
    /// First row that the archive still has of a log, and the compact range before it.
    pub(super) starts: BTreeMap<LogId, (u64, Option<CompactRange>)>,
}

impl Chain {
    /// Digest of a step, by its index in `steps`.
    pub(super) fn digest_of(&self, index: usize) -> Digest {
        self.digests.get(&self.steps[index].number).copied().unwrap_or(Digest([0; 32]))
    }
}

pub(super) struct Checker<'a> {
    pub(super) store: &'a Store,
    pub(super) trust: &'a Trust,
    pub(super) archive: &'a ArchiveTrust,
    pub(super) report: &'a mut Report,
    /// Objects that a step names.
    pub(super) named: HashSet<String>,
    pub(super) resume: Option<&'a mut Resume>,
}

impl Checker<'_> {
    pub(super) fn find(&mut self, kind: FindingKind, object: impl Into<String>, detail: impl Into<String>) {
        self.report.find(kind, object, detail);
    }

    /// Reads an object, and reports a missing or unreadable one.
    async fn read(&mut self, kind: FindingKind, name: &str, bytes_max: u64) -> Option<Bytes> {
        match self.store.read(name, bytes_max).await {
            Ok(bytes) => Some(bytes),
            Err(error) => {
                self.unread(kind, name, &error);
                None
            }
        }
    }

    pub(super) fn unread(&mut self, kind: FindingKind, name: &str, error: &StoreError) {
        match error {
            StoreError::Missing { .. } => self.find(kind, name, "it is missing"),
            StoreError::TooLarge { .. } => self.find(kind, name, error.to_string()),
            other => self.find(FindingKind::Unread, name, other.to_string()),
        }
    }

    async fn chain(&mut self, numbers: &[u64], seen: Option<Head>) -> Chain {
        let key = &self.archive.steps;
        let mut chain = Chain::default();
        let Some(bytes) = self.read(FindingKind::Step, ARCHIVE, SMALL_BYTES_MAX).await else { return chain };
        let about = match About::read(&bytes, key) {
            Ok(about) => about,
            Err(error) => {
                self.find(FindingKind::Step, ARCHIVE, error.to_string());
                return chain;
            }
        };
        if (&about.cluster, &about.archive) != (&self.trust.cluster, &self.archive.id) {
            let detail = format!("it is {} of cluster {}", about.archive, about.cluster);
            self.find(FindingKind::Step, ARCHIVE, detail);
        }
        let head = Head { number: 0, digest: digest_of(&bytes) };
        let mut history = History { about, head, logs: BTreeMap::new() };
        let mut expected = 1;
        for number in numbers.iter().copied() {
            if number != expected {
                let detail = format!("it is missing, and so are all steps before step {number}");
                let detail = if number.checked_sub(1) == Some(expected) { "it is missing".to_owned() } else { detail };
                self.find(FindingKind::Step, names::step(expected), detail);
            }
            let follows_gap = number != expected;
            self.step(number, follows_gap, &mut history, &mut chain).await;
            expected = number.saturating_add(1);
        }
        let newest = numbers.last().copied().unwrap_or(0);
        if let Some(seen) = seen.filter(|seen| seen.number > 0) {
            match chain.digests.get(&seen.number) {
                Some(digest) if *digest == seen.digest => {}
                Some(_) => {
                    self.find(FindingKind::Rollback, names::step(seen.number), "it is not the step that was seen")
                }
                None => {
                    let detail = format!("it was seen, but the archive has {newest} steps");
                    self.find(FindingKind::Rollback, names::step(seen.number), detail);
                }
            }
        }
        self.report.head = chain.head;
        self.report.logs = history.logs.len();
        chain
    }

    async fn step(&mut self, number: u64, follows_gap: bool, history: &mut History, chain: &mut Chain) {
        let name = names::step(number);
        let Some(bytes) = self.read(FindingKind::Step, &name, STEP_BYTES_MAX as u64).await else {
            history.head.number = number;
            return;
        };
        let digest = digest_of(&bytes);
        chain.digests.insert(number, digest);
        let step = match Step::read(number, &bytes, &self.archive.steps) {
            Ok(step) => step,
            Err(error) => {
                self.find(FindingKind::Step, &name, error.to_string());
                history.head = Head { number, digest };
                return;
            }
        };
        if follows_gap {
            // The missing steps are reported already; compare the later ones with each other.
            history.head = Head { number: number - 1, digest: step.previous };
        }
        self.named.insert(step.tree.name.clone());
        self.named.extend(step.new_files().map(|file| file.name.clone()));
        let mut trees = None;
        let bytes_max = step.tree.bytes.min(TREE_BYTES_MAX);
        if let Some(bytes) = self.read(FindingKind::Step, &step.tree.name, bytes_max).await {
            // Compare the digest first, so that only hashes of the archive's writer are parsed.
            let is_same = digest_of(&bytes) == step.tree.sha256 && bytes.len() as u64 == step.tree.bytes;
            match is_same.then(|| Trees::read(&step.tree.name, &bytes)) {
                Some(Ok(read)) => trees = Some(read),
                Some(Err(error)) => self.find(FindingKind::Step, &step.tree.name, error.to_string()),
                None => self.find(FindingKind::Step, &step.tree.name, "it does not match the digest in its step"),
            }
        }
        let trees = trees.unwrap_or_default();
        for range in &step.logs {
            let known = history.logs.get(&range.log).map_or(0, |known| known.after.size());
            if range.from_seq > known {
                self.report.gaps.push(format!("{}: rows {known}..{}", range.log, range.from_seq));
            }
        }
        match history.add(&step, digest, &trees) {
            Ok(tiles) => chain.tiles.extend(tiles),
            Err(error) => self.find(FindingKind::Step, &name, error.to_string()),
        }
        // The next step is compared with this one, whatever was wrong with it.
        history.head = Head { number, digest };
        chain.head = Some(history.head);
        chain.trees.push(trees);
        chain.steps.push(step);
    }

    /// Every range must lead to a checkpoint that the log signed and a witness cosigned, and every checkpoint whose rows are all
    /// archived must be cosigned by the mirror.
    async fn checkpoints(&mut self, chain: &Chain, listed: &BTreeMap<String, u64>) {
        let nodes = self.trust.by_id();
        let mut wrong: Vec<(String, String)> = Vec::new();
        let mut cosigned: Vec<(String, String, u64)> = Vec::new();
        for step in &chain.steps {
            for range in &step.logs {
                let origin = range.log.origin(self.trust.cluster.as_str());
                let node = nodes.get(range.log.node_id.as_str());
                let opened = node.ok_or_else(|| "the trust file does not name its node".to_owned());
                match opened.and_then(|node| self.open(range, node, &origin)) {
                    Ok(checkpoint) if checkpoint.size == range.to_seq => {
                        cosigned.push((names::checkpoint(&origin, step.number), range.checkpoint.clone(), step.number));
                    }
                    Ok(_) => {}
                    Err(reason) => {
                        wrong.push((names::step(step.number), format!("checkpoint of {}: {reason}", range.log)))
                    }
                }
            }
        }
        for (object, detail) in wrong {
            self.find(FindingKind::Checkpoint, object, detail);
        }
        for (name, checkpoint, number) in cosigned {
            self.named.insert(name.clone());
            if !listed.contains_key(&name) {
                // The writer may be about to publish the newest step.
                if chain.head.is_none_or(|head| number < head.number) {
                    self.find(FindingKind::Checkpoint, name, "it is missing");
                }
                continue;
            }
            let Some(bytes) = self.read(FindingKind::Checkpoint, &name, SMALL_BYTES_MAX).await else { continue };
            let text = String::from_utf8_lossy(&bytes);
            let expected = Note::parse(&checkpoint).ok();
            let found = Note::parse(&text).ok();
            // The signatures in the step, and one more.
            let more = |(found, expected): (&Note, Note)| found.signatures() == expected.signatures() + 1;
            let same = text.starts_with(&checkpoint) && found.as_ref().zip(expected).is_some_and(more);
            if !same {
                self.find(FindingKind::Checkpoint, name, "it is not the checkpoint in its step");
            } else if let Some(Err(error)) = found.map(|note| note.verify(&self.archive.mirror)) {
                self.find(FindingKind::Checkpoint, name, error.to_string());
            }
        }
    }

    fn open(
        &self,
        range: &LogRange,
        node: &piperoll_evidence::bundle::NodeTrust,
        origin: &str,
    ) -> Result<Checkpoint, String> {
        let checkpoint = checkpoint_of(&range.checkpoint, origin)?;
        let note = Note::parse(&range.checkpoint).map_err(|error| error.to_string())?;
        let times: Vec<u64> = self.trust.witnesses.iter().filter_map(|witness| note.verify(witness).ok()).collect();
        let first = times.iter().min().ok_or("no witness that the trust file names has cosigned it")?;
        let cosigned =
            Timestamp::from_micros(i64::try_from(*first).unwrap_or(i64::MAX / 1_000_000).saturating_mul(1_000_000));
        let generation = range.log.generation.to_string();
        let signed = node.keys.iter().any(|span| {
            let key = VerifyingKey::new(origin, KeyKind::Log, &span.public);
            node.allows(span, &generation, checkpoint.size, Some(cosigned))
                && key.is_some_and(|key| Checkpoint::open(&note, &key).is_ok())
        });
        if signed { Ok(checkpoint) } else { Err("it is not signed by a key of its node".to_owned()) }
    }

    async fn tiles(&mut self, chain: &Chain) {
        let store = self.store;
        let cluster = self.trust.cluster.as_str();
        let expected: Vec<(String, Vec<u8>)> = chain
            .tiles
            .iter()
            .map(|(log, tile)| (names::tile(&log.origin(cluster), tile.level, tile.index), tile.hashes.concat()))
            .collect();
        let mut read = stream::iter(expected)
            .map(|(name, hashes)| async move {
                let found = store.read(&name, SMALL_BYTES_MAX).await;
                (name, hashes, found)
            })
            .buffered(TILES_AT_ONCE);
        while let Some((name, hashes, found)) = read.next().await {
            self.named.insert(name.clone());
            match found {
                Ok(found) if found == hashes => {}
                Ok(_) => self.report.find(FindingKind::Tile, name, "it does not have the hashes of its rows"),
                Err(error) => self.unread(FindingKind::Tile, &name, &error),
            }
        }
    }

    /// Names the objects that no step names. Objects of a step that is being written, or was interrupted, are listed separately.
    async fn extras(&mut self, chain: &Chain, newest: u64, listed: &BTreeMap<String, u64>) {
        let mut open: HashSet<String> = HashSet::new();
        let number_of = |name: &str| names::number_of_plan(name).filter(|number| *number > newest);
        let plans: Vec<&String> = listed.keys().filter(|name| number_of(name).is_some()).take(PLANS_MAX).collect();
        let planned: HashSet<u64> = plans.iter().filter_map(|name| number_of(name)).collect();
        for name in plans {
            let Some(bytes) = self.read(FindingKind::Step, name, STEP_BYTES_MAX as u64).await else { continue };
            match Plan::read(name, &bytes, &self.archive.steps) {
                Ok(plan) => open.extend(plan.files.into_iter().map(|file| file.name)),
                Err(error) => self.find(FindingKind::Step, name, error.to_string()),
            }
        }
        let abandoned = self.abandoned(chain, newest, listed, &open).await;
        for name in listed.keys().filter(|name| !self.named.contains(*name)) {
            if abandoned.contains(name) {
                let detail = "an interrupted step created it, and no step uses it";
                self.report.find(FindingKind::Leftover, name, detail);
                continue;
            }
            match chain.removed.get(name) {
                // The writer deletes the files of the newest step after it has committed it.
                Some(step) if *step == newest => {
                    self.report.open.push(name.clone());
                    continue;
                }
                Some(step) => {
                    let detail = format!("step {step} replaced or removed it, but it still exists");
                    self.report.find(FindingKind::Leftover, name, detail);
                    continue;
                }
                None => {}
            }
            let number = names::number_of_plan(name)
                .or_else(|| names::number_in(STEPS, name))
                .or_else(|| names::number_of_tree(name));
            let is_known = match name.split('/').next().unwrap_or_default() {
                ARCHIVE => name == ARCHIVE,
                // Hashes of an interrupted attempt stay; engines do not read them.
                PLANS | STEPS => number.is_some_and(|number| number <= newest || planned.contains(&number)),
                // The race of `archive init`, if its objects could not be deleted.
                PROBE => true,
                DATA => open.contains(name),
                TILES => !planned.is_empty(),
                CHECKPOINTS => name
                    .rsplit('/')
                    .next()
                    .and_then(|number| number.parse::<u64>().ok())
                    .is_some_and(|number| planned.contains(&number)),
                _ => false,
            };
            match (is_known, name.starts_with(DATA) || name.starts_with(TILES)) {
                (true, true) => self.report.open.push(name.clone()),
                (true, false) => {}
                (false, _) => self.report.find(FindingKind::Extra, name, "no step names this object"),
            }
        }
    }
}
