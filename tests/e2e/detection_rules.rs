//! Tests detection rules with a real node process: each built-in rule, and that its counts survive when the node is killed.

use piperoll_tests::Cluster;
use serde_json::{Value, json};

/// Returns the rules that flagged a user's newest entry with this action.
fn flags(cluster: &Cluster, user: &str, action: &str) -> Vec<String> {
    let run = cluster.on_node(0, &["query", &format!("user:{user} action:{action}"), "--json", "--limit", "1"]);
    let row: Value = serde_json::from_str(run.stdout.lines().next().unwrap()).unwrap();
    let flags = row["entry"]["flags"].as_array().cloned().unwrap_or_default();
    flags.iter().map(|flag| flag["rule"].as_str().unwrap().to_owned()).collect()
}

async fn record(cluster: &Cluster, entry: Value) {
    cluster.append(0, &[entry.to_string()]).await;
}

fn edit(quota: u32) -> Value {
    json!({ "category": "config", "action": "domain.update", "user": "alice", "outcome": "success", "entity_type": "domain",
        "entity_id": "example.org", "changes": [{ "field": "name", "old": quota, "new": quota + 1 }] })
}

fn login(user: &str, ip: &str, outcome: &str) -> Value {
    json!({ "category": "auth", "action": "auth.login", "user": user, "ip_address": ip, "outcome": outcome })
}

fn read(user: &str) -> Value {
    json!({ "category": "data", "action": "mail.read", "user": user, "outcome": "success" })
}

#[tokio::test(flavor = "multi_thread")]
async fn every_rule_flags_and_a_killed_node_remembers_what_they_counted() {
    let mut cluster = Cluster::made(&["mx1"], |_| None).await;
    cluster.restart(0).await;
    for quota in 0..4 {
        record(&cluster, edit(quota)).await;
    }
    for _ in 0..4 {
        record(&cluster, login("mallory", "203.0.113.77", "failure")).await;
    }
    record(&cluster, login("bob", "192.0.2.1", "success")).await;
    for _ in 0..20 {
        record(&cluster, read("carol")).await;
    }
    let quiet = [("alice", "domain.update"), ("mallory", "auth.login"), ("bob", "auth.login"), ("carol", "mail.read")];
    for (user, action) in quiet {
        assert_eq!(flags(&cluster, user, action), [""; 0], "{user} did nothing that stands out yet");
    }
    cluster.kill(0);
    cluster.restart(0).await;
    record(&cluster, edit(4)).await;
    record(&cluster, login("mallory", "203.0.113.77", "failure")).await;
    record(&cluster, login("bob", "192.0.2.1", "success")).await;
    assert_eq!(flags(&cluster, "bob", "auth.login"), [""; 0], "he came from there before the node was killed");
    record(&cluster, login("bob", "198.51.100.9", "success")).await;
    record(&cluster, read("carol")).await;
    for ((user, action), rule) in
        quiet.into_iter().zip(["repeated_edits", "failed_logins", "new_address", "many_operations"])
    {
        assert_eq!(flags(&cluster, user, action), [rule], "{user}");
    }
    // Rules that count nothing.
    let of_dave = |action: &str, more: Value| {
        let mut entry = json!({ "category": "data", "action": action, "user": "dave", "outcome": "success" });
        entry.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        entry
    };
    let price = json!({ "changes": [{ "field": "price", "old": 100, "new": 126 }] });
    record(&cluster, of_dave("offer.set", price)).await;
    assert_eq!(flags(&cluster, "dave", "offer.set"), ["value_changed"]);
    let price = json!({ "changes": [{ "field": "price", "old": 100, "new": 125 }] });
    record(&cluster, of_dave("offer.set", price)).await;
    assert_eq!(flags(&cluster, "dave", "offer.set"), [""; 0], "25 percent are not more than 25");
    record(&cluster, of_dave("user.delete", json!({ "entity_type": "user", "entity_id": "7" }))).await;
    assert_eq!(flags(&cluster, "dave", "user.delete"), ["sensitive_deletion"]);
    record(&cluster, of_dave("mail.send", json!({ "impersonator": "root" }))).await;
    assert_eq!(flags(&cluster, "dave", "mail.send"), ["impersonation"]);
    let found = cluster.on_node(0, &["query", "is:flagged", "--json"]).stdout;
    assert_eq!(found.lines().filter(|line| line.contains("\"flags\"")).count(), 7, "{found}");
    cluster.stop(0);
    cluster.verify_all();
}
