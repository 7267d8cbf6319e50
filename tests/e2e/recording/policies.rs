//! Tests whether entries are recorded, kept for later or lost under each delivery policy.

use std::time::Duration;

use nix::sys::signal::Signal;
use piperoll_client::{Category, DeliveryPolicy, EmitError, Emitted, Entry, Recorder};
use piperoll_tests::Cluster;

use super::app::App;
use super::{by_id, entries, one_node, socket};

const FLUSH: Duration = Duration::from_secs(60);
/// Deadline that is long enough for a healthy node on a busy machine.
const DEADLINE: Duration = Duration::from_millis(2_500);

fn recorder(cluster: &Cluster, policy: DeliveryPolicy) -> Recorder {
    let folder = cluster.dir.path().join(format!("spool-{policy:?}"));
    let builder = Recorder::builder(&socket(cluster)).unwrap().policy_for_all(policy).spool(&folder);
    builder.deadline(DEADLINE).source("test").open().unwrap()
}

fn act(policy: DeliveryPolicy, n: usize) -> Entry {
    Entry::new(Category::Data, "app.write").user(format!("{policy:?}")).user_type("service").detail("n", n)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_away_or_hangs_is_met_by_each_policy_in_its_way() {
    let mut cluster = one_node().await;
    let all =
        [DeliveryPolicy::Strict, DeliveryPolicy::Spool, DeliveryPolicy::BestEffort].map(|p| (p, recorder(&cluster, p)));
    let mut expected = Vec::new();
    for (policy, recorder) in &all {
        let entry = act(*policy, 0);
        expected.push(entry.id().to_string());
        let emitted = recorder.emit(entry).await.unwrap();
        assert_eq!(matches!(emitted, Emitted::Recorded(_)), *policy != DeliveryPolicy::BestEffort, "{emitted:?}");
    }
    for how in ["stopped", "hanging"] {
        match how {
            "stopped" => cluster.stop(0),
            _ => cluster.signal(0, Signal::SIGSTOP),
        }
        for n in 1..4 {
            for (policy, recorder) in &all {
                let entry = act(*policy, n);
                let id = entry.id();
                match (policy, recorder.emit(entry).await) {
                    (DeliveryPolicy::Strict, Err(EmitError::Late { .. })) => {}
                    (DeliveryPolicy::Spool | DeliveryPolicy::BestEffort, Ok(Emitted::Spooled(kept))) => {
                        assert_eq!(kept, id);
                        expected.push(id.to_string());
                    }
                    (_, other) => panic!("{how}, {policy:?}: {other:?}"),
                }
            }
        }
        let text = all[1].1.metrics_text();
        assert!(text.contains("piperoll_audit_spool_entries 3.0"), "{text}");
        let lag = text.lines().find_map(|line| line.strip_prefix("piperoll_audit_writer_lag_seconds ")).unwrap();
        assert!(lag.parse::<f64>().unwrap() > 0.0, "{text}");
        match how {
            "stopped" => cluster.restart(0).await,
            _ => cluster.signal(0, Signal::SIGCONT),
        }
        for (_, recorder) in &all {
            assert!(recorder.flush(FLUSH).await, "{how}: {}", cluster.log_text("mx1"));
        }
    }
    // Open a recorder while the socket is missing.
    let (hidden, late) = (cluster.dir.path().join("hidden"), cluster.dir.path().join("late"));
    std::fs::rename(socket(&cluster), &hidden).unwrap();
    let late = Recorder::builder(&socket(&cluster))
        .unwrap()
        .policy_for_all(DeliveryPolicy::Spool)
        .spool(&late)
        .open()
        .unwrap();
    let entry = act(DeliveryPolicy::Strict, 9);
    expected.push(entry.id().to_string());
    assert!(matches!(late.emit(entry).await, Ok(Emitted::Spooled(_))));
    std::fs::rename(&hidden, socket(&cluster)).unwrap();
    assert!(late.flush(FLUSH).await);
    let log = entries(&cluster, "action:app.write");
    let counts = by_id(&log);
    for id in &expected {
        assert_eq!(counts.get(id), Some(&1), "{id} of {expected:?}");
    }
    for user in ["Spool", "BestEffort"] {
        let times: Vec<&str> =
            log.iter().filter(|e| e["user"] == user).filter_map(|e| e["occurred_at"].as_str()).collect();
        assert!(times.is_sorted() && times.len() == 7, "{user} in order: {times:?}");
    }
    assert!(entries(&cluster, "action:log.gap -via:\"x\"").iter().all(|gap| gap["details"]["source"] != "test"));
    cluster.verify_all();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_best_effort_drops_is_counted_exactly_across_a_killed_application() {
    let mut cluster = one_node().await;
    cluster.stop(0);
    let mut app = App::start(&cluster, "best_effort", 2_000, 100);
    let said = app.read("done", 1_000);
    app.kill();
    let with = |word: &str| said.iter().filter(|(_, said)| said == word).map(|(id, _)| id.clone()).collect::<Vec<_>>();
    let (kept, dropped) = (with("kept"), with("dropped"));
    assert!(kept.len() + dropped.len() == 100 && !kept.is_empty() && !dropped.is_empty(), "{said:?}");
    cluster.restart(0).await;
    let mut app = App::start(&cluster, "best_effort", 2_000, 0);
    app.read("done", 1);
    app.end();
    let counts = by_id(&entries(&cluster, "action:app.write"));
    assert_eq!(counts.len(), kept.len());
    assert!(kept.iter().all(|id| counts.get(id) == Some(&1)));
    let gaps = entries(&cluster, "action:log.gap");
    let ours: Vec<_> = gaps.iter().filter(|gap| gap["details"]["source"] == "recording-app").collect();
    assert_eq!(ours.len(), 1, "{gaps:?}");
    assert_eq!(ours[0]["details"]["count"], dropped.len());
    assert_eq!(ours[0]["via"], "node");
    assert_eq!(ours[0]["details"]["cause"], "the application's spool was full");
    cluster.verify_all();
}

#[tokio::test(flavor = "multi_thread")]
async fn spooled_entries_arrive_exactly_once_whoever_is_killed() {
    let mut cluster = one_node().await;
    let mut said = Vec::new();
    for turn in 0..8_u64 {
        let mut app = App::start(&cluster, "spool", 10_000_000, 400);
        said.extend(app.read("done", 40 + usize::try_from(turn).unwrap() * 23));
        cluster.kill(0);
        said.extend(app.read("done", 30));
        if turn % 2 == 0 {
            app.kill();
            cluster.restart(0).await;
        } else {
            cluster.restart(0).await;
            said.extend(app.read("done", 1_000));
            app.kill();
        }
    }
    let mut app = App::start(&cluster, "spool", 10_000_000, 0);
    app.read("done", 1);
    app.end();
    let log = entries(&cluster, "action:app.write");
    let counts = by_id(&log);
    assert!(counts.values().all(|count| *count == 1), "nothing stands there twice");
    for (id, word) in &said {
        assert!(word == "recorded" || word == "kept", "{id} {word}");
        assert_eq!(counts.get(id), Some(&1), "{id} was {word} and is not there once");
    }
    assert!(said.iter().any(|(_, word)| word == "kept") && said.iter().any(|(_, word)| word == "recorded"));
    assert!(
        entries(&cluster, "action:log.gap").iter().all(|gap| gap["details"]["source"].is_null()),
        "nothing was lost"
    );
    cluster.verify_all();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_earlier_process_left_is_sent_while_entries_keep_coming() {
    let mut cluster = one_node().await;
    cluster.stop(0);
    let first = recorder(&cluster, DeliveryPolicy::Spool);
    for n in 0..5 {
        assert!(matches!(first.emit(act(DeliveryPolicy::Spool, n)).await, Ok(Emitted::Spooled(_))));
    }
    assert!(!first.close(Duration::from_millis(10)).await);
    cluster.restart(0).await;
    let again = recorder(&cluster, DeliveryPolicy::Spool);
    let left = cluster.dir.path().join("spool-Spool/0000000000000001.spool");
    let mut kept = 5;
    while left.exists() {
        again.emit_with_policy(act(DeliveryPolicy::Spool, kept), DeliveryPolicy::BestEffort).await.unwrap();
        kept += 1;
        assert!(kept < 2_000, "it is never done with");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(again.flush(FLUSH).await);
    let log = entries(&cluster, "action:app.write");
    assert!(log.len() == kept && by_id(&log).len() == kept);
    assert!(
        matches!(again.emit(act(DeliveryPolicy::Spool, 0)).await, Ok(Emitted::Recorded(_))),
        "nothing waits any more"
    );
    cluster.verify_all();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_spool_is_a_loss_of_unknown_size() {
    let mut cluster = one_node().await;
    cluster.stop(0);
    let recorder_of = |cluster: &Cluster| recorder(cluster, DeliveryPolicy::Spool);
    let first = recorder_of(&cluster);
    for n in 0..5 {
        assert!(matches!(first.emit(act(DeliveryPolicy::Spool, n)).await, Ok(Emitted::Spooled(_))));
    }
    assert!(!first.close(Duration::from_millis(10)).await);
    let segment = cluster.dir.path().join("spool-Spool/0000000000000001.spool");
    let mut bytes = std::fs::read(&segment).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&segment, bytes).unwrap();
    cluster.restart(0).await;
    let again = recorder_of(&cluster);
    assert!(again.flush(FLUSH).await);
    assert_eq!(entries(&cluster, "action:app.write").len(), 2, "what stands in front of the damage");
    let gaps = entries(&cluster, "action:log.gap");
    let ours = gaps.iter().find(|gap| gap["details"]["source"] == "test").unwrap();
    assert!(ours["details"]["count"].is_null() && ours["details"]["cause"].as_str().unwrap().contains("damaged"));
    let aside = std::fs::read_dir(segment.parent().unwrap()).unwrap().map(|file| file.unwrap().path());
    assert!(aside.into_iter().any(|path| path.extension().is_some_and(|e| e == "damaged")));
    cluster.verify_all();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_never_be_recorded_is_refused_at_once() {
    let cluster = one_node().await;
    for policy in [DeliveryPolicy::Strict, DeliveryPolicy::Spool, DeliveryPolicy::BestEffort] {
        let recorder = recorder(&cluster, policy);
        let bad = Entry::new(Category::Data, "two words");
        assert!(matches!(recorder.emit(bad).await, Err(EmitError::Invalid(_))), "{policy:?}");
        for bytes in [64_000, 300_000] {
            let large = Entry::new(Category::Data, "x.y").detail("text", "t".repeat(bytes));
            assert!(matches!(recorder.emit(large).await, Err(EmitError::Invalid(_))), "{policy:?} {bytes}");
        }
        let large = Entry::new(Category::Data, "x.y").detail("text", "t".repeat(300_000));
        assert!(matches!(recorder.emit(large).await, Err(EmitError::Invalid(_))), "{policy:?}");
    }
    let recorder = recorder(&cluster, DeliveryPolicy::Strict);
    let entry = Entry::new(Category::Data, "x.y").user("a");
    let other = Entry::new(Category::Data, "x.z").with_id(entry.id());
    assert!(matches!(recorder.emit(entry.clone()).await, Ok(Emitted::Recorded(_))));
    assert!(matches!(recorder.emit(entry).await, Ok(Emitted::Recorded(_))), "the same again is known");
    assert!(matches!(recorder.emit(other).await, Err(EmitError::Refused(_))));
    assert_eq!(entries(&cluster, "action:x.y").len(), 1);
    let none = Recorder::builder(&socket(&cluster)).unwrap().open();
    assert!(none.unwrap_err().to_string().contains("spool"));
    let taken = Recorder::builder(&socket(&cluster)).unwrap().spool(&cluster.dir.path().join("one"));
    let _held = taken.open().unwrap();
    let second = Recorder::builder(&socket(&cluster)).unwrap().spool(&cluster.dir.path().join("one")).open();
    assert!(second.unwrap_err().to_string().contains("another process"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_spool_that_is_damaged_while_it_is_written_loses_nothing_that_comes_after() {
    let mut cluster = one_node().await;
    cluster.stop(0);
    let recorder = recorder(&cluster, DeliveryPolicy::Spool);
    let keep = async |n| {
        let kept = recorder.emit_with_policy(act(DeliveryPolicy::Spool, n), DeliveryPolicy::BestEffort).await;
        assert!(matches!(kept, Ok(Emitted::Spooled(_))), "{kept:?}");
    };
    // Spool more entries than one batch holds. The node is down, so the sender is still waiting with the first batch.
    for n in 0..600 {
        keep(n).await;
    }
    let segment = cluster.dir.path().join("spool-Spool/0000000000000001.spool");
    let mut bytes = std::fs::read(&segment).unwrap();
    let near_the_end = bytes.len() - 30;
    bytes[near_the_end] ^= 1;
    std::fs::write(&segment, bytes).unwrap();
    cluster.restart(0).await;
    let set_aside = || {
        let files = std::fs::read_dir(segment.parent().unwrap()).unwrap().map(|file| file.unwrap().path());
        files.into_iter().any(|path| path.extension().is_some_and(|e| e == "damaged"))
    };
    let begun = std::time::Instant::now();
    let mut n = 600;
    while !set_aside() {
        keep(n).await;
        n += 1;
        assert!(begun.elapsed() < FLUSH, "nobody noticed");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    for after in 0..5 {
        keep(100_000 + after).await;
    }
    assert!(recorder.flush(FLUSH).await, "what was lost is not waited for: {}", recorder.metrics_text());
    let emitted = recorder.emit(act(DeliveryPolicy::Spool, 200_000)).await;
    assert!(matches!(emitted, Ok(Emitted::Recorded(_))), "nothing waits any more: {emitted:?}");
    let log = entries(&cluster, "action:app.write");
    let came =
        |from: u64, to: u64| log.iter().filter(|e| (from..to).contains(&e["details"]["n"].as_u64().unwrap())).count();
    assert_eq!((came(0, 599), came(599, 600), came(100_000, 100_005)), (599, 0, 5));
    let gaps = entries(&cluster, "action:log.gap");
    let ours: Vec<_> = gaps.iter().filter(|gap| gap["details"]["source"] == "test").collect();
    assert!(ours.len() == 1 && ours[0]["details"]["count"].is_null(), "{gaps:?}");
    cluster.verify_all();
}
