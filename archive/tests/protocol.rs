//! The writer's protocol: every row exactly once, whatever operation fails.

#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

mod common;

use std::sync::Arc;

use common::faulty::{CheckThenPut, Damage, DamageKind, Faulty};
use common::logs::{Bench, Logs, archive_trust, globbed};
use piperoll_archive::row::{ArchivedRow, LogId};
use piperoll_archive::store::{ProbeError, Store, probe};
use piperoll_archive::verify::{FindingKind, Scope, verify};
use piperoll_archive::write::{AlarmKind, StepOutcome, WriteError, Writer, initialize};
use piperoll_format::time::Timestamp;
use proptest::prelude::*;

const ROWS_MAX: u64 = 1_000_000;
/// A minute, in microseconds.
const MINUTE: i64 = 60_000_000;

/// Rows of all logs, as the archive should have them.
fn expected(logs: &Logs) -> Vec<(LogId, ArchivedRow)> {
    let logs = logs.0.lock().unwrap();
    logs.values().flat_map(|log| log.rows.iter().map(|row| (log.id.clone(), row.clone()))).collect()
}

/// Two nodes whose rows span midnight; one has two eras.
fn two_nodes() -> Logs {
    let logs = Logs::new();
    let (a, b) = (logs.add("a", 1), logs.add("b", 2));
    logs.append(&a, 700, MINUTE / 4);
    logs.append(&b, 300, MINUTE);
    let back = piperoll_format::entry::CallerEntry::parse(br#"{"category":"data","action":"data.read"}"#).unwrap();
    logs.push(&b, &back, "http", 0, 200 * MINUTE);
    logs.append(&b, 100, MINUTE);
    logs
}

#[tokio::test]
async fn rows_are_archived_and_verified() {
    let (bench, logs) = (Bench::new().await, two_nodes());
    assert_eq!(bench.round(bench.store(), &logs, ROWS_MAX).await.unwrap(), Some(1));
    assert_eq!(bench.round(bench.store(), &logs, ROWS_MAX).await.unwrap(), None, "nothing is due");
    logs.append(&logs.due()[0].log, 5_000, 1_000);
    assert_eq!(bench.round(bench.store(), &logs, ROWS_MAX).await.unwrap(), Some(2));
    assert_eq!(globbed(bench.objects.path()), expected(&logs));
    let report = bench.verify(&logs).await;
    assert_eq!((report.findings.as_slice(), report.open.len(), report.gaps.len()), (&[][..], 0, 0));
    assert_eq!((report.rows, report.rows_verified, report.logs), (6_101, 6_101, 2));
    assert_eq!(report.first_day.as_deref(), Some("2026-11-27"));
    assert!(report.head.is_some_and(|head| head.number == 2));
}

#[tokio::test]
async fn a_large_backlog_takes_several_steps() {
    let (bench, logs) = (Bench::new().await, two_nodes());
    bench.archive_all(&logs, 250).await;
    assert_eq!(globbed(bench.objects.path()), expected(&logs));
    let report = bench.verify(&logs).await;
    assert_eq!(report.findings, []);
    assert!(report.head.is_some_and(|head| head.number == 5), "{:?}", report.head);
}

/// The fault happens at every operation of a round, before and after it takes effect.
#[tokio::test]
async fn a_fault_at_any_operation_costs_no_row() {
    for after in [false, true] {
        for at in 0.. {
            let (bench, logs) = (Bench::new().await, two_nodes());
            let faulty = Faulty::new(bench.inner(), at, after);
            let result = bench.round(Store::of(Arc::clone(&faulty) as Arc<_>, "faulty"), &logs, ROWS_MAX).await;
            if !faulty.has_failed() {
                assert_eq!(result.unwrap(), Some(1));
                assert!(at > 8, "the round has only {at} operations");
                break;
            }
            // More rows arrive, one is erased, and the writer starts again. It is interrupted once more, and another row is erased.
            let log = logs.due()[0].log.clone();
            logs.append(&log, 10, MINUTE);
            logs.erase(&log, 3);
            let again = Faulty::new(bench.inner(), at, !after);
            let _ = bench.round(Store::of(again, "faulty"), &logs, ROWS_MAX).await;
            logs.erase(&log, 5);
            bench.archive_all(&logs, ROWS_MAX).await;
            let rows = globbed(bench.objects.path());
            let places: Vec<_> = rows.iter().map(|(log, row)| (log.clone(), row.seq)).collect();
            let wanted: Vec<_> = expected(&logs).iter().map(|(log, row)| (log.clone(), row.seq)).collect();
            assert_eq!(places, wanted, "fault {at}, after {after}: a row is missing or occurs twice");
            let report = bench.verify(&logs).await;
            assert_eq!(report.findings, [], "fault {at}, after {after}");
            assert_eq!(report.rows, wanted.len() as u64);
        }
    }
}

/// Answers of the store that were damaged on their way cost rounds, but no row, and no finding stays because of them: neither for a writer that
/// starts, nor for one that runs for long.
#[tokio::test]
async fn damaged_answers_cost_no_row_and_raise_no_finding() {
    let changed = Damage { kind: DamageKind::Content, lasts: false };
    let kinds = [changed, Damage { lasts: true, ..changed }, Damage { kind: DamageKind::Missing, lasts: false }];
    for (damage, is_long) in kinds.into_iter().flat_map(|damage| [(damage, false), (damage, true)]) {
        for at in 0.. {
            let (bench, logs) = (Bench::new().await, Logs::new());
            let log = logs.add("a", 1);
            logs.append(&log, 40, MINUTE);
            bench.archive_all(&logs, ROWS_MAX).await;
            logs.append(&log, 30, MINUTE);
            let damaging = Faulty::damaging(bench.inner(), at, damage);
            let store = Store::of(Arc::clone(&damaging) as Arc<_>, "damaging");
            let mut writer = Writer::open(store, bench.settings()).unwrap();
            let mut result = round(&mut writer, &logs, bench.now).await;
            if is_long && result.is_ok() {
                logs.append(&logs.due()[0].log, 30, MINUTE);
                result = round(&mut writer, &logs, bench.now).await;
            }
            drop(writer);
            if !damaging.has_failed() {
                result.unwrap();
                assert!(at > 8, "the round has only {at} operations");
                break;
            }
            assert!(!matches!(result, Err(WriteError::Alarm { .. })), "answer {at}, {damage:?}: {result:?}");
            bench.archive_all(&logs, ROWS_MAX).await;
            let report = bench.verify(&logs).await;
            let rows = expected(&logs).len() as u64;
            assert_eq!((report.findings.as_slice(), report.rows), (&[][..], rows), "answer {at}, {damage:?}");
        }
    }
}

/// One round of a writer that stays open.
async fn round(writer: &mut Writer, logs: &Logs, now: Timestamp) -> Result<(), WriteError> {
    let (history, unpublished) = writer.load(now).await?;
    let mut next = unpublished;
    if next.is_none()
        && let StepOutcome::Committed { committed, .. } = writer.step(logs, &history, &logs.due(), now).await?
    {
        next = Some(*committed);
    }
    if let Some(committed) = next {
        writer.publish(&committed, now).await?;
        writer.published(committed.step.number)?;
    }
    Ok(())
}

/// A step that is gone is a finding, even if the second reading fails because other objects are gone too.
#[tokio::test]
async fn a_rollback_is_found_although_hashes_are_missing_too() {
    let (bench, logs) = (Bench::new().await, two_nodes());
    let mut writer = Writer::open(bench.store(), bench.settings()).unwrap();
    for _ in 0..3 {
        round(&mut writer, &logs, bench.now).await.unwrap();
        logs.append(&logs.due()[0].log, 20, MINUTE);
    }
    let steps = bench.objects.path().join("steps");
    std::fs::remove_file(steps.join("00000003")).unwrap();
    for entry in std::fs::read_dir(&steps).unwrap().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with("00000001.") {
            std::fs::remove_file(entry.path()).unwrap();
        }
    }
    let result = round(&mut writer, &logs, bench.now).await;
    assert!(matches!(result, Err(WriteError::Alarm { kind: AlarmKind::Rollback, .. })), "{result:?}");
}

