//! Tests the permissions of each role, and that exactly one audit entry is recorded for each request.

use piperoll_net::clock::{Clock as _, SystemClock};
use piperoll_protocol::access::Role;
use piperoll_tests::{Answer, Cluster, entry};
use reqwest::Method;
use serde_json::{Value, json};

/// Reads the aggregator's own entries about requests, oldest first, directly from its embedded node. On a busy machine it also records
/// that a node answered late.
fn own_entries(cluster: &Cluster) -> Vec<Value> {
    let config = cluster.aggregator_folder().join("node/node.toml");
    let output = std::process::Command::new(piperoll_tests::piperoll())
        .args(["node", "export", "category:audit -action:audit.witness_verdict", "--config"])
        .arg(config)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0));
    let text = String::from_utf8(output.stdout).unwrap();
    let rows: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    rows.iter().filter(|row| row.get("entry").is_some()).map(|row| row["entry"].clone()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_request_is_exactly_one_entry_and_roles_are_exact() {
    let cluster = Cluster::start(&["mx1"]).await;
    cluster.append(0, &[entry("alice", "auth.login")]).await;
    cluster.wait_until_complete().await;
    let viewer = cluster.token("vera", Role::Viewer, None);
    let auditor = cluster.token("ada", Role::Auditor, None);
    let admin = cluster.token("root", Role::Admin, None);
    let new_token = |name: &str| Some(json!({ "name": name, "role": "viewer", "expires": "90d" }));
    let table = [
        (Method::GET, "/api/v1/audit-log?user=alice", None, "audit.view", [200, 200, 200]),
        (Method::GET, "/api/v1/audit-log?usr=alice", None, "audit.view", [400, 400, 400]),
        (Method::GET, "/api/v1/audit-log?format=csv", None, "audit.export", [403, 200, 200]),
        (Method::GET, "/api/v1/audit-log?format=ndjson", None, "audit.export", [403, 200, 200]),
        (Method::GET, "/api/v1/audit-log/mx1/1", None, "audit.view", [200, 200, 200]),
        (Method::GET, "/api/v1/audit-log/mx1/999", None, "audit.view", [404, 404, 404]),
        (Method::GET, "/api/v1/audit-log/mx9/1", None, "audit.view", [404, 404, 404]),
        (Method::GET, "/api/v1/nodes", None, "audit.nodes", [200, 200, 200]),
        (Method::POST, "/api/v1/verify", Some(json!({})), "audit.verify", [403, 200, 200]),
        (Method::GET, "/api/v1/tokens", None, "audit.token_list", [403, 403, 200]),
        (Method::POST, "/api/v1/tokens", new_token("fresh"), "audit.token_create", [403, 403, 201]),
        (Method::DELETE, "/api/v1/tokens/fresh", None, "audit.token_revoke", [403, 403, 204]),
        // A request that fails early is still recorded under its own action.
        (
            Method::POST,
            "/api/v1/tokens",
            Some(json!({ "name": "x".repeat(70_000) })),
            "audit.token_create",
            [403, 403, 413],
        ),
        (Method::POST, "/api/v1/exports", Some(json!({ "filter": "user:alice" })), "audit.export", [403, 400, 400]),
        (Method::GET, "/api/v1/nothing", None, "audit.request", [404, 404, 404]),
        (Method::PUT, "/api/v1/nodes", None, "audit.request", [405, 405, 405]),
    ];
    for (method, path, body, action, expected) in table {
        for ((name, token), status) in
            [("vera", &viewer), ("ada", &auditor), ("root", &admin)].into_iter().zip(expected)
        {
            let before = own_entries(&cluster).len();
            let answer = cluster.send(method.clone(), path, Some(token), body.clone()).await;
            assert_eq!(answer.status, status, "{name} {method} {path}: {}", answer.text);
            let entries = own_entries(&cluster);
            assert_eq!(entries.len(), before + 1, "{name} {method} {path} left not exactly one entry");
            let last = entries.last().unwrap();
            assert_eq!((&last["action"], &last["user"]), (&json!(action), &json!(name)), "{path}");
            let outcome = match status {
                200..=299 => "success",
                403 => "denied",
                _ => "failure",
            };
            assert_eq!(last["outcome"], outcome, "{path}: {last}");
            assert_eq!(last["reason"].is_string(), outcome != "success", "{path}: {last}");
            if path.ends_with("/exports") && status == 403 {
                assert_eq!(
                    last["details"]["request"]["filter"], "user:alice",
                    "what was asked for is recorded: {last}"
                );
            }
            assert_eq!((&last["ip_address"], &last["auth_method"]), (&json!("127.0.0.1"), &json!("token")));
        }
    }
    let log = own_entries(&cluster).iter().map(ToString::to_string).collect::<String>() + &cluster.log_text("agg");
    for secret in [&viewer, &auditor, &admin] {
        assert!(!log.contains(secret.as_str()), "a token is in the log");
    }
    cluster.verify_all();
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_are_refused_and_cannot_fill_the_log() {
    let mut cluster = Cluster::start(&["mx1"]).await;
    cluster.wait_until_complete().await;
    let expires = SystemClock.now().plus_micros(1_500_000);
    let short = cluster.token("short", Role::Viewer, Some(expires));
    assert_eq!(cluster.get("/api/v1/nodes", Some(&short)).await.status, 200);
    tokio::time::sleep(std::time::Duration::from_millis(1_700)).await;
    let before = own_entries(&cluster).len();
    for _ in 0..20 {
        // The web UI requests its session before the user has signed in, so such requests are not counted as refusals.
        assert_eq!(cluster.get("/api/v1/session", None).await.status, 401);
    }
    let code = |answer: &Answer| answer.json()["code"].as_str().unwrap().to_owned();
    let expired = cluster.get("/api/v1/nodes", Some(&short)).await;
    assert_eq!((expired.status, code(&expired)), (401, "token_expired".to_owned()));
    for _ in 0..40 {
        let answer = cluster.get("/api/v1/nodes", None).await;
        assert_eq!((answer.status, code(&answer)), (401, "no_credentials".to_owned()));
        assert_eq!(cluster.get("/api/v1/audit-log", Some("prl_guess")).await.status, 401);
    }
    assert_eq!(own_entries(&cluster).len(), before + 1, "81 refusals of one address, one entry so far");
    let revoked = cluster.token("gone", Role::Viewer, None);
    let run = std::process::Command::new(piperoll_tests::piperoll())
        .args(["aggregator", "token", "revoke", "--name", "gone", "--config"])
        .arg(cluster.aggregator_folder().join("aggregator.toml"))
        .output()
        .unwrap();
    assert!(run.status.success());
    assert_eq!(cluster.get("/api/v1/nodes", Some(&revoked)).await.status, 401);
    // A clean stop records how many refusals followed the first one.
    cluster.stop_aggregator();
    let entries = own_entries(&cluster);
    let counted = entries.iter().find(|e| e["action"] == "audit.refused_repeatedly").unwrap();
    assert_eq!(counted["details"]["counts"]["refused"], 81, "{counted}");
}

/// The aggregator does not answer a request that it cannot record.
#[tokio::test(flavor = "multi_thread")]
async fn no_answer_without_an_entry() {
    let cluster = Cluster::start(&["mx1"]).await;
    cluster.wait_until_complete().await;
    let database = cluster.aggregator_folder().join("node/data/log.db");
    std::fs::rename(&database, database.with_extension("away")).unwrap();
    let answer = cluster.page("").await;
    assert_eq!((answer.status, &answer.json()["code"]), (503, &json!("not_recorded")));
    assert!(answer.json().get("entries").is_none());
    assert_eq!(cluster.get("/readyz", None).await.status, 503);
    // A denial is returned whether or not it can be recorded.
    for _ in 0..2 {
        assert_eq!(cluster.get("/api/v1/nodes", None).await.status, 401);
    }
    assert_eq!(cluster.get("/healthz", None).await.status, 200);
}
