//! Tests evidence that covers successive logs of a node: the evidence is complete if each log can be read and was witnessed up to
//! its end.

use piperoll_tests::{Cluster, entry, until};
use serde_json::Value;

use crate::keys::{begin_generation, cluster_command, trust};
use crate::witness::{now, report, witnessed};

/// Exports the entries since `from` and verifies the bundle. Returns both commands' exit codes and the verifier's JSON output.
fn evidence(cluster: &Cluster, name: &str, from: &str, filter: Option<&str>) -> (i32, i32, Value) {
    let file = trust(cluster, "trust.toml");
    let path = cluster.dir.path().join(name).to_str().unwrap().to_owned();
    let args = ["export", "--bundle", &path, "--from", from, "--reason", "a test", "--incomplete", "partial"];
    let run = cluster.run(&[&args[..], filter.as_slice()].concat());
    let made = if run.code == 0 { path } else { path.replace(".tar", "_PARTIAL.tar") };
    let checked = cluster.run(&["verify-bundle", &made, "--trust", &file, "--json"]);
    let verdict =
        serde_json::from_str(&checked.stdout).unwrap_or_else(|e| panic!("{e}: {} {}", run.stderr, checked.stderr));
    (run.code, checked.code, verdict)
}

/// Returns the report about mx1.
fn of_mx1(said: &Value) -> &Value {
    said["nodes"].as_array().unwrap().iter().find(|node| node["node_id"] == "mx1").unwrap()
}

