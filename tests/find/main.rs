//! Tests that the index returns the same rows as reading every row does, and reports rows whose original content it cannot know.

#![allow(clippy::unwrap_used, reason = "tests")]

mod entries;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use piperoll_detect::Rules;
use piperoll_format::mac::{EpochSecret, KeyRing};
use piperoll_format::note::{KeyKind, SigningSeed};
use piperoll_format::order::{Order, Position};
use piperoll_format::time::Timestamp;
use piperoll_net::clock::Clock;
use piperoll_node::store::{LogDir, LogKeys, PruneTarget, Store};
use piperoll_protocol::node::{FindingKind, ScanRequest};
use piperoll_query::filter::{ErasedFit, Filter};
use piperoll_tests::{findings, new_entry};
use proptest::prelude::*;

use entries::{Raw, dice, entry, filter};

/// Block level at which a block has 256 rows, as many as a tile of the lowest level.
const SMALL_BLOCKS: u32 = 0;
const BLOCK_ROWS: usize = 256;
const SECOND: i64 = 1_000_000;
const START: i64 = 1_776_240_000 * SECOND;

/// A clock that advances by a second with every reading.
struct Ticking(AtomicI64);

impl Clock for Ticking {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.0.fetch_add(SECOND, Ordering::Relaxed))
    }
}

struct Log {
    store: Store,
    clock: Arc<Ticking>,
    dir: tempfile::TempDir,
    floor: u64,
}

impl Log {
    fn new(level: u32) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let clock = Arc::new(Ticking(AtomicI64::new(START)));
        Self { store: open(dir.path(), &clock, level), clock, dir, floor: 0 }
    }

    async fn restart(&mut self, level: u32) {
        self.store.close().await;
        self.store = open(self.dir.path(), &self.clock, level);
    }

    async fn append(&self, rows: usize, seed: u64) {
        let mut roll = dice(seed);
        let via: Arc<str> = Arc::from("socket uid=0");
        let now = || Timestamp::from_micros(self.clock.0.load(Ordering::Relaxed));
        let new_entries = (0..rows).map(|_| new_entry(&entry(&mut roll, now()), &via)).collect();
        assert!(self.store.append(new_entries).await.iter().all(Result::is_ok));
    }

    /// Waits until every full block has its file, and all other rows are indexed in memory.
    async fn indexed(&self) {
        let rows = BLOCK_ROWS as u64;
        let unfinished = || {
            let index = self.store.index();
            let full = (self.store.health().head().unwrap() + 1) / rows - self.floor.div_ceil(rows);
            index.rows < index.of || index.blocks < full
        };
        while unfinished() {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    }

    async fn prune(&mut self, to: u64) {
        let witness = SigningSeed::from_bytes([3; 32]).named("test/aggregator/agg", KeyKind::Witness).unwrap();
        let signed = self.store.checkpoint().await.unwrap();
        let note = signed.note.clone().with(witness.cosign(signed.note.text(), 1_776_240_000));
        let seen = self.store.cosigned(note.to_string()).await.unwrap();
        let wish = PruneTarget { before: Timestamp::MAX, to_max: to.min(seen), earlier_before: Timestamp::MAX };
        let plan = self.store.plan_prune(wish).await.unwrap();
        if plan.to_seq <= plan.from_seq {
            return;
        }
        self.floor = plan.to_seq;
        self.store.state_prune(wish, plan, "a test".to_owned(), None).await.unwrap();
        while !self.store.drop_batch().await.unwrap() {}
        self.store.finish_prune(0).await.unwrap().unwrap();
    }

    fn rows(&self) -> Vec<Raw> {
        let conn = rusqlite::Connection::open(self.dir.path().join("log.db")).unwrap();
        let mut statement = conn.prepare("SELECT seq, ts, body FROM entries WHERE seq >= ?1 ORDER BY seq").unwrap();
        let rows = statement.query_map([self.floor], |row| {
            let body: Option<String> = row.get(2)?;
            let timestamp = Timestamp::from_micros(row.get(1)?);
            Ok(Raw { seq: row.get(0)?, timestamp, body: body.unwrap_or_default().into_bytes() })
        });
        rows.unwrap().map(Result::unwrap).collect()
    }

    /// Returns all rows of a query, read page by page, and the reported faults.
    async fn query(
        &self,
        filter: &str,
        order: Order,
        range: (Timestamp, Timestamp),
        page: usize,
    ) -> (Vec<u64>, Vec<String>) {
        let (mut found, mut after, mut faults) = (Vec::new(), None::<Position>, Vec::new());
        loop {
            let request: ScanRequest = serde_json::from_value(serde_json::json!({
                "filter": stored(filter), "from": range.0, "to": range.1, "order": order, "limit": page, "after": after,
            }))
            .unwrap();
            let mut scan = self.store.scan(request).await.unwrap();
            let mut rows = Vec::new();
            loop {
                let (returned, batch) = self.store.next_batch(scan).await.unwrap();
                scan = returned;
                rows.extend(batch.rows);
                if batch.done {
                    break;
                }
            }
            faults.extend(scan.faults());
            found.extend(rows.iter().map(|row| row.seq));
            after = rows.last().map(|row| Position { timestamp: row.place, seq: row.seq });
            if rows.len() < page {
                return (found, faults);
            }
        }
    }

    async fn findings(&self) -> Vec<(FindingKind, String)> {
        findings(&self.store).await.into_iter().map(|finding| (finding.kind, finding.detail)).collect()
    }

    fn blocks(&self) -> BTreeSet<std::path::PathBuf> {
        let Ok(files) = std::fs::read_dir(self.dir.path().join("index")) else { return BTreeSet::new() };
        files.map(|file| file.unwrap().path()).collect()
    }
}

