//! Plants secrets in every place where an application could leak one, and tests that they are stored nowhere.

use std::path::Path;
use std::time::Duration;

use axum::routing::post;
use axum::{Extension, Router};
use piperoll_client::{
    AuditContext, Category, Changes, DeliveryPolicy, Entry, NodeClient, RecordLayer, Recorder, Secret,
};
use piperoll_tests::Cluster;
use serde::Serialize;
use serde_json::json;
use tower::ServiceExt as _;

use super::{entries, socket};
use crate::forward::{configure, wait_until_all_arrived};

const FORMATS: [&str; 4] = ["native", "ocsf", "ecs", "cef"];
/// Text that every planted secret contains, and that occurs nowhere else.
const PLANTED: &str = "Hunter2Planted";

#[derive(Serialize)]
struct Account {
    owner: &'static str,
    door_code: Secret<String>,
    password: String,
}

fn account(turn: u8) -> Account {
    Account {
        owner: if turn == 0 { "alice" } else { "bob" },
        door_code: Secret::new(format!("{PLANTED}{turn}")),
        password: format!("{PLANTED}{turn}"),
    }
}

/// Recursively collects the files in a folder that contain the bytes.
fn files_with(folder: &Path, words: &[u8], found: &mut Vec<String>) {
    for file in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let path = file.path();
        let kind = file.file_type().unwrap();
        if kind.is_dir() {
            files_with(&path, words, found);
        } else if kind.is_file() {
            let bytes = std::fs::read(&path).unwrap();
            if bytes.windows(words.len()).any(|window| window == words) {
                found.push(path.display().to_string());
            }
        }
    }
}

fn nowhere(cluster: &Cluster, when: &str) {
    let mut found = Vec::new();
    files_with(cluster.dir.path(), PLANTED.as_bytes(), &mut found);
    assert!(found.is_empty(), "{when}: {found:?}");
}

fn node_metrics(cluster: &Cluster) -> String {
    let mut curl = std::process::Command::new("curl");
    let asked = curl.arg("-s").arg("--unix-socket").arg(socket(cluster)).arg("http://node/metrics").output().unwrap();
    String::from_utf8(asked.stdout).unwrap()
}