#[tokio::test]
async fn a_node_that_is_lost_after_an_interrupted_step_leaves_no_row_twice() {
    for at in 0.. {
        let (bench, logs) = (Bench::new().await, two_nodes());
        let faulty = Faulty::new(bench.inner(), at, true);
        let result = bench.round(Store::of(Arc::clone(&faulty) as Arc<_>, "faulty"), &logs, ROWS_MAX).await;
        if !faulty.has_failed() {
            assert_eq!(result.unwrap(), Some(1));
            break;
        }
        logs.down("b", true);
        let _ = bench.round(bench.store(), &logs, ROWS_MAX).await.unwrap();
        let report = bench.verify(&logs).await;
        assert_eq!(report.findings, [], "fault {at}");
        logs.down("b", false);
        bench.archive_all(&logs, ROWS_MAX).await;
        assert_eq!(globbed(bench.objects.path()), expected(&logs), "fault {at}");
        assert_eq!(bench.verify(&logs).await.findings, [], "fault {at}");
    }
}

#[tokio::test]
async fn missing_nodes_are_named_and_come_later() {
    let (bench, logs) = (Bench::new().await, two_nodes());
    logs.down("a", true);
    let mut writer = Writer::open(bench.store(), bench.settings()).unwrap();
    let (history, _) = writer.load(bench.now).await.unwrap();
    let outcome = writer.step(&logs, &history, &logs.due(), bench.now).await.unwrap();
    let StepOutcome::Committed { committed, .. } = outcome else { panic!("no step") };
    let missing: Vec<_> =
        committed.step.missing.iter().map(|lack| (lack.node_id.as_str(), lack.reason.as_str())).collect();
    assert_eq!(missing, [("a", "connection refused")]);
    drop(writer);
    logs.down("a", false);
    bench.archive_all(&logs, ROWS_MAX).await;
    assert_eq!(globbed(bench.objects.path()), expected(&logs));
    assert_eq!(bench.verify(&logs).await.findings, []);
}

