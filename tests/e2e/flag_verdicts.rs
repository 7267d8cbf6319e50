//! Tests verdicts on flagged entries: a verdict is an entry of its own. Only a caller with the permission can record one, about
//! an existing, flagged entry within the caller's scope.

use piperoll_protocol::access::Role;
use piperoll_tests::{Cluster, entry};
use serde_json::{Value, json};

#[tokio::test(flavor = "multi_thread")]
async fn a_verdict_is_an_entry_that_refers_to_the_flagged_one() {
    let cluster = Cluster::start(&["mx1"]).await;
    let flagged = json!({ "category": "data", "action": "mail.read", "user": "carol", "impersonator": "root@example.org", "outcome": "success",
        "domain": "example.org" });
    cluster.append(0, &[flagged.to_string(), entry("alice", "auth.logout")]).await;
    let found = cluster.run(&["query", "is:flagged", "--json"]);
    let row: Value = serde_json::from_str(found.stdout.lines().next().unwrap()).unwrap();
    let (place, id) = (format!("mx1/{}", row["entry"]["seq"]), row["entry"]["id"].clone());
    assert_eq!(row["entry"]["flags"][0]["rule"], "impersonation", "{row}");

    let reason = "support call 812, requested by the customer";
    let recorded = cluster.run(&["verdict", &place, "false-positive", "--reason", reason]);
    assert_eq!(recorded.code, 0, "{}", recorded.stderr);
    let said = cluster.run(&["query", "action:audit.judge", "--json"]);
    let said: Value = serde_json::from_str(said.stdout.lines().next().unwrap()).unwrap();
    let (entry, details) = (&said["entry"], &said["entry"]["details"]);
    assert_eq!((&entry["user"], &entry["outcome"]), (&json!("tester"), &json!("success")), "{said}");
    assert_eq!((&details["id"], &details["judgement"]), (&id, &json!("false_alarm")), "{said}");
    assert_eq!(details["flags"], json!(["impersonation"]));
    // The flagged entry itself is unchanged.
    let again = cluster.run(&["show", &place, "--json"]);
    assert_eq!(serde_json::from_str::<Value>(again.stdout.lines().next().unwrap()).unwrap()["entry"], row["entry"]);

    let (plain, seq) = ("mx1/2", row["entry"]["seq"].as_u64().unwrap());
    for (arguments, words) in [
        (["verdict", plain, "true-positive", "--reason", "x"], "not flagged"),
        (["verdict", "mx1/99", "true-positive", "--reason", "x"], "has no row 99"),
        (["verdict", "mx9/1", "true-positive", "--reason", "x"], "not in the roster"),
        (["verdict", &place, "true-positive", "--reason", " "], "the reason must have"),
        (["verdict", "mx1", "true-positive", "--reason", "x"], "NODE/SEQ"),
    ] {
        let refused = cluster.run(&arguments);
        // An invalid row address or reason is a usage error.
        let code = if arguments[1] == "mx1" || words == "the reason must have" { 2 } else { 1 };
        assert!(refused.code == code && refused.stderr.contains(words), "{arguments:?}: {}", refused.stderr);
    }
    let body = json!({ "node": "mx1", "seq": seq, "verdict": "true_positive", "reason": "seen" });
    let viewer = cluster.token("viewer", Role::Viewer, None);
    let elsewhere = cluster.limited_token("elsewhere", Role::Auditor, "domain:example.net");
    let here = cluster.limited_token("here", Role::Auditor, "domain:example.org");
    for (token, status) in [(viewer, 403), (elsewhere, 404), (here, 204)] {
        let answer = cluster.send(reqwest::Method::POST, "/api/v1/verdicts", Some(&token), Some(body.clone())).await;
        assert_eq!(answer.status, status, "{}", answer.text);
    }
    // The former command, path, field and values are still accepted for one release, with the same meaning.
    assert_eq!(cluster.run(&["judge", &place, "reviewed", "--reason", reason]).code, 0);
    let body = json!({ "node": "mx1", "seq": seq, "judgement": "false_alarm", "reason": "seen" });
    let answer = cluster.send(reqwest::Method::POST, "/api/v1/judgements", Some(&cluster.token), Some(body)).await;
    assert_eq!(answer.status, 204, "{}", answer.text);
    let said = cluster.run(&["query", "action:audit.judge outcome:success", "--json"]);
    let verdicts: Vec<Value> = said.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let recorded: Vec<&Value> =
        verdicts.iter().rev().filter_map(|line| line["entry"]["details"].get("judgement")).collect();
    assert_eq!(recorded, ["false_alarm", "reviewed", "reviewed", "false_alarm"]);
    cluster.verify_all();
}