fn planted() -> Entry {
    Entry::new(Category::Data, "account.update")
        .user("alice")
        .path(format!("/login?user=alice&password={PLANTED}1&next=/"))
        .user_agent(format!("curl Bearer {PLANTED}2"))
        .reason("bad_login")
        .description(format!("login failed with password: {PLANTED}3 at https://alice:{PLANTED}4@example.org/"))
        .changes(Changes::between(&account(0), &account(1)).unwrap())
        .detail("headers", json!({ "Authorization": format!("Basic {PLANTED}5"), "Cookie": format!("sid={PLANTED}6"), "Accept": "*/*" }))
        .detail("body", format!(r#"{{"api_key":"{PLANTED}7","n":1}}"#))
        .detail("account", account(0))
        .detail("error", format!("invalid token={PLANTED}8"))
        .detail("list", json!([{ "name": "X-Api-Key", "value": format!("{PLANTED}9") }]))
        .secret_detail("seen_by_nobody")
}

#[tokio::test(flavor = "multi_thread")]
async fn planted_secrets_are_found_nowhere() {
    let mut cluster = Cluster::made(&["mx1"], |_| None).await;
    let out = cluster.dir.path().join("out");
    std::fs::create_dir(&out).unwrap();
    let mut tables = String::new();
    for format in FORMATS {
        let file = out.join(format);
        tables +=
            &format!("[[forward]]\nname = \"{format}\"\nto = \"file://{}\"\nformat = \"{format}\"\n", file.display());
    }
    configure(&cluster, 0, &tables);
    cluster.restart(0).await;
    let folder = cluster.dir.path().join("spool");
    let recorder = Recorder::builder(&socket(&cluster)).unwrap().policy_for_all(DeliveryPolicy::Spool).spool(&folder);
    let recorder = recorder.deadline(Duration::from_millis(500)).open().unwrap();
    recorder.emit(planted()).await.unwrap();
    cluster.stop(0);
    recorder.emit(planted()).await.unwrap();
    nowhere(&cluster, "in the spool");
    cluster.restart(0).await;
    assert!(recorder.flush(Duration::from_secs(30)).await);
    assert!(!recorder.metrics_text().contains(PLANTED));

    // The node masks the entries of a program that does no masking itself.
    let client = NodeClient::new(&socket(&cluster)).unwrap();
    let raw = json!({
        "category": "data", "action": "account.update", "path": format!("/x?token={PLANTED}1"),
        "description": format!("Bearer {PLANTED}2"), "changes": [{"field": "smtp.password", "old": format!("{PLANTED}3"), "new": null}],
        "details": {"deep": {"client_secret": format!("{PLANTED}4"), "url": format!("amqp://u:{PLANTED}5@h/")}},
    });
    client.append(&raw).await.unwrap();
    // A refusal does not repeat the refused content.
    let bad = json!({ "category": "data", "action": format!("a b {PLANTED}"), "details": {"password": PLANTED} });
    let refusal = client.append(&bad).await.unwrap_err().to_string();
    assert!(!refusal.contains(PLANTED), "{refusal}");

    let app = Router::new()
        .route(
            "/reset-password/{code}",
            post(async |Extension(activity): Extension<AuditContext>| {
                activity
                    .action(Category::User, "user.password_reset")
                    .update(|entry| entry.detail("error", format!("cannot send: password={PLANTED}")));
                "done"
            }),
        )
        .layer(RecordLayer::new(recorder.clone()));
    let request = http::Request::post(format!("/reset-password/{PLANTED}-0123456789?password={PLANTED}"))
        .header("authorization", format!("Bearer {PLANTED}"))
        .header("cookie", format!("session={PLANTED}"))
        .body(axum::body::Body::from(format!("password={PLANTED}")))
        .unwrap();
    assert_eq!(app.oneshot(request).await.unwrap().status(), 200);

    let log = entries(&cluster, "-category:log");
    assert_eq!(log.len(), 4);
    let first = &log[0];
    assert_eq!(first["path"], "/login?user=alice&password=***&next=/");
    assert_eq!(first["details"]["headers"]["Accept"], "*/*");
    assert_eq!(first["details"]["account"]["owner"], "alice");
    assert_eq!(
        first["changes"],
        json!([
            {"field": "door_code", "old": "***", "new": "***"},
            {"field": "owner", "old": "alice", "new": "bob"},
            {"field": "password", "old": "***", "new": "***"},
        ])
    );
    for path in ["path", "user_agent", "details.headers.Authorization", "details.seen_by_nobody", "changes.password"] {
        assert!(first["redacted"].as_array().unwrap().contains(&json!(path)), "{path}: {}", first["redacted"]);
    }
    assert_eq!(log[3]["path"], "/reset-password/***");
    for format in FORMATS {
        wait_until_all_arrived(&cluster, 0, format);
        let handed_on = std::fs::read_to_string(out.join(format)).unwrap();
        // Entries did arrive, so the absence of the secret in the forwarded data is meaningful.
        assert!(handed_on.matches("account.update").count() >= 3 && handed_on.contains("***"), "{format}: {handed_on}");
    }
    assert!(cluster.log_text("mx1").contains("ready"));
    let metrics = cluster.on_node(0, &["status", "--json"]).stdout + &node_metrics(&cluster) + &recorder.metrics_text();
    assert!(metrics.contains("piperoll_node_forward") && !metrics.contains(PLANTED), "{metrics}");
    nowhere(&cluster, "at the end");
    cluster.stop(0);
    nowhere(&cluster, "in what a stopped node leaves");
    cluster.verify_all();
}
