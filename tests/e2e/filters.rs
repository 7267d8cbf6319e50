//! A filter means the same on every route, on every node, and in evidence.

use std::sync::{Arc, Mutex};

use axum::body::Bytes;
use axum::routing::{get, post};
use axum::{Json, Router};
use piperoll_format::merkle::{Hash, RangeProof, TreeReader, leaf_hash, range_proof};
use piperoll_format::order::Order;
use piperoll_format::time::Timestamp;
use piperoll_format::view::EntryView;
use piperoll_net::clock::{Clock as _, SystemClock};
use piperoll_net::serve::serve_tls;
use piperoll_net::tls::{ClientAuth, TlsStore};
use piperoll_node::config::NodeConfig;
use piperoll_protocol::access::Role;
use piperoll_protocol::frame::{EntryParts, write_end, write_entry, write_head, write_proof};
use piperoll_protocol::node::{ScanRequest, StreamEnd, StreamHead, peer_path};
use piperoll_query::filter::Filter;
use piperoll_tests::{Cluster, Leaves, until};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

fn lines() -> Vec<String> {
    [
        json!({ "category": "auth", "action": "auth.login", "user": "kim", "outcome": "success", "ip_address": "203.0.113.7" }),
        json!({ "category": "auth", "action": "auth.login", "user": "M.Keller", "outcome": "failure", "ip_address": "203.0.114.7" }),
        json!({ "category": "payment", "action": "invoice.update", "user": "kim", "details": { "subject": "Hello, you", "amount": 41.50 } }),
        json!({ "category": "payment", "action": "price.update", "user": "lee", "changes": [{ "field": "price", "old": 10, "new": 12 }] }),
        json!({ "category": "data", "action": "mailbox.delete", "user": "lee", "domain": "example.org", "entity_type": "mailbox", "entity_id": "7" }),
        json!({ "category": "data", "action": "mailbox.delete", "entity_type": "mailbox",
                "details": { "counts": { "ok": 2 }, "affected": ["7", "8"] } }),
        json!({ "category": "data", "action": "file.read", "user": "ada", "description": "did NOT work" }),
    ]
    .map(|entry| entry.to_string())
    .into()
}

/// Values in `details` with and without JSON escapes, written as text because a JSON library would produce only one of the forms.
const ESCAPED: [&str; 2] = [
    r#"{"category":"data","action":"file.read","user":"a","details":{"who":"M\u00fcller","url":"\/index.php\/files"}}"#,
    r#"{"category":"data","action":"file.read","user":"b","details":{"who":"Müller","url":"/index.php/files"}}"#,
];

fn encoded(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02x}")).collect()
}

async fn found(cluster: &Cluster, filter: &str) -> Vec<String> {
    let answer = cluster.page(&format!("from=1d&limit=1000&order=asc&filter={}", encoded(filter))).await;
    assert_eq!(answer.status, 200, "{filter}: {}", answer.text);
    assert_eq!(answer.json()["complete"], true, "{filter}: {}", answer.text);
    let rows = answer.json()["entries"].as_array().unwrap().clone();
    rows.iter().map(|row| row["entry"]["action"].as_str().unwrap().to_owned()).collect()
}

/// Filters, each with the number of entries on one node that match.
const FILTERS: [(&str, usize); 26] = [
    ("user=kim", 2),
    ("user:kim OR user:lee", 4),
    ("user:(kim OR lee) -verb:update", 2),
    ("user:k* AND NOT category:auth", 1),
    ("action:*.update", 2),
    ("verb:update", 2),
    ("verb:update,delete", 4),
    ("(verb:delete -user:*) OR user:ada", 2),
    ("ip:203.0.113.*", 1),
    ("ip:203.0.113.0..203.0.114.255", 2),
    ("user:~m.keller", 1),
    ("user:m.keller", 0),
    ("category:payment", 2),
    ("details.subject:\"Hello, you\"", 1),
    ("details.amount:41.5", 1),
    ("details.amount:>41", 1),
    ("details.amount:42..50", 0),
    ("changes.price.new:12", 1),
    ("changes.price.old:12", 0),
    ("entity:mailbox/7", 2),
    ("entity:mailbox/8", 1),
    ("subject:8 entity:mailbox", 1),
    ("details:müller", 2),
    ("details:\"/index.php/files\"", 2),
    ("details.who:Müller user:a", 1),
    ("\"did NOT work\"", 1),
];

