//! Prunes at every tile boundary: rows that must remain provable have the same proofs as before.

#![allow(clippy::unwrap_used, reason = "tests")]

mod earlier;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use piperoll_detect::Rules;
use piperoll_format::mac::{EpochSecret, KeyRing};
use piperoll_format::merkle::{
    Hash, RangeProof, TILE_WIDTH, TreeBuilder, TreeReader, consistency_proof, inclusion_proof, leaf_hash, range_proof,
    verify_consistency, verify_inclusion,
};
use piperoll_format::note::{KeyKind, SigningKey, SigningSeed};
use piperoll_format::statement::Hold;
use piperoll_format::time::Timestamp;
use piperoll_net::clock::Clock;
use piperoll_node::store::{LogDir, LogKeys, NewEntry, PruneTarget, Store};
use piperoll_protocol::node::PrunePlan;
use piperoll_tests::{Leaves, findings, new_entry};

/// A clock that stays at one time until a test sets another.
#[derive(Default)]
struct Still(AtomicI64);

impl Clock for Still {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.0.load(Ordering::Relaxed))
    }
}

const DAY_MICROS: i64 = 86_400_000_000;

fn keys(epochs: u32) -> LogKeys {
    let secrets = (0..epochs).map(|epoch| (epoch, EpochSecret::from_bytes([u8::try_from(epoch).unwrap() + 1; 32])));
    let ring = KeyRing::new("test".parse().unwrap(), "mx1".parse().unwrap(), secrets);
    LogKeys {
        ring,
        checkpoint: SigningSeed::from_bytes([2; 32]),
        next_checkpoint: None,
        witnesses: Vec::new(),
        archive: None,
    }
}

struct Log {
    store: Store,
    clock: Arc<Still>,
    witness: SigningKey,
    dir: std::path::PathBuf,
}

impl Log {
    fn open(dir: &std::path::Path) -> Self {
        Self::open_with(dir, 1)
    }

    /// Opens the log with the secrets of the first `epochs` epochs.
    fn open_with(dir: &std::path::Path, epochs: u32) -> Self {
        let clock = Arc::new(Still::default());
        clock.0.store(DAY_MICROS, Ordering::Relaxed);
        let keys = keys(epochs);
        let store = Store::open(LogDir::new(dir), keys, clock.clone(), Rules::none()).unwrap();
        let witness = SigningSeed::from_bytes([3; 32]).named("test/aggregator/agg", KeyKind::Witness).unwrap();
        Self { store, clock, witness, dir: dir.to_owned() }
    }

