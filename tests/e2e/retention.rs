//! Tests retention, holds and erasure: which rows are deleted, in which order, and what can still be proven afterwards.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use piperoll_format::note::{KeyKind, Note, SigningSeed};
use piperoll_net::checked_json;
use piperoll_tests::{Cluster, Fault, entry};
use serde_json::{Value, json};

use crate::witness::{report, witnessed};

/// Clock offset of 400 days into the past, used for the first rows.
pub(crate) const LONG_AGO: &str = "-34560000s";

/// Number of rows in a log with 1,500 client entries before the node first stops: `log.started` and these entries.
const AGED_ROWS: u64 = 1_501;

/// Starts a node with `old` rows from 400 days ago and some of today, all witnessed.
async fn aged(old: usize, retention: &str) -> Cluster {
    let mut cluster = Cluster::made(&["mx1"], |_| Some(LONG_AGO.to_owned())).await;
    cluster.poll_every(50);
    let config = cluster.nodes[0].folder.join("node.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    let with = |retention: &str| text.replace("keep = \"365d\"", retention);
    std::fs::write(&config, with("keep = \"forever\"")).unwrap();
    cluster.run_all().await;
    let lines: Vec<String> = (0..old).map(|n| entry(&format!("old{n}"), "auth.login")).collect();
    cluster.append(0, &lines).await;
    witnessed(&cluster, "mx1").await;
    cluster.stop(0);
    cluster.set_clock(0, "+0s");
    std::fs::write(&config, with(retention)).unwrap();
    cluster.restart(0).await;
    let lines: Vec<String> = (0..40).map(|n| entry(&format!("new{n}"), "auth.login")).collect();
    cluster.append(0, &lines).await;
    witnessed(&cluster, "mx1").await;
    cluster
}

/// Backdates a stopped node's record of witnessed rows, so that its first `rows` rows seem to have been witnessed `days` days
/// earlier.
fn witnessed_for(cluster: &Cluster, rows: u64, days: i64) {
    let path = cluster.nodes[0].folder.join("data/witnessed.json");
    let mut book: Value = checked_json::from_bytes(&std::fs::read(&path).unwrap()).unwrap();
    for sample in book["samples"].as_array_mut().unwrap() {
        sample["size"] = rows.into();
        sample["age_micros"] = (sample["age_micros"].as_i64().unwrap() - days * 86_400_000_000).into();
    }
    for shown in book["notes"].as_array_mut().unwrap() {
        shown["size"] = rows.into();
        shown["age_micros"] = (shown["age_micros"].as_i64().unwrap() - days * 86_400_000_000).into();
    }
    checked_json::write(&path, &book).unwrap();
}

fn rows_in(cluster: &Cluster) -> (u64, u64) {
    let conn = rusqlite::Connection::open(cluster.database(0)).unwrap();
    conn.query_row("SELECT min(seq), count(*) FROM entries", [], |row| Ok((row.get(0)?, row.get(1)?))).unwrap()
}

