//! Tests the witness state of an aggregator: recovery after a loss, comparison with other aggregators, and lost rows.

use std::time::Duration;

use piperoll_format::checkpoint::Checkpoint;
use piperoll_format::note::{KeyKind, SigningSeed};
use piperoll_net::checked_json;
use piperoll_tests::{Cluster, copy_log, edit, entry, until};
use serde_json::{Value, json};

use crate::keys::begin_generation;
use crate::witness::{cluster_of, data, everything_says, now, report, witnessed};

/// A witness that lost its state uses the pins recorded in the aggregator's own log, so a node cannot present an older copy as
/// its first log.
#[tokio::test(flavor = "multi_thread")]
async fn a_lost_memory_is_found_in_the_own_log() {
    let mut cluster = cluster_of(20).await;
    let oldest = cluster.dir.path().join("oldest");
    cluster.stop(0);
    copy_log(&data(&cluster, 0), &oldest);
    cluster.restart(0).await;
    let lines: Vec<String> = (0..30).map(|n| entry(&format!("w{n}"), "auth.login")).collect();
    cluster.append(0, &lines).await;
    witnessed(&cluster, "mx1").await;
    cluster.stop_aggregator();
    let memory = cluster.aggregator_folder().join("state/witness/mx1.json");
    // The file is empty, as after a file system ran out of space.
    std::fs::write(&memory, b"").unwrap();
    cluster.stop(0);
    copy_log(&oldest, &data(&cluster, 0));
    cluster.restart(0).await;
    cluster.spawn_aggregator();
    cluster.wait_for_aggregator().await;
    everything_says(&cluster, "rollback", "an older copy was put back").await;
}