    async fn append(&self, rows: usize) {
        let via: Arc<str> = Arc::from("socket uid=0");
        let new_entry = new_entry(r#"{"category":"auth","action":"auth.login"}"#, &via);
        for chunk in (0..rows).collect::<Vec<_>>().chunks(4_000) {
            let new_entries: Vec<NewEntry> = chunk.iter().map(|_| new_entry.clone()).collect();
            assert!(self.store.append(new_entries).await.iter().all(Result::is_ok));
        }
    }

    /// Cosigns the newest checkpoint as a witness would.
    async fn witnessed(&self) -> u64 {
        // The store signs at most once a second, except at shutdown and on the first request after it was opened.
        loop {
            let signed = self.store.checkpoint().await.unwrap();
            if signed.checkpoint.size == self.store.health().head().unwrap() + 1 {
                let seconds = u64::try_from(self.clock.now().micros() / 1_000_000).unwrap();
                let note = signed.note.clone().with(self.witness.cosign(signed.note.text(), seconds));
                return self.store.cosigned(note.to_string()).await.unwrap();
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    }

    async fn prune(&self, to: u64) {
        self.witnessed().await;
        let wish = PruneTarget { before: Timestamp::MAX, to_max: to, earlier_before: Timestamp::MAX };
        let plan = self.store.plan_prune(wish).await.unwrap();
        assert_eq!(plan.to_seq, to);
        self.store.state_prune(wish, plan, "a test".to_owned(), None).await.unwrap();
        while !self.store.drop_batch().await.unwrap() {}
        while !self.store.shrink().await.unwrap() {}
        let finished = self.store.finish_prune(0).await.unwrap().unwrap();
        assert_eq!(finished.to_seq, to);
    }

    async fn findings(&self) -> Vec<String> {
        findings(&self.store).await.into_iter().map(|finding| finding.detail).collect()
    }

    /// Returns the `known` leaves, followed by the leaves of the rows after them.
    fn leaves(&self, known: &[Hash]) -> Vec<Hash> {
        let conn = rusqlite::Connection::open(self.dir.join("log.db")).unwrap();
        let mut statement = conn.prepare("SELECT body, mac FROM entries WHERE seq >= ?1 ORDER BY seq").unwrap();
        let rows = statement
            .query_map([known.len()], |row| {
                let (body, mac): (String, Vec<u8>) = (row.get(0)?, row.get(1)?);
                Ok(leaf_hash(body.as_bytes(), &mac))
            })
            .unwrap();
        known.iter().copied().chain(rows.map(Result::unwrap)).collect()
    }

    /// Checks that every kind of proof, at many positions and sizes above the log start, equals the proof from the complete tree.
    async fn proofs_are_those_of(&self, leaves: &[Hash], floor: u64) {
        let rows = leaves.len() as u64;
        let span = rows - floor;
        let places = |count: u64| (0..count).map(move |n| floor + n * span / count);
        for size in places(7).filter(|size| *size > floor).chain([floor + 1, rows]) {
            let mut whole = TreeReader::new(Leaves(leaves.to_vec()), size);
            let root = whole.root(size).unwrap();
            for seq in places(9).filter(|seq| *seq < size).chain([floor, size - 1]) {
                let proof = self.store.inclusion(self.store.generation(), seq, size).await.unwrap().unwrap();
                assert_eq!(proof, inclusion_proof(&mut whole, seq, size).unwrap());
                let leaf = &leaves[usize::try_from(seq).unwrap()];
                assert_eq!(verify_inclusion(leaf, seq, size, &proof, &root), Ok(()));
            }
            for old in places(5).filter(|old| *old < size && *old > 0).chain([floor.max(1)]) {
                let proof = self.store.consistency(old, size).await.unwrap();
                assert_eq!(proof, consistency_proof(&mut whole, old, size).unwrap());
                let old_root = whole.root(old).unwrap();
                assert_eq!(verify_consistency(old, &old_root, size, &root, &proof), Ok(()));
            }
            for begin in places(4).filter(|begin| *begin < size) {
                let runs: Vec<_> = std::iter::once(begin..begin + (size - begin).div_ceil(2)).collect();
                let hashes =
                    self.store.range_proof(self.store.generation(), runs.clone(), size).await.unwrap().unwrap();
                assert_eq!(hashes, range_proof(&mut whole, &runs, size).unwrap());
                let shown = runs[0].clone().map(|seq| (seq, leaves[usize::try_from(seq).unwrap()]));
                assert_eq!(RangeProof { runs: runs.clone(), hashes }.verify(shown, size, &root), Ok(()));
            }
        }
        if floor > 0 {
            // A proof of a pruned row is refused with a message that the row was pruned, and never fabricated.
            let gone = self.store.inclusion(self.store.generation(), floor - 1, rows).await.unwrap_err().to_string();
            assert!(gone.contains("pruned"), "{gone}");
        }
        let mut builder = TreeBuilder::default();
        leaves.iter().for_each(|leaf| builder.push(*leaf, |_| {}));
        assert_eq!(self.witnessed().await, rows);
        assert_eq!(self.store.checkpoint().await.unwrap().checkpoint.root, builder.root());
    }
}

fn copy_log(from: &std::path::Path, to: &std::path::Path) {
    for file in std::fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), to.join(file.file_name())).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn at_every_boundary_of_a_small_tree() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(dir.path());
    log.append(2_600).await;
    log.store.close().await;
    let before = log.leaves(&[]);
    drop(log);
    let boundaries = before.len() as u64 / TILE_WIDTH;
    for floor in (1..=boundaries).map(|tile| tile * TILE_WIDTH) {
        let copy = tempfile::tempdir().unwrap();
        copy_log(dir.path(), copy.path());
        let log = Log::open(copy.path());
        let before = log.leaves(&before);
        log.prune(floor).await;
        let leaves = log.leaves(&before);
        log.proofs_are_those_of(&leaves, floor).await;
        assert_eq!(log.findings().await, Vec::<String>::new(), "at {floor}");
        log.store.close().await;
        drop(log);
        // After a restart the log continues, and fills partial tiles.
        let log = Log::open(copy.path());
        log.append(600).await;
        let leaves = log.leaves(&leaves);
        log.proofs_are_those_of(&leaves, floor).await;
        assert_eq!(log.findings().await, Vec::<String>::new(), "at {floor}, later");
        log.store.close().await;
    }
}

/// Prunes across the first boundary between two tiles of the second level. Then fills the second of these tiles, some of whose
/// rows are pruned by then, and prunes across the boundary after it.
#[tokio::test(flavor = "multi_thread")]
async fn at_many_boundaries_of_a_large_tree() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(dir.path());
    log.append(66_500).await;
    let mut leaves = log.leaves(&[]);
    // Prune at the boundary between two tiles of the second level, one tile before and after it, and at up to five random
    // positions.
    let mut places: Vec<u64> = uuid::Uuid::new_v4().as_bytes()[..5].iter().map(|byte| u64::from(*byte) + 1).collect();
    places.extend([255, 256, 257]);
    places.sort_unstable();
    places.dedup();
    println!("pruned to {places:?} tiles");
    for tiles in places {
        log.prune(tiles * TILE_WIDTH).await;
        leaves = log.leaves(&leaves);
        log.proofs_are_those_of(&leaves, tiles * TILE_WIDTH).await;
    }
    assert_eq!(log.findings().await, Vec::<String>::new());
    log.append(65_536).await;
    leaves = log.leaves(&leaves);
    log.proofs_are_those_of(&leaves, 257 * TILE_WIDTH).await;
    assert_eq!(log.findings().await, Vec::<String>::new());
    log.prune(513 * TILE_WIDTH).await;
    leaves = log.leaves(&leaves);
    log.proofs_are_those_of(&leaves, 513 * TILE_WIDTH).await;
    assert_eq!(log.findings().await, Vec::<String>::new());
    // Below the log start, only the tiles needed for the frontier remain: on the lowest level, fewer than `TILE_WIDTH` tiles.
    let conn = rusqlite::Connection::open(dir.path().join("log.db")).unwrap();
    let below: u64 = conn
        .query_row("SELECT count(*) FROM tiles WHERE id >> 56 = 0 AND (id & 72057594037927935) < 513", [], |row| {
            row.get(0)
        })
        .unwrap();
    assert!(below < TILE_WIDTH, "{below} tiles of pruned rows are left");
    let ids: u64 = conn.query_row("SELECT count(*) FROM ids WHERE seq < 131328", [], |row| row.get(0)).unwrap();
    assert_eq!(ids, 0);
    log.store.close().await;
}

