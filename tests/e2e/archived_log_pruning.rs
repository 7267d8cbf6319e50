//! Tests the retention of archived logs: they are pruned together with the first rows of the log that replaced them, and their
//! rows count as pruned from then on.

use std::sync::Arc;
use std::time::Duration;

use piperoll_format::time::Timestamp;
use piperoll_net::checked_json;
use piperoll_net::clock::{Clock, SystemClock};
use piperoll_node::config::NodeConfig;
use piperoll_node::store::{LogDir, begin_generation};
use piperoll_query::human_time;
use piperoll_tests::{Cluster, entry, until};
use serde_json::{Value, json};

use crate::keys::{accept_generation, trust};
use crate::retention::{LONG_AGO, cosigned_for, pruned_to};
use crate::witness::{data, witnessed};

/// A clock that always returns the same time.
struct Then(Timestamp);

impl Clock for Then {
    fn now(&self) -> Timestamp {
        self.0
    }
}

/// Number of rows in the current log that are older than the retention time.
const OLD_ROWS: u64 = 301;

/// Creates a node with an archived log and a current log with about 300 rows from 400 days ago. Also returns the generation of
/// the archived log.
async fn two_old_logs() -> (Cluster, String) {
    let mut cluster = Cluster::made(&["mx1"], |_| Some(LONG_AGO.to_owned())).await;
    cluster.poll_every(50);
    let config = cluster.nodes[0].folder.join("node.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, text.replace("keep = \"365d\"", "keep = \"forever\"")).unwrap();
    cluster.run_all().await;
    let lines = |name: &str, rows: u64| -> Vec<String> {
        (0..rows).map(|n| entry(&format!("{name}{n}"), "auth.login")).collect()
    };
    cluster.append(0, &lines("first", 40)).await;
    witnessed(&cluster, "mx1").await;
    let page = cluster.page("from=2000-01-01&limit=1").await.json();
    let earlier = mx1(&page)["generation"].as_str().unwrap().to_owned();
    cluster.stop(0);
    // The command `new-generation` would use this machine's clock, so call the function behind it directly.
    let node = NodeConfig::load(&config).unwrap();
    let then = Arc::new(Then(human_time::parse("400d", SystemClock.now()).unwrap()));
    let begun = begin_generation(&LogDir::new(&node.data_dir), &node.keys, then, "a test", "uid=0").unwrap();
    accept_generation(&mut cluster, &begun.generation.to_string()).await;
    cluster.append(0, &lines("old", OLD_ROWS)).await;
    witnessed(&cluster, "mx1").await;
    cluster.stop(0);
    cluster.set_clock(0, "+0s");
    std::fs::write(&config, text).unwrap();
    (cluster, earlier)
}

/// Edits the witness's state as if all rows of the archived log had been witnessed at least `days` days ago.
fn remembered_since(cluster: &mut Cluster, days: i64) {
    let path = cluster.aggregator_folder().join("state/witness/mx1.json");
    let mut memory: Value = checked_json::from_bytes(&std::fs::read(&path).unwrap()).unwrap();
    let long_ago = human_time::parse(&format!("{days}d"), SystemClock.now()).unwrap();
    for lost in memory["lost"].as_array_mut().unwrap() {
        lost["until"] = json!(long_ago);
    }
    checked_json::write(&path, &memory).unwrap();
}

