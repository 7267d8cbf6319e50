//! Reading rows: every answer equals the naive one, and no change in the bucket is read as a row.

#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

mod common;

use std::sync::Arc;

use common::logs::{ARCHIVE, Bench, CLUSTER, Logs, keys, whole_log};
use piperoll_archive::read::{Caches, Catalog, LogScan, ReadError, Reader, ScanRange};
use piperoll_archive::row::{ArchivedRow, Content, LogId};
use piperoll_format::entry::CallerEntry;
use piperoll_format::merkle::{Cover, RangeRoot};
use piperoll_format::order::{Order, Position};
use piperoll_format::time::Timestamp;
use piperoll_format::view::EntryView;
use piperoll_query::filter::{ErasedFit, Filter};
use proptest::prelude::*;

const MINUTE: i64 = 60_000_000;

fn everything(log: &LogId, filter: &str, order: Order) -> ScanRange {
    whole_log(log, order, Filter::parse(filter, Timestamp::MIN).unwrap())
}

async fn read(reader: &Reader, range: ScanRange) -> Result<(Vec<ArchivedRow>, u64), ReadError> {
    let mut scan = LogScan::new(reader.clone(), range).unwrap();
    let mut rows = Vec::new();
    while let Some(row) = scan.next().await? {
        rows.push(row);
    }
    Ok((rows, scan.erased_apart()))
}

/// The same rows, found by looking at all of them.
fn naive(logs: &Logs, range: &ScanRange) -> (Vec<ArchivedRow>, u64) {
    let logs = logs.0.lock().unwrap();
    let mut apart = 0;
    let mut rows: Vec<ArchivedRow> = logs[&range.log]
        .rows
        .iter()
        .filter(|row| {
            let at = Position { timestamp: row.timestamp, seq: row.seq };
            if !(range.begin..range.end).contains(&at) || !range.rows.contains(&row.seq) {
                return false;
            }
            match &row.content {
                Content::Entry { body, .. } if !range.erased.contains(&row.seq) => {
                    range.filter.matches(&EntryView::parse(body).unwrap())
                }
                _ => match range.filter.on_erased(range.log.node_id.as_str(), row.seq) {
                    ErasedFit::Yes => true,
                    ErasedFit::No => false,
                    ErasedFit::Unknown => {
                        apart += 1;
                        false
                    }
                },
            }
        })
        .cloned()
        .collect();
    rows.sort_by_key(|row| (row.timestamp, row.seq));
    if range.order == Order::Desc {
        rows.reverse();
    }
    (rows, apart)
}

const FILTERS: [&str; 22] = [
    "",
    "user:user3",
    "user:nobody",
    "-user:user3",
    "user:user1,user2 outcome:success",
    "user:user1 OR ip:10.0.0.7",
    "-(user:user1 OR ip:10.0.0.7)",
    "ip:10.0.0.0/30",
    "action:auth.*",
    "is:failed",
    "is:flagged",
    "is:erased",
    "-is:erased user:user2",
    "details:n",
    "details.n:17",
    "details.n:>600",
    "-details.n:17",
    "login",
    "seq:17",
    "seq:250..260 user:user0",
    "node:a",
    "category:data OR category:log",
];