/// Waits until the node has applied its retention and reports that pruning is late. Returns the retention status.
async fn late_retention(cluster: &Cluster) -> Value {
    for _ in 0..300 {
        let status: Value = serde_json::from_str(&cluster.on_node(0, &["status", "--json"]).stdout).unwrap();
        if status["retention"]["late_days"] != 0 {
            return status["retention"].clone();
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("never late: {}", cluster.log_text("mx1"));
}

/// Waits until the rows below `seq` are deleted.
pub(crate) async fn pruned_to(cluster: &Cluster, seq: u64) {
    for _ in 0..300 {
        if rows_in(cluster).0 == seq {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("the log begins at {:?} and not at {seq}: {}", rows_in(cluster), cluster.log_text("mx1"));
}

fn put_back(cluster: &Cluster, database: &[u8]) {
    for suffix in ["db-wal", "db-shm"] {
        let _ = std::fs::remove_file(cluster.database(0).with_extension(suffix));
    }
    std::fs::write(cluster.database(0), database).unwrap();
}

fn trust(cluster: &Cluster) -> String {
    let path = cluster.dir.path().join("trust.toml");
    std::fs::write(&path, cluster.authority().trust().unwrap().to_text()).unwrap();
    path.to_str().unwrap().to_owned()
}

fn bundle(cluster: &Cluster, name: &str, more: &[&str]) -> (String, piperoll_tests::Run) {
    let path = cluster.dir.path().join(name).to_str().unwrap().to_owned();
    let run = cluster.run(&[&["export", "--bundle", &path, "--reason", "a test"], more].concat());
    (path, run)
}

fn checked(cluster: &Cluster, path: &str) -> (i32, Value) {
    let run = cluster.run(&["verify-bundle", path, "--trust", &trust(cluster), "--json"]);
    (run.code, serde_json::from_str(&run.stdout).unwrap_or_else(|e| panic!("{e}: {}{}", run.stdout, run.stderr)))
}

fn mx1(answer: &Value) -> &Value {
    answer["nodes"].as_array().unwrap().iter().find(|node| node["node_id"] == "mx1").unwrap()
}

/// Does the same as `witnessed_for`, and also backdates the cosignature on the node's checkpoints by `days`.
pub(crate) fn cosigned_for(cluster: &Cluster, rows: u64, days: u64) {
    witnessed_for(cluster, rows, i64::try_from(days).unwrap());
    let folder = cluster.aggregator_folder();
    let seed = SigningSeed::from_hex(std::fs::read_to_string(folder.join("witness.key")).unwrap().trim()).unwrap();
    let witness = seed.named("test/aggregator/agg", KeyKind::Witness).unwrap();
    let long_ago = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() - days * 86_400;
    let database = rusqlite::Connection::open(cluster.database(0)).unwrap();
    let note: String =
        database.query_row("SELECT note FROM checkpoints ORDER BY size DESC LIMIT 1", [], |row| row.get(0)).unwrap();
    let note = Note::parse(&note).unwrap();
    let text = note.text().to_owned();
    let cosigned = note.with(witness.cosign(&text, long_ago)).to_string();
    let path = cluster.nodes[0].folder.join("data/witnessed.json");
    let mut book: Value = checked_json::from_bytes(&std::fs::read(&path).unwrap()).unwrap();
    for shown in book["notes"].as_array_mut().unwrap() {
        shown["note"] = cosigned.clone().into();
    }
    checked_json::write(&path, &book).unwrap();
}

/// Pruning rows after the time for which the cluster's policy keeps them, as confirmed by a witness, is not a loss: all newer
/// rows are complete, and every answer states the time since which it is complete.
#[tokio::test(flavor = "multi_thread")]
async fn rows_that_outlived_the_policy_leave_a_complete_rest() {
    let mut cluster = aged(1_500, "keep = \"forever\"").await;
    let config = cluster.nodes[0].folder.join("node.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, text.replace("keep = \"forever\"", "keep = \"365d\"")).unwrap();
    cluster.stop(0);
    cosigned_for(&cluster, AGED_ROWS, 366);
    cluster.restart(0).await;
    pruned_to(&cluster, 1_280).await;
    witnessed(&cluster, "mx1").await;
    let mut page = Value::Null;
    for _ in 0..100 {
        page = cluster.page("from=2000-01-01&limit=1000").await.json();
        if page["complete_since"].is_string() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let since = page["complete_since"].as_str().unwrap_or_else(|| panic!("{page}")).to_owned();
    assert_eq!(
        (&page["complete"], &page["proven"], &mx1(&page)["verdict"]),
        (&json!(false), &json!(false), &json!("pruned"))
    );
    assert!(page["completeness"].as_str().unwrap().starts_with(&format!("proven complete from {since} on")), "{page}");
    let counted = cluster.get("/api/v1/stats?from=2000-01-01", Some(&cluster.token)).await.json();
    assert!(counted["complete"] == false && counted["complete_since"].is_string(), "{counted}");
    let filtered = cluster.page("from=2000-01-01&filter=user:old1").await.json();
    assert!(filtered["complete_since"].is_string() && filtered["proven"] == false, "{filtered}");
    let run = cluster.run(&["query", "--table", "--all", "--from", "2000-01-01", "--limit", "1000"]);
    assert!(run.code == 0 && run.stderr.contains(&format!("COMPLETE SINCE {since}")), "{} {}", run.code, run.stderr);
    let run =
        cluster.run(&["query", "--table", "--all", "--from", "2000-01-01", "--limit", "1000", "--require-complete"]);
    assert!(run.code == 3 && run.stderr.contains(&format!("--from {since}")), "{} {}", run.code, run.stderr);
    let run = cluster.run(&["query", "--table", "--all", "--from", &since, "--limit", "1000", "--require-complete"]);
    assert!(run.code == 0 && run.stderr.contains("proven complete"), "{} {}", run.code, run.stderr);

    // Evidence leads to the same result, using only the policy in the trust file and the cosignature in the statement.
    let (_, run) = bundle(&cluster, "strict.tar", &["--from", "2000-01-01"]);
    assert!(run.code == 3 && run.stderr.contains(&format!("--from {since}")), "{} {}", run.code, run.stderr);
    let (part, run) = bundle(&cluster, "all.tar", &["--from", "2000-01-01", "--incomplete", "partial"]);
    assert!(run.code == 0 && run.stderr.contains(&format!("COMPLETE SINCE {since}")), "{} {}", run.code, run.stderr);
    let table = cluster.dir.path().join("all.csv");
    let run = cluster.run(&["export", "--from", "2000-01-01", "--format", "csv", "--output", table.to_str().unwrap()]);
    assert!(run.code == 0 && table.exists(), "{}", run.stderr);
    let (code, verdict) = checked(&cluster, &part);
    assert_eq!(
        (code, &verdict["complete"], &verdict["complete_since"]),
        (0, &json!(false), &json!(since)),
        "{verdict}"
    );
    let without = cluster.dir.path().join("no-policy.toml");
    let text = std::fs::read_to_string(trust(&cluster)).unwrap();
    std::fs::write(&without, &text[..text.find("[[retention]]").unwrap()]).unwrap();
    let run = cluster.run(&["verify-bundle", &part, "--trust", without.to_str().unwrap()]);
    assert!(run.code == 3 && run.stdout.contains("no retention policy"), "{} {}", run.code, run.stdout);
}

/// Rows deleted before the cluster's policy allows it are a separate kind of violation, in every range that includes them.
#[tokio::test(flavor = "multi_thread")]
async fn rows_that_went_too_early_are_a_violation() {
    let mut cluster = aged(1_500, "keep = \"forever\"").await;
    let config = cluster.nodes[0].folder.join("node.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, text.replace("keep = \"forever\"", "keep = \"365d\"")).unwrap();
    let dir = cluster.authority_dir();
    let run = cluster.run(&["cluster", "retention", dir.to_str().unwrap(), "--keep-days", "730"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    cluster.stop_aggregator();
    cluster.spawn_aggregator();
    cluster.wait_for_aggregator().await;
    cluster.stop(0);
    cosigned_for(&cluster, AGED_ROWS, 366);
    cluster.restart(0).await;
    pruned_to(&cluster, 1_280).await;
    let mut run = cluster.run(&["query", "--table", "--from", "2000-01-01"]);
    for _ in 0..100 {
        if run.code == 4 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        run = cluster.run(&["query", "--table", "--from", "2000-01-01"]);
    }
    assert!(run.code == 4 && run.stderr.contains("pruned_early"), "{} {}", run.code, run.stderr);
    // The violation stays on record, and ranges of today are not affected.
    cluster.stop_aggregator();
    cluster.spawn_aggregator();
    cluster.wait_for_aggregator().await;
    cluster.wait_until_answered("mx1").await;
    assert_eq!(cluster.run(&["query", "--from", "2000-01-01"]).code, 4);
    witnessed(&cluster, "mx1").await;
    assert_eq!(cluster.run(&["query", "--from", "1d", "--limit", "1000"]).code, 0);
}

/// After an upgrade it is unknown how long older rows have been witnessed. An operator can confirm the times of these rows, once.
#[tokio::test(flavor = "multi_thread")]
async fn an_operator_can_answer_for_older_times_once() {
    let mut cluster = aged(1_500, "keep = \"365d\"").await;
    cluster.stop(0);
    std::fs::remove_file(cluster.nodes[0].folder.join("data/witnessed.json")).unwrap();
    let run = cluster.on_node(0, &["confirm-times", "--reason", "r"]);
    assert!(run.code == 1 && run.stderr.contains("not running"), "{}", run.stderr);
    cluster.restart(0).await;
    let late = late_retention(&cluster).await;
    assert!(late["late_because"].as_str().unwrap().contains("confirm-times"), "{late}");
    let run = cluster.on_node(0, &["confirm-times"]);
    assert_eq!(run.code, 2, "{}", run.stderr);
    let run = cluster.on_node(0, &["confirm-times", "--reason", " "]);
    assert!(run.code == 1 && run.stderr.contains("reason"), "{}", run.stderr);
    // The command is refused until a witness has cosigned a checkpoint of this log since the restart.
    let mut run = cluster.on_node(0, &["confirm-times", "--dry-run"]);
    for _ in 0..300 {
        if !run.stderr.contains("wait for one") {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        run = cluster.on_node(0, &["confirm-times", "--dry-run"]);
    }
    assert!(run.code == 0 && run.stdout.contains("rows 0 to "), "{}{}", run.stdout, run.stderr);
    assert_eq!(rows_in(&cluster).0, 0, "nothing goes yet");
    let run = cluster.on_node(0, &["confirm-times", "--reason", "NTP was on since the machine was set up"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    // The confirmed rows include rows of today, which are kept according to their own times.
    pruned_to(&cluster, 1_280).await;
    let run = cluster.on_node(0, &["confirm-times", "--reason", "once more"]);
    assert!(run.code == 1 && run.stderr.contains("confirmed already"), "{}", run.stderr);
    let status: Value = serde_json::from_str(&cluster.on_node(0, &["status", "--json"]).stdout).unwrap();
    assert!(status["retention"]["confirmed_below"].as_u64().unwrap() > 1_500, "{status}");
    witnessed(&cluster, "mx1").await;
    let said = cluster.page("filter=action:log.times_confirmed&from=1d").await.json();
    let details = &said["entries"][0]["entry"]["details"];
    assert_eq!(details["reason"], "NTP was on since the machine was set up", "{said}");
    let page = cluster.page("from=2000-01-01&limit=1000").await.json();
    assert_eq!((&page["complete"], &mx1(&page)["verdict"]), (&false.into(), &"pruned_unshown".into()), "{page}");
    assert_eq!(cluster.page("from=1d&limit=1000").await.json()["complete"], true);
    cluster.verify_all();
}

#[tokio::test(flavor = "multi_thread")]
async fn old_rows_go_and_what_is_left_is_whole() {
    let mut cluster = aged(1_500, "keep = \"forever\"").await;
    let (before, run) = bundle(&cluster, "before.tar", &["--from", "2000-01-01"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    let config = cluster.nodes[0].folder.join("node.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, text.replace("keep = \"forever\"", "keep = \"365d\"")).unwrap();
    cluster.stop(0);
    cluster.restart(0).await;
    // By their own timestamps the rows are older than 365 days, but no witness has seen them for longer than this test runs.
    let late = late_retention(&cluster).await;
    assert!((30..=40).contains(&late["late_days"].as_u64().unwrap()), "{late}");
    assert!(late["late_because"].as_str().unwrap().contains("witnessed for 365 days"), "{late}");
    assert_eq!(rows_in(&cluster).0, 0, "nothing goes because a clock says so");
    cluster.stop(0);
    witnessed_for(&cluster, AGED_ROWS, 364);
    cluster.restart(0).await;
    late_retention(&cluster).await;
    assert_eq!(rows_in(&cluster).0, 0, "a day is missing");
    cluster.stop(0);
    witnessed_for(&cluster, AGED_ROWS, 2);
    cluster.restart(0).await;
    pruned_to(&cluster, 1_280).await;
    witnessed(&cluster, "mx1").await;
    let run = cluster.on_node(0, &["verify"]);
    assert_eq!(run.code, 0, "{}{}", run.stdout, run.stderr);
    assert!(run.stderr.contains("below 1280 pruned"), "{}", run.stderr);

    // A range that begins a day ago is complete and proven; a range that reaches back to pruned rows is reported as incomplete.
    let today = cluster.page("from=1d&limit=1000").await.json();
    assert_eq!((&today["complete"], &today["proven"]), (&true.into(), &true.into()), "{today}");
    let all = cluster.page("from=2000-01-01&limit=1000").await.json();
    let node = mx1(&all);
    assert_eq!(
        (&all["complete"], &node["status"], &node["verdict"]),
        (&false.into(), &"pruned".into(), &"pruned_unshown".into())
    );
    assert!(node["reason"].as_str().unwrap().contains("rows below 1280"), "{node}");
    assert_eq!(node["oldest_seq"], 1_280);
    // Read every page up to the last: the aggregator requests from the node only the rows that it still has.
    let (mut rows, mut cursor) = (0, String::new());
    loop {
        let page = cluster.page(&format!("from=2000-01-01&limit=50&filter=node:mx1&{cursor}")).await.json();
        assert_eq!(mx1(&page)["status"], "pruned", "{}", mx1(&page));
        rows += page["count"].as_u64().unwrap();
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("cursor={next}"),
            None => break,
        }
    }
    assert!(rows > 250, "{rows}");
    let gone = cluster.get("/api/v1/audit-log/mx1/7", Some(&cluster.token)).await;
    assert!(gone.text.contains("row 7 was pruned"), "{}", gone.text);
    assert!(cluster.on_node(0, &["show", "7"]).stderr.contains("row 7 was pruned"));
    assert_eq!(cluster.on_node(0, &["query", "--from", "1d"]).code, 0);
    assert_eq!(cluster.on_node(0, &["query", "--from", "500d"]).code, 3);
    // All remaining rows can be verified without access to the deleted ones.
    assert_eq!(cluster.run(&["verify"]).code, 0);

    // Both stages of the prune are recorded in the log, and the status shows the result.
    let said = cluster.page("filter=action:log.pruned&from=1d&order=asc").await.json();
    let stages: Vec<&str> = said["entries"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|row| row["entry"]["node_id"] == "mx1")
        .map(|row| row["entry"]["details"]["stage"].as_str().unwrap())
        .collect();
    assert_eq!(stages, ["begun", "finished"]);
    let status = cluster.on_node(0, &["status", "--table"]).stdout;
    assert!(status.contains("rows below 1,280") && status.contains("rows are kept for 365 days"), "{status}");
    let socket = cluster.nodes[0].folder.join("node.sock");
    let scraper = reqwest::Client::builder().unix_socket(socket).build().unwrap();
    let metrics = scraper.get("http://node/metrics").send().await.unwrap().text().await.unwrap();
    for line in ["oldest_row 1280", "retention_holds 0", "retention_problem 0"] {
        assert!(metrics.contains(&format!("piperoll_node_{line}\n")), "{metrics}");
    }

    // Earlier evidence still verifies, and so does evidence of the remaining rows. The export of a range that reaches back to
    // pruned rows is refused.
    assert_eq!(checked(&cluster, &before).0, 0);
    let (path, run) = bundle(&cluster, "today.tar", &["--from", "1d"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    let (code, verdict) = checked(&cluster, &path);
    assert_eq!((code, &verdict["proven"]), (0, &true.into()), "{verdict}");
    assert_eq!(mx1(&verdict)["pruned"], 1_280);
    let (_, run) = bundle(&cluster, "all.tar", &["--from", "2000-01-01"]);
    assert_eq!(run.code, 3, "{}", run.stderr);
    let _ = bundle(&cluster, "part.tar", &["--from", "2000-01-01", "--incomplete", "partial"]);
    let mut parts = std::fs::read_dir(cluster.dir.path()).unwrap().map(|file| file.unwrap().path());
    let part = parts.find(|path| path.to_str().unwrap().contains("PARTIAL")).unwrap();
    let (code, verdict) = checked(&cluster, part.to_str().unwrap());
    assert_eq!(code, 3, "{verdict}");
    assert_eq!(verdict["findings_count"], 0, "{verdict}");
}

/// A node's folder that was created by an earlier version has no file `witnesses`: no row is deleted, not even on request, and
/// the message says how to get the file.
#[tokio::test(flavor = "multi_thread")]
async fn without_known_witnesses_nothing_goes_and_that_is_said() {
    let mut cluster = aged(700, "keep = \"forever\"").await;
    cluster.stop(0);
    let folder = cluster.nodes[0].folder.clone();
    let config = std::fs::read_to_string(folder.join("node.toml")).unwrap();
    std::fs::write(folder.join("node.toml"), config.replace("keep = \"forever\"", "keep = \"365d\"")).unwrap();
    let witnesses = std::fs::read(folder.join("witnesses")).unwrap();
    std::fs::remove_file(folder.join("witnesses")).unwrap();
    cluster.restart(0).await;
    let late = late_retention(&cluster).await;
    assert!(late["late_because"].as_str().unwrap().contains("no witness is known"), "{late}");
    let refused = cluster.on_node(0, &["prune", "--before", "300d", "--confirm"]);
    assert!(refused.code == 1 && refused.stderr.contains("copy the file `witnesses`"), "{}", refused.stderr);
    assert_eq!(rows_in(&cluster).0, 0);
    // If the file contains only another witness's key, this aggregator's cosignatures do not count, and the status reports this.
    cluster.stop(0);
    let other = SigningSeed::from_bytes([9; 32]);
    let other = other.named("test/aggregator/other", KeyKind::Witness).unwrap();
    std::fs::write(folder.join("witnesses"), format!("{}\n", other.public())).unwrap();
    cluster.restart(0).await;
    cluster.append(0, &[entry("alice", "auth.login")]).await;
    let problem = async || {
        let status: Value = serde_json::from_str(&cluster.on_node(0, &["status", "--json"]).stdout).unwrap();
        status["retention"]["problem"].as_str().unwrap_or_default().to_owned()
    };
    for _ in 0..100 {
        if problem().await.contains("not in the file `witnesses`") {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(problem().await.contains("not in the file `witnesses`"), "{}", problem().await);
    cluster.stop(0);
    std::fs::write(folder.join("witnesses"), witnesses).unwrap();
    cluster.restart(0).await;
    witnessed(&cluster, "mx1").await;
    cluster.verify_all();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_prunes_with_an_archive_and_holds_keep_rows() {
    let mut cluster = aged(1_100, "keep = \"forever\"").await;
    let refused = cluster.on_node(0, &["prune", "--before", "10d"]);
    assert_eq!(refused.code, 1);
    assert!(refused.stderr.contains("90 days"), "{}", refused.stderr);

    let unsure = cluster.on_node(0, &["prune", "--before", "300d"]);
    assert!(
        unsure.code == 1 && unsure.stderr.contains("add --confirm"),
        "clocks alone prune nothing: {}",
        unsure.stderr
    );

    // A hold over old rows keeps the first held row and all rows after it.
    let hold = ["hold", "add", "case-7", "--from", "2000-01-01", "--to", "300d", "--reason", "court order"];
    assert_eq!(cluster.on_node(0, &hold).code, 0);
    assert_eq!(cluster.on_node(0, &hold).code, 1);
    let run = cluster.on_node(0, &["prune", "--before", "300d", "--confirm"]);
    assert!(run.stdout.contains("\"case-7\" keeps row 0") && run.stdout.contains("nothing to prune"), "{}", run.stdout);
    let run = cluster.on_node(0, &["erase", "--seq", "5", "--reason", "art. 17"]);
    assert!(run.stderr.contains("case-7"), "{}", run.stderr);
    assert!(cluster.on_node(0, &["hold", "list"]).stdout.contains("court order"));
    // A hold that was deleted from its table still keeps its rows, and is reported as missing.
    let held: Value = serde_json::from_str(&cluster.on_node(0, &["hold", "list", "--json"]).stdout).unwrap();
    let edit_holds = |cluster: &mut Cluster, sql: &str| {
        cluster.stop(0);
        rusqlite::Connection::open(cluster.database(0)).unwrap().execute_batch(sql).unwrap();
    };
    edit_holds(&mut cluster, "DELETE FROM holds");
    cluster.restart(0).await;
    witnessed(&cluster, "mx1").await;
    let run = cluster.on_node(0, &["prune", "--before", "300d", "--confirm"]);
    assert!(run.code == 1 && run.stderr.contains("\"case-7\" was set by entry"), "{}{}", run.stdout, run.stderr);
    let run = cluster.on_node(0, &["verify"]);
    assert!(run.code == 4 && run.stdout.contains("never released"), "{}", run.stdout);
    edit_holds(&mut cluster, &format!("INSERT INTO holds VALUES ('case-7', {})", held[0]["entry_seq"]));
    cluster.restart(0).await;
    witnessed(&cluster, "mx1").await;
    let release = ["hold", "release", "case-7", "--reason", "case closed"];
    assert_eq!(cluster.on_node(0, &release).code, 0);
    assert_eq!(cluster.on_node(0, &release).code, 1);
    let entries = cluster.page("filter=action:log.hold_added,log.hold_released&from=1d").await.json();
    assert_eq!(entries["count"], 2, "{entries}");

    // Erase one of the rows that will be pruned.
    assert_eq!(cluster.on_node(0, &["erase", "--seq", "300", "--reason", "art. 17"]).code, 0);
    witnessed(&cluster, "mx1").await;
    let run = cluster.on_node(0, &["prune", "--before", "300d", "--dry-run"]);
    assert!(run.stdout.contains("1,024 rows, 0 to 1023"), "{}", run.stdout);
    assert_eq!(rows_in(&cluster).0, 0);
    let archive = cluster.dir.path().join("old.tar").to_str().unwrap().to_owned();
    let prune = ["prune", "--before", "300d", "--confirm", "--archive", &archive];
    let run = cluster.on_node(0, &prune);
    assert_eq!(run.code, 0, "{}{}", run.stdout, run.stderr);
    assert!(run.stdout.contains("read back and verified") && run.stdout.contains("shrank by"), "{}", run.stdout);
    assert_eq!(rows_in(&cluster).0, 1_024);
    // The log verifies after its rows were archived and pruned.
    assert_eq!(cluster.on_node(0, &["verify"]).code, 0);

    // A third party can verify the archive with public keys only. After one byte was changed, the archive is refused.
    let (code, verdict) = checked(&cluster, &archive);
    assert_eq!((code, &verdict["rows"], &mx1(&verdict)["erased"]), (0, &1_024.into(), &1.into()), "{verdict}");
    let words = cluster.run(&["verify-bundle", &archive, "--trust", &trust(&cluster)]).stdout;
    assert!(words.contains("archived before they were pruned"), "{words}");
    let mut bytes = std::fs::read(&archive).unwrap();
    let at = bytes.len() / 2;
    bytes[at] ^= 1;
    std::fs::write(&archive, bytes).unwrap();
    assert_eq!(checked(&cluster, &archive).0, 4);
    let said = cluster.page("filter=action:log.pruned&from=1d&order=asc").await.json();
    let digest = &said["entries"][0]["entry"]["details"]["archive"];
    assert_eq!(digest["name"], "old.tar", "{said}");
}

/// A prune that is killed at any moment, cut off from its witness, or stopped halfway is still carried out exactly once, and only
/// after a witness has seen its statement.
#[tokio::test(flavor = "multi_thread")]
async fn a_prune_that_is_interrupted_is_finished() {
    let mut cluster = aged(6_000, "keep = \"forever\"").await;
    // The aggregator cannot reach the node: the statement is recorded, but no row is deleted.
    cluster.nodes[0].proxy.set(Fault::Close);
    cluster.nodes[0].proxy.cut();
    report(&cluster, "mx1", |line| line["verdict"] != "ok").await;
    let run = cluster.on_node(0, &["prune", "--before", "300d", "--confirm", "--wait", "1s"]);
    assert_eq!(run.code, 3, "{}{}", run.stdout, run.stderr);
    assert!(run.stdout.contains("waiting for a witness"), "{}", run.stdout);
    assert_eq!(rows_in(&cluster).0, 0);
    // The rows named in the statement count as pruned, and the remaining rows verify, even after a kill.
    assert_eq!(cluster.on_node(0, &["verify"]).code, 0);
    cluster.kill(0);
    assert_eq!(cluster.on_node(0, &["verify"]).code, 0);
    cluster.restart(0).await;
    assert_eq!(rows_in(&cluster).0, 0);
    let again = cluster.on_node(0, &["prune", "--before", "300d", "--confirm", "--wait", "1s"]);
    assert!(again.stdout.contains("nothing to prune"), "{}{}", again.stdout, again.stderr);
    cluster.nodes[0].proxy.heal();
    // Kill the node while it deletes rows.
    let mut seen = std::collections::BTreeSet::new();
    for pause in 0..12u64 {
        tokio::time::sleep(Duration::from_millis(20 + pause * 15)).await;
        cluster.kill(0);
        seen.insert(rows_in(&cluster).0);
        assert_eq!(cluster.on_node(0, &["verify"]).code, 0);
        cluster.restart(0).await;
    }
    pruned_to(&cluster, 5_888).await;
    witnessed(&cluster, "mx1").await;
    let said = cluster.page("filter=action:log.pruned&from=1d").await.json();
    for _ in 0..100 {
        if cluster.page("filter=action:log.pruned&from=1d").await.json()["count"] == 2 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let alarms = cluster.page("filter=action:audit.witness_verdict%20reason:fork,rollback&limit=50").await.json();
    assert_eq!(alarms["count"], 0, "{alarms} {said}");
    cluster.verify_all();
    let (path, run) = bundle(&cluster, "end.tar", &["--from", "1d"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert_eq!(checked(&cluster, &path).0, 0);
}

/// Rows that are deleted from the file by hand do not count as pruned by retention.
#[tokio::test(flavor = "multi_thread")]
async fn rows_dropped_by_hand_are_missing_rows() {
    let mut cluster = aged(700, "keep = \"forever\"").await;
    cluster.stop(0);
    let conn = rusqlite::Connection::open(cluster.database(0)).unwrap();
    conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
    drop(conn);
    let intact = std::fs::read(cluster.database(0)).unwrap();
    let drop_guards = "DROP TRIGGER entries_append_only_delete; DROP TRIGGER ids_append_only_delete;";
    let triggers = |conn: &rusqlite::Connection| -> Vec<String> {
        let sql =
            "SELECT sql FROM sqlite_schema WHERE name IN ('entries_append_only_delete', 'ids_append_only_delete')";
        conn.prepare(sql).unwrap().query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
    };
    for (what, tampering, words) in [
        ("a prefix without a statement", "DELETE FROM entries WHERE seq < 256;", "rows 0 to 255 are missing"),
        (
            "a prefix under an entry that says nothing of the kind",
            "INSERT INTO pruned VALUES (256, 700, 701); DELETE FROM entries WHERE seq < 256;",
            "but it does not",
        ),
        (
            "an emptied row under an entry that does not confirm it",
            "INSERT INTO erased VALUES (20, 700, x'00', x'00'); UPDATE entries SET body = NULL, mac = NULL WHERE seq = 20;",
            "the signature is missing",
        ),
        ("a hold that nobody set", "INSERT INTO holds VALUES ('x', 700);", "but it does not"),
    ] {
        put_back(&cluster, &intact);
        let conn = rusqlite::Connection::open(cluster.database(0)).unwrap();
        let guards = triggers(&conn);
        conn.execute_batch(drop_guards).unwrap();
        conn.execute_batch(tampering).unwrap();
        guards.iter().for_each(|guard| conn.execute_batch(guard).unwrap());
        drop(conn);
        let run = cluster.on_node(0, &["verify"]);
        assert_eq!(run.code, 4, "{what}: {}{}", run.stdout, run.stderr);
        assert!(run.stdout.contains(words), "{what}: {}", run.stdout);
    }
    // A row that fails verification is evidence, and no prune deletes it.
    put_back(&cluster, &intact);
    let conn = rusqlite::Connection::open(cluster.database(0)).unwrap();
    let guard: String = conn
        .query_row("SELECT sql FROM sqlite_schema WHERE name = 'entries_append_only_update'", [], |row| row.get(0))
        .unwrap();
    conn.execute_batch("DROP TRIGGER entries_append_only_update").unwrap();
    conn.execute_batch("UPDATE entries SET body = replace(body, 'old30', 'old31') WHERE seq = 31").unwrap();
    conn.execute_batch(&guard).unwrap();
    drop(conn);
    cluster.restart(0).await;
    witnessed(&cluster, "mx1").await;
    let run = cluster.on_node(0, &["prune", "--before", "300d", "--confirm"]);
    assert_eq!(run.code, 1, "{}", run.stdout);
    assert!(run.stderr.contains("row 31") && run.stderr.contains("evidence"), "{}", run.stderr);
    assert_eq!(rows_in(&cluster).0, 0);
}