fn open(dir: &Path, clock: &Arc<Ticking>, level: u32) -> Store {
    let ring = KeyRing::new("test".parse().unwrap(), "mx1".parse().unwrap(), [(0, EpochSecret::from_bytes([1; 32]))]);
    let keys = LogKeys {
        ring,
        checkpoint: SigningSeed::from_bytes([2; 32]),
        next_checkpoint: None,
        witnesses: Vec::new(),
        archive: None,
    };
    Store::open_with_blocks(LogDir::new(dir), keys, clock.clone(), Rules::default(), level).unwrap()
}

/// Returns a filter in the form that is sent to a node.
fn stored(filter: &str) -> String {
    Filter::parse(filter, Timestamp::from_micros(START)).unwrap_or_else(|error| panic!("{error}")).to_string()
}

/// Returns the rows found by reading every row and evaluating the filter.
fn naive(rows: &[Raw], filter: &str, order: Order, range: (Timestamp, Timestamp)) -> Vec<u64> {
    let filter = Filter::parse(filter, Timestamp::from_micros(START)).unwrap();
    // An erased entry keeps only its node and seq, so only terms on these can match.
    let on_place = |row: &Raw| filter.on_erased("mx1", row.seq) == ErasedFit::Yes;
    let fits = |row: &&Raw| {
        (range.0..range.1).contains(&row.timestamp)
            && row.view().map_or_else(|| on_place(row), |view| filter.matches(&view))
    };
    let mut found: Vec<(Timestamp, u64)> = rows.iter().filter(fits).map(|row| (row.timestamp, row.seq)).collect();
    found.sort_unstable();
    if order == Order::Desc {
        found.reverse();
    }
    found.into_iter().map(|(_, seq)| seq).collect()
}

