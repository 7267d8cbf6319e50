//! Tests that a client limited to a scope gets nothing outside it, on any route, whatever a node or a file contains.

use piperoll_protocol::access::Role;
use piperoll_tests::{Answer, Cluster, edit, place};
use reqwest::Method;
use serde_json::{Value, json};

/// Text that must never reach the limited client.
const SECRET: &str = "harbour-41c7";
const SCOPE: &str = "user:alice,bob -domain:internal.example";

fn line(user: &str, domain: &str, text: &str) -> String {
    json!({ "category": "data", "action": "mail.release", "outcome": "success", "user": user, "domain": domain,
            "ip_address": "192.0.2.7", "description": text })
    .to_string()
}

/// Returns entries that become rows 1 to 5 of a node, whose row 0 is the node's own: rows 1 and 2 are within the scope, 3 to 5
/// are not.
fn lines() -> Vec<String> {
    vec![
        line("alice", "example.org", "seen"),
        line("bob", "example.org", "seen"),
        line("carol", "example.org", SECRET),
        line("alice", "internal.example", SECRET),
        line("dave", "example.org", SECRET),
    ]
}

async fn get(cluster: &Cluster, path: &str, token: &str) -> Answer {
    let answer = cluster.get(path, Some(token)).await;
    assert!(!answer.text.contains(SECRET), "{path}: {}", answer.text);
    answer
}

