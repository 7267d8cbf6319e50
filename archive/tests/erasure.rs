//! Erasure in the archive: the content of a row that was erased on its node after it was archived goes, and every proof stays.

#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

mod common;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use common::faulty::Faulty;
use common::logs::{Bench, Logs, globbed, scanned};
use piperoll_archive::read::{Caches, ReadError, Reader};
use piperoll_archive::row::{ArchivedRow, LogId};
use piperoll_archive::store::Store;
use piperoll_archive::verify::FindingKind;
use piperoll_format::merkle::encode_hash;

const ROWS_MAX: u64 = 1_000_000;
/// A minute, in microseconds.
const MINUTE: i64 = 60_000_000;

/// Rows of all logs, as the archive should have them.
fn expected(logs: &Logs) -> Vec<(LogId, ArchivedRow)> {
    let logs = logs.0.lock().unwrap();
    logs.values().flat_map(|log| log.rows.iter().map(|row| (log.id.clone(), row.clone()))).collect()
}

/// An archive of two nodes, of which rows were erased after they had been archived. The entries about that are archived.
async fn erased_later() -> (Bench, Logs, LogId, LogId) {
    let (bench, logs) = (Bench::new().await, Logs::new());
    let (a, b) = (logs.add("a", 1), logs.add("b", 2));
    logs.append(&a, 700, MINUTE / 4);
    logs.append(&b, 300, MINUTE);
    bench.archive_all(&logs, ROWS_MAX).await;
    logs.erase(&a, 3);
    logs.erase(&a, 520);
    logs.erase(&b, 40);
    bench.archive_all(&logs, ROWS_MAX).await;
    (bench, logs, a, b)
}

/// Erases everything that is due, and puts one of the deleted files back.
async fn erased_but_left(bench: &Bench) -> PathBuf {
    let kept: Vec<(PathBuf, Vec<u8>)> =
        files(bench.objects.path()).into_iter().map(|file| (file.clone(), std::fs::read(&file).unwrap())).collect();
    erase_all(bench).await;
    let (gone, bytes) = kept.into_iter().find(|(file, _)| !file.exists()).unwrap();
    std::fs::write(&gone, bytes).unwrap();
    gone
}