/// If a step fails, either it was not stored, or it was stored but its caller was not told of the success. In both cases the log
/// verifies, and the step can be repeated.
#[tokio::test(flavor = "multi_thread")]
async fn a_step_that_fails_is_not_half_done() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(dir.path());
    log.append(1_200).await;
    log.witnessed().await;
    let database = dir.path().join("log.db");
    let wish = PruneTarget { before: Timestamp::MAX, to_max: 512, earlier_before: Timestamp::MAX };
    let plan = log.store.plan_prune(wish).await.unwrap();
    let state = |plan: PrunePlan| log.store.state_prune(wish, plan, "a test".to_owned(), None);
    let hold = Hold {
        name: "h".to_owned(),
        from: Timestamp::MIN,
        to: Timestamp::MAX,
        reason: "r".to_owned(),
        by: "uid=0".to_owned(),
    };
    let rows = log.store.health().head();
    // The step is not stored, because another connection locks the file for longer than the writer waits.
    {
        let other = rusqlite::Connection::open(&database).unwrap();
        other.execute_batch("BEGIN IMMEDIATE").unwrap();
        let (stated, erased, held) = tokio::join!(
            state(plan.clone()),
            log.store.erase(900, "r".to_owned(), "uid=0".to_owned()),
            log.store.add_hold(hold.clone())
        );
        assert!(stated.is_err() && erased.is_err() && held.is_err());
        other.execute_batch("ROLLBACK").unwrap();
    }
    assert_eq!(log.store.health().head(), rows);
    assert_eq!(log.findings().await, Vec::<String>::new());
    assert!(log.store.floor().await.unwrap().is_none() && log.store.holds().await.unwrap().is_empty());
    // The step is stored, but the caller stops waiting before it receives the answer.
    {
        let asked =
            tokio::time::timeout(std::time::Duration::ZERO, log.store.erase(900, "r".to_owned(), "uid=0".to_owned()));
        let _ = asked.await;
        let store = log.store.clone();
        let (wish, plan) = (wish, plan.clone());
        let task = tokio::spawn(async move { store.state_prune(wish, plan, "a test".to_owned(), None).await });
        while log.store.unfinished_prune().await.unwrap().is_none() {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
        task.abort();
    }
    assert!(state(plan).await.unwrap_err().to_string().contains("not finished"));
    assert_eq!(log.findings().await, Vec::<String>::new());
    // Some of the rows are deleted, and the process ends before it records that the prune is finished.
    assert!(log.store.plan_prune(wish).await.unwrap().to_seq == 512, "the floor is where it was stated");
    log.witnessed().await;
    let _ = tokio::time::timeout(std::time::Duration::ZERO, log.store.drop_batch()).await;
    log.store.close().await;
    drop(log);
    let log = Log::open(dir.path());
    assert_eq!(log.findings().await, Vec::<String>::new());
    while !log.store.drop_batch().await.unwrap() {}
    // All rows below the limit are deleted, but the end of the prune is not recorded. After the next start it is recorded, once.
    log.store.close().await;
    drop(log);
    let log = Log::open(dir.path());
    assert!(log.store.unfinished_prune().await.unwrap().is_some());
    assert!(log.store.drop_batch().await.unwrap());
    assert!(log.store.finish_prune(0).await.unwrap().is_some());
    assert!(log.store.finish_prune(0).await.unwrap().is_none(), "said once");
    assert_eq!(log.findings().await, Vec::<String>::new());
    log.store.close().await;
}

/// A new MAC secret is introduced while writes fail: the log has either one epoch or both, and each row verifies under its own
/// epoch.
#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_that_fails_is_not_half_done() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(dir.path());
    log.append(10).await;
    log.store.close().await;
    drop(log);
    let database = dir.path().join("log.db");
    let other = rusqlite::Connection::open(&database).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let log = Log::open_with(dir.path(), 2);
    other.execute_batch("ROLLBACK").unwrap();
    // The node could not record the rotation and continues with the old secret; the next start tries again.
    log.append(3).await;
    assert_eq!(log.findings().await, Vec::<String>::new());
    let epochs = |conn: &rusqlite::Connection| -> Vec<(u32, u64)> {
        let sql = "SELECT epoch, count(*) FROM entries GROUP BY epoch";
        conn.prepare(sql)
            .unwrap()
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))
            .unwrap()
            .map(Result::unwrap)
            .collect()
    };
    assert_eq!(epochs(&other).len(), 1);
    log.store.close().await;
    drop(log);
    let log = Log::open_with(dir.path(), 2);
    log.append(3).await;
    assert_eq!(epochs(&other).len(), 2);
    assert_eq!(log.findings().await, Vec::<String>::new());
    log.store.close().await;
}