/// Everything that a filter, a range and an order can select is read, over steps that end anywhere.
#[tokio::test(flavor = "multi_thread")]
async fn every_row_is_found_that_looking_at_all_of_them_finds() {
    for step_rows in [150, 1_000_000] {
        let (bench, logs) = (Bench::new().await, Logs::new());
        let a = logs.add("a", 1);
        let b = logs.add("b", 2);
        logs.append(&a, 700, MINUTE / 2);
        logs.append(&b, 40, MINUTE);
        let back = CallerEntry::parse(br#"{"category":"data","action":"data.read","details":{"x":"y"}}"#).unwrap();
        logs.push(&a, &back, "http", 0, 200 * MINUTE);
        logs.append(&a, 300, MINUTE / 2);
        logs.erase(&a, 17);
        logs.erase(&a, 803);
        bench.archive_all(&logs, step_rows).await;
        let reader = bench.reader().await;
        let times: Vec<Timestamp> = logs.0.lock().unwrap()[&a].rows.iter().map(|row| row.timestamp).collect();
        for filter in FILTERS {
            for order in [Order::Asc, Order::Desc] {
                for log in [&a, &b] {
                    let whole = everything(log, filter, order);
                    assert_eq!(read(&reader, whole.clone()).await.unwrap(), naive(&logs, &whole), "{filter} {order:?}");
                    let erased = Arc::new([3, 17, 302, 1001].into());
                    let later = ScanRange { erased, ..whole.clone() };
                    assert_eq!(read(&reader, later.clone()).await.unwrap(), naive(&logs, &later), "{filter} {order:?}");
                    for (from, to, rows) in
                        [(100, 500, 0..u64::MAX), (0, 999, 256..700), (699, 705, 0..650), (300, 300, 0..9)]
                    {
                        let begin = Position { timestamp: times[from], seq: from as u64 };
                        let end = Position { timestamp: times[to], seq: to as u64 };
                        let part = ScanRange { begin, end, rows, ..whole.clone() };
                        let (found, wanted) = (read(&reader, part.clone()).await.unwrap(), naive(&logs, &part));
                        assert_eq!(found, wanted, "{filter} {order:?} {from}..{to}");
                    }
                }
            }
        }
    }
}

/// Objects of the archive below a folder, by name.
fn objects(bench: &Bench, folder: &str) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![bench.objects.path().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap().flatten() {
            if entry.path().is_dir() { folders.push(entry.path()) } else { found.push(entry.path()) }
        }
    }
    found.sort();
    found
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    /// Whatever is changed in a file or in the hashes of a step: every answer is the right one, or an error.
    #[test]
    fn no_change_is_read_as_a_row(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), 1u8..), 40)) {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_time().worker_threads(1).build().unwrap();
        runtime.block_on(async {
            let (bench, logs) = (Bench::new().await, Logs::new());
            let a = logs.add("a", 1);
            logs.append(&a, 600, MINUTE / 2);
            logs.erase(&a, 90);
            bench.archive_all(&logs, 300).await;
            let mut files = objects(&bench, "data");
            files.extend(objects(&bench, "steps").into_iter().filter(|path| path.extension().is_some()));
            let mut refused = 0;
            for (file, at, mask) in &changes {
                let path = &files[file.index(files.len())];
                let whole = std::fs::read(path).unwrap();
                let mut changed = whole.clone();
                let index = at.index(changed.len());
                changed[index] ^= mask;
                if *mask == 7 {
                    changed.truncate(index);
                }
                // An open catalog: the step was read before the change.
                let reader = bench.reader().await;
                std::fs::write(path, changed).unwrap();
                for filter in ["", "user:user3", "-user:user3", "details.n:17", "is:erased"] {
                    let range = everything(&a, filter, Order::Asc);
                    match read(&reader, range.clone()).await {
                        Ok(found) => assert_eq!(found, naive(&logs, &range), "{filter} {path:?} byte {index}"),
                        Err(error) => {
                            assert!(error.is_violation() || error.to_string().contains("cannot read"), "{error}");
                            refused += 1;
                        }
                    }
                }
                std::fs::write(path, whole).unwrap();
            }
            assert!(refused > 40, "only {refused} answers were refused");
        });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_missing_or_another_one_is_named() {
    let (bench, logs) = (Bench::new().await, Logs::new());
    let a = logs.add("a", 1);
    logs.append(&a, 1_000, MINUTE);
    bench.archive_all(&logs, 400).await;
    let files = objects(&bench, "data");
    assert!(files.len() > 2, "{files:?}");
    let whole = everything(&a, "", Order::Asc);
    let one = std::fs::read(&files[0]).unwrap();
    let fresh = bench.reader().await;
    std::fs::remove_file(&files[0]).unwrap();
    let error = read(&fresh, whole.clone()).await.unwrap_err();
    assert!(
        error.is_violation() && error.to_string().contains(&*files[0].file_name().unwrap().to_string_lossy()),
        "{error}"
    );
    std::fs::copy(&files[1], &files[0]).unwrap();
    let error = read(&bench.reader().await, whole.clone()).await.unwrap_err();
    assert!(
        error.is_violation() && error.to_string().contains(&*files[0].file_name().unwrap().to_string_lossy()),
        "{error}"
    );
    std::fs::write(&files[0], one).unwrap();
    assert_eq!(read(&bench.reader().await, whole.clone()).await.unwrap(), naive(&logs, &whole));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_catalog_follows_the_writer() {
    let (bench, logs) = (Bench::new().await, Logs::new());
    let a = logs.add("a", 1);
    logs.append(&a, 300, MINUTE);
    bench.archive_all(&logs, 1_000_000).await;
    let store = bench.store();
    let (keys, cluster, archive) = (keys(), CLUSTER.parse().unwrap(), ARCHIVE.parse().unwrap());
    let mut catalog = Catalog::load(&store, keys.steps.public(), &cluster, &archive).await.unwrap();
    logs.append(&a, 77, MINUTE);
    bench.archive_all(&logs, 1_000_000).await;
    catalog.advance(&store, keys.steps.public()).await.unwrap();
    assert_eq!((catalog.head().number, catalog.log(&a).unwrap().ranges()[0].to_seq), (2, 377));
    let reader = Reader::new(store, Arc::new(catalog), Arc::new(Caches::default()));
    let whole = everything(&a, "", Order::Desc);
    assert_eq!(read(&reader, whole.clone()).await.unwrap(), naive(&logs, &whole));
    // Border rows prove that nothing is missing between them.
    let scan = LogScan::new(reader, everything(&a, "", Order::Asc)).unwrap();
    let time = |seq: usize| logs.0.lock().unwrap()[&a].rows[seq].timestamp;
    let at = |seq: u64| Position { timestamp: time(seq as usize), seq };
    let borders = scan.borders(at(300), at(310)).await.unwrap().unwrap();
    assert_eq!(borders.iter().map(|row| row.seq).collect::<Vec<_>>(), [0, 299, 310, 376]);
}

/// Values of which random rows and filters are made: few, so that filters match, and in the forms that footers and columns treat apart.
const USERS: [&str; 4] = ["ann", "ben", "", "Ann"];
const ADDRESSES: [&str; 7] =
    ["10.0.0.1", "::ffff:10.0.0.1", "10.0.0.2", "2001:db8::1", "2001:DB8:0::1", "a proxy", "010.0.0.1"];
const ENTITIES: [&str; 3] = ["7", "8", "x/7"];
const DETAILS: [&str; 6] = [
    r#"{"n":1}"#,
    r#"{"affected":["message/7","8"]}"#,
    r#"{"\u0061ffected":"message/7"}"#,
    r#"{"Affected":["message/7"]}"#,
    r#"{"note":"not affected: 7"}"#,
    r#"{"id":"x"}"#,
];
const ATOMS: [&str; 20] = [
    "user:ann",
    "user:ann,ben",
    "user:a*",
    "ip:10.0.0.1",
    "ip:10.0.0.2,10.0.0.9",
    "ip:2001:db8::1",
    "ip:::ffff:10.0.0.1",
    "ip:10.0.0.0/31",
    "ip:\"a proxy\"",
    "entity:message/7",
    "entity:message",
    "entity:*/8",
    "details:affected",
    "details:unaffected",
    "details:FECTED",
    "outcome:unknown",
    "outcome:failure",
    "via:http",
    "is:erased",
    "subject:7",
];

type RandomRow = (usize, usize, usize, usize, bool);

fn random_entry((user, address, entity, details, failed): RandomRow) -> CallerEntry {
    let outcome = if failed { r#","outcome":"failure""# } else { "" };
    let user = if USERS[user].is_empty() { String::new() } else { format!(r#","user":"{}""#, USERS[user]) };
    let object = format!(
        r#"{{"category":"data","action":"message.read","entity_type":"message","entity_id":"{}","ip_address":"{}","details":{}{user}{outcome}}}"#,
        ENTITIES[entity], ADDRESSES[address], DETAILS[details],
    );
    CallerEntry::parse(object.as_bytes()).unwrap()
}

/// An atom, its negation, or two of them that are connected.
fn random_filter() -> impl Strategy<Value = String> {
    let atom = (prop::sample::select(&ATOMS[..]), any::<bool>())
        .prop_map(|(atom, is_negated)| if is_negated { format!("-{atom}") } else { atom.to_owned() });
    let pair = (atom.clone(), atom.clone(), any::<bool>())
        .prop_map(|(a, b, or)| if or { format!("({a} OR {b})") } else { format!("({a} {b})") });
    (prop_oneof![atom, pair.clone(), pair.clone().prop_map(|pair| format!("-{pair}"))], prop::option::of(pair))
        .prop_map(|(one, other)| other.map_or(one.clone(), |other| format!("{one} {other}")))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    /// Footers, Bloom filters and columns rule out only what no row of the file matches.
    #[test]
    fn no_row_is_ruled_out_that_matches(
        // Most files have rows of few kinds, so that much can be ruled out.
        files in prop::collection::vec(
            (prop::collection::vec((0..USERS.len(), 0..ADDRESSES.len(), 0..ENTITIES.len(), 0..DETAILS.len(), any::<bool>()), 1..4),
             1..12_u64, prop::option::of(0..12_u64)),
            2..9,
        ),
        filters in prop::collection::vec(random_filter(), 24),
    ) {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_time().worker_threads(1).build().unwrap();
        runtime.block_on(async {
            let (bench, logs) = (Bench::new().await, Logs::new());
            let a = logs.add("a", 1);
            for (kinds, rows, erased) in &files {
                let first = logs.rows(&a);
                for row in 0..*rows {
                    let kind = kinds[usize::try_from(row).unwrap() % kinds.len()];
                    logs.push(&a, &random_entry(kind), if row % 2 == 0 { "http" } else { "socket uid=0" }, MINUTE / 2, 0);
                }
                if let Some(row) = erased.filter(|row| row < rows) {
                    logs.erase(&a, first + row);
                }
                bench.archive_all(&logs, 1_000_000).await;
            }
            let reader = bench.reader().await;
            for filter in &filters {
                let range = everything(&a, filter, Order::Desc);
                assert_eq!(read(&reader, range.clone()).await.unwrap(), naive(&logs, &range), "{filter}");
            }
        });
    }
}

/// Hashes that cover gaps of archived rows are those of the log's tree, wherever the gaps and the steps end and wherever the archive
/// began.
#[tokio::test(flavor = "multi_thread")]
async fn hashes_of_gaps_are_those_of_the_tree() {
    const ROWS: u64 = 66_400;
    for (first, step_rows) in [(0, 30_000), (768, 1_000_000)] {
        let (bench, logs) = (Bench::new().await, Logs::new());
        let log = logs.add("a", 1);
        logs.append(&log, ROWS, MINUTE / 100);
        let leaves: Vec<_> = logs.0.lock().unwrap()[&log].rows.iter().map(ArchivedRow::leaf).collect();
        logs.prune(&log, first);
        bench.archive_all(&logs, step_rows).await;
        let reader = bench.reader().await;
        let end = reader.catalog().log(&log).unwrap().ranges().last().unwrap().to_seq;
        let cover = |from: u64, to: u64| {
            let mut cover = Cover::at(from);
            leaves[from as usize..to as usize].iter().for_each(|leaf| cover.push(*leaf, |_, _| {}));
            cover.hashes().to_vec()
        };
        let gaps = [
            0..first.max(300) + 5,
            first.max(300) + 100..first.max(300) + 100,
            1_100..1_101,
            1_200..1_279,
            1_280..1_536,
            1_537..9_001,
            9_002..65_537,
            65_538..end,
        ];
        let expected: Vec<_> = gaps.iter().map(|gap| cover(gap.start, gap.end)).collect();
        assert_eq!(reader.covers(&log, &gaps).await.unwrap(), expected, "from {first} on");
        // Together with the rows between them, they lead to the root.
        let hashes = expected.concat();
        let mut root = RangeRoot::new(end, &hashes);
        for pair in gaps.windows(2) {
            for seq in pair[0].end..pair[1].start {
                root.leaf(seq, leaves[seq as usize]).unwrap();
            }
        }
        assert_eq!(Some(root.root().unwrap()), Cover::new(0, end, cover(0, end)).unwrap().root());
        let beyond = reader.covers(&log, std::slice::from_ref(&(end - 1..end + 1))).await;
        assert!(matches!(beyond, Err(ReadError::NotArchived { .. })), "{beyond:?}");
        if first > 0 {
            let never = reader.covers(&log, std::slice::from_ref(&(1..first + 1))).await;
            assert!(matches!(never, Err(ReadError::NotArchived { .. })), "{never:?}");
        }
    }
}
