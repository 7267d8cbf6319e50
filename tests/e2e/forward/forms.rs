//! Checks entries forwarded as OCSF and ECS against the published schemas.

use std::path::Path;
use std::process::Command;

use piperoll_tests::Cluster;
use serde_json::{Value, json};

use super::{configure, wait_until_all_arrived};

/// Environment variable that names a folder with a Python environment for `scripts/check-forms` and the package `@elastic/ecs`.
const TOOLS: &str = "PIPEROLL_FORMS";

const CATEGORIES: [&str; 7] = ["auth", "user", "config", "data", "security", "integration", "audit"];
const VERBS: [&str; 24] = [
    "login",
    "logout",
    "impersonate",
    "login_failed",
    "create",
    "enable",
    "disable",
    "password_change",
    "password_reset",
    "delete",
    "lock",
    "mfa_enable",
    "grant",
    "revoke",
    "read",
    "update",
    "move",
    "suspend",
    "start",
    "stop",
    "export",
    "purge",
    "release",
    "frobnicate",
];
const OUTCOMES: [&str; 4] = ["success", "failure", "denied", "unknown"];

/// Builds entries with every verb in every category: each once with nearly all fields, and once with the required fields only.
fn entries() -> Vec<String> {
    let mut entries = Vec::new();
    for (at, category) in CATEGORIES.iter().enumerate() {
        for (nth, verb) in VERBS.iter().enumerate() {
            let outcome = OUTCOMES[(at + nth) % OUTCOMES.len()];
            let mut bare = json!({ "category": category, "action": format!("thing.{verb}") });
            entries.push(bare.to_string());
            let full = json!({
                "outcome": outcome, "user": "alice", "user_type": "admin", "session": "s-1", "auth_method": "password+totp",
                "entity_type": (["user", "domain", "table"][nth % 3]), "entity_id": "e-1", "entity_name": "example.org",
                "target": "bob", "domain": "tenant", "ip_address": "2001:db8::7", "user_agent": "curl \"8\"", "method": "POST",
                "path": "/x", "request_id": "r-1", "description": "a \u{1f511} and a\nline", "occurred_at": "2026-04-15T06:22:01.123456Z",
                "changes": [{ "field": "quota", "old": 1, "new": 2 }], "details": { "counts": { "succeeded": 2, "failed": 1 } },
            });
            merge(&mut bare, full);
            if outcome != "success" {
                bare["reason"] = json!("no_reason");
            }
            if nth % 5 == 0 {
                bare["impersonator"] = json!("root");
                bare["peer_address"] = json!("192.0.2.1");
                bare["credential"] = json!("key-1");
            }
            entries.push(bare.to_string());
        }
    }
    entries
}

fn merge(into: &mut Value, fields: Value) {
    if let (Some(into), Value::Object(fields)) = (into.as_object_mut(), fields) {
        into.extend(fields);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_handed_on_keeps_the_published_schemas() {
    let Ok(tools) = std::env::var(TOOLS) else {
        eprintln!("SKIPPED: {TOOLS} is not set; scripts/test says what belongs there");
        return;
    };
    let mut cluster = Cluster::made(&["mx1"], |_| None).await;
    let file = |format: &str| cluster.dir.path().join(format);
    let tables = ["ocsf", "ecs"].map(|format| {
        let to = file(format);
        format!("[[forward]]\nname = \"{format}\"\nto = \"file://{}\"\nformat = \"{format}\"\n", to.display())
    });
    let files = ["ocsf", "ecs"].map(file);
    configure(&cluster, 0, &tables.concat());
    cluster.restart(0).await;
    let entries = entries();
    cluster.append(0, &entries).await;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/check-forms");
    let fields = Path::new(&tools).join("package/generated/ecs_flat.js");
    for (format, file) in ["ocsf", "ecs"].into_iter().zip(files) {
        wait_until_all_arrived(&cluster, 0, format);
        let python = Path::new(&tools).join("bin/python");
        let checked = Command::new(python).arg(&script).arg(format).arg(&file).arg(&fields).output().unwrap();
        let said = String::from_utf8_lossy(&checked.stdout);
        assert!(checked.status.success(), "{format}: {said}{}", String::from_utf8_lossy(&checked.stderr));
        // The count includes the node's own entries.
        let count =
            said.lines().last().and_then(|line| line.split(' ').nth(1)).and_then(|count| count.parse::<usize>().ok());
        assert!(count.is_some_and(|count| count > entries.len()), "{said}");
    }
}