/// Checks that a limited client sees nothing of an erased row: its content is unknown, and the reason for the erasure is not public.
async fn erased_rows_do_not_show(cluster: &Cluster, kim: &str) {
    let erased = cluster.on_node(1, &["erase", "--seq", "5", "--reason", SECRET]);
    assert_eq!(erased.code, 0, "{}", erased.stderr);
    let answer = get(cluster, "/api/v1/audit-log?from=1d&limit=100&filter=node:mx2", kim).await;
    let json = answer.json();
    assert!(json["entries"].as_array().unwrap().iter().all(|row| row["erased"].is_null()), "{}", answer.text);
    assert!(json["erased"].is_null() && json["nodes"].as_array().unwrap().iter().all(|node| node["erased"].is_null()));
    for filter in ["is:erased", "seq:5", "node:mx2%20seq:5"] {
        let answer = get(cluster, &format!("/api/v1/audit-log?from=1d&filter={filter}"), kim).await.json();
        let of_mx2 = answer["entries"].as_array().unwrap().iter().any(|row| row["node_id"] == "mx2" && row["seq"] == 5);
        assert!(!of_mx2 && answer["erased"].is_null(), "{filter}: {answer}");
    }
    let counted = get(cluster, "/api/v1/stats?from=1d", kim).await.json();
    assert_eq!(counted["stats"]["erased"], 0, "{counted}");
    assert_eq!(get(cluster, "/api/v1/audit-log/mx2/5", kim).await.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_route_gives_what_is_outside_the_scope() {
    let mut cluster = Cluster::witnessed(&["mx1", "mx2"], 200).await;
    for index in 0..2 {
        cluster.append(index, &lines()).await;
    }
    cluster.wait_until_complete().await;
    let kim = cluster.limited_token("kim", Role::Auditor, SCOPE);
    let whole = cluster.token("ada", Role::Auditor, None);

    // Request pages, streams and counts with any filter.
    for filter in ["", "user:carol", "domain:internal.example", SECRET, "-user:nobody"] {
        let path = format!("/api/v1/audit-log?from=1d&limit=100&order=asc&filter={filter}%20node:mx1,mx2");
        let answer = get(&cluster, &path, &kim).await;
        let json = answer.json();
        assert_eq!((answer.status, &json["limited_to"]), (200, &json!(SCOPE)), "{json}");
        let expected: &[&str] = if ["", "-user:nobody"].contains(&filter) { &["1", "2"] } else { &[] };
        let mut seqs: Vec<String> = answer.places().iter().map(|place| place[4..].to_owned()).collect();
        seqs.sort();
        seqs.dedup();
        assert_eq!(seqs, expected, "{filter}");
        for format in ["ndjson", "csv"] {
            get(&cluster, &format!("{path}&format={format}").replace("limit=100&", ""), &kim).await;
        }
    }
    let stats = "/api/v1/stats?from=1d&by=user,description&filter=node:mx1,mx2".replace(",description", "");
    for verify in [false, true] {
        let json = get(&cluster, &format!("{stats}&verify={verify}"), &kim).await.json();
        let by = &json["stats"]["by"][0]["top"];
        assert_eq!(json["stats"]["entries"], 4, "{json}");
        assert_eq!(by, &json!([{ "value": "alice", "count": 2 }, { "value": "bob", "count": 2 }]), "{json}");
    }
    // Request single rows and their proofs, once the rows are cosigned.
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while get(&cluster, "/api/v1/audit-log/mx1/2/proof", &kim).await.status != 200 {
        assert!(std::time::Instant::now() < deadline, "row 2 was never cosigned");
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    for (seq, status) in [(1, 200), (2, 200), (0, 404), (3, 404), (4, 404), (5, 404), (77, 404)] {
        let path = format!("/api/v1/audit-log/mx1/{seq}");
        assert_eq!(get(&cluster, &path, &kim).await.status, status, "{path}");
        assert_eq!(get(&cluster, &format!("{path}/proof"), &kim).await.status, status, "{path}/proof");
        assert_eq!(cluster.get(&path, Some(&whole)).await.status == 200, seq != 77);
    }
    // A cursor from the query of another client is refused.
    let page = cluster.get("/api/v1/audit-log?from=1d&limit=2", Some(&whole)).await;
    let cursor = page.json()["next_cursor"].as_str().unwrap().to_owned();
    let answer = get(&cluster, &format!("/api/v1/audit-log?from=1d&limit=2&cursor={cursor}"), &kim).await;
    assert_eq!((answer.status, &answer.json()["code"]), (400, &json!("cursor_of_another_query")), "{}", answer.text);
    // A route that needs every row is refused; a bundle contains only rows in scope.
    let refused = cluster.send(Method::POST, "/api/v1/verify", Some(&kim), None).await;
    assert_eq!((refused.status, &refused.json()["code"]), (403, &json!("scope_forbidden")), "{}", refused.text);
    let client = reqwest::Client::builder()
        .add_root_certificate(reqwest::Certificate::from_pem(&std::fs::read(cluster.ca()).unwrap()).unwrap())
        .build()
        .unwrap();
    let bundle = async || {
        let request = json!({ "reason": "a look", "from": "1d", "filter": "node:mx1,mx2", "incomplete": "wait" });
        let answer =
            client.post(format!("{}/api/v1/exports", cluster.url)).bearer_auth(&kim).json(&request).send().await;
        let answer = answer.unwrap();
        let status = answer.status();
        let bytes = answer.bytes().await.unwrap();
        let holds = |text: &str| bytes.windows(text.len()).any(|window| window == text.as_bytes());
        assert!(status.is_success() && holds("example.org") && !holds(SECRET), "{status}");
    };
    bundle().await;
    // The tail.
    let mut tail = client
        .get(format!("{}/api/v1/audit-log/tail?from=1d&filter=node:mx1,mx2", cluster.url))
        .bearer_auth(&kim)
        .send()
        .await
        .unwrap();
    cluster.append(0, &[line("carol", "example.org", SECRET), line("alice", "example.org", "the last one")]).await;
    let mut text = String::new();
    while !text.contains("the last one") {
        text.push_str(std::str::from_utf8(&tail.chunk().await.unwrap().unwrap()).unwrap());
    }
    assert!(!text.contains(SECRET) && text.matches("event: entry").count() == 5, "{text}");

    erased_rows_do_not_show(&cluster, &kim).await;
    bundle().await;

    // One row was changed so that it seems to be in scope, and one row in scope was changed: neither can be trusted, so only
    // their positions are shown.
    edit(&cluster.database(0), "UPDATE entries SET body = replace(body, 'carol', 'alice') WHERE seq = 3");
    edit(&cluster.database(0), "UPDATE entries SET body = replace(body, 'seen', 'forged') WHERE seq = 1");
    cluster.stop(0);
    cluster.restart(0).await;
    cluster.wait_until_answered("mx1").await;
    let answer = get(&cluster, "/api/v1/audit-log?from=1d&limit=100&filter=node:mx1", &kim).await;
    let rows: Vec<Value> = answer.json()["entries"].as_array().unwrap().clone();
    for row in rows.iter().filter(|row| row["integrity"] != "ok") {
        assert!(row["entry"].is_null() && row["withheld"] == true && row["signature"] == "", "{row}");
    }
    let withheld: Vec<String> = rows.iter().filter(|row| row["withheld"] == true).map(place).collect();
    assert!(withheld.contains(&"mx1/1".to_owned()), "{rows:?}");
    assert!(!answer.text.contains("forged") && answer.status_of("mx1") == "invalid", "{}", answer.text);
    assert_eq!(get(&cluster, "/api/v1/audit-log/mx1/3", &kim).await.status, 404);
    assert_eq!(get(&cluster, "/api/v1/audit-log/mx1/3/proof", &kim).await.status, 404);
    // The command also reports that the caller's scope is limited.
    let run = cluster.command(&["query", "node:mx2"]).env("PIPEROLL_TOKEN", &kim).output().unwrap();
    let stderr = String::from_utf8_lossy(&run.stderr);
    assert!(run.status.success() && stderr.contains("limited to your scope: user:alice,bob"), "{stderr}");
    // Every read was recorded together with the caller's scope.
    let looked = cluster.page("from=1d&limit=1000&filter=user:kim").await.json();
    let details: Vec<&Value> =
        looked["entries"].as_array().unwrap().iter().map(|row| &row["entry"]["details"]).collect();
    assert!(details.iter().any(|details| details["limited_to"] == SCOPE), "{details:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn scopes_that_cannot_be_are_refused() {
    let cluster = Cluster::start(&["mx1"]).await;
    let ask =
        |body: Value| async { cluster.send(Method::POST, "/api/v1/tokens", Some(&cluster.token), Some(body)).await };
    for (role, scope, words) in [
        ("admin", "user:alice", "a scope cannot limit an admin"),
        ("viewer", "", "the scope is empty; omit it"),
        ("viewer", "nosuchkey:x", "nosuchkey"),
        ("auditor", "user:\"open", "scope"),
    ] {
        let answer = ask(json!({ "name": "x", "role": role, "scope": scope })).await;
        assert_eq!(answer.status, 400, "{scope}: {}", answer.text);
        assert!(answer.json()["detail"].as_str().unwrap().contains(words), "{}", answer.text);
    }
    let made = ask(json!({ "name": "kim", "role": "viewer", "scope": "  user:alice " })).await;
    assert_eq!((made.status, &made.json()["scope"]), (201, &json!("user:alice")), "{}", made.text);
    let listed = cluster.get("/api/v1/tokens", Some(&cluster.token)).await.json();
    assert!(listed.as_array().unwrap().iter().any(|token| token["scope"] == "user:alice"), "{listed}");
}