#[tokio::test(flavor = "multi_thread")]
async fn filters_mean_what_people_mean_over_all_nodes() {
    let cluster = Cluster::start(&["mx1", "mx2"]).await;
    let all: Vec<String> = lines().into_iter().chain(ESCAPED.map(str::to_owned)).collect();
    for index in 0..2 {
        cluster.append(index, &all).await;
    }
    cluster.wait_until_complete().await;
    let own = "node:mx1,mx2 -category:log -category:audit";
    for (filter, each) in FILTERS {
        assert_eq!(found(&cluster, &format!("{own} ({filter})")).await.len(), 2 * each, "{filter}");
        let rest = found(&cluster, &format!("{own} NOT ({filter})")).await.len();
        assert_eq!(rest, 2 * (all.len() - each), "NOT ({filter})");
        // Count with the indexes, then by reading the rows (`verify=true`).
        for verify in ["", "&verify=true"] {
            let asked = encoded(&format!("{own} ({filter})"));
            let counts = cluster
                .get(&format!("/api/v1/stats?from=1d&by=verb{verify}&filter={asked}"), Some(&cluster.token))
                .await;
            assert_eq!(counts.json()["stats"]["entries"], 2 * each, "{filter}{verify}: {}", counts.text);
        }
        // Query on the node itself.
        let run = cluster.on_node(0, &["query", "--json", "--limit", "1000", own, &format!("({filter})")]);
        assert_eq!((run.code, run.stdout.matches("\"signature\":").count()), (0, each), "{filter}: {}", run.stderr);
    }
    let by_verb = cluster
        .get(&format!("/api/v1/stats?from=1d&by=verb&filter={}", encoded(own)), Some(&cluster.token))
        .await
        .json();
    let top = by_verb["stats"]["by"][0]["top"].as_array().unwrap().clone();
    let count = |verb: &str| {
        top.iter().find(|value| value["value"] == verb).map_or(0, |value| value["count"].as_u64().unwrap())
    };
    assert_eq!(["login", "update", "delete", "read"].map(count), [4, 4, 4, 6], "{by_verb}");
    evidence_has_the_filter(&cluster, own);
    hints_and_errors(&cluster).await;
}

/// Checks that a bundle that was exported with a filter of alternatives is verified offline with the same filter.
fn evidence_has_the_filter(cluster: &Cluster, own: &str) {
    let dir = tempfile::tempdir().unwrap();
    let (bundle, trust) = (dir.path().join("b.tar"), dir.path().join("trust.toml"));
    let filter = format!("{own} (user:k* OR details.who:Müller)");
    let made = cluster.run(&[
        "export",
        "--bundle",
        bundle.to_str().unwrap(),
        "--reason",
        "test",
        "--from",
        "1d",
        "--incomplete",
        "wait",
        &filter,
    ]);
    assert_eq!(made.code, 0, "{}", made.stderr);
    std::fs::write(&trust, cluster.authority().trust().unwrap().to_text()).unwrap();
    let verified = cluster.run(&["verify-bundle", bundle.to_str().unwrap(), "--trust", trust.to_str().unwrap()]);
    assert!(verified.code == 0 && verified.stdout.contains("VERIFIED"), "{}", verified.stdout);
}