fn mx1(answer: &Value) -> &Value {
    answer["nodes"].as_array().unwrap().iter().find(|node| node["node_id"] == "mx1").unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_earlier_log_goes_with_the_rows_of_the_present_one() {
    let (mut cluster, generation) = two_old_logs().await;
    let folder = data(&cluster, 0).with_file_name(format!("data.{generation}"));
    cosigned_for(&cluster, OLD_ROWS, 366);
    // A hold over the time range of the archived log keeps both logs.
    let held = ["hold", "add", "case-7", "--from", "2000-01-01", "--to", "200d", "--reason", "a case"];
    let run = cluster.on_node(0, &[&held[..], &["--generation", &generation]].concat());
    assert_eq!(run.code, 0, "{}", run.stderr);
    cluster.restart(0).await;
    cluster.append(0, &(0..40).map(|n| entry(&format!("new{n}"), "auth.login")).collect::<Vec<_>>()).await;
    witnessed(&cluster, "mx1").await;
    let plan = cluster.on_node(0, &["prune", "--before", "200d", "--dry-run"]);
    assert!(plan.code == 0 && plan.stdout.contains("is kept by the hold \"case-7\""), "{}{}", plan.stdout, plan.stderr);
    assert!(folder.is_dir());
    let run = cluster.on_node(0, &["hold", "release", "case-7", "--reason", "closed", "--generation", &generation]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    // The entry about the release is from today, so the archived log is kept until this entry reaches the retention time.
    let plan = cluster.on_node(0, &["prune", "--before", "200d", "--dry-run"]);
    assert!(plan.code == 0 && plan.stdout.contains("it has a row as recent as"), "{}{}", plan.stdout, plan.stderr);
    cluster.verify_all();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_earlier_log_that_outlived_the_policy_is_no_loss() {
    let (mut cluster, generation) = two_old_logs().await;
    let folder = data(&cluster, 0).with_file_name(format!("data.{generation}"));
    cosigned_for(&cluster, OLD_ROWS, 366);
    cluster.stop_aggregator();
    remembered_since(&mut cluster, 390);
    cluster.spawn_aggregator();
    cluster.wait_for_aggregator().await;
    cluster.restart(0).await;
    cluster.append(0, &(0..40).map(|n| entry(&format!("new{n}"), "auth.login")).collect::<Vec<_>>()).await;
    pruned_to(&cluster, 256).await;
    until("the earlier log is gone", async || (!folder.exists()).then_some(())).await;
    witnessed(&cluster, "mx1").await;
    let page = until("the aggregator knows it", async || {
        let page = cluster.page("from=2000-01-01&limit=1000").await.json();
        page["complete_since"].is_string().then_some(page)
    })
    .await;
    let since = page["complete_since"].as_str().unwrap().to_owned();
    assert_eq!((&page["complete"], &mx1(&page)["verdict"]), (&json!(false), &json!("pruned")), "{page:#}");
    let stated = cluster.page("from=2000-01-01&limit=9&filter=action:log.pruned").await.json();
    let mut said = stated["entries"].as_array().unwrap().iter().map(|row| &row["entry"]["details"]);
    let said = said.find(|details| details["stage"] == "begun").unwrap();
    let named = &said["earlier"][0];
    assert!(named["generation"] == generation && named["rows"].as_u64() > Some(40), "{stated:#}");

    let run = cluster.run(&["query", "--from", "2000-01-01", "--limit", "1000"]);
    assert!(run.code == 0 && run.stderr.contains(&format!("COMPLETE SINCE {since}")), "{} {}", run.code, run.stderr);
    let run = cluster.run(&["query", "--from", &since, "--limit", "1000", "--require-complete"]);
    assert!(run.code == 0 && run.stderr.contains("proven complete"), "{} {}", run.code, run.stderr);
    // A range may begin after the time that the pruning statement gives for the archived log's last row, but before the time that
    // the witness remembers. Such a range is reported as PRUNED, and not as a violation.
    let run = cluster.run(&["query", "--from", "391d", "--limit", "1000", "--require-complete"]);
    assert!(run.code == 3 && run.stderr.contains("PRUNED"), "{} {}", run.code, run.stderr);
    let page = cluster.page("from=391d&limit=1000").await.json();
    let reason = mx1(&page)["reason"].as_str().unwrap();
    assert!(reason.contains("was deleted with the rows below 256") && page["complete_since"] == since, "{page:#}");
    let run = cluster.run(&["query", "--from", "391d", "--limit", "1000"]);
    assert!(run.code == 0 && run.stderr.contains("COMPLETE SINCE"), "{} {}", run.code, run.stderr);
    // An entry of the archived log is reported as pruned.
    let run = cluster.run(&["show", &format!("mx1/3@{generation}")]);
    assert!(
        run.code != 0 && run.stderr.contains("PRUNED") && run.stderr.contains("deleted with the rows below"),
        "{} {}",
        run.code,
        run.stderr
    );

    let trust = trust(&cluster, "trust.toml");
    let evidence = |name: &str, from: &str| {
        let path = cluster.dir.path().join(name).to_str().unwrap().to_owned();
        let args = ["export", "--bundle", &path, "--from", from, "--reason", "a test", "--incomplete", "partial"];
        let made = cluster.run(&args);
        let checked = cluster.run(&["verify-bundle", &path, "--trust", &trust, "--json"]);
        assert_eq!((made.code, checked.code), (0, 0), "{} {}", made.stderr, checked.stdout);
        serde_json::from_str::<Value>(&checked.stdout).unwrap()
    };
    let all = evidence("all.tar", "2000-01-01");
    assert!(all["complete"] == false && all["complete_since"].is_string(), "{all:#}");
    let rest = evidence("rest.tar", &since);
    assert!(rest["complete"] == true && rest["proven"] == true, "{rest:#}");
    // The aggregator still reports the pruning after a restart.
    cluster.stop_aggregator();
    cluster.spawn_aggregator();
    cluster.wait_for_aggregator().await;
    witnessed(&cluster, "mx1").await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    let again = until("it is known again", async || {
        let page = cluster.page("from=2000-01-01&limit=1000").await.json();
        page["complete_since"].is_string().then_some(page)
    })
    .await;
    assert_eq!(again["complete_since"], since);
    cluster.verify_all();
}
