//! Removal of rows that were kept for as long as required: only from the beginning of a log, and what is left stays provable.

#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

mod common;

use std::collections::BTreeMap;
use std::sync::Arc;

use common::faulty::Faulty;
use common::logs::{Bench, Logs, globbed, scanned};
use piperoll_archive::read::Reader;
use piperoll_archive::row::{ArchivedRow, Day, LogId};
use piperoll_archive::store::Store;
use piperoll_archive::verify::FindingKind;
use piperoll_archive::write::{StepOutcome, WriteError, Writer};
use piperoll_format::entry::CallerEntry;
use piperoll_format::merkle::CompactRange;
use piperoll_format::time::Timestamp;

const ROWS_MAX: u64 = 1_000_000;
/// A minute, in microseconds.
const MINUTE: i64 = 60_000_000;
const HOUR: i64 = 60 * MINUTE;

/// Five days of two logs, archived in several steps. The clock of the second one was set back by 30 hours after three days.
async fn five_days() -> (Bench, Logs, LogId, LogId) {
    let (bench, logs) = (Bench::new().await, Logs::new());
    let (a, b) = (logs.add("a", 1), logs.add("b", 2));
    for day in 0..5 {
        logs.append(&a, 480, 3 * MINUTE);
        if day == 3 {
            let back = CallerEntry::parse(br#"{"category":"data","action":"data.read"}"#).unwrap();
            logs.push(&b, &back, "http", 0, 30 * HOUR);
        }
        logs.append(&b, 144, 10 * MINUTE);
        bench.archive_all(&logs, ROWS_MAX).await;
    }
    (bench, logs, a, b)
}

/// The day of the log's last row.
fn last_day(logs: &Logs, log: &LogId) -> Day {
    Day::of(logs.0.lock().unwrap()[log].rows.last().unwrap().timestamp)
}

async fn expire(
    bench: &Bench,
    store: Store,
    first_day: Day,
    files_max: usize,
    may_go: impl Fn(&LogId, Timestamp, Timestamp) -> bool,
) -> Result<Option<u64>, WriteError> {
    let mut writer = Writer::open(store, bench.settings())?;
    let (history, unpublished) = writer.load(bench.now).await?;
    if let Some(committed) = unpublished {
        writer.publish(&committed, bench.now).await?;
        writer.published(committed.step.number)?;
    }
    let expiry = bench.reader().await.expired(first_day, files_max, may_go).await.unwrap();
    match writer.expire(&history, expiry, bench.now).await? {
        StepOutcome::Nothing { .. } => Ok(None),
        StepOutcome::Committed { committed, .. } => {
            writer.publish(&committed, bench.now).await?;
            writer.published(committed.step.number)?;
            Ok(Some(committed.step.number))
        }
    }
}

/// The rows of all logs from their first kept row on, found without the archive.
fn kept(logs: &Logs, first_day: Day, held: impl Fn(&ArchivedRow) -> bool) -> BTreeMap<LogId, Vec<ArchivedRow>> {
    let logs = logs.0.lock().unwrap();
    let of_log = |rows: &[ArchivedRow]| {
        let goes = |row: &&ArchivedRow| row.day() < first_day && !held(row);
        rows.iter().take_while(goes).count()
    };
    logs.values().map(|log| (log.id.clone(), log.rows[of_log(&log.rows)..].to_vec())).collect()
}

/// The rows of a log in the order of seq.
async fn by_seq(reader: &Reader, log: &LogId) -> Vec<ArchivedRow> {
    let mut rows = scanned(reader, log).await.unwrap();
    rows.sort_by_key(|row| row.seq);
    rows
}

/// Readers and verification agree: the rows that the archive has are a suffix of each log with everything that should be kept.
async fn check(bench: &Bench, logs: &Logs, should: &BTreeMap<LogId, Vec<ArchivedRow>>) -> u64 {
    let report = bench.verify(logs).await;
    assert_eq!(report.findings, []);
    assert_eq!(report.rows, report.rows_verified);
    let reader = bench.reader().await;
    let mut in_files = globbed(bench.objects.path());
    for (log, should) in should {
        let whole = logs.0.lock().unwrap()[log].rows.clone();
        let rows = by_seq(&reader, log).await;
        assert_eq!(rows, whole[whole.len() - rows.len()..], "{log}");
        assert!(rows.len() >= should.len(), "{log} has {} rows of {}", rows.len(), should.len());
        in_files.retain(|(id, row)| id != log || !rows.contains(row));
        if rows.is_empty() {
            continue;
        }
        // What is left is provable.
        let first = whole.len() as u64 - rows.len() as u64;
        let mut expected = CompactRange::default();
        for row in whole.iter().take(first as usize + 5) {
            let _ = expected.push(row.leaf());
        }
        let covers = reader.covers(log, std::slice::from_ref(&(0..first + 5))).await.unwrap();
        assert_eq!(covers, [expected.hashes().to_vec()]);
    }
    assert_eq!(in_files, [], "rows that no reader finds");
    report.rows
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_leave_from_the_beginning_of_their_log() {
    let (bench, logs, a, _) = five_days().await;
    let last = last_day(&logs, &a);
    let days: Vec<Day> =
        (1..=6).map(|back| Day::of(Timestamp::from_micros(last.end().micros() - back * 24 * HOUR))).collect();
    let all = check(&bench, &logs, &kept(&logs, days[5], |_| false)).await;
    let mut before = all;
    for first_day in days.iter().rev() {
        while expire(&bench, bench.store(), *first_day, 3, |_, _, _| true).await.unwrap().is_some() {
            before = check(&bench, &logs, &kept(&logs, *first_day, |_| false)).await;
        }
        // The archive continues.
        logs.append(&a, 7, MINUTE);
        bench.archive_all(&logs, ROWS_MAX).await;
        check(&bench, &logs, &kept(&logs, *first_day, |_| false)).await;
    }
    assert!(before < all / 2, "{before} of {all} rows are left");
    // In the end everything goes.
    let tomorrow = Day::of(Timestamp::from_micros(last.end().micros() + 48 * HOUR));
    assert!(expire(&bench, bench.store(), tomorrow, 1_000, |_, _, _| true).await.unwrap().is_some());
    assert_eq!(globbed(bench.objects.path()), []);
    assert_eq!(bench.verify(&logs).await.findings, []);
    logs.append(&a, 30, MINUTE);
    logs.erase(&a, logs.rows(&a) - 3);
    bench.archive_all(&logs, ROWS_MAX).await;
    assert_eq!(bench.verify(&logs).await.findings, []);
    assert_eq!(by_seq(&bench.reader().await, &a).await.len(), 31);
}

/// Rows that must not go keep all later ones of their log, and the other logs of their files.
#[tokio::test(flavor = "multi_thread")]
async fn rows_under_a_hold_stay() {
    let (bench, logs, a, b) = five_days().await;
    let last = last_day(&logs, &a);
    let held_day = logs.0.lock().unwrap()[&a].rows[500].day();
    let is_held = |row: &ArchivedRow| row.day() == held_day;
    let may_go = |log: &LogId, first: Timestamp, last: Timestamp| {
        log != &a || !(Day::of(first) <= held_day && held_day <= Day::of(last))
    };
    while expire(&bench, bench.store(), last, 100, may_go).await.unwrap().is_some() {}
    check(&bench, &logs, &kept(&logs, last, is_held)).await;
    let reader = bench.reader().await;
    assert!(by_seq(&reader, &a).await.iter().any(is_held));
    assert!(by_seq(&reader, &b).await.len() < logs.rows(&b) as usize);
    // Nothing may go.
    assert_eq!(expire(&bench, bench.store(), last, 100, |_, _, _| false).await.unwrap(), None);
}

#[tokio::test]
async fn a_fault_at_any_operation_is_finished_later() {
    for after in [false, true] {
        for at in 0.. {
            let (bench, logs, a, _) = five_days().await;
            let last = last_day(&logs, &a);
            let faulty = Faulty::new(bench.inner(), at, after);
            let _ = expire(&bench, Store::of(Arc::clone(&faulty) as Arc<_>, "faulty"), last, 4, |_, _, _| true).await;
            let is_over = !faulty.has_failed();
            logs.append(&a, 5, MINUTE);
            bench.archive_all(&logs, ROWS_MAX).await;
            while expire(&bench, bench.store(), last, 4, |_, _, _| true).await.unwrap().is_some() {}
            check(&bench, &logs, &kept(&logs, last, |_| false)).await;
            if is_over {
                assert!(at > 8, "the round has only {at} operations");
                break;
            }
        }
    }
}

/// A file that was to be deleted and is still there is named, and so is one that was deleted too early.
#[tokio::test]
async fn files_that_do_not_fit_to_the_steps_are_named() {
    let (bench, logs, a, _) = five_days().await;
    let last = last_day(&logs, &a);
    let expiry = bench.reader().await.expired(last, 2, |_, _, _| true).await.unwrap();
    let kept: Vec<(String, Vec<u8>)> = expiry
        .files
        .iter()
        .map(|name| (name.clone(), std::fs::read(bench.objects.path().join(name)).unwrap()))
        .collect();
    assert!(expire(&bench, bench.store(), last, 2, |_, _, _| true).await.unwrap().is_some());
    std::fs::write(bench.objects.path().join(&kept[0].0), &kept[0].1).unwrap();
    logs.append(&a, 5, MINUTE);
    bench.archive_all(&logs, ROWS_MAX).await;
    let report = bench.verify(&logs).await;
    let kinds: Vec<FindingKind> = report.findings.iter().map(|finding| finding.kind).collect();
    assert_eq!(kinds, [FindingKind::Leftover]);
    assert!(report.expired.iter().any(|log| log.starts_with("a/")), "{:?}", report.expired);
    std::fs::remove_file(bench.objects.path().join(&kept[0].0)).unwrap();
    let next = bench.reader().await.expired(last, 1, |_, _, _| true).await.unwrap();
    std::fs::remove_file(bench.objects.path().join(&next.files[0])).unwrap();
    let report = bench.verify(&logs).await;
    let kinds: Vec<FindingKind> = report.findings.iter().map(|finding| finding.kind).collect();
    assert_eq!(kinds, [FindingKind::File]);
}
