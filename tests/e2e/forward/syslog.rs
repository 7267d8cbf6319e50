//! Tests forwarding to a real rsyslog.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use piperoll_client::NodeClient;
use piperoll_tests::{Cluster, entry};
use serde_json::Value;

use super::receiver::Rsyslog;
use super::{assert_whole_and_in_order, configure, status, wait_for, wait_until_all_arrived};

/// Returns the value of one parameter in the structured data.
fn parameter(message: &str, name: &str) -> Option<String> {
    let at = message.find(&format!(" {name}=\""))? + name.len() + 3;
    Some(message[at..at + message[at..].find('"')?].to_owned())
}

fn seqs(messages: &[String]) -> Vec<u64> {
    messages.iter().map(|message| parameter(message, "seq").unwrap().parse().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_is_restarted_under_load_gets_every_entry() {
    let mut cluster = Cluster::made(&["mx1"], |_| None).await;
    let Some(mut receiver) = Rsyslog::start(&cluster.dir.path().join("rsyslog"), true) else { return };
    let table = format!(
        "[[forward]]\nname = \"siem\"\nto = \"tls://localhost:{}\"\nca = \"../../../rsyslog/ca.pem\"\nconfirm_every = \"500ms\"\n",
        receiver.port()
    );
    configure(&cluster, 0, &table);
    cluster.run_all().await;
    // A writer keeps appending during the whole test.
    let stop = Arc::new(AtomicBool::new(false));
    let socket = cluster.nodes[0].folder.join("node.sock");
    let writing = tokio::spawn({
        let stop = Arc::clone(&stop);
        async move {
            let client = NodeClient::new(&socket).unwrap();
            let mut written = 0_u64;
            while !stop.load(Ordering::Relaxed) {
                let lines: Vec<String> = (0..100).map(|n| entry(&format!("user-{n}"), "auth.login")).collect();
                let report = client.append_lines((lines.join("\n") + "\n").into_bytes(), false).await.unwrap();
                assert_eq!(report.accepted, 100);
                written += 100;
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            written
        }
    });
    wait_for(&cluster, 0, "siem", "on its way", |status| status["next_seq"].as_u64() > Some(500));
    for _ in 0..2 {
        receiver.stop();
        wait_for(&cluster, 0, "siem", "failing", |status| !status["problem"].is_null());
        receiver.run();
        let reached = status(&cluster, 0, "siem")["next_seq"].as_u64();
        wait_for(&cluster, 0, "siem", "going on", |status| status["next_seq"].as_u64() > reached);
    }
    // A receiver that stops reading without closing its connections does not block appends.
    receiver.signal(Signal::SIGSTOP);
    let client = NodeClient::new(&cluster.nodes[0].folder.join("node.sock")).unwrap();
    let begun = Instant::now();
    for _ in 0..20 {
        client.append_lines((entry("alice", "auth.login") + "\n").into_bytes(), false).await.unwrap();
    }
    assert!(begun.elapsed() < Duration::from_secs(20), "appends wait for the receiver");
    receiver.signal(Signal::SIGCONT);
    stop.store(true, Ordering::Relaxed);
    let written = writing.await.unwrap() + 20;
    let done = wait_until_all_arrived(&cluster, 0, "siem");
    let rows = done["next_seq"].as_u64().unwrap();
    assert!(rows >= written, "{rows} of {written}");
    receiver.stop();
    let messages = receiver.received();
    assert_whole_and_in_order(&seqs(&messages), rows);
    // The forwarded messages equal the log's entries byte for byte.
    let exported = cluster.on_node(0, &["query", "--limit", "200", "--order", "asc", "--json"]);
    assert_eq!(exported.code, 0, "{}", exported.stderr);
    let mut compared = 0;
    for line in exported.stdout.lines().filter(|line| line.starts_with("{\"entry\"")) {
        let line: &str = line;
        let seq = serde_json::from_str::<Value>(line).unwrap()["entry"]["seq"].to_string();
        let message = messages.iter().find(|message| parameter(message, "seq").unwrap() == seq).unwrap();
        assert!(message.ends_with(line), "{message}\n{line}");
        compared += 1;
    }
    assert!(compared >= 100, "{compared}");
    cluster.verify_all();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_over_the_limit_arrives_marked_and_a_killed_node_goes_on() {
    let mut cluster = Cluster::made(&["mx1"], |_| None).await;
    let Some(mut receiver) = Rsyslog::start(&cluster.dir.path().join("rsyslog"), false) else { return };
    let table = format!(
        "[[forward]]\nname = \"plain\"\nto = \"tcp://{}\"\nformat = \"ocsf\"\nfilter = \"-user:nobody\"\nconfirm_every = \"300ms\"\n",
        receiver.address
    );
    configure(&cluster, 0, &table);
    cluster.run_all().await;
    let large = serde_json::json!({ "category": "data", "action": "file.upload", "user": "alice", "outcome": "success",
        "details": { "text": "x".repeat(20_000), "password": "hunter2-planted" } });
    let long = serde_json::json!({ "category": "data", "action": "file.upload", "user": "alice", "outcome": "success",
        "description": "y".repeat(4_000), "path": format!("/{}", "z".repeat(4_000)), "details": { "token": "prl_planted-secret-in-an-entry-0123456789abcdef" } });
    let lines = [large.to_string(), long.to_string(), entry("nobody", "auth.login"), entry("bob", "auth.login")];
    cluster.append(0, &lines).await;
    wait_until_all_arrived(&cluster, 0, "plain");
    // The node is killed while entries are in transit, so they are sent again.
    for round in 0..3 {
        let lines: Vec<String> = (0..400).map(|n| entry(&format!("r{round}-{n}"), "auth.login")).collect();
        cluster.append(0, &lines).await;
        cluster.kill(0);
        cluster.restart(0).await;
    }
    let done = wait_until_all_arrived(&cluster, 0, "plain");
    receiver.stop();
    let messages = receiver.received();
    let json = |message: &String| -> Value { serde_json::from_str(message.split_once('\u{feff}').unwrap().1).unwrap() };
    let documents: Vec<Value> = messages.iter().map(json).collect();
    let uploads: Vec<(&String, &Value)> = messages
        .iter()
        .zip(&documents)
        .filter(|(_, document)| document["metadata"]["event_code"] == "file.upload")
        .collect();
    assert!(uploads.len() >= 2, "{}", uploads.len());
    for (message, document) in uploads {
        assert!(message.len() <= 8_192, "{} bytes", message.len());
        assert_eq!(document["metadata"]["is_truncated"], true, "{message}");
        assert!(document["metadata"]["untruncated_size"].as_u64() > Some(8_000), "{message}");
        assert!(parameter(message, "omitted").is_some() && parameter(message, "sha256").is_some(), "{message}");
        assert!(document["unmapped"]["whole_at"].as_str().unwrap().starts_with("mx1/"), "{message}");
    }
    let users: Vec<&str> = documents.iter().filter_map(|document| document["user"]["name"].as_str()).collect();
    assert!(!users.contains(&"nobody"), "the filter holds");
    for user in
        ["bob".to_owned()].into_iter().chain((0..3).flat_map(|round| (0..400).map(move |n| format!("r{round}-{n}"))))
    {
        assert!(users.contains(&user.as_str()), "{user} did not arrive");
    }
    for planted in ["hunter2-planted", "prl_planted"] {
        assert!(!messages.iter().any(|message| message.contains(planted)), "{planted} was handed on");
    }
    // The destination was recorded as added only once, although the node was started several times.
    let added = cluster.on_node(0, &["query", "action:log.forward_added", "--json"]);
    assert_eq!(added.stdout.lines().filter(|line| line.starts_with("{\"entry\"")).count(), 1, "{}", added.stdout);
    assert_eq!(done["errors"], 0, "{done}");
    cluster.verify_all();
}