#[derive(Debug, Clone)]
enum Step {
    Append(usize),
    /// Erases the row at this position, in thousandths of the log.
    Erase(u64),
    Prune(u64),
    Restart,
    Reindex,
    Wait,
    ClockBack,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (1usize..700).prop_map(Step::Append),
        2 => (0u64..1_000).prop_map(Step::Erase),
        1 => (0u64..700).prop_map(Step::Prune),
        1 => Just(Step::Restart),
        1 => Just(Step::Reindex),
        2 => Just(Step::Wait),
        1 => Just(Step::ClockBack),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 10, max_shrink_iters: 40, ..ProptestConfig::default() })]

    /// Searches find the same rows as reading everything: for random entries, filters, ranges, orders and page sizes, interleaved
    /// with appends, erasures, prunes, restarts and reindexing.
    #[test]
    fn finds_what_reading_everything_finds(steps in prop::collection::vec(step(), 1..8), seed in any::<u64>()) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        runtime.block_on(async {
            let mut log = Log::new(SMALL_BLOCKS);
            let mut roll = dice(seed);
            log.append(1 + roll(600) as usize, seed).await;
            for (number, step) in steps.iter().enumerate() {
                let first_and_end = |log: &Log| (log.floor, log.store.health().head().unwrap() + 1);
                match step {
                    Step::Append(rows) => log.append(*rows, seed ^ number as u64).await,
                    Step::Erase(at) => {
                        let (first, end) = first_and_end(&log);
                        // Erasing fails for a row that is a statement of the node.
                        let _ = log.store.erase(first + (end - first) * at / 1_000, "test".to_owned(), "me".to_owned()).await;
                    }
                    Step::Prune(at) => {
                        let (first, end) = first_and_end(&log);
                        log.prune(first + (end - first) * at / 1_000).await;
                    }
                    Step::Restart => log.restart(SMALL_BLOCKS).await,
                    Step::Reindex => log.store.reindex().await.unwrap(),
                    Step::Wait => log.indexed().await,
                    Step::ClockBack => { log.clock.0.fetch_sub(500 * SECOND, Ordering::Relaxed); }
                }
                let rows = log.rows();
                for _ in 0..6 {
                    let filter = filter(&mut roll, &rows);
                    let order = if roll(2) == 0 { Order::Asc } else { Order::Desc };
                    let mut ends = [roll(rows.len() as u64), roll(rows.len() as u64)].map(|at| rows[at as usize].timestamp);
                    ends.sort_unstable();
                    let range = if roll(2) == 0 { (Timestamp::MIN, Timestamp::MAX) } else { (ends[0], ends[1]) };
                    let page = [3, 50, 1_000][roll(3) as usize];
                    let (found, faults) = log.query(&filter, order, range, page).await;
                    assert_eq!(faults, Vec::<String>::new());
                    assert_eq!(found, naive(&rows, &filter, order, range), "{filter} {order:?} {range:?} {page}");
                }
            }
            log.indexed().await;
            assert_eq!(log.findings().await, Vec::new());
        });
    }
}

/// A block of an earlier version, which indexes JSON texts only in their stored form, is rebuilt at the start.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_earlier_block_is_made_again() {
    let mut log = Log::new(SMALL_BLOCKS);
    log.append(2 * BLOCK_ROWS, 3).await;
    log.indexed().await;
    log.store.close().await;
    for block in log.blocks() {
        let mut bytes = std::fs::read(&block).unwrap();
        assert!(bytes.starts_with(b"PRindex3"));
        bytes[..8].copy_from_slice(b"PRindex2");
        std::fs::write(&block, bytes).unwrap();
    }
    log.store = open(log.dir.path(), &log.clock, SMALL_BLOCKS);
    log.indexed().await;
    assert!(log.blocks().iter().all(|block| std::fs::read(block).unwrap().starts_with(b"PRindex3")));
    let (whole, rows) = ((Timestamp::MIN, Timestamp::MAX), log.rows());
    for filter in ["details:müller", "details.who:Müller OR user:alice", "details:\"/index.php\""] {
        let found = log.query(filter, Order::Asc, whole, 1_000).await.0;
        assert_eq!(found, naive(&rows, filter, Order::Asc, whole));
        assert!(found.len() > 50, "{filter}");
    }
    assert_eq!(log.findings().await, Vec::new());
}

