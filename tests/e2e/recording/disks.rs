//! Tests slow, full or broken disks under the node and under the application, and an application that is killed at each of its own system
//! calls. strace makes the kernel inject these faults into real processes.

use std::time::Duration;

use piperoll_client::{Category, DeliveryPolicy, EmitError, Emitted, Entry, Recorder};
use piperoll_tests::{Cluster, Interference};

use super::app::{App, command_of};
use super::{by_id, entries, one_node, socket};

const FLUSH: Duration = Duration::from_secs(60);
const POLICIES: [DeliveryPolicy; 3] = [DeliveryPolicy::Strict, DeliveryPolicy::Spool, DeliveryPolicy::BestEffort];

fn act(n: usize) -> Entry {
    Entry::new(Category::Data, "app.write").user("app").user_type("service").detail("n", n)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_or_full_disk_of_the_node_is_met_by_each_policy_in_its_way() {
    if !Interference::is_possible() {
        eprintln!("SKIPPED: no strace, or it may not look into other processes here");
        return;
    }
    let cluster = one_node().await;
    let recorders = POLICIES.map(|policy| {
        let folder = cluster.dir.path().join(format!("spool-{policy:?}"));
        let builder = Recorder::builder(&socket(&cluster)).unwrap().policy_for_all(policy).spool(&folder);
        (policy, builder.deadline(Duration::from_secs(1)).source("test").open().unwrap())
    });
    let mut late = Vec::new();
    let mut kept = Vec::new();
    for inject in ["fdatasync,fsync:delay_enter=4000000", "pwrite64:error=ENOSPC"] {
        let fault = Interference::with(cluster.pid(0), inject).unwrap();
        for n in 0..2 {
            for (policy, recorder) in &recorders {
                let entry = act(n);
                let id = entry.id().to_string();
                match (policy, recorder.emit(entry.clone()).await) {
                    (DeliveryPolicy::Strict, Err(EmitError::Late { .. })) => late.push(entry),
                    (DeliveryPolicy::Spool | DeliveryPolicy::BestEffort, Ok(Emitted::Spooled(_))) => kept.push(id),
                    (_, other) => panic!("{inject}, {policy:?}: {other:?}"),
                }
            }
        }
        fault.end();
        for (_, recorder) in &recorders {
            assert!(recorder.flush(FLUSH).await, "{inject}: {}", cluster.log_text("mx1"));
        }
    }
    let strict = &recorders[0].1;
    for entry in late {
        kept.push(entry.id().to_string());
        // It is unknown whether the entry was recorded. The entry has an id, so it can be sent again.
        let again = strict.emit(entry).await;
        assert!(matches!(again, Ok(Emitted::Recorded(_))), "{again:?}");
    }
    let counts = by_id(&entries(&cluster, "action:app.write"));
    assert!(kept.len() == 12 && counts.len() == 12, "{counts:?}");
    assert!(kept.iter().all(|id| counts.get(id) == Some(&1)), "{kept:?} {counts:?}");
    assert!(entries(&cluster, "action:log.gap").iter().all(|gap| gap["details"]["source"] != "test"));
    cluster.verify_all();
}

/// Builds a command that runs the application under strace, with faults on calls that touch its spool. With `-D` the application
/// stays a child of the test.
fn interfered(cluster: &Cluster, inject: &str, policy: &str, bytes: u64, count: u64) -> Vec<String> {
    let folder = cluster.dir.path().join("app");
    let mut command: Vec<String> = ["strace", "-D", "-f", "-qq", "-o", "/dev/null"].map(str::to_owned).to_vec();
    for file in ["", "lost", "0000000000000001.spool", "0000000000000002.spool", "0000000000000003.spool"] {
        command.extend(["-P".to_owned(), folder.join(file).display().to_string().trim_end_matches('/').to_owned()]);
    }
    command.extend(["-e".to_owned(), format!("inject={inject}")]);
    command.extend(command_of(cluster, policy, bytes, count));
    command
}

fn lost(cluster: &Cluster) -> Vec<(u64, String)> {
    let gaps = entries(cluster, "action:log.gap").into_iter();
    gaps.filter(|gap| gap["details"]["source"] == "recording-app")
        .map(|gap| (gap["details"]["count"].as_u64().unwrap(), gap["details"]["cause"].as_str().unwrap().to_owned()))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_or_broken_disk_of_the_application_is_counted_exactly() {
    if !Interference::is_possible() {
        eprintln!("SKIPPED: no strace, or it may not look into other processes here");
        return;
    }
    let mut cluster = one_node().await;
    let (mut kept, mut not_kept) = (Vec::new(), 0);
    for (policy, inject) in [
        ("spool", "write:error=ENOSPC:when=5+"),
        ("best_effort", "write:error=ENOSPC:when=5+"),
        ("spool", "fdatasync:error=EIO:when=3+2"),
    ] {
        cluster.stop(0);
        let mut app = App::run(&interfered(&cluster, inject, policy, 1_000_000, 20));
        let said = app.read("done", 1_000);
        assert_eq!(said.len(), 20, "{inject}");
        let before = not_kept;
        for (id, word) in said {
            match word.as_str() {
                "kept" => kept.push(id),
                word => {
                    let expected = if policy == "spool" {
                        "failed entry neither recorded nor spooled, counted as lost"
                    } else {
                        "dropped"
                    };
                    assert!(word.starts_with(expected), "{policy} {inject}: {word}");
                    not_kept += 1;
                }
            }
        }
        assert!(not_kept > before, "{policy} {inject}: nothing failed");
        cluster.restart(0).await;
        app.end();
    }
    let counts = by_id(&entries(&cluster, "action:app.write"));
    assert_eq!(counts.len(), kept.len());
    assert!(kept.iter().all(|id| counts.get(id) == Some(&1)));
    let lost = lost(&cluster);
    assert_eq!(lost.iter().map(|(count, _)| count).sum::<u64>(), not_kept, "{lost:?}");
    assert!(lost.iter().all(|(_, cause)| cause == "the application's spool could not be written"), "{lost:?}");
    cluster.verify_all();
}

/// `emit` does not wait for a slow disk longer than its deadline, and then reports that the outcome of the entry is unknown.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_disk_of_the_application_neither_doubles_nor_hides_anything() {
    if !Interference::is_possible() {
        eprintln!("SKIPPED: no strace, or it may not look into other processes here");
        return;
    }
    let mut cluster = one_node().await;
    cluster.stop(0);
    let inject = "fdatasync:delay_enter=1500000:when=2";
    let deadline = ["env", "RECORDING_APP_DEADLINE_MS=500"].map(str::to_owned).to_vec();
    let mut app = App::run(&[deadline, interfered(&cluster, inject, "spool", 1_000_000, 10)].concat());
    let said = app.read("done", 1_000);
    cluster.restart(0).await;
    app.end();
    let counts = by_id(&entries(&cluster, "action:app.write"));
    assert!(counts.values().all(|count| *count == 1), "{counts:?}");
    for (id, word) in &said {
        assert!(word == "kept" || word.contains("the disk is not responding"), "{word}");
        assert!(word != "kept" || counts.contains_key(id), "{id} was kept");
    }
    assert!(said.iter().any(|(_, word)| word != "kept"), "it was slow: {said:?}");
    assert_eq!(lost(&cluster), []);
    cluster.verify_all();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_application_that_is_killed_at_any_step_of_its_spool_loses_and_doubles_nothing() {
    if !Interference::is_possible() {
        eprintln!("SKIPPED: no strace, or it may not look into other processes here");
        return;
    }
    let mut cluster = one_node().await;
    cluster.stop(0);
    // Entries are spooled while the node is down and sent later. At each of the calls that touch the spool, the application is
    // killed once.
    for (policy, bytes) in [("spool", 1_000_000), ("best_effort", 1_100)] {
        let (mut said, mut killed) = (Vec::new(), 0);
        let (arrived_before, lost_before) = (entries(&cluster, "action:app.write").len(), total(&lost(&cluster)));
        for call in ["openat", "flock", "read", "pwrite64", "write", "fdatasync", "fsync", "close"] {
            for step in 1.. {
                let inject = format!("{call}:signal=KILL:when={step}");
                let mut app = App::run(&interfered(&cluster, &inject, policy, bytes, 5));
                let these = app.read("done", 1_000);
                app.kill();
                let is_over = these.len() == 5;
                killed += usize::from(!is_over);
                said.extend(these);
                if is_over {
                    break;
                }
            }
        }
        assert!(killed > 15, "{policy}: only {killed} steps");
        cluster.restart(0).await;
        for call in ["getdents64", "openat", "read", "pwrite64", "unlink"] {
            for step in 1.. {
                let inject = format!("{call}:signal=KILL:when={step}");
                let mut app = App::run(&interfered(&cluster, &inject, policy, bytes, 3));
                said.extend(app.read("done", 1_000));
                let flushed = app.read("", 1);
                app.wait();
                if flushed.first().is_some_and(|(word, how)| word == "flushed" && how == "true") {
                    break;
                }
                killed += 1;
            }
        }
        let mut app = App::start(&cluster, policy, bytes, 0);
        app.read("done", 1);
        app.end();
        let counts = by_id(&entries(&cluster, "action:app.write"));
        assert!(counts.values().all(|count| *count == 1), "nothing stands there twice");
        let mut dropped = 0;
        for (id, word) in &said {
            match word.as_str() {
                "kept" | "recorded" => assert_eq!(counts.get(id), Some(&1), "{policy}: {id} was {word}"),
                "dropped" => dropped += 1,
                word => panic!("{policy}: {id} {word}"),
            }
        }
        let arrived = (counts.len() - arrived_before) as u64;
        let (lost, said) = (total(&lost(&cluster)) - lost_before, said.len() as u64);
        // An entry that was in flight when the application was killed has arrived, or is counted as lost, or was neither spooled
        // nor counted yet. The application has printed no result for it.
        let untold = killed as u64;
        assert!((dropped..=dropped + untold).contains(&lost), "{policy}: {dropped} dropped, {lost} counted");
        assert!((said..=said + untold).contains(&(arrived + lost)), "{policy}: {said} said, {arrived} and {lost}");
        cluster.verify_all();
        cluster.stop(0);
    }
}

/// Returns the sum of the counts of all gaps.
fn total(lost: &[(u64, String)]) -> u64 {
    lost.iter().map(|(count, _)| count).sum()
}

/// The application dies while its handler runs: the log has the intent, and its outcome is unknown.
#[tokio::test(flavor = "multi_thread")]
async fn a_strict_operation_whose_application_is_killed_is_left_with_outcome_unknown() {
    let cluster = one_node().await;
    let mut app = App::start(&cluster, "strict-handler", 0, 1);
    assert_eq!(app.read("running", 1).len(), 0);
    app.kill();
    let log = entries(&cluster, "outcome:unknown");
    assert_eq!(log.len(), 1, "{log:?}");
    assert_eq!(
        (&log[0]["action"], &log[0]["path"], &log[0]["reason"]),
        (&"http.post".into(), &"/run".into(), &"intent".into())
    );
    assert_eq!(entries(&cluster, "-category:log").len(), 1);
    cluster.verify_all();
}