async fn hints_and_errors(cluster: &Cluster) {
    let hints = async |filter: &str| {
        let answer = cluster.page(&format!("from=1d&filter={}", encoded(filter))).await.json();
        answer["filter_hints"].as_array().cloned().unwrap_or_default()
    };
    assert!(hints("did NOT work").await[0].as_str().unwrap().contains("quote it"));
    assert!(hints("user:M.KELLER").await[0].as_str().unwrap().contains("user:~M.KELLER"));
    assert!(hints("user:kim").await.is_empty());
    let run = cluster.run(&["query", "--table", "user:M.KELLER"]);
    assert!(run.stderr.contains("hint: user:M.KELLER is case-sensitive"), "{}", run.stderr);
    for (filter, words) in [
        ("user:alice or user:bob", "write OR in capitals"),
        ("flag:nosuchflag", "flag has no value"),
        ("outcome:failed", "did you mean outcome:failure?"),
        ("user=~k.*", "regular expressions are not supported"),
        ("occurred:1M..", "differ in length"),
    ] {
        let answer = cluster.page(&format!("filter={}", encoded(filter))).await;
        assert_eq!((answer.status, &answer.json()["code"]), (400, &json!("bad_filter")), "{filter}: {}", answer.text);
        // The command line reports the error without contacting an aggregator.
        let run = cluster.command(&["query", filter]).env("PIPEROLL_URL", "https://127.0.0.1:1").output().unwrap();
        let stderr = String::from_utf8_lossy(&run.stderr).into_owned();
        assert!(run.status.code() == Some(2) && stderr.contains(words) && stderr.contains('^'), "{filter}: {stderr}");
    }
    for (args, code) in [
        (vec!["query", "--since", "1h", "--until", "now", "--json"], 0),
        (vec!["query", "--from", "2026-01-01", "--tz", "Europe/Berlin", "--json"], 0),
        (vec!["query", "--from", "1M"], 2),
        (vec!["query", "--tz", "Europe/Nowhere"], 2),
        (vec!["query", "-user:kim", "--json"], 0),
        (vec!["query", "-(user:kim OR user:lee)", "--json"], 0),
        (vec!["stats", "--by", "verb", "user:k* OR user:lee"], 0),
    ] {
        let run = cluster.run(&args);
        assert_eq!(run.code, code, "{args:?}: {}", run.stderr);
    }
    // Use midnight in another time zone.
    let at = |zone: &str| format!("/api/v1/audit-log?from=2026-01-01&to=2026-01-02&tz={}", encoded(zone));
    let berlin = cluster.get(&at("Europe/Berlin"), Some(&cluster.token)).await.json();
    assert_eq!(
        (&berlin["from"], &berlin["to"]),
        (&json!("2025-12-31T23:00:00.000000Z"), &json!("2026-01-01T23:00:00.000000Z"))
    );
}

/// With a scope such as "their own entries, or actions on their customers", no other entry is returned.
#[tokio::test(flavor = "multi_thread")]
async fn a_scope_may_have_alternatives() {
    let cluster = Cluster::start(&["mx1"]).await;
    cluster.append(0, &lines()).await;
    cluster.wait_until_complete().await;
    let token = cluster.limited_token("reseller", Role::Auditor, "actor:kim OR (entity:mailbox/* domain:example.org)");
    let get = async |path: &str| cluster.get(path, Some(&token)).await;
    let answer = get("/api/v1/audit-log?from=1d&order=asc").await.json();
    let rows: Vec<&str> =
        answer["entries"].as_array().unwrap().iter().map(|row| row["entry"]["action"].as_str().unwrap()).collect();
    assert_eq!(rows, ["auth.login", "invoice.update", "mailbox.delete"], "{answer}");
    assert_eq!(answer["limited_to"], "actor:kim OR (entity:mailbox/* domain:example.org)");
    // An OR in the caller's filter does not widen the scope.
    let answer = get(&format!("/api/v1/audit-log?from=1d&filter={}", encoded("user:lee OR user:ada"))).await.json();
    assert_eq!(answer["count"], 1, "{answer}");
    let counted = get("/api/v1/stats?from=1d&by=user").await.json();
    assert_eq!((&counted["stats"]["entries"], &counted["verified"]), (&json!(3), &json!(true)), "{counted}");
    // A version 1 scope does not match the items of bulk entries. This also holds for a filter that version 1 cannot express: the
    // answer reveals no further row, count or position.
    let old = cluster.limited_token("old", Role::Auditor, "v1: entity:mailbox/7");
    for filter in ["", "verb:delete", "details.counts.ok:2 OR user:*", "action:*"] {
        let path = format!("/api/v1/audit-log?from=1d&filter={}", encoded(filter));
        let answer = cluster.get(&path, Some(&old)).await.json();
        assert_eq!(answer["count"], 1, "{filter}: {answer}");
        assert!(!answer.to_string().contains("withheld"), "{filter}: {answer}");
    }
}