#[tokio::test]
async fn a_lying_node_is_left_out_by_name() {
    let (bench, logs) = (Bench::new().await, two_nodes());
    let due = logs.due();
    // A row is changed after the checkpoint was cosigned.
    if let Some(log) = logs.0.lock().unwrap().get_mut(&due[0].log)
        && let piperoll_archive::row::Content::Entry { mac, .. } = &mut log.rows[17].content
    {
        mac[0] ^= 1;
    }
    let mut writer = Writer::open(bench.store(), bench.settings()).unwrap();
    let (history, _) = writer.load(bench.now).await.unwrap();
    let outcome = writer.step(&logs, &history, &due, bench.now).await.unwrap();
    let StepOutcome::Committed { committed, .. } = outcome else { panic!("no step") };
    assert_eq!(committed.step.logs.len(), 1);
    assert!(
        committed.step.missing[0].reason.contains("do not lead to the cosigned checkpoint"),
        "{:?}",
        committed.step.missing
    );
}

#[tokio::test]
async fn of_two_writers_one_loses_with_a_clear_sentence() {
    let (bench, logs) = (Bench::new().await, two_nodes());
    let other_state = tempfile::tempdir().unwrap();
    let mut other = Writer::open(bench.store(), bench.settings_in(other_state.path())).unwrap();
    // Both see an empty archive.
    let (history, _) = other.load(bench.now).await.unwrap();
    bench.round(bench.store(), &logs, ROWS_MAX).await.unwrap();
    let error = other.step(&logs, &history, &logs.due(), bench.now).await.unwrap_err();
    assert!(matches!(&error, WriteError::AnotherWriter { .. }), "{error}");
    assert!(error.to_string().contains("An archive has one writer"), "{error}");
    let error = other.load(bench.now).await.unwrap_err();
    assert!(matches!(error, WriteError::AnotherWriter { .. } | WriteError::Unknown(_)), "{error}");
    // A writer whose state is lost takes over only when an operator says so.
    let new_state = tempfile::tempdir().unwrap();
    let mut new = Writer::open(bench.store(), bench.settings_in(new_state.path())).unwrap();
    assert!(matches!(new.load(bench.now).await, Err(WriteError::Unknown(_))));
    assert_eq!(new.accept().await.unwrap().number, 1);
    let (history, _) = new.load(bench.now).await.unwrap();
    logs.append(&logs.due()[0].log, 3, MINUTE);
    new.step(&logs, &history, &logs.due(), bench.now).await.unwrap();
    assert!(matches!(bench.round(bench.store(), &logs, ROWS_MAX).await, Err(WriteError::AnotherWriter { .. })));
    assert_eq!(bench.verify(&logs).await.findings, []);
}