/// A full check detects every kind of tampering with an index, and `reindex` repairs the index.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_index_is_found() {
    let mut log = Log::new(SMALL_BLOCKS);
    log.append(4 * BLOCK_ROWS, 1).await;
    log.indexed().await;
    let blocks: Vec<_> = log.blocks().into_iter().collect();
    assert_eq!(blocks.len(), 4);
    assert_eq!(log.findings().await, Vec::new());
    let original: Vec<Vec<u8>> = blocks.iter().map(|block| std::fs::read(block).unwrap()).collect();
    let whole = (Timestamp::MIN, Timestamp::MAX);
    let expected = log.query("user:alice", Order::Asc, whole, 1_000).await.0;
    assert!(expected.len() > 50);

    let about_index = |found: Vec<(FindingKind, String)>| {
        assert!(found.iter().all(|(kind, _)| *kind == FindingKind::Index), "{found:?}");
        found.into_iter().map(|(_, words)| words).collect::<Vec<_>>()
    };
    // Change one byte at each of about 40 positions in turn.
    for at in (0..original[1].len()).step_by(original[1].len() / 40) {
        let mut bytes = original[1].clone();
        bytes[at] ^= 0x10;
        std::fs::write(&blocks[1], &bytes).unwrap();
        let found = about_index(log.findings().await);
        assert!(matches!(&found[..], [one] if one.contains("rows 256 to 511")), "byte {at}: {found:?}");
        // Searches over the changed block succeed, and their results are correct.
        log.query("user:alice \"recipient\" ip:10.0.0.0/8", Order::Desc, whole, 50).await;
        assert_eq!(log.query("user:alice", Order::Asc, whole, 1_000).await.0, expected, "byte {at}");
        // The search that found the damage triggered a rebuild of the block.
        log.indexed().await;
    }
    // Remove, truncate and swap a block, and replace it with one of a log with other rows.
    std::fs::remove_file(&blocks[1]).unwrap();
    assert_eq!(about_index(log.findings().await).len(), 1);
    assert_eq!(log.query("user:alice", Order::Asc, whole, 1_000).await.0, expected);
    log.indexed().await;
    std::fs::write(&blocks[1], &original[1][..original[1].len() - 1]).unwrap();
    assert_eq!(about_index(log.findings().await).len(), 1);
    std::fs::write(&blocks[1], &original[2]).unwrap();
    assert_eq!(about_index(log.findings().await).len(), 1);
    assert_eq!(log.query("user:alice", Order::Asc, whole, 1_000).await.0, expected, "a swapped block is not believed");
    log.indexed().await;
    let other = Log::new(SMALL_BLOCKS);
    other.append(4 * BLOCK_ROWS, 2).await;
    other.indexed().await;
    std::fs::copy(other.blocks().into_iter().nth(1).unwrap(), &blocks[1]).unwrap();
    assert_eq!(about_index(log.findings().await).len(), 1);
    assert_eq!(log.query("user:alice", Order::Asc, whole, 1_000).await.0, expected, "a foreign block is not believed");
    log.indexed().await;
    assert_eq!(log.findings().await, Vec::new(), "it was made again");
    std::fs::write(blocks[0].with_file_name("000000009984.block"), &original[0]).unwrap();
    assert_eq!(about_index(log.findings().await).len(), 1, "a block of rows that are not there");

    log.store.reindex().await.unwrap();
    log.indexed().await;
    assert_eq!(log.findings().await, Vec::new());
    let made: Vec<Vec<u8>> = log.blocks().into_iter().map(|block| std::fs::read(block).unwrap()).collect();
    assert_eq!(made, original, "the same rows give the same bytes");
    log.restart(SMALL_BLOCKS).await;
    assert_eq!(log.query("user:alice", Order::Asc, whole, 1_000).await.0, expected);
}