/// Reads the users of the login entries in a bundle's timeline, in timeline order.
pub(crate) fn users(cluster: &Cluster, name: &str) -> Vec<String> {
    let path = cluster.dir.path().join(name);
    let output = std::process::Command::new("tar").args(["-xOf"]).arg(path).arg("timeline.ndjson").output().unwrap();
    let rows = String::from_utf8(output.stdout).unwrap();
    let rows = rows.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    rows.filter(|row| row["entry"]["action"] == "auth.login")
        .map(|row| row["entry"]["user"].as_str().unwrap().to_owned())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn evidence_over_three_logs_is_whole() {
    let mut cluster = Cluster::witnessed(&["mx1", "mx2"], 50).await;
    for (user, is_last) in [("one", false), ("two", false), ("three", true)] {
        cluster.append(0, &[entry(user, "auth.login")]).await;
        cluster.append(1, &[entry("other", "auth.login")]).await;
        witnessed(&cluster, "mx1").await;
        if !is_last {
            cluster.stop(0);
            begin_generation(&mut cluster).await;
        }
    }
    witnessed(&cluster, "mx2").await;
    let (made, checked, verdict) = evidence(&cluster, "whole.tar", "1d", None);
    assert_eq!((made, checked), (0, 0), "{verdict:#}");
    assert_eq!((&verdict["complete"], &verdict["proven"]), (&true.into(), &true.into()), "{verdict:#}");
    assert_eq!(of_mx1(&verdict)["earlier"].as_array().unwrap().len(), 2, "{verdict:#}");
    // The first login in each new log is by `next`: `begin_generation` appended it and waited until it was witnessed.
    let shown = users(&cluster, "whole.tar");
    let shown: Vec<&str> = shown.iter().map(String::as_str).filter(|user| *user != "other").collect();
    assert_eq!(shown, ["one", "next", "two", "next", "three"]);
    let rows: u64 = [0, 1].iter().map(|log| of_mx1(&verdict)["earlier"][*log]["rows"].as_u64().unwrap()).sum();
    let page = cluster.page("from=1d&filter=node:mx1&limit=1000").await.json();
    let own = of_mx1(&verdict)["rows"].as_u64().unwrap() + rows;
    assert!(own <= page["count"].as_u64().unwrap() && own > 12, "{own} {page:#}");
    // With a filter, the bundle holds the matching entries of each log.
    let (made, checked, verdict) = evidence(&cluster, "filtered.tar", "1d", Some("user:one,two"));
    assert_eq!((made, checked, &verdict["complete"]), (0, 0, &true.into()), "{verdict:#}");
    assert_eq!(users(&cluster, "filtered.tar"), ["one", "two"]);
    // The text output of `verify-bundle` reports the archived logs too.
    let program = cluster.run(&[
        "verify-bundle",
        cluster.dir.path().join("whole.tar").to_str().unwrap(),
        "--trust",
        &trust(&cluster, "trust.toml"),
    ]);
    assert!(program.stdout.contains("entries of its archived log, generation "), "{}", program.stdout);
    // An archived log that was removed is reported as missing, and a bundle that was exported before remains valid.
    let generation = of_mx1(&verdict)["earlier"][0]["generation"].as_str().unwrap();
    let beside = crate::witness::data(&cluster, 0).with_file_name(format!("data.{generation}"));
    std::fs::rename(&beside, beside.with_extension("elsewhere")).unwrap();
    until("the log is gone", async || {
        (cluster.page("from=1d&filter=node:mx1").await.status_of("mx1") == "superseded").then_some(())
    })
    .await;
    let (made, checked, verdict) = evidence(&cluster, "less.tar", "1d", None);
    assert_eq!((made, checked), (3, 3), "{verdict:#}");
    let (made, checked, _) = evidence(&cluster, "since.tar", &now(), None);
    assert_eq!((made, checked), (0, 0));
    let path = cluster.dir.path().join("whole.tar").to_str().unwrap().to_owned();
    let again = cluster.run(&["verify-bundle", &path, "--trust", &trust(&cluster, "trust.toml")]);
    assert_eq!(again.code, 0, "{}", again.stdout);
    cluster.verify_all();
}

/// A witness that has lost its memory of an archived log cosigns the end of that log if the log that replaced it states how many
/// rows the archived log has.
#[tokio::test(flavor = "multi_thread")]
async fn a_witness_without_memory_learns_of_an_earlier_log() {
    let mut cluster = Cluster::witnessed(&["mx1"], 50).await;
    cluster.append(0, &[entry("one", "auth.login")]).await;
    witnessed(&cluster, "mx1").await;
    cluster.stop(0);
    begin_generation(&mut cluster).await;
    cluster.stop_aggregator();
    let memory = cluster.aggregator_folder().join("state/witness");
    std::fs::rename(&memory, memory.with_extension("gone")).unwrap();
    cluster.spawn_aggregator();
    cluster.wait_for_aggregator().await;
    let again = report(&cluster, "mx1", |line| line["verdict"] == "first_seen_again").await;
    let generation = again["generation"].as_str().unwrap();
    let run = cluster.run(&["nodes", "accept", "mx1", "--new-generation", generation, "--reason", "a new disk"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    witnessed(&cluster, "mx1").await;
    let (made, checked, verdict) = evidence(&cluster, "learned.tar", "1d", None);
    assert_eq!((made, checked, &verdict["proven"]), (0, 0, &true.into()), "{verdict:#}");
    assert_eq!(users(&cluster, "learned.tar"), ["one", "next"]);
    cluster.verify_all();
}

/// After a break-in, rows signed with a former key but not cosigned stay unproven, because an attacker with the stolen key could
/// have signed them.
#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_a_log_under_a_stolen_key_is_not_cosigned_later() {
    let mut cluster = Cluster::witnessed(&["mx1"], 50).await;
    cluster.append(0, &[entry("one", "auth.login")]).await;
    witnessed(&cluster, "mx1").await;
    let note = cluster.dir.path().join("frozen.note").to_str().unwrap().to_owned();
    std::fs::write(&note, cluster.on_node(0, &["checkpoint", "--witnessed"]).stdout).unwrap();
    cluster.stop(0);
    assert_eq!(cluster_command(&cluster, &["new-generation", "mx1", "--frozen", &note]).code, 0);
    begin_generation(&mut cluster).await;
    let (made, checked, verdict) = evidence(&cluster, "stolen.tar", "1d", None);
    assert_eq!((made, checked), (3, 3), "{verdict:#}");
    let node = of_mx1(&verdict["manifest"]);
    assert!(node["reason"].as_str().unwrap().contains("no witness has cosigned its last"), "{node:#}");
    // Rows cosigned while the key was valid are in the bundle, and proven.
    assert_eq!(verdict["findings_count"], 0, "{verdict:#}");
    let file = cluster.dir.path().join("stolen_PARTIAL.tar");
    assert!(file.exists() && users(&cluster, "stolen_PARTIAL.tar") == ["one", "next"]);
    cluster.verify_all();
}

/// Rows that were acknowledged but never signed, because the node was killed, cannot be proven, so neither the exporter nor the verifier
/// reports the bundle as complete.
#[tokio::test(flavor = "multi_thread")]
async fn rows_that_were_never_signed_are_missed() {
    let mut cluster = Cluster::witnessed(&["mx1"], 50).await;
    witnessed(&cluster, "mx1").await;
    cluster.stop_aggregator();
    let signed = |cluster: &Cluster| {
        let note = std::fs::read_to_string(cluster.nodes[0].folder.join("data/log.checkpoint")).unwrap();
        note.lines().nth(1).unwrap().parse::<u64>().unwrap()
    };
    for n in 0.. {
        let lines: Vec<String> = (0..20).map(|row| entry(&format!("u{n}-{row}"), "auth.login")).collect();
        cluster.append(0, &lines).await;
        cluster.append(0, &[entry("last", "auth.login")]).await;
        cluster.kill(0);
        let rows = cluster.on_node(0, &["status", "--direct", "--json"]);
        let status: Value =
            serde_json::from_str(&rows.stdout).unwrap_or_else(|e| panic!("{e}: {}{}", rows.stdout, rows.stderr));
        if status["head_seq"].as_u64().unwrap() + 1 > signed(&cluster) {
            break;
        }
        assert!(n < 20, "the node always signs before it is killed: {status}");
        cluster.restart(0).await;
    }
    cluster.spawn_aggregator();
    cluster.wait_for_aggregator().await;
    begin_generation(&mut cluster).await;
    let (made, checked, verdict) = evidence(&cluster, "killed.tar", "1d", None);
    assert_eq!((made, checked), (3, 3), "{verdict:#}");
    let missing = of_mx1(&verdict)["missing"].as_str().unwrap();
    assert!(missing.contains("superseded"), "{missing}");
    // If the exporter concealed the unsigned rows, the size stated in the log itself would reveal that they are missing.
    assert!(of_mx1(&verdict)["earlier"][0]["size"].as_u64().unwrap() > 0, "{verdict:#}");
    cluster.verify_all();
}

/// A hold outlives the log that it was set in, rows of an archived log can be erased, and evidence is complete again after a
/// witness has seen the erasure. The row that names the archived log cannot be erased.
#[tokio::test(flavor = "multi_thread")]
async fn holds_and_erasure_cover_an_earlier_log() {
    let mut cluster = Cluster::witnessed(&["mx1"], 50).await;
    let user = |seq: u64, run: &piperoll_tests::Run| {
        let row: Value =
            serde_json::from_str(&run.stdout).unwrap_or_else(|e| panic!("{e}: {}{}", run.stdout, run.stderr));
        assert_eq!(row["entry"]["seq"], seq);
        row["entry"]["user"].as_str().unwrap_or_default().to_owned()
    };
    let lines: Vec<String> = ["one", "two", "three"].iter().map(|user| entry(user, "auth.login")).collect();
    cluster.append(0, &lines).await;
    let all: Vec<u64> = (0..8)
        .filter(|seq| {
            let run = cluster.on_node(0, &["show", "--json", &seq.to_string()]);
            run.code == 0 && ["one", "two"].contains(&user(*seq, &run).as_str())
        })
        .collect();
    let (one, two) = (all[0].to_string(), all[1].to_string());
    let hold = ["hold", "add", "case-7", "--from", "1d", "--reason", "a court order"];
    assert_eq!(cluster.on_node(0, &hold).code, 0);
    witnessed(&cluster, "mx1").await;
    cluster.stop(0);
    let begun = begin_generation(&mut cluster).await;
    assert!(begun.contains("holds carried over to the new log: case-7"), "{begun}");
    let held = cluster.on_node(0, &["hold", "list"]);
    assert!(held.stdout.contains("case-7") && held.stdout.contains("a court order"), "{}", held.stdout);
    let generation = begun.lines().nth(1).unwrap().rsplit('.').next().unwrap().to_owned();
    let on_it =
        |verb: &[&str], more: &[&str]| cluster.on_node(0, &[verb, &["--generation", &generation], more].concat());
    let erase = |seq: &str| on_it(&["erase"], &["--seq", seq, "--reason", "request 9"]);
    assert_eq!(user(all[0], &on_it(&["show"], &["--json", &one])), "one");
    let status: Value = serde_json::from_str(&on_it(&["status"], &["--json"]).stdout).unwrap();
    assert_eq!(status["generation"], generation.as_str());
    // The hold is set in both logs, so it must be released in both.
    assert!(erase(&one).stderr.contains("case-7"));
    let release = ["case-7", "--reason", "the case is closed"];
    assert_eq!(on_it(&["hold", "release"], &release).code, 0);
    let refused = erase(&one);
    assert!(refused.code == 1 && refused.stderr.contains("replaced this one"), "{}", refused.stderr);
    assert_eq!(cluster.on_node(0, &["hold", "release", "case-7", "--reason", "the case is closed"]).code, 0);
    let since = now();
    assert_eq!(erase(&one).code, 0);
    // The erasure was recorded in the archived log with the current time, so a range that includes this time finds it.
    until("the entry about it is found by its time", async || {
        let page = cluster.page(&format!("from={since}&filter=action:log.erased")).await.json();
        (page["count"] == 1 && page["complete"] == true).then_some(())
    })
    .await;
    // The first row names the archived log, so it cannot be erased.
    let refused = cluster.on_node(0, &["erase", "--seq", "0", "--reason", "request 9"]);
    assert!(refused.code == 1 && refused.stderr.contains("cannot be erased"), "{}", refused.stderr);
    let row = format!("mx1/{one}@{generation}");
    let shown = until("the erased row is shown as such", async || {
        let run = cluster.run(&["show", &row, "--json"]);
        run.stdout.contains("\"erased\"").then_some(run.stdout)
    })
    .await;
    assert!(!shown.contains("\"user\":\"one\""), "{shown}");
    let verdict = until("evidence is whole again", async || {
        let name = format!("erased-{}.tar", now().replace(':', ""));
        let (made, checked, verdict) = evidence(&cluster, &name, "1d", None);
        assert_eq!(verdict["findings_count"], 0, "{verdict:#}");
        assert_eq!(made, checked, "{verdict:#}");
        (made == 0).then_some(verdict)
    })
    .await;
    assert_eq!(
        (&verdict["proven"], &of_mx1(&verdict)["earlier"][0]["erased"]),
        (&true.into(), &1.into()),
        "{verdict:#}"
    );
    // After a change of the checkpoint key, entries added to the archived log are recorded but can no longer be signed.
    let note = cluster.dir.path().join("both.note").to_str().unwrap().to_owned();
    assert_eq!(cluster_command(&cluster, &["rotate-key", "mx1"]).code, 0);
    crate::keys::restart_all(&mut cluster).await;
    until("both keys signed", async || {
        witnessed(&cluster, "mx1").await;
        std::fs::write(&note, cluster.on_node(0, &["checkpoint", "--witnessed"]).stdout).unwrap();
        (cluster_command(&cluster, &["rotate-key", "mx1", "--finish", &note]).code == 0).then_some(())
    })
    .await;
    crate::keys::restart_all(&mut cluster).await;
    witnessed(&cluster, "mx1").await;
    let erased = cluster.on_node(0, &["erase", "--generation", &generation, "--seq", &two, "--reason", "request 10"]);
    assert_eq!(erased.code, 0, "{}", erased.stderr);
    let (made, checked, verdict) = until("the statement is known of", async || {
        let name = format!("unsigned-{}.tar", now().replace(':', ""));
        let (made, checked, verdict) = evidence(&cluster, &name, "1d", None);
        (made == 3).then_some((made, checked, verdict))
    })
    .await;
    assert_eq!((made, checked, &verdict["findings_count"]), (3, 3, &0.into()), "{verdict:#}");
    cluster.verify_all();
}

/// The log is replaced twice, and the aggregator is down while the middle log is in use. No witness saw that log, so no range
/// that includes it is reported as complete, even though all logs can be read.
#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_no_witness_saw_is_missed() {
    let mut cluster = Cluster::witnessed(&["mx1"], 50).await;
    cluster.append(0, &[entry("one", "auth.login")]).await;
    witnessed(&cluster, "mx1").await;
    cluster.stop_aggregator();
    cluster.stop(0);
    assert_eq!(cluster.on_node(0, &["new-generation", "--reason", "a test"]).code, 0);
    cluster.restart(0).await;
    cluster.append(0, &[entry("two", "auth.login")]).await;
    cluster.stop(0);
    cluster.spawn_aggregator();
    cluster.wait_for_aggregator().await;
    let begun = begin_generation(&mut cluster).await;
    let middle = begun.lines().nth(1).unwrap().rsplit('.').next().unwrap();
    // The aggregator reads all logs, and shows every row that it can read.
    let page = until("all rows are shown", async || {
        let page = cluster.page("from=1d&filter=action:auth.login&order=asc").await;
        let rows = page.json()["entries"].as_array().unwrap().len();
        (rows == 3).then_some(page)
    })
    .await;
    for _ in 0..20 {
        let page = cluster.page("from=1d").await;
        assert_eq!((&page.json()["complete"], page.status_of("mx1")), (&false.into(), "superseded".to_owned()));
        assert!(page.node("mx1")["reason"].as_str().unwrap().contains(middle), "{}", page.text);
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert_eq!(page.json()["complete"], false);
    for filter in [None, Some("action:auth.login")] {
        let (made, checked, verdict) = evidence(&cluster, &format!("{}.tar", filter.is_some()), "1d", filter);
        assert_eq!((made, checked), (3, 3), "{verdict:#}");
    }
    let (made, checked, _) = evidence(&cluster, "later.tar", &now(), None);
    assert_eq!((made, checked), (0, 0));
    cluster.verify_all();
}