/// Two aggregators that were shown different histories detect this by comparing their recorded pins, and keep both notes.
#[tokio::test(flavor = "multi_thread")]
async fn a_split_view_is_found_by_comparing() {
    let mut cluster = cluster_of(20).await;
    // Fake a pin of another aggregator: a checkpoint of the same log with another root, signed by the node's own key.
    let folder = cluster.nodes[0].folder.clone();
    let generation = report(&cluster, "mx1", |_| true).await["generation"].as_str().unwrap().to_owned();
    let origin = format!("test/mx1/{generation}");
    let seed = std::fs::read_to_string(folder.join("checkpoint.key")).unwrap();
    let key = SigningSeed::from_hex(seed.trim()).unwrap().named(&origin, KeyKind::Log).unwrap();
    let other = Checkpoint { origin, size: 5, root: [7; 32] }.sign(&key).unwrap().to_string();
    let pins = json!([{ "node": "mx1", "note": other, "seen": "2026-04-15T08:00:00.000000Z" }]);
    let line =
        json!({ "category": "audit", "action": "audit.witness_checkpoints", "details": { "checkpoints": pins } })
            .to_string();
    cluster.append(1, &[line]).await;
    cluster.stop_aggregator();
    let config = cluster.aggregator_folder().join("aggregator.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, text.replace("poll_ms = 250", "poll_ms = 250\nexchange_seconds = 1")).unwrap();
    cluster.spawn_aggregator();
    cluster.wait_for_aggregator().await;
    // The comparison raises the alarm, and the next poll records it.
    for _ in 0..300 {
        let said = cluster.page("filter=action:audit.witness_verdict%20reason:fork&from=1d").await.json();
        if said["count"] != 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    everything_says(&cluster, "fork", "split view: the aggregator mx2").await;
    let evidence = cluster.aggregator_folder().join("state/witness/mx1.evidence.ndjson");
    let kept = std::fs::read_to_string(evidence).unwrap();
    let kept: Value = serde_json::from_str(kept.lines().last().unwrap()).unwrap();
    assert_eq!(kept["presented"], other, "{kept}");
    assert!(kept["pinned"].as_str().unwrap().contains("test/mx1/"), "{kept}");
}

/// A second aggregator's checkpoint that contradicts an archived log, at the size of that log's end or at a smaller size, raises
/// the alarm as well. Once an operator has accepted the alarm, this checkpoint is not reported again.
#[tokio::test(flavor = "multi_thread")]
async fn ends_of_an_earlier_log_are_compared() {
    let mut cluster = cluster_of(20).await;
    let generation = report(&cluster, "mx1", |_| true).await["generation"].as_str().unwrap().to_owned();
    cluster.stop(0);
    begin_generation(&mut cluster).await;
    let memory = cluster.aggregator_folder().join("state/witness/mx1.json");
    let memory: Value = checked_json::from_bytes(&std::fs::read(&memory).unwrap()).unwrap();
    let mut lost = memory["lost"][0].clone();
    let pin = &memory["pin"];
    let rows = lost["to_seq"].as_u64().unwrap();
    let origin = format!("test/mx1/{generation}");
    let seed = std::fs::read_to_string(cluster.nodes[0].folder.join("checkpoint.key")).unwrap();
    let key = SigningSeed::from_hex(seed.trim()).unwrap().named(&origin, KeyKind::Log).unwrap();
    let mut said = async |cluster: &Cluster, note: Option<String>| {
        if let Some(note) = note {
            lost["note"] = note.into();
        }
        let pins = json!([{ "node": "mx1", "note": pin["note"], "seen": pin["seen"], "lost": [lost] }]);
        let entry =
            json!({ "category": "audit", "action": "audit.witness_checkpoints", "details": { "checkpoints": pins } });
        cluster.append(1, &[entry.to_string()]).await;
    };
    // The aggregator's own pins raise no alarm.
    said(&cluster, None).await;
    cluster.stop_aggregator();
    cluster.configure_aggregator("[witness]\npoll_ms = 100\nexchange_seconds = 1\n");
    cluster.spawn_aggregator();
    cluster.wait_for_aggregator().await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(report(&cluster, "mx1", |line| line["verdict"] != "unverifiable").await["verdict"], "ok");
    for size in [rows, 3] {
        let other = Checkpoint { origin: origin.clone(), size, root: [7; 32] }.sign(&key).unwrap().to_string();
        said(&cluster, Some(other)).await;
        let line =
            report(&cluster, "mx1", |line| line["verdict"] == "fork" && !line["alarm"]["presented"].is_null()).await;
        assert!(line["reason"].as_str().unwrap().contains(&format!("a log of {size} rows")), "{line}");
        until("it presents its present log", async || {
            let line = report(&cluster, "mx1", |_| true).await;
            (line["alarm"]["presented"]["generation"] != generation.as_str()).then_some(())
        })
        .await;
        let present = pin["origin"].as_str().unwrap().rsplit('/').next().unwrap();
        let run = cluster.run(&["nodes", "accept", "mx1", "--new-generation", present, "--reason", "understood"]);
        assert_eq!(run.code, 0, "{}", run.stderr);
        tokio::time::sleep(Duration::from_secs(3)).await;
        witnessed(&cluster, "mx1").await;
    }
    cluster.verify_all();
}

/// A log lost rows and was archived later: pages contain all remaining rows, the loss is reported, and no other alarm is raised.
#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_lost_rows_is_read_on_and_accuses_nobody() {
    let mut cluster = cluster_of(20).await;
    let older = cluster.dir.path().join("older");
    cluster.stop(0);
    copy_log(&data(&cluster, 0), &older);
    cluster.restart(0).await;
    cluster.append(0, &vec![entry("gone", "auth.login"); 5]).await;
    witnessed(&cluster, "mx1").await;
    cluster.stop(0);
    copy_log(&older, &data(&cluster, 0));
    cluster.restart(0).await;
    everything_says(&cluster, "rollback", "an older copy was put back").await;
    let generation = report(&cluster, "mx1", |_| true).await["generation"].as_str().unwrap().to_owned();
    let args = ["nodes", "accept", "mx1", "--new-generation", &generation, "--reason", "restored"];
    assert_eq!(cluster.run(&args).code, 0);
    witnessed(&cluster, "mx1").await;
    let since = now();
    cluster.append(0, &vec![entry("later", "auth.login"); 4]).await;
    witnessed(&cluster, "mx1").await;
    later_rows_are_on_pages(&cluster, &since, 4).await;
    // Grow the log beyond the lost rows, then archive it.
    cluster.append(0, &vec![entry("later", "auth.login"); 30]).await;
    witnessed(&cluster, "mx1").await;
    cluster.stop(0);
    let begun = cluster.on_node(0, &["new-generation", "--reason", "a test"]);
    assert_eq!(begun.code, 0, "{}", begun.stderr);
    cluster.restart(0).await;
    report(&cluster, "mx1", |line| line["verdict"] == "rollback").await;
    let accepted = cluster.run(&[
        "nodes",
        "accept",
        "mx1",
        "--new-generation",
        begun.stdout.split_whitespace().nth(1).unwrap(),
        "--reason",
        "a test",
    ]);
    assert_eq!(accepted.code, 0, "{}", accepted.stderr);
    witnessed(&cluster, "mx1").await;
    for _ in 0..300 {
        if cluster.page(&format!("from={since}&limit=1000")).await.json()["complete"] == true {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    later_rows_are_on_pages(&cluster, &since, 34).await;
    let page = cluster.page("from=1d&limit=1000").await;
    assert_eq!(page.status_of("mx1"), "superseded", "{}", page.text);
    assert!(page.node("mx1")["reason"].as_str().unwrap().contains("are not in the log that was accepted"));
    assert_eq!(cluster.run(&["query", "--from", "1d", "--json"]).code, 3);
}

/// Checks page by page that every row of mx1 by this user is returned, and that every page is complete.
async fn later_rows_are_on_pages(cluster: &Cluster, since: &str, count: usize) {
    let (mut found, mut cursor) = (0, String::new());
    for _ in 0..500 {
        let page = cluster.page(&format!("from={since}&order=asc&limit=7&filter=node:mx1{cursor}")).await;
        let json = page.json();
        assert_eq!((&json["complete"], page.status_of("mx1")), (&json!(true), "ok".to_owned()), "{}", page.text);
        let rows = json["entries"].as_array().unwrap();
        found += rows.iter().filter(|row| row["entry"]["user"] == "later").count();
        match json["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(found, count);
}

/// A row that once failed verification remains a finding until an operator accepts it, even after the row was repaired, after a
/// restart, and without the witness state.
#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_failed_stays_a_finding_until_it_is_accepted() {
    let mut cluster = cluster_of(20).await;
    let database = cluster.database(0);
    edit(&database, "UPDATE entries SET body = replace(body, '\"user\":\"u4\"', '\"user\":\"u3\"') WHERE seq = 5");
    assert_eq!(cluster.page("from=1d&limit=1000").await.node("mx1")["verdict"], "row_invalid");
    edit(&database, "UPDATE entries SET body = replace(body, '\"user\":\"u3\"', '\"user\":\"u4\"') WHERE seq = 5");
    let is_a_finding = async |cluster: &Cluster| {
        let line = report(cluster, "mx1", |line| line["verdict"] == "row_invalid").await;
        let reason = line["reason"].as_str().unwrap();
        assert!(reason.contains("row 5 of generation") && reason.contains("signature does not match"), "{reason}");
        assert_eq!((&line["status"], cluster.run(&["nodes"]).code), (&json!("ok"), 4), "{line}");
        // The rows are valid now and are reported as valid; the verdict on the node is reported in addition.
        let page = cluster.page("from=1d&limit=1000").await;
        assert_eq!((page.json()["complete"].clone(), page.status_of("mx1")), (json!(true), "ok".to_owned()));
        assert_eq!(page.node("mx1")["verdict"], "row_invalid", "{}", page.text);
        let metrics = cluster.get("/metrics", None).await.text;
        assert!(metrics.contains("node_verdict{node=\"mx1\",verdict=\"row_invalid\"} 1"), "{metrics}");
        line["generation"].as_str().unwrap().to_owned()
    };
    is_a_finding(&cluster).await;
    until("the verdict is recorded", async || {
        let said = cluster.page("filter=action:audit.witness_verdict%20reason:row_invalid&from=1d").await.json();
        (said["count"] == 1).then_some(())
    })
    .await;
    cluster.stop_aggregator();
    cluster.spawn_aggregator();
    cluster.wait_for_aggregator().await;
    cluster.wait_until_answered("mx1").await;
    is_a_finding(&cluster).await;
    // A node that becomes unreachable keeps its verdict.
    cluster.stop(0);
    let line = report(&cluster, "mx1", |line| line["status"] == "unreachable").await;
    assert_eq!((&line["verdict"], cluster.run(&["nodes"]).code), (&json!("row_invalid"), 4), "{line}");
    cluster.restart(0).await;
    cluster.wait_until_answered("mx1").await;
    // Without the witness state, the evidence file still preserves the verdict. The loss of the state is a separate finding.
    cluster.stop_aggregator();
    std::fs::remove_file(cluster.aggregator_folder().join("state/witness/mx1.json")).unwrap();
    cluster.spawn_aggregator();
    cluster.wait_for_aggregator().await;
    cluster.wait_until_answered("mx1").await;
    let generation = is_a_finding(&cluster).await;
    // The report lists everything that accepting clears.
    let line = report(&cluster, "mx1", |line| line["verdict"] == "row_invalid").await;
    assert!(line["reason"].as_str().unwrap().contains("is missing from the state directory"), "{line}");
    let accept = ["nodes", "accept", "mx1", "--new-generation", &generation, "--reason", "a cosmic ray, put back"];
    let accepted = cluster.run(&accept);
    assert_eq!(accepted.code, 0, "{}", accepted.stderr);
    witnessed(&cluster, "mx1").await;
    assert_eq!(cluster.run(&["nodes"]).code, 0);
    assert_eq!(cluster.run(&accept).code, 1, "there is nothing more to accept");
    cluster.verify_all();
}