#[tokio::test]
async fn a_rolled_back_archive_raises_an_alarm_that_stays() {
    let (bench, logs) = (Bench::new().await, two_nodes());
    bench.archive_all(&logs, 400).await;
    let steps = bench.objects.path().join("steps");
    let newest =
        std::fs::read_dir(&steps).unwrap().flatten().filter(|f| !f.file_name().to_string_lossy().contains('.')).count();
    let path = steps.join(format!("{newest:08}"));
    let kept = std::fs::read(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    let error = bench.round(bench.store(), &logs, ROWS_MAX).await.unwrap_err();
    assert!(matches!(&error, WriteError::Alarm { kind: AlarmKind::Rollback, .. }), "{error}");
    // Putting the step back does not clear the alarm; an operator does.
    std::fs::write(&path, kept).unwrap();
    assert!(matches!(bench.round(bench.store(), &logs, ROWS_MAX).await, Err(WriteError::Alarm { .. })));
    Writer::open(bench.store(), bench.settings()).unwrap().accept().await.unwrap();
    assert_eq!(bench.round(bench.store(), &logs, ROWS_MAX).await.unwrap(), None);
}

#[tokio::test]
async fn a_store_without_atomic_creation_is_refused() {
    let bench = Bench::new().await;
    let store = Store::of(Arc::new(CheckThenPut(bench.inner())), "s3://lax");
    let error = probe(&store, "x").await.unwrap_err();
    assert!(matches!(&error, ProbeError::NotAtomic { .. }), "{error}");
    assert!(error.to_string().contains("s3://lax does not create objects atomically"), "{error}");
    // One after the other, its creators are told the truth.
    for expected in [piperoll_archive::store::Created::New, piperoll_archive::store::Created::Exists] {
        assert_eq!(store.create("once", "x".into()).await.unwrap(), expected);
    }
    probe(&bench.store(), "y").await.unwrap();
    assert!(!initialize(&bench.store(), &bench.settings(), bench.now).await.unwrap(), "it exists");
}

#[tokio::test]
async fn rows_that_were_pruned_before_they_were_archived_are_a_gap() {
    let (bench, logs) = (Bench::new().await, two_nodes());
    bench.archive_all(&logs, ROWS_MAX).await;
    let log = logs.due()[0].log.clone();
    logs.append(&log, 1_500, 1_000);
    logs.prune(&log, 1_300);
    bench.archive_all(&logs, ROWS_MAX).await;
    let report = bench.verify(&logs).await;
    assert_eq!(report.findings, []);
    assert_eq!(report.gaps, [format!("{log}: rows 700..1280")]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
    /// Nodes grow, go down, erase rows, change eras and restart at random, and the writer is interrupted at random.
    #[test]
    fn the_archive_has_every_row_once(
        actions in prop::collection::vec((0u8..7, 0usize..3, 1u64..600, 0usize..40), 1..14),
        rows_max in prop::sample::select(vec![97u64, 512, 5_000]),
    ) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(async {
            let (bench, logs) = (Bench::new().await, Logs::new());
            let names = ["a", "b", "c"];
            let ids: Vec<LogId> = names.iter().zip(1..).map(|(name, number)| logs.add(name, number)).collect();
            for (action, node, count, at) in actions {
                let id = &ids[node];
                match action {
                    0 | 1 => logs.append(id, count, MINUTE),
                    2 => {
                        let rows = logs.rows(id);
                        let seq = count % rows.max(1);
                        let is_entry = rows > 0 && !logs.0.lock().unwrap()[id].rows[seq as usize].is_erased();
                        // Rows that are archived already keep their content there, so only new ones are erased.
                        let archived = globbed(bench.objects.path()).iter().filter(|(log, _)| log == id).count() as u64;
                        if is_entry && seq >= archived {
                            logs.erase(id, seq);
                        }
                    }
                    3 => logs.down(names[node], count % 2 == 0),
                    4 => {
                        let entry = piperoll_format::entry::CallerEntry::parse(br#"{"category":"data","action":"x"}"#).unwrap();
                        logs.push(id, &entry, "http", 0, count as i64 * MINUTE);
                    }
                    _ => {
                        let faulty = Faulty::new(bench.inner(), at, count % 2 == 0);
                        let _ = bench.round(Store::of(faulty, "faulty"), &logs, rows_max).await;
                    }
                }
            }
            names.iter().for_each(|name| logs.down(name, false));
            bench.archive_all(&logs, rows_max).await;
            assert_eq!(globbed(bench.objects.path()).len(), expected(&logs).len());
            let places = |rows: Vec<(LogId, ArchivedRow)>| rows.into_iter().map(|(log, row)| (log, row.seq)).collect::<Vec<_>>();
            assert_eq!(places(globbed(bench.objects.path())), places(expected(&logs)));
            let report = verify(&bench.store(), &logs.trust(), &archive_trust(), Scope::default(), |_, _| ()).await.unwrap();
            let findings: Vec<_> = report.findings.iter().filter(|finding| finding.kind != FindingKind::Erased).collect();
            assert!(findings.is_empty(), "{findings:?}");
        });
    }
}

/// A writer that runs for long reads only new steps, and notices all the same that steps are gone or were replaced.
#[tokio::test]
async fn a_long_running_writer_notices_changes() {
    let (bench, logs) = (Bench::new().await, two_nodes());
    let mut writer = Writer::open(bench.store(), bench.settings()).unwrap();
    for _ in 0..3 {
        let (history, _) = writer.load(bench.now).await.unwrap();
        let outcome = writer.step(&logs, &history, &logs.due(), bench.now).await.unwrap();
        let StepOutcome::Committed { committed, .. } = outcome else { panic!("no step") };
        writer.publish(&committed, bench.now).await.unwrap();
        writer.published(committed.step.number).unwrap();
        logs.append(&logs.due()[0].log, 20, MINUTE);
    }
    let (history, unpublished) = writer.load(bench.now).await.unwrap();
    assert_eq!((history.head.number, unpublished.is_none()), (3, true));
    // Only one writer may use a state.
    assert!(matches!(Writer::open(bench.store(), bench.settings()), Err(WriteError::Locked(_))));
    let steps = bench.objects.path().join("steps");
    let newest = std::fs::read(steps.join("00000003")).unwrap();
    std::fs::copy(steps.join("00000002"), steps.join("00000003")).unwrap();
    assert!(matches!(writer.load(bench.now).await, Err(WriteError::Alarm { kind: AlarmKind::Fork, .. })));
    drop(writer);
    std::fs::write(steps.join("00000003"), newest).unwrap();
    let mut writer = Writer::open(bench.store(), bench.settings()).unwrap();
    writer.accept().await.unwrap();
    writer.load(bench.now).await.unwrap();
    std::fs::remove_file(steps.join("00000002")).unwrap();
    assert!(matches!(writer.load(bench.now).await, Err(WriteError::Alarm { kind: AlarmKind::Rollback, .. })));
}

/// The machine of the writer is lost in the middle of a step. Its successor continues from the open plan.
#[tokio::test]
async fn a_successor_continues_from_an_open_plan() {
    for at in 0.. {
        let (bench, logs) = (Bench::new().await, two_nodes());
        let faulty = Faulty::new(bench.inner(), at, true);
        let _ = bench.round(Store::of(Arc::clone(&faulty) as Arc<_>, "faulty"), &logs, ROWS_MAX).await;
        if !faulty.has_failed() {
            break;
        }
        let state = tempfile::tempdir().unwrap();
        let mut successor = Writer::open(bench.store(), bench.settings_in(state.path())).unwrap();
        successor.accept().await.unwrap();
        let (history, _) = successor.load(bench.now).await.unwrap();
        if let StepOutcome::Committed { committed, .. } =
            successor.step(&logs, &history, &logs.due(), bench.now).await.unwrap()
        {
            successor.publish(&committed, bench.now).await.unwrap();
        }
        assert_eq!(globbed(bench.objects.path()), expected(&logs), "fault {at}");
        let findings = bench.verify(&logs).await.findings;
        // The lost writer may have committed a step and not published its checkpoints.
        assert!(findings.iter().all(|finding| finding.kind == FindingKind::Checkpoint), "fault {at}: {findings:?}");
    }
}

/// A node that cannot be read does not keep the others out of a step, even if its backlog alone would fill the step.
#[tokio::test]
async fn a_broken_backlog_starves_no_other_node() {
    let (bench, logs) = (Bench::new().await, two_nodes());
    let due = logs.due();
    if let Some(log) = logs.0.lock().unwrap().get_mut(&due[0].log)
        && let piperoll_archive::row::Content::Entry { mac, .. } = &mut log.rows[17].content
    {
        mac[0] ^= 1;
    }
    let mut writer = Writer::open(bench.store(), bench.settings()).unwrap().with_step_rows_max(600);
    let (history, _) = writer.load(bench.now).await.unwrap();
    let outcome = writer.step(&logs, &history, &due, bench.now).await.unwrap();
    let StepOutcome::Committed { committed, .. } = outcome else { panic!("no step") };
    assert_eq!(committed.step.logs[0].log.node_id.as_str(), "b");
    assert_eq!(committed.step.missing[0].node_id.as_str(), "a");
}

/// A clock that is set back with every row makes a run of every row. The log is continued in the next step.
#[tokio::test]
async fn very_many_runs_take_several_steps() {
    let (bench, logs) = (Bench::new().await, Logs::new());
    let id = logs.add("a", 1);
    let entry = piperoll_format::entry::CallerEntry::parse(br#"{"category":"data","action":"data.read"}"#).unwrap();
    for _ in 0..10_500 {
        logs.push(&id, &entry, "http", 0, 2_000_000);
    }
    bench.archive_all(&logs, ROWS_MAX).await;
    assert_eq!(globbed(bench.objects.path()).len(), 10_500);
    let report = bench.verify(&logs).await;
    assert_eq!((report.findings.as_slice(), report.head.map(|head| head.number)), (&[][..], Some(2)));
}

/// Plans of steps that were lost name files that an earlier step has now. They are not deleted.
#[tokio::test]
async fn plans_of_a_lost_history_delete_nothing() {
    let (bench, logs) = (Bench::new().await, Logs::new());
    let log = logs.add("a", 1);
    // One file before midnight, and one after it.
    logs.append(&log, 100, MINUTE);
    bench.archive_all(&logs, ROWS_MAX).await;
    logs.append(&log, 1, 40 * MINUTE);
    logs.append(&log, 100, MINUTE);
    bench.archive_all(&logs, ROWS_MAX).await;
    let steps = bench.objects.path().join("steps");
    std::fs::remove_dir_all(&steps).unwrap();
    std::fs::remove_dir_all(bench.objects.path().join("checkpoints")).unwrap();
    std::fs::remove_file(bench.objects.path().join("plans/00000001")).unwrap();
    let mut writer = Writer::open(bench.store(), bench.settings()).unwrap();
    assert!(writer.load(bench.now).await.is_err(), "a rollback");
    assert_eq!(writer.accept().await.unwrap().number, 0);
    drop(writer);
    bench.archive_all(&logs, ROWS_MAX).await;
    assert_eq!(globbed(bench.objects.path()), expected(&logs));
    for _ in 0..2 {
        logs.append(&log, 5, MINUTE);
        bench.archive_all(&logs, ROWS_MAX).await;
    }
    assert_eq!(globbed(bench.objects.path()), expected(&logs));
    assert_eq!(bench.verify(&logs).await.findings, []);
}