/// A block file that cannot be removed prevents only the erasure of its rows; appends continue.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_block_that_cannot_be_removed_stops_nobody() {
    let log = Log::new(SMALL_BLOCKS);
    log.append(2 * BLOCK_ROWS, 3).await;
    log.indexed().await;
    let block = log.blocks().into_iter().next().unwrap();
    std::fs::remove_file(&block).unwrap();
    std::fs::create_dir(&block).unwrap();
    let refused = log.store.erase(7, "test".to_owned(), "me".to_owned()).await;
    assert!(refused.is_err(), "{refused:?}");
    log.append(1, 4).await;
    std::fs::remove_dir(&block).unwrap();
    log.store.erase(7, "test".to_owned(), "me".to_owned()).await.unwrap();
    log.indexed().await;
    assert_eq!(log.findings().await, Vec::new());
}

/// A row that was changed or deleted after it was indexed is reported by every search for its original content.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changed_rows_show_where_they_were_found() {
    let log = Log::new(SMALL_BLOCKS);
    log.append(3 * BLOCK_ROWS, 5).await;
    log.indexed().await;
    let whole = (Timestamp::MIN, Timestamp::MAX);
    let expected = log.query("user:alice", Order::Asc, whole, 1_000).await.0;
    let (edited, gone) = (expected[3], expected[expected.len() / 2]);
    let database = log.dir.path().join("log.db");
    piperoll_tests::edit(
        &database,
        &format!("UPDATE entries SET body = replace(body, 'alice', 'carol') WHERE seq = {edited}"),
    );
    piperoll_tests::edit(&database, &format!("DELETE FROM entries WHERE seq = {gone}"));
    let (found, faults) = log.query("user:alice", Order::Asc, whole, 7).await;
    assert_eq!(found, expected.iter().copied().filter(|seq| *seq != gone).collect::<Vec<_>>());
    assert!(faults.iter().any(|words| words.contains(&gone.to_string())), "{faults:?}");
    // After the index is rebuilt from the changed rows, their original content is unknown. Therefore every search returns the
    // edited row and reports the deleted one.
    log.store.reindex().await.unwrap();
    log.indexed().await;
    for order in [Order::Asc, Order::Desc] {
        let (found, faults) = log.query("user:nobody", order, whole, 1_000).await;
        assert_eq!(found, [edited]);
        assert!(faults.iter().any(|words| words.contains(&gone.to_string())), "{faults:?}");
    }
}

/// The text of an erased row is removed from the index files at once, and so is the text of pruned rows.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_erased_or_pruned_leaves_the_index() {
    let mut log = Log::new(SMALL_BLOCKS);
    log.append(BLOCK_ROWS, 5).await;
    let via: Arc<str> = Arc::from("socket uid=0");
    let secret = r#"{"category":"auth","action":"auth.login","user":"unmistakable-person"}"#;
    log.store.append(vec![new_entry(secret, &via)]).await;
    let seq = log.store.health().head().unwrap();
    log.append(2 * BLOCK_ROWS, 6).await;
    log.indexed().await;
    let says_so = |log: &Log| {
        let files = log.blocks();
        files.iter().filter(|file| memchr(&std::fs::read(file).unwrap(), b"unmistakable")).count()
    };
    assert_eq!(says_so(&log), 1);
    log.store.erase(seq, "a test".to_owned(), "me".to_owned()).await.unwrap();
    assert_eq!(says_so(&log), 0);
    log.indexed().await;
    assert_eq!(says_so(&log), 0);
    assert_eq!(log.findings().await, Vec::new());
    log.prune(2 * BLOCK_ROWS as u64).await;
    log.indexed().await;
    let first = log.blocks().into_iter().next().unwrap();
    assert!(first.ends_with("000000000512.block"), "{first:?}");
    assert_eq!(log.findings().await, Vec::new());
    log.restart(SMALL_BLOCKS).await;
    log.indexed().await;
    assert_eq!(log.findings().await, Vec::new());
}

fn memchr(bytes: &[u8], wanted: &[u8]) -> bool {
    bytes.windows(wanted.len()).any(|window| window == wanted)
}