async fn erase_all(bench: &Bench) {
    while bench.erase_round(bench.store()).await.unwrap().is_some() {}
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let days = std::fs::read_dir(dir.join("data")).into_iter().flatten().flatten();
    days.flat_map(|day| std::fs::read_dir(day.path()).unwrap().flatten().map(|file| file.path())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn content_that_was_erased_later_leaves_the_archive() {
    let (bench, logs, a, b) = erased_later().await;
    let with_content = files(bench.objects.path());
    assert_ne!(globbed(bench.objects.path()), expected(&logs), "the content is still there");
    assert_eq!(bench.erase_round(bench.store()).await.unwrap(), Some(3));
    assert_eq!(bench.erase_round(bench.store()).await.unwrap(), None, "nothing more is due");
    assert_eq!(globbed(bench.objects.path()), expected(&logs));
    assert!(with_content.iter().any(|file| !file.exists()), "files with the content are deleted");
    let report = bench.verify(&logs).await;
    assert_eq!((report.findings.as_slice(), report.open.len(), report.erased), (&[][..], 0, 3));
    let reader = bench.reader().await;
    for log in [&a, &b] {
        assert_eq!(scanned(&reader, log).await.unwrap(), logs.0.lock().unwrap()[log].rows);
    }
    // More rows, and another row of a file that was replaced already.
    logs.append(&a, 10, MINUTE);
    logs.erase(&a, 4);
    bench.archive_all(&logs, ROWS_MAX).await;
    erase_all(&bench).await;
    assert_eq!(globbed(bench.objects.path()), expected(&logs));
    let report = bench.verify(&logs).await;
    assert_eq!((report.findings.as_slice(), report.erased), (&[][..], 4));
}

/// A writer that is interrupted at any operation, before or after it takes effect, finishes later, and leaves nothing.
#[tokio::test]
async fn a_fault_at_any_operation_leaves_no_content() {
    for after in [false, true] {
        for at in 0.. {
            let (bench, logs, a, _) = erased_later().await;
            let faulty = Faulty::new(bench.inner(), at, after);
            let _ = bench.erase_round(Store::of(Arc::clone(&faulty) as Arc<_>, "faulty")).await;
            let is_over = !faulty.has_failed();
            // More rows are recorded, and another one is erased.
            logs.append(&a, 5, MINUTE);
            logs.erase(&a, 9);
            bench.archive_all(&logs, ROWS_MAX).await;
            erase_all(&bench).await;
            assert_eq!(globbed(bench.objects.path()), expected(&logs), "fault {at}, after {after}");
            let report = bench.verify(&logs).await;
            assert_eq!((report.findings.as_slice(), report.erased), (&[][..], 4), "fault {at}, after {after}");
            if is_over {
                assert!(at > 8, "the round has only {at} operations");
                break;
            }
        }
    }
}

#[tokio::test]
async fn a_file_that_should_be_gone_is_named() {
    let (bench, logs, ..) = erased_later().await;
    erased_but_left(&bench).await;
    let report = bench.verify(&logs).await;
    assert_eq!(report.findings, [], "the writer is about to delete the files of the newest step");
    assert_eq!(report.open.len(), 1);
    logs.append(&logs.due()[0].log, 3, MINUTE);
    bench.archive_all(&logs, ROWS_MAX).await;
    let report = bench.verify(&logs).await;
    let kinds: Vec<FindingKind> = report.findings.iter().map(|finding| finding.kind).collect();
    assert_eq!(kinds, [FindingKind::Leftover]);
    assert!(!report.is_verified() && !report.is_violated(), "the evidence is unchanged");
}

/// A file that was changed cannot be replaced; the others are.
#[tokio::test]
async fn a_changed_file_does_not_stop_the_others() {
    let (bench, logs, _, b) = erased_later().await;
    logs.append(&b, 3_000, MINUTE);
    bench.archive_all(&logs, ROWS_MAX).await;
    logs.erase(&b, 2_000);
    bench.archive_all(&logs, ROWS_MAX).await;
    let due = bench.reader().await.due_erasures(0, common::logs::keys().steps.public()).await.unwrap();
    let whole = due.files.len();
    assert!(whole > 1, "{whole}");
    let broken = bench.objects.path().join(&due.files[0].file.name);
    let mut bytes = std::fs::read(&broken).unwrap();
    let kept = bytes.clone();
    bytes[20] ^= 1;
    std::fs::write(&broken, bytes).unwrap();
    let mut writer = piperoll_archive::write::Writer::open(bench.store(), bench.settings()).unwrap();
    let (history, _) = writer.load(bench.now).await.unwrap();
    let replaced = writer.replace(&history, due.files, bench.now).await.unwrap();
    assert_eq!(replaced.skipped.len(), 1, "{:?}", replaced.skipped);
    let outcome = replaced.outcome;
    let piperoll_archive::write::StepOutcome::Committed { committed, .. } = outcome else { panic!("no step") };
    assert_eq!(committed.step.replaced.len(), whole - 1);
    writer.publish(&committed, bench.now).await.unwrap();
    writer.published(committed.step.number).unwrap();
    drop(writer);
    std::fs::write(&broken, kept).unwrap();
    erase_all(&bench).await;
    assert_eq!(globbed(bench.objects.path()), expected(&logs));
    assert_eq!(bench.verify(&logs).await.findings, []);
}

/// A query that began before a replacement says that it has to be repeated, and not that the archive was changed.
#[tokio::test(flavor = "multi_thread")]
async fn a_reader_of_earlier_steps_is_told_to_repeat() {
    let (bench, _, a, _) = erased_later().await;
    let before = bench.reader().await;
    erase_all(&bench).await;
    let error = scanned(&before, &a).await.expect_err("its file is gone");
    assert!(error.is_violation(), "without a newer state, a missing file is a finding: {error}");
    let catalog = {
        let mut catalog = before.catalog().clone();
        catalog.advance(&bench.store(), common::logs::keys().steps.public()).await.unwrap();
        catalog
    };
    let caches = Arc::new(Caches::default());
    let old = Reader::new(bench.store(), Arc::new(before.catalog().clone()), Arc::clone(&caches));
    let new = Reader::new(bench.store(), Arc::new(catalog), caches);
    let error = scanned(&old, &a).await.expect_err("its file is gone");
    assert!(matches!(error, ReadError::Replaced(_)) && !error.is_violation(), "{error}");
    assert!(scanned(&new, &a).await.is_ok());
}

/// An entry that describes another row erases nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_declaration_about_another_row_is_refused() {
    let (bench, logs) = (Bench::new().await, Logs::new());
    let a = logs.add("a", 1);
    logs.append(&a, 300, MINUTE);
    let leaf = encode_hash(&logs.0.lock().unwrap()[&a].rows[8].leaf());
    let time = logs.0.lock().unwrap()[&a].rows[7].timestamp;
    logs.declare(&a, &format!(r#"{{"seq":7,"leaf":"{leaf}","era":0,"timestamp":"{time}","reason":"x","by":"uid=0"}}"#));
    bench.archive_all(&logs, ROWS_MAX).await;
    let due = bench.reader().await.due_erasures(0, common::logs::keys().steps.public()).await.unwrap();
    assert_eq!((due.files.len(), due.refused.len()), (0, 1));
    assert!(due.refused[0].contains("row 7 of a/"), "{:?}", due.refused);
}

/// A writer that lost its state does not know what is left to be deleted, and finds it.
#[tokio::test]
async fn a_successor_deletes_what_its_predecessor_could_not() {
    let (bench, logs, ..) = erased_later().await;
    let gone = erased_but_left(&bench).await;
    let dir = tempfile::tempdir().unwrap();
    let mut writer = piperoll_archive::write::Writer::open(bench.store(), bench.settings_in(dir.path())).unwrap();
    assert!(writer.load(bench.now).await.is_err(), "it has no record of this archive");
    writer.accept().await.unwrap();
    assert!(!writer.pending_deletions().is_empty());
    writer.load(bench.now).await.unwrap();
    writer.retry_deletions(bench.now).await.unwrap();
    assert_eq!((writer.pending_deletions(), gone.exists()), (&[][..], false));
    assert_eq!(globbed(bench.objects.path()), expected(&logs));
}

/// A file of an interrupted attempt that the store keeps is not a sign of tampering.
#[tokio::test]
async fn a_file_that_no_step_uses_is_told_from_a_foreign_one() {
    let (bench, logs) = (Bench::new().await, Logs::new());
    let a = logs.add("a", 1);
    logs.append(&a, 300, MINUTE);
    // The attempt creates its plan and its files; then a row is erased, so the step uses other files.
    let mut kept = Vec::new();
    for at in 0.. {
        let faulty = Faulty::new(bench.inner(), at, true);
        let _ = bench.round(Store::of(Arc::clone(&faulty) as Arc<_>, "faulty"), &logs, ROWS_MAX).await;
        kept =
            files(bench.objects.path()).into_iter().map(|file| (file.clone(), std::fs::read(&file).unwrap())).collect();
        if !kept.is_empty() {
            break;
        }
    }
    logs.erase(&a, 5);
    bench.archive_all(&logs, ROWS_MAX).await;
    assert_eq!(bench.verify(&logs).await.findings, []);
    let (unused, bytes) = kept.into_iter().find(|(file, _)| !file.exists()).unwrap();
    std::fs::write(&unused, &bytes).unwrap();
    std::fs::write(unused.with_extension("foreign.parquet"), &bytes).unwrap();
    let report = bench.verify(&logs).await;
    let kinds: Vec<FindingKind> = report.findings.iter().map(|finding| finding.kind).collect();
    assert_eq!(kinds.len(), 2, "{:?}", report.findings);
    assert!(kinds.contains(&FindingKind::Leftover) && kinds.contains(&FindingKind::Extra), "{kinds:?}");
}
