//! For every kind of failure, the failed node gets the right status with a readable reason, the other nodes stay `ok`, the answer
//! arrives within the limit, and `complete`, the header and the exit code agree.

use std::time::Duration;

use nix::sys::signal::Signal;
use piperoll_tests::{Answer, BlackHole, Cluster, Fault, entry};

/// The page limit of 5 s, plus a margin for a busy machine.
const ANSWER_LIMIT: Duration = Duration::from_secs(9);

fn check(answer: &Answer, node: &str, status: &str, words: &str) {
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert_eq!(answer.json()["complete"], false);
    assert_eq!(answer.complete_header.as_deref(), Some("false"));
    let report = answer.node(node);
    assert_eq!(report["status"], status, "{report}");
    let reason = report["reason"].as_str().unwrap();
    assert!(reason.contains(words), "{reason:?} does not say {words:?}");
    for other in answer.json()["nodes"].as_array().unwrap() {
        if other["node_id"] != node {
            assert_eq!(other["status"], "ok", "a healthy node is mislabelled: {other}");
        }
    }
    assert!(answer.took < ANSWER_LIMIT, "{:?}", answer.took);
}

async fn cluster() -> Cluster {
    let cluster = Cluster::start(&["mx1", "mx2", "mx3"]).await;
    for index in 0..3 {
        // Large enough that a page of one node takes several network reads.
        let filler = "x".repeat(3_000);
        let lines: Vec<String> = (0..60)
            .map(|n| {
                serde_json::json!({
                    "category": "data", "action": "mail.view", "user": format!("u{n}"), "outcome": "success",
                    "details": { "filler": filler },
                })
                .to_string()
            })
            .collect();
        cluster.append(index, &lines).await;
    }
    cluster.wait_until_complete().await;
    cluster
}

#[tokio::test(flavor = "multi_thread")]
async fn every_network_fault_has_its_status() {
    let cluster = cluster().await;
    let proxy = &cluster.nodes[1].proxy;
    let heal = async || {
        proxy.heal();
        proxy.cut();
        cluster.wait_until_complete().await;
    };

    proxy.set(Fault::Garbage);
    proxy.cut();
    check(&cluster.page("").await, "mx2", "unreachable", "TLS");
    heal().await;

    proxy.set(Fault::Close);
    proxy.cut();
    check(&cluster.page("").await, "mx2", "unreachable", "");
    heal().await;

    // The connection is accepted, but no byte arrives: first from the start, and in the second case after the TLS handshake.
    proxy.set(Fault::Silent);
    proxy.cut();
    check(&cluster.page("").await, "mx2", "timeout", "no TLS handshake");
    heal().await;
    proxy.set(Fault::Silent);
    check(&cluster.page("").await, "mx2", "timeout", "silent for 2000 ms");
    heal().await;

    // One byte a second does not count as an answer, even though bytes keep arriving.
    proxy.set(Fault::Trickle);
    let answer = cluster.page("").await;
    check(&answer, "mx2", answer.status_of("mx2").as_str(), "");
    assert!(["timeout", "incomplete"].contains(&answer.status_of("mx2").as_str()), "{}", answer.node("mx2"));
    heal().await;

    // The connection is cut after about ten rows.
    proxy.set(Fault::CutAfter(40_000));
    let answer = cluster.page("order=asc&limit=1000").await;
    check(&answer, "mx2", "incomplete", "broke");
    let rows = answer.node("mx2")["rows"].as_u64().unwrap();
    assert!((1..50).contains(&rows), "{rows} rows before the cut");
    assert!(answer.json()["complete_through"].is_string(), "what came before the cut is known to be whole");
    heal().await;

    // The address leads to another node with its own certificate: a healthy process, but not the one that the roster expects.
    proxy.set(Fault::Other(cluster.nodes[0].listen.clone()));
    proxy.cut();
    check(&cluster.page("").await, "mx2", "unreachable", "expected spiffe://test/node/mx2");
    heal().await;
    cluster.verify_all();
}