/// A node that knows only version 1 filters: it fails on all other filters. It records each scan request.
struct Old {
    asked: Arc<Mutex<Vec<ScanRequest>>>,
    stop: CancellationToken,
}

/// Merges adjacent ranges.
fn joined(ranges: Vec<std::ops::Range<u64>>) -> Vec<std::ops::Range<u64>> {
    let mut all: Vec<std::ops::Range<u64>> = Vec::new();
    for range in ranges {
        match all.last_mut() {
            Some(last) if last.end == range.start => last.end = range.end,
            _ => all.push(range),
        }
    }
    all
}

/// Sequence number, time, MAC and body of a row.
type StoredRow = (u64, i64, Vec<u8>, String);

async fn old_node(cluster: &Cluster) -> Old {
    let config = NodeConfig::load(&cluster.nodes[0].folder.join("node.toml")).unwrap();
    let tls = TlsStore::load(config.peer.files).unwrap();
    let conn = rusqlite::Connection::open(cluster.database(0)).unwrap();
    let generation: String =
        conn.query_row("SELECT value FROM meta WHERE key = 'generation'", [], |row| row.get(0)).unwrap();
    let mut statement = conn.prepare("SELECT seq, ts, mac, body FROM entries ORDER BY seq").unwrap();
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)));
    let rows: Arc<Vec<StoredRow>> = Arc::new(rows.unwrap().map(Result::unwrap).collect());
    let asked: Arc<Mutex<Vec<ScanRequest>>> = Arc::default();
    let remember = Arc::clone(&asked);
    let scan = async move |body: Bytes| {
        let request: ScanRequest = serde_json::from_slice(&body).unwrap();
        remember.lock().unwrap().push(request.clone());
        // Unmarked text is parsed as version 1, the only version that such a node knows.
        let filter = Filter::parse_stored(&request.filter, Timestamp::MIN).unwrap();
        let mut out = Vec::new();
        let head = StreamHead {
            cluster: "test".parse().unwrap(),
            node_id: "mx1".parse().unwrap(),
            generation: generation.parse().unwrap(),
            head_seq: rows.last().map(|row| row.0),
            oldest_seq: Some(0),
            pruned: None,
            epochs: Vec::new(),
            fault: None,
            erased: 0,
        };
        write_head(&mut out, &head);
        let (mut given, mut proven) = (0, Vec::new());
        let ordered: Vec<_> =
            if request.order == Order::Asc { rows.iter().collect() } else { rows.iter().rev().collect() };
        for (seq, ts, mac, body) in ordered {
            let timestamp = Timestamp::from_micros(*ts);
            let view = EntryView::parse(body.as_bytes()).unwrap();
            let limit = request.limit.is_none_or(|limit| given < limit);
            if limit && (request.from..request.to).contains(&timestamp) && filter.matches(&view) {
                write_entry(
                    &mut out,
                    &EntryParts { seq: *seq, place: timestamp, timestamp, epoch: 0, mac, body: body.as_bytes() },
                );
                given += 1;
                proven.extend(request.prove.filter(|size| seq < size).map(|_| *seq));
            }
        }
        if let Some(size) = request.prove {
            proven.sort_unstable();
            let leaves: Vec<Hash> = rows[..usize::try_from(size).unwrap()]
                .iter()
                .map(|(_, _, mac, body)| leaf_hash(body.as_bytes(), mac))
                .collect();
            let runs: Vec<_> = proven.iter().map(|seq| *seq..*seq + 1).collect();
            let runs = joined(runs);
            let hashes = range_proof(&mut TreeReader::new(Leaves(leaves), size), &runs, size).unwrap();
            write_proof(&mut out, &RangeProof { runs, hashes });
        }
        write_end(&mut out, &StreamEnd { rows: given, scanned: rows.len() as u64, more: false, faults: Vec::new() });
        out
    };
    let clock = async || Json(json!({ "now_micros": SystemClock.now().micros() }));
    let router = Router::new().route(peer_path::SCAN, post(scan)).route(peer_path::CLOCK, get(clock));
    let listener = tokio::net::TcpListener::bind(&cluster.nodes[0].listen).await.unwrap();
    let stop = CancellationToken::new();
    tokio::spawn(serve_tls(listener, tls, ClientAuth::Required, router, stop.clone()));
    Old { asked, stop }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_of_before_is_asked_what_it_understands() {
    let mut cluster = Cluster::start(&["mx1", "mx2"]).await;
    let all: Vec<String> = lines().into_iter().chain(ESCAPED.map(str::to_owned)).collect();
    for index in 0..2 {
        cluster.append(index, &all).await;
    }
    cluster.wait_until_complete().await;
    cluster.stop(0);
    let old = old_node(&cluster).await;
    cluster.nodes[0].proxy.cut();
    until("the old node answers", async || {
        let answer = cluster.page("from=1d&filter=user:kim").await;
        (answer.json()["complete"] == true && answer.node("mx1")["status"] == "ok").then_some(())
    })
    .await;
    let own = "node:mx1,mx2 -category:log -category:audit";
    for (filter, each) in FILTERS {
        assert_eq!(found(&cluster, &format!("{own} ({filter})")).await.len(), 2 * each, "{filter}");
        // With a limit, the page holds entries of both nodes up to the limit.
        let answer =
            cluster.page(&format!("from=1d&limit=2&filter={}", encoded(&format!("{own} ({filter})")))).await.json();
        assert_eq!(answer["count"], (2 * each).min(2), "{filter}: {answer}");
    }
    let asked: Vec<String> = old.asked.lock().unwrap().iter().map(|request| request.filter.clone()).collect();
    let new: Vec<&String> = asked.iter().filter(|filter| filter.contains("v2:")).collect();
    assert!(asked.len() > 2 * FILTERS.len() && new.is_empty(), "{new:?}");
    assert!(asked.iter().any(|filter| filter.contains(own)), "what it can say itself is asked of it");
    // Plain conditions are forwarded unchanged.
    assert!(asked.iter().any(|filter| filter == "user:kim"), "{asked:?}");
    let node = async |path: &str| -> Value { cluster.get(path, Some(&cluster.token)).await.node("mx1") };
    let counted = node(&format!("/api/v1/stats?from=1d&by=user&filter={}", encoded("user:k*"))).await;
    assert!(
        counted["status"] == "error" && counted["reason"].as_str().unwrap().contains("upgrade needed"),
        "{counted}"
    );
    let counted = node("/api/v1/stats?from=1d&by=verb").await;
    assert!(
        counted["status"] == "error" && counted["reason"].as_str().unwrap().contains("upgrade needed"),
        "{counted}"
    );
    let read = node(&format!("/api/v1/stats?from=1d&by=verb&verify=true&filter={}", encoded("user:k*"))).await;
    assert_eq!(read["status"], "ok", "{read}");
    old.stop.cancel();
}
