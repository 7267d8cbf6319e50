//! Tests tampering that MACs cannot show but a witness can: a truncated log, an older copy, a diverging copy, another database,
//! an edited tile. Each case has its verdict, its exit code and its entry.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use piperoll_format::checkpoint::Checkpoint;
use piperoll_format::note::{Note, VerifyingKey};
use piperoll_protocol::access::Role;
use piperoll_tests::{Cluster, copy_log, edit, entry, until};
use rusqlite::Connection;
use serde_json::{Value, json};

/// Longest wait for a report. The aggregator polls every quarter of a second in these tests, so waiting longer would be useless.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) async fn cluster_of(rows: usize) -> Cluster {
    let cluster = Cluster::witnessed(&["mx1", "mx2"], 250).await;
    for index in 0..2 {
        let lines: Vec<String> = (0..rows).map(|n| entry(&format!("u{n}"), "auth.login")).collect();
        cluster.append(index, &lines).await;
    }
    witnessed(&cluster, "mx1").await;
    witnessed(&cluster, "mx2").await;
    cluster
}

/// Waits until `until` holds for the node in `/api/v1/nodes`, and returns the node's report.
pub(crate) async fn report(cluster: &Cluster, node: &str, until: impl Fn(&Value) -> bool) -> Value {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let nodes = cluster.get("/api/v1/nodes", Some(&cluster.token)).await.json();
        let line = nodes["nodes"].as_array().unwrap().iter().find(|n| n["node_id"] == node).unwrap().clone();
        if until(&line) {
            return line;
        }
        assert!(Instant::now() < deadline, "never so: {line}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Waits until all rows of `node` are covered by a cosigned checkpoint.
pub(crate) async fn witnessed(cluster: &Cluster, node: &str) -> Value {
    report(cluster, node, |line| line["verdict"] == "ok" && line["unwitnessed"] == 0).await
}

pub(crate) fn now() -> String {
    use piperoll_net::clock::{Clock as _, SystemClock};
    SystemClock.now().to_text()
}

pub(crate) fn data(cluster: &Cluster, index: usize) -> PathBuf {
    cluster.nodes[index].folder.join("data")
}

/// Checks that the verdict appears in the node list, in every answer, in the exit code, in the metrics, and as one entry.
pub(crate) async fn everything_says(cluster: &Cluster, verdict: &str, words: &str) {
    let line = report(cluster, "mx1", |line| line["verdict"] == verdict).await;
    assert!(line["reason"].as_str().unwrap().contains(words), "{line}");
    assert_eq!(line["status"], "invalid", "{line}");
    let answer = cluster.page("limit=5").await;
    assert_eq!(
        (answer.json()["complete"].clone(), answer.node("mx1")["verdict"].clone()),
        (json!(false), json!(verdict))
    );
    assert_eq!(answer.status_of("mx2"), "ok", "a healthy node is never mislabelled");
    assert_eq!(cluster.run(&["query", "--json"]).code, 4);
    assert_eq!(cluster.run(&["nodes"]).code, 4);
    let metrics = cluster.get("/metrics", None).await.text;
    assert!(metrics.contains(&format!("node_verdict{{node=\"mx1\",verdict=\"{verdict}\"}} 1")), "{metrics}");
    let entries =
        cluster.page("filter=action:audit.witness_verdict%20entity:node/mx1&limit=100&order=desc").await.json();
    let last = &entries["entries"][0]["entry"];
    assert_eq!((&last["details"]["verdict"], &last["outcome"]), (&json!(verdict), &json!("failure")), "{last}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_is_signed_cosigned_and_reads_anywhere() {
    let mut cluster = cluster_of(300).await;
    let key = cluster.on_node(0, &["checkpoint", "--key"]).stdout;
    let key = VerifyingKey::parse(key.trim()).unwrap();
    let run = cluster.on_node(0, &["checkpoint"]);
    let checkpoint = Checkpoint::open(&Note::parse(&run.stdout).unwrap(), &key).unwrap();
    assert_eq!(checkpoint.size, 301, "log.started and 300 entries");
    assert!(checkpoint.origin.starts_with("test/mx1/"));
    // The node keeps the cosigned checkpoint that it receives. The newest signed checkpoint can be read while the daemon is down.
    let cosigned = cluster.on_node(0, &["checkpoint", "--witnessed"]);
    assert_eq!(cosigned.stdout.lines().filter(|line| line.starts_with('\u{2014}')).count(), 2, "{}", cosigned.stderr);
    cluster.stop(0);
    let stopped = cluster.on_node(0, &["checkpoint"]);
    let last = Checkpoint::open(&Note::parse(&stopped.stdout).unwrap(), &key).unwrap();
    assert_eq!(last.size, 302, "the stop is signed as well");
    let line = report(&cluster, "mx1", |line| line["verdict"] == "unreachable").await;
    assert_eq!(line["witnessed"], 301, "what was witnessed is remembered: {line}");
    // Appends do not wait for the witness: without an aggregator they continue, and the new rows are witnessed later.
    cluster.stop_aggregator();
    cluster.restart(0).await;
    cluster.append(0, &[entry("alone", "auth.login")]).await;
    cluster.spawn_aggregator();
    cluster.wait_for_aggregator().await;
    assert_eq!(witnessed(&cluster, "mx1").await["witnessed"], 304);
    cluster.verify_all();
}

/// The last rows, the signed checkpoints and the checkpoint file are deleted step by step. The MAC of every remaining row is
/// valid, and the witness reports a rollback.
#[tokio::test(flavor = "multi_thread")]
async fn a_cut_tail_is_a_rollback() {
    let mut cluster = cluster_of(20).await;
    cluster.stop(0);
    let cut = "DELETE FROM entries WHERE seq >= 15; DELETE FROM ids WHERE seq >= 15";
    edit(&cluster.database(0), cut);
    // The node itself detects the loss while its signed checkpoints exist.
    let run = cluster.on_node(0, &["verify"]);
    assert!(run.code == 4 && run.stdout.contains("the end was cut off"), "{}{}", run.stdout, run.stderr);
    // An attacker can also delete the checkpoints from the database. The checkpoint file next to it still shows the truncation,
    // whether the daemon is down or up.
    edit(&cluster.database(0), "DELETE FROM checkpoints");
    let everybody_knows = |cluster: &Cluster| {
        let run = cluster.on_node(0, &["verify"]);
        assert!(run.code == 4 && run.stdout.contains("the end was cut off"), "{}{}", run.stdout, run.stderr);
        for args in [&["query", "--json"][..], &["export"], &["status"], &["tail", "-n", "1"]] {
            let run = cluster.on_node(0, args);
            assert_eq!(run.code, 4, "{args:?}: {}{}", run.stdout, run.stderr);
        }
        let run = cluster.on_node(0, &["append", "--retry-for", "0s", "--category", "auth", "--action", "auth.login"]);
        assert!(run.code != 0 && run.stderr.contains("22 rows were signed, but the log has only 15"), "{}", run.stderr);
    };
    everybody_knows(&cluster);
    cluster.restart(0).await;
    everybody_knows(&cluster);
    // The node no longer signs checkpoints, which does not clear the verdict.
    everything_says(&cluster, "rollback", "and signs none of them").await;
    let generation = report(&cluster, "mx1", |_| true).await["generation"].as_str().unwrap().to_owned();
    let run = cluster.run(&["nodes", "accept", "mx1", "--new-generation", &generation, "--reason", "r"]);
    assert!(run.code == 1 && run.stderr.contains("has presented no signed checkpoint"), "{}", run.stderr);
    cluster.stop(0);
    // With the checkpoint file removed too, only the witness knows of the lost rows.
    std::fs::remove_file(data(&cluster, 0).join("log.checkpoint")).unwrap();
    assert_eq!(cluster.on_node(0, &["verify"]).code, 0, "this is what a mac cannot see");
    cluster.restart(0).await;
    everything_says(&cluster, "rollback", "rows were witnessed").await;

    // Growing beyond the old size does not clear the verdict, and neither does a restart of the aggregator.
    let lines: Vec<String> = (0..40).map(|n| entry(&format!("v{n}"), "auth.login")).collect();
    cluster.append(0, &lines).await;
    cluster.stop_aggregator();
    cluster.spawn_aggregator();
    cluster.wait_for_aggregator().await;
    everything_says(&cluster, "rollback", "rows were witnessed").await;
}

/// A complete older copy is restored, including all files next to the database, and the node continues from this copy.
#[tokio::test(flavor = "multi_thread")]
async fn a_restored_copy_is_found_and_can_be_accepted() {
    let mut cluster = cluster_of(20).await;
    cluster.stop(0);
    let older = cluster.dir.path().join("older");
    copy_log(&data(&cluster, 0), &older);
    cluster.restart(0).await;
    let lines: Vec<String> = (0..30).map(|n| entry(&format!("w{n}"), "auth.login")).collect();
    cluster.append(0, &lines).await;
    witnessed(&cluster, "mx1").await;
    cluster.stop(0);
    copy_log(&older, &data(&cluster, 0));
    cluster.restart(0).await;
    everything_says(&cluster, "rollback", "an older copy was put back").await;

    // Only an admin can clear the alarm, by specifying the current generation and a reason; the acceptance is recorded.
    let generation = report(&cluster, "mx1", |_| true).await["generation"].as_str().unwrap().to_owned();
    let accept = |generation: &str, reason: &str| {
        let reason = ["--reason", reason].map(str::to_owned);
        let args = ["nodes", "accept", "mx1", "--new-generation", generation].map(str::to_owned);
        [&args[..], &reason[..]].concat()
    };
    let run = |args: Vec<String>| cluster.run(&args.iter().map(String::as_str).collect::<Vec<_>>());
    let auditor = cluster.token("ada", Role::Auditor, None);
    let body = Some(json!({ "generation": generation, "reason": "restored" }));
    let refused = cluster.send(reqwest::Method::POST, "/api/v1/nodes/mx1/accept", Some(&auditor), body).await;
    assert_eq!(refused.status, 403);
    assert_eq!(run(accept(&"0".repeat(32), "restored")).code, 1, "another generation");
    assert_eq!(run(accept(&generation, " ")).code, 2, "no reason");
    let accepted = run(accept(&generation, "disk died, restored from the backup"));
    assert_eq!(accepted.code, 0, "{}", accepted.stderr);
    witnessed(&cluster, "mx1").await;
    // Rows that the witness saw and that this log lacks stay on record, but only ranges that may include them are incomplete.
    let page = cluster.page("limit=5").await;
    assert_eq!((page.json()["complete"].clone(), page.status_of("mx1")), (json!(false), "superseded".to_owned()));
    let words = page.node("mx1")["reason"].as_str().unwrap().to_owned();
    assert!(words.contains("rows") && words.contains("are not in the log that was accepted"), "{words}");
    assert_eq!(page.json()["proven"], false);
    assert_eq!(cluster.run(&["query"]).code, 3);
    assert_eq!(cluster.run(&["stats", "--by", "user"]).code, 3);
    tokio::time::sleep(Duration::from_millis(20)).await;
    let now = now();
    cluster.append(0, &[entry("later", "auth.login")]).await;
    witnessed(&cluster, "mx1").await;
    assert_eq!(cluster.page(&format!("from={now}")).await.json()["complete"], true);
    assert_eq!(cluster.page("from=3d&to=2d").await.json()["complete"], true, "nothing was lost then");
    let entries = cluster.page("filter=action:audit.history_accept%20outcome:success").await.json();
    assert_eq!(entries["entries"][0]["entry"]["details"]["cleared"], "rollback", "{entries}");
    assert_eq!(run(accept(&generation, "again")).code, 1, "nothing to accept");
    let evidence = cluster.aggregator_folder().join("state/witness/mx1.evidence.ndjson");
    let evidence = std::fs::read_to_string(evidence).unwrap();
    assert_eq!(evidence.lines().count(), 2, "the conflict and its acceptance are kept: {evidence}");
}

/// Accepting applies to the log that the node presented, and not to a log that it presents later. The evidence outlives the
/// witness state file.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_accepted_is_pinned_and_evidence_outlives_the_pin() {
    let mut cluster = cluster_of(20).await;
    let (oldest, older) = (cluster.dir.path().join("oldest"), cluster.dir.path().join("older"));
    for copy in [&oldest, &older] {
        cluster.stop(0);
        copy_log(&data(&cluster, 0), copy);
        cluster.restart(0).await;
        let lines: Vec<String> = (0..30).map(|n| entry(&format!("w{n}"), "auth.login")).collect();
        cluster.append(0, &lines).await;
    }
    witnessed(&cluster, "mx1").await;
    cluster.stop(0);
    copy_log(&older, &data(&cluster, 0));
    cluster.restart(0).await;
    everything_says(&cluster, "rollback", "an older copy was put back").await;
    let generation = report(&cluster, "mx1", |_| true).await["generation"].as_str().unwrap().to_owned();
    // The node is down while its log is accepted, and then returns with fewer rows than the accepted log had.
    cluster.stop(0);
    let accepted = cluster.run(&["nodes", "accept", "mx1", "--new-generation", &generation, "--reason", "restored"]);
    assert_eq!(accepted.code, 0, "{}", accepted.stderr);
    copy_log(&oldest, &data(&cluster, 0));
    cluster.restart(0).await;
    everything_says(&cluster, "rollback", "an older copy was put back").await;
    // Without the witness state file the alarm remains as long as the evidence file exists.
    cluster.stop_aggregator();
    std::fs::remove_file(cluster.aggregator_folder().join("state/witness/mx1.json")).unwrap();
    cluster.spawn_aggregator();
    cluster.wait_for_aggregator().await;
    everything_says(&cluster, "rollback", "is missing from the state directory").await;
}

/// Follows docs/install.md, "Backups", step by step: restore, begin a new generation, accept it by the ID that was printed.
#[tokio::test(flavor = "multi_thread")]
async fn restoring_by_the_guide_can_be_accepted() {
    let mut cluster = cluster_of(20).await;
    cluster.stop(0);
    let backup = cluster.dir.path().join("backup");
    copy_log(&data(&cluster, 0), &backup);
    cluster.restart(0).await;
    let lines: Vec<String> = (0..30).map(|n| entry(&format!("w{n}"), "auth.login")).collect();
    cluster.append(0, &lines).await;
    witnessed(&cluster, "mx1").await;
    cluster.stop(0);
    copy_log(&backup, &data(&cluster, 0));
    cluster.restart(0).await;
    everything_says(&cluster, "rollback", "an older copy was put back").await;
    let restored = report(&cluster, "mx1", |_| true).await["generation"].as_str().unwrap().to_owned();
    cluster.stop(0);
    let begun = cluster.on_node(0, &["new-generation", "--reason", "disk died, restored"]);
    assert_eq!(begun.code, 0, "{}", begun.stderr);
    let generation = begun.stdout.split_whitespace().nth(1).unwrap().to_owned();
    cluster.restart(0).await;
    let accept = |generation: &str| {
        cluster.run(&["nodes", "accept", "mx1", "--new-generation", generation, "--reason", "restored"])
    };
    let other = accept(&restored);
    assert!(other.code == 1 && other.stderr.contains(&generation), "the log that is not there: {}", other.stderr);
    // Accepting a log other than the one that was shown is refused.
    let body = json!({ "generation": generation, "reason": "r", "size": 1, "root": "A".repeat(43) + "=" });
    let path = "/api/v1/nodes/mx1/accept";
    let other = cluster.send(reqwest::Method::POST, path, Some(&cluster.token), Some(body)).await;
    assert_eq!((other.status, other.json()["code"].clone()), (409, json!("other_log")), "{}", other.text);
    let accepted = accept(&generation);
    assert_eq!(accepted.code, 0, "{}", accepted.stderr);
    assert_eq!(witnessed(&cluster, "mx1").await["generation"], generation);
    let page = cluster.page("limit=5").await;
    assert_eq!(page.status_of("mx1"), "superseded");
    let reason = page.node("mx1")["reason"].as_str().unwrap().to_owned();
    assert!(reason.contains(&restored) && reason.contains("rows 0 to "), "{reason}");
    let counted = cluster.get("/api/v1/stats?from=1d", Some(&cluster.token)).await.json();
    assert_eq!(counted["complete"], false, "{counted}");
    // The record of the loss outlives a restart, and a flipped bit in it is reported.
    cluster.stop_aggregator();
    let memory = cluster.aggregator_folder().join("state/witness/mx1.json");
    let text = std::fs::read_to_string(&memory).unwrap();
    std::fs::write(&memory, text.replacen("\"lost\"", "\"losu\"", 1)).unwrap();
    let config = cluster.aggregator_folder().join("aggregator.toml");
    let refused = cluster.run(&["aggregator", "serve", "--config", config.to_str().unwrap()]);
    assert!(refused.code == 1 && refused.stderr.contains("the file is damaged"), "{}", refused.stderr);
    std::fs::write(&memory, text).unwrap();
    cluster.spawn_aggregator();
    cluster.wait_for_aggregator().await;
    witnessed(&cluster, "mx1").await;
    assert_eq!(cluster.page("limit=5").await.status_of("mx1"), "superseded");
    what_was_put_aside_is_looked_after(&cluster, &restored);
}

/// Checks that `verify` includes the archived log, and that one of its rows can be erased in place.
fn what_was_put_aside_is_looked_after(cluster: &Cluster, generation: &str) {
    let verified = cluster.on_node(0, &["verify"]);
    assert!(verified.code == 0 && verified.stderr.contains(generation), "{}", verified.stderr);
    let folder = &cluster.nodes[0].folder;
    let aside = format!("data.{generation}");
    let on_it =
        |verb: &str, more: &[&str]| cluster.on_node(0, &[&[verb, "--generation", generation][..], more].concat());
    let erased = on_it("erase", &["--seq", "4", "--reason", "request 7"]);
    assert_eq!(erased.code, 0, "{}", erased.stderr);
    let verified = cluster.on_node(0, &["verify"]);
    assert!(verified.code == 0 && verified.stdout.contains("row 4: erased"), "{}{}", verified.stdout, verified.stderr);
    let other = cluster.on_node(0, &["show", "--generation", &"0".repeat(32), "1"]);
    assert!(other.code == 1 && other.stderr.contains(generation), "{}", other.stderr);
    edit(&folder.join(aside).join("log.db"), "UPDATE entries SET body = replace(body, 'u2', 'u9') WHERE seq = 3");
    let verified = cluster.on_node(0, &["verify"]);
    assert!(verified.code == 4 && verified.stdout.contains("row 3"), "{}{}", verified.stdout, verified.stderr);
}

/// A diverged copy raises the alarm, and then the right log is restored: accepting applies to the log that is present at the time
/// of accepting.
#[tokio::test(flavor = "multi_thread")]
async fn accepting_means_the_log_that_is_there_now() {
    let mut cluster = cluster_of(20).await;
    let (older, kept) = (cluster.dir.path().join("older"), cluster.dir.path().join("kept"));
    cluster.stop(0);
    copy_log(&data(&cluster, 0), &older);
    cluster.restart(0).await;
    let lines: Vec<String> = (0..30).map(|n| entry(&format!("w{n}"), "auth.login")).collect();
    cluster.append(0, &lines).await;
    witnessed(&cluster, "mx1").await;
    cluster.stop(0);
    copy_log(&data(&cluster, 0), &kept);
    copy_log(&older, &data(&cluster, 0));
    // The restored copy gets rows of its own before the aggregator polls it, so the log in `kept` does not extend the copy.
    cluster.stop_aggregator();
    cluster.restart(0).await;
    cluster.append(0, &[entry("other", "auth.login"), entry("other", "auth.login")]).await;
    cluster.spawn_aggregator();
    cluster.wait_for_aggregator().await;
    everything_says(&cluster, "rollback", "an older copy was put back").await;
    let generation = report(&cluster, "mx1", |_| true).await["generation"].as_str().unwrap().to_owned();
    cluster.stop(0);
    copy_log(&kept, &data(&cluster, 0));
    cluster.restart(0).await;
    // A poll in progress may still show the previous log. Accepting that log is refused, so the test tries again.
    until("accepted", async || {
        let accept = ["nodes", "accept", "mx1", "--new-generation", &generation, "--reason", "put back"];
        let accepted = tokio::task::block_in_place(|| cluster.run(&accept));
        assert!(accepted.code == 0 || accepted.stderr.contains("run `piperoll nodes` again"), "{}", accepted.stderr);
        (accepted.code == 0).then_some(())
    })
    .await;
    cluster.append(0, &[entry("later", "auth.login")]).await;
    witnessed(&cluster, "mx1").await;
    assert_eq!(cluster.page("limit=5").await.json()["complete"], true);
}

/// A node that is run with an earlier copy of its database records rows other than the witnessed ones: the verdict is `fork`.
#[tokio::test(flavor = "multi_thread")]
async fn a_clone_that_goes_its_own_way_is_a_fork() {
    let mut cluster = cluster_of(20).await;
    cluster.stop(0);
    let clone = cluster.dir.path().join("clone");
    copy_log(&data(&cluster, 0), &clone);
    cluster.restart(0).await;
    cluster.append(0, &[entry("original", "auth.login"), entry("original", "auth.login")]).await;
    witnessed(&cluster, "mx1").await;
    cluster.stop(0);
    copy_log(&clone, &data(&cluster, 0));
    // The aggregator is down while the copy writes its own rows.
    cluster.stop_aggregator();
    cluster.restart(0).await;
    let lines: Vec<String> = (0..30).map(|n| entry(&format!("forged{n}"), "auth.login")).collect();
    cluster.append(0, &lines).await;
    cluster.spawn_aggregator();
    cluster.wait_for_aggregator().await;
    everything_says(&cluster, "fork", "are not the first of the").await;
}

/// The database is replaced by another one that has the same keys and a different generation.
#[tokio::test(flavor = "multi_thread")]
async fn a_new_log_in_the_old_ones_place_is_a_rollback() {
    let mut cluster = cluster_of(20).await;
    cluster.stop(0);
    std::fs::remove_dir_all(data(&cluster, 0)).unwrap();
    cluster.restart(0).await;
    everything_says(&cluster, "rollback", "and the node now presents test/mx1/").await;
}

/// Edits parts of the database other than rows: tiles and checkpoints.
#[tokio::test(flavor = "multi_thread")]
async fn edited_tiles_and_notes_are_named() {
    let mut cluster = cluster_of(600).await;
    let foreign = cluster.on_node(1, &["checkpoint"]).stdout;
    cluster.stop(0);
    let database = cluster.database(0);
    let pristine = cluster.dir.path().join("pristine.db");
    Connection::open(&database).unwrap().execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
    std::fs::copy(&database, &pristine).unwrap();
    let beside = data(&cluster, 0).join("log.checkpoint");
    let signed = std::fs::read(&beside).unwrap();
    assert_eq!(cluster.on_node(0, &["verify"]).code, 0);
    let foreign = foreign.replace('\'', "''");
    for (what, sql, words, starts) in [
        (
            "a bit of an old tile",
            "UPDATE tiles SET hashes = CAST(zeroblob(32) || substr(hashes, 33) AS BLOB) WHERE id = 0".to_owned(),
            "tile 0 of level 0 does not match",
            // Appends still work: new leaves depend on the roots of tiles and on the newest tile, which is rebuilt from rows.
            true,
        ),
        (
            "the root of an old tile",
            "UPDATE tiles SET root = zeroblob(32) WHERE id = 0".to_owned(),
            "the root of tile 0 of level 0 does not match",
            false,
        ),
        (
            "a bit of the newest tile",
            "UPDATE tiles SET hashes = CAST(substr(hashes, 1, 8160) || zeroblob(32) AS BLOB) WHERE id = 1".to_owned(),
            "tile 1 of level 0 does not match",
            false,
        ),
        ("a tile removed", "DELETE FROM tiles WHERE id = 1".to_owned(), "tile 1 of level 0 is missing", false),
        (
            "a short tile",
            "UPDATE tiles SET hashes = substr(hashes, 1, 100) WHERE id = 0".to_owned(),
            "does not consist of 256 hashes",
            true,
        ),
        (
            "another node's checkpoint",
            format!("UPDATE checkpoints SET note = '{foreign}' WHERE kind = 'signed'"),
            "checkpoint is invalid",
            // Appends still work: the checkpoint file next to the database shows what was signed.
            true,
        ),
        (
            "a checkpoint's size",
            "UPDATE checkpoints SET note = replace(note, char(10) || '602' || char(10), char(10) || '601' || char(10))"
                .to_owned(),
            "checkpoint is invalid",
            true,
        ),
        ("no checkpoint in the database", "DELETE FROM checkpoints WHERE kind = 'signed'".to_owned(), "", true),
    ] {
        edit(&database, &sql);
        let run = cluster.on_node(0, &["verify", "--json"]);
        assert_eq!(run.code, if words.is_empty() { 0 } else { 4 }, "{what}: {}{}", run.stdout, run.stderr);
        assert!(run.stdout.contains(words), "{what}: {}", run.stdout);
        // A log whose tree does not match its rows can be read, but accepts no entries.
        cluster.restart(0).await;
        let run = cluster.on_node(0, &["append", "--retry-for", "0s", "--category", "auth", "--action", "auth.login"]);
        assert_eq!(run.code, i32::from(!starts), "{what}: {}", run.stderr);
        let read = cluster.on_node(0, &["query", "user:u1", "--json"]);
        assert_eq!(read.code, if starts { 0 } else { 4 }, "{what}: {}", read.stdout);
        cluster.stop(0);
        for suffix in ["-wal", "-shm"] {
            let _ = std::fs::remove_file(format!("{}{suffix}", database.display()));
        }
        std::fs::copy(&pristine, &database).unwrap();
        std::fs::write(&beside, &signed).unwrap();
    }
}

/// The checkpoint file next to the database is a copy: if it is damaged, the log is still usable and the node restores the file.
#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_copy_of_the_checkpoint_heals() {
    let mut cluster = cluster_of(20).await;
    cluster.stop(0);
    let beside = data(&cluster, 0).join("log.checkpoint");
    let signed = std::fs::read(&beside).unwrap();
    let mut flipped = signed.clone();
    flipped[40] ^= 1;
    let long = [&signed[..], &[b'x'; 200_000]].concat();
    let bytes = [b"".to_vec(), signed[..signed.len() / 2].to_vec(), flipped, b"\xff\xfe\x00".to_vec(), long];
    for damaged in bytes {
        std::fs::write(&beside, &damaged).unwrap();
        let run = cluster.on_node(0, &["verify"]);
        assert!(run.code == 4 && run.stdout.contains("log.checkpoint"), "named while it is there: {}", run.stdout);
        cluster.restart(0).await;
        let run = cluster.on_node(0, &["append", "--retry-for", "0s", "--category", "auth", "--action", "auth.login"]);
        assert_eq!(run.code, 0, "{}", run.stderr);
        assert_eq!(std::fs::read(beside.with_file_name("log.checkpoint.damaged")).unwrap(), damaged);
        witnessed(&cluster, "mx1").await;
        assert_eq!(cluster.on_node(0, &["verify"]).code, 0);
        cluster.stop(0);
    }
    // Without a readable checkpoint it is unknown what was signed, so appends are refused with a message that the checkpoint is
    // damaged.
    std::fs::write(&beside, b"x").unwrap();
    edit(&cluster.database(0), "UPDATE checkpoints SET note = 'x'");
    cluster.restart(0).await;
    let run = cluster.on_node(0, &["append", "--retry-for", "0s", "--category", "auth", "--action", "auth.login"]);
    assert!(run.code == 1 && run.stderr.contains("is damaged"), "{}", run.stderr);
}

/// The last rows are deleted while the node runs: the node appends nothing more, and the witness reports a rollback.
#[tokio::test(flavor = "multi_thread")]
async fn a_tail_cut_off_a_running_node_is_a_rollback() {
    let cluster = cluster_of(20).await;
    edit(&cluster.database(0), "DELETE FROM entries WHERE seq >= 15; DELETE FROM ids WHERE seq >= 15");
    everything_says(&cluster, "rollback", "signs none of them").await;
    let run = cluster.on_node(0, &["append", "--retry-for", "0s", "--category", "auth", "--action", "auth.login"]);
    assert!(run.code != 0 && run.stderr.contains("the end was cut off"), "{}{}", run.stdout, run.stderr);
    for args in [&["query", "--json"][..], &["verify"], &["status"]] {
        assert_eq!(cluster.on_node(0, args).code, 4, "{args:?}");
    }
}