/// A frozen node delays only one answer by its time limit. After that it is reported at once and not queried, until it completes
/// a handshake again. A busy node completes handshakes, so it is queried each time and given its full limit.
#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_node_costs_its_limit_once_and_a_busy_one_is_asked() {
    let mut cluster = cluster().await;
    cluster.signal(1, Signal::SIGSTOP);
    let first = cluster.page("").await;
    check(&first, "mx2", "timeout", "does not respond");
    for _ in 0..3 {
        let again = cluster.page("").await;
        check(&again, "mx2", "timeout", "probed every second");
        assert!(again.node("mx2")["took_ms"].is_null(), "it was not asked: {}", again.node("mx2"));
    }
    cluster.signal(1, Signal::SIGCONT);
    cluster.wait_until_complete().await;

    let proxy = &cluster.nodes[1].proxy;
    proxy.set(Fault::Busy);
    for _ in 0..2 {
        let answer = cluster.page("").await;
        check(&answer, "mx2", "timeout", "it is busy");
        assert!(answer.node("mx2")["took_ms"].as_f64().unwrap() >= 1_900.0, "its full limit: {}", answer.node("mx2"));
    }
    proxy.heal();
    cluster.wait_until_complete().await;

    // However long a node was down, it contributes to answers again soon after it has started to listen.
    cluster.kill(2);
    for _ in 0..30 {
        if cluster.page("").await.node("mx3")["reason"].as_str().unwrap().contains("known to be down") {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    tokio::time::sleep(Duration::from_secs(4)).await;
    cluster.restart(2).await;
    cluster.wait_until_complete().await;
    cluster.verify_all();
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_stopped_and_black_holed_nodes() {
    let mut cluster = cluster().await;

    cluster.signal(0, Signal::SIGSTOP);
    check(&cluster.page("").await, "mx1", "timeout", "silent");
    let run = cluster.run(&["query", "--limit", "3", "--json"]);
    assert_eq!(run.code, 3, "{}", run.stderr);
    assert!(run.stderr.contains("NOT COMPLETE") && run.stderr.contains("mx1"), "{}", run.stderr);
    let all = cluster.page("require=all").await;
    assert_eq!(all.status, 503);
    assert_eq!(all.json()["entries"].as_array().unwrap().len(), 0, "a refused answer carries no rows");
    let run = cluster.run(&["query", "--require-complete", "--table"]);
    assert_eq!((run.code, run.stdout.as_str()), (3, ""), "{}", run.stderr);
    cluster.signal(0, Signal::SIGCONT);
    cluster.wait_until_complete().await;

    // While a node is down, its proxy accepts connections and closes them; only the node's own address would refuse them.
    cluster.kill(2);
    check(&cluster.page("").await, "mx3", "unreachable", "");
    cluster.restart(2).await;
    cluster.wait_until_complete().await;

    // All nodes are down except for the aggregator's own.
    for index in 0..3 {
        cluster.kill(index);
    }
    let answer = cluster.page("-node:agg").await;
    assert_eq!(answer.status, 400, "a term cannot be a parameter name");
    let answer = cluster.page("node=mx1,mx2,mx3").await;
    assert_eq!(answer.status, 503, "no node answered: {}", answer.text);
    assert_eq!(answer.json()["nodes"].as_array().unwrap().len(), 4);
    assert_eq!(answer.status_of("agg"), "excluded");
    assert_eq!(cluster.run(&["query", "node:mx1,mx2,mx3"]).code, 5);
    for index in 0..3 {
        cluster.restart(index).await;
    }
    cluster.wait_until_complete().await;
    cluster.verify_all();
}

/// If an address refuses connections or drops packets, the node at that address soon counts as down, and later answers do not
/// wait for it.
#[tokio::test(flavor = "multi_thread")]
async fn a_known_dead_node_costs_nothing() {
    let mut cluster = Cluster::made(&["mx1", "mx2", "mx3"], |_| None).await;
    let hole = BlackHole::start();
    let roster = cluster.aggregator_folder().join("roster.toml");
    let text = std::fs::read_to_string(&roster).unwrap();
    let text = text
        .replace(&cluster.nodes[1].proxy.address, &hole.address)
        .replace(&cluster.nodes[2].proxy.address, &piperoll_tests::free_address());
    std::fs::write(&roster, text).unwrap();
    cluster.spawn(0);
    cluster.spawn_aggregator();
    cluster.wait_for_node(&cluster.nodes[0]).await;
    cluster.wait_for_aggregator().await;
    cluster.append(0, &[entry("alice", "auth.login")]).await;

    let deadline = std::time::Instant::now() + Duration::from_secs(30);
    loop {
        let answer = cluster.page("").await;
        assert!(answer.took < ANSWER_LIMIT);
        assert_eq!(answer.status_of("mx1"), "ok");
        assert_eq!(answer.status_of("mx2"), "unreachable", "{}", answer.node("mx2"));
        assert_eq!(answer.status_of("mx3"), "unreachable", "{}", answer.node("mx3"));
        let known = |id| answer.node(id)["reason"].as_str().unwrap().starts_with("known to be down");
        if known("mx2") && known("mx3") {
            assert!(answer.node("mx2")["took_ms"].is_null(), "it was not dialed");
            assert_eq!(answer.node("mx3")["last_seen"], serde_json::Value::Null);
            break;
        }
        assert!(std::time::Instant::now() < deadline, "never known down: {}", answer.text);
    }
}

/// The final record of an NDJSON stream reports the failure; CSV has no such record, so the stream is aborted.
#[tokio::test(flavor = "multi_thread")]
async fn streams_never_look_whole_when_they_are_not() {
    let cluster = cluster().await;
    let proxy = &cluster.nodes[1].proxy;
    proxy.set(Fault::CutAfter(60_000));
    let answer = cluster.page("format=ndjson&order=asc").await;
    assert_eq!(answer.complete_header.as_deref(), Some("pending"));
    let last: serde_json::Value = serde_json::from_str(answer.text.lines().last().unwrap()).unwrap();
    assert_eq!(last["final"]["complete"], false);
    let rows = answer.text.lines().count() - 1;
    assert_eq!(last["final"]["count"], rows);
    let reports = last["final"]["nodes"].as_array().unwrap();
    let status = |id: &str| reports.iter().find(|n| n["node_id"] == id).unwrap()["status"].clone();
    assert_eq!((status("mx2"), status("mx1"), status("mx3")), ("incomplete".into(), "ok".into(), "ok".into()));
    proxy.heal();
    proxy.cut();
    cluster.wait_until_complete().await;

    let target = cluster.dir.path().join("out.csv");
    proxy.set(Fault::CutAfter(60_000));
    let run = cluster.run(&["export", "--format", "csv", "--output", target.to_str().unwrap()]);
    assert_eq!(run.code, 3, "{}", run.stderr);
    assert!(!target.exists() && cluster.dir.path().join("out_PARTIAL.csv").exists(), "{}", run.stderr);
    proxy.heal();
    proxy.cut();
    cluster.wait_until_complete().await;

    let run = cluster.run(&["export", "--format", "csv", "--output", target.to_str().unwrap()]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    let rows = csv::Reader::from_path(&target).unwrap().records().map(Result::unwrap).count();
    assert!(rows >= 180, "{rows}");
    let run = cluster.run(&["export", "--format", "csv", "--output", target.to_str().unwrap()]);
    assert_eq!(run.code, 1, "an existing file is not overwritten");

    // `require=all` is checked before the first byte is sent.
    proxy.set(Fault::Close);
    proxy.cut();
    assert_eq!(cluster.page("format=ndjson&require=all").await.status, 503);
}
