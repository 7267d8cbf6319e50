//! Tests rows that have valid MACs but are not valid entries, and request values that no honest client sends.

use std::io::{Read as _, Write as _};

use piperoll_format::ids::Generation;
use piperoll_format::mac::{EpochSecret, KeyRing};
use piperoll_tests::{Cluster, entry};
use serde_json::{Value, json};

use super::on_socket;

/// Appends bodies after the last row of a stopped node, with valid MACs computed with the node's own secret, as an attacker with
/// root access can. Returns the sequence numbers of the new rows.
fn seal(cluster: &Cluster, index: usize, bodies: impl Fn(u64) -> Vec<Vec<u8>>) -> Vec<u64> {
    let node = &cluster.nodes[index];
    let about: Value = serde_json::from_slice(&std::fs::read(node.folder.join("data/log.json")).unwrap()).unwrap();
    let word = |name: &str| about[name].as_str().unwrap().to_owned();
    let generation: Generation = word("generation").parse().unwrap();
    let secret = EpochSecret::from_hex(std::fs::read_to_string(node.folder.join("secret.0")).unwrap().trim()).unwrap();
    let mut ring = KeyRing::new(word("cluster").parse().unwrap(), word("node_id").parse().unwrap(), [(0, secret)]);
    let key = ring.key(generation, 0).unwrap();
    let conn = rusqlite::Connection::open(cluster.database(index)).unwrap();
    let (last, mut ts, era): (u64, i64, u32) = conn
        .query_row("SELECT seq, ts, era FROM entries ORDER BY seq DESC LIMIT 1", [], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
        })
        .unwrap();
    let mut places = Vec::new();
    for (number, tail) in bodies(last + 1).into_iter().enumerate() {
        let seq = last + 1 + number as u64;
        ts += 1;
        let id = uuid::Uuid::new_v4();
        let time = piperoll_format::time::Timestamp::from_micros(ts).to_text();
        let salt = "00".repeat(16);
        let mut body = format!(
            "{{\"v\":1,\"node_id\":\"{}\",\"generation\":\"{generation}\",\"seq\":{seq},\"era\":{era},\"salt\":\"{salt}\",\"timestamp\":\"{time}\",\"id\":\"{id}\"",
            word("node_id")
        )
        .into_bytes();
        body.extend(tail);
        let mac = key.mac(&body);
        let text = String::from_utf8(body);
        let (blob, text) = match &text {
            Ok(text) => (None, Some(text.as_str())),
            Err(bytes) => (Some(bytes.as_bytes()), None),
        };
        let sql = "INSERT INTO entries (seq, ts, era, epoch, mac, body) VALUES (?1, ?2, ?3, 0, ?4, coalesce(?5, CAST(?6 AS TEXT)))";
        conn.execute(sql, rusqlite::params![seq, ts, era, &mac[..], text, blob]).unwrap();
        conn.execute("INSERT INTO ids (id, seq) VALUES (?1, ?2)", rusqlite::params![id.as_bytes(), seq]).unwrap();
        places.push(seq);
    }
    places
}

const PLAIN: &str = r#","category":"auth","action":"auth.login","user":"nobody","via":"node"}"#;
const FORGED: &str = r#"{"v":1,"node_id":"mx2","seq":999,"user":"ceo@example.org","category":"data","action":"payroll.export","via":"socket uid=0"}"#;

/// Returns bodies that begin like an entry but are not valid entries.
fn malformed(_: u64) -> Vec<Vec<u8>> {
    let close = r#","signature":"ab","integrity":"ok","witnessed":true}"#;
    let last = r#"{"final":{"complete":true,"proven":true,"completeness":"proven whole","complete_through":null,"order_uncertainty_ms":0,"expected":3,"answered":3,"nodes":[],"next_cursor":null,"count":0,"from":"","to":""}}"#;
    let texts = [
        format!("{PLAIN}{close},{{\"entry\":{FORGED}"),
        format!("{PLAIN}{close}\n{{\"entry\":{FORGED}"),
        format!("{PLAIN}{close}\n{last}\n{{\"entry\":{{}}"),
        format!("{PLAIN} "),
        format!("{PLAIN}\r"),
        format!("{}\n{{}}", &PLAIN),
        r#","category":"auth","action":"a","node_id":"mx2","seq":999,"via":"node"}"#.to_owned(),
        r#","category":"auth","action":"a","user":"a","user":"b","via":"node"}"#.to_owned(),
        r#","category":"auth","action":"a","details":{"a":1,"\u0061":2},"via":"node"}"#.to_owned(),
        r#","category":"auth","action":7,"via":"node"}"#.to_owned(),
        r#","category":"auth","action":"a","details":[],"via":"node"}"#.to_owned(),
        r#","category":"auth","action":"a","via":"node""#.to_owned(),
        r#","category":"auth","action":"a","details":{"n":01},"via":"node"}"#.to_owned(),
        format!(r#","category":"auth","action":"a","details":{{"d":{}}},"via":"node"}}"#, super::deep(5_000)),
        String::new(),
    ];
    let mut bodies: Vec<Vec<u8>> = texts.into_iter().map(String::into_bytes).collect();
    bodies.push(b",\"category\":\"auth\",\"user\":\"\xff\xfe\",\"via\":\"node\"}".to_vec());
    bodies
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_with_its_own_key_shows_no_row_that_is_none() {
    let mut cluster = Cluster::start(&["mx1", "mx2"]).await;
    cluster.append(0, &[entry("alice", "auth.login")]).await;
    cluster.append(1, &[entry("bob", "auth.login")]).await;
    cluster.wait_until_complete().await;
    cluster.stop(0);
    let further =
        r#","category":"auth","action":"auth.login","user":"later","via":"node","added_later":{"of":["a",1]}}"#;
    let sound = seal(&cluster, 0, |_| vec![further.as_bytes().to_vec()]);
    let bad = seal(&cluster, 0, malformed);
    cluster.restart(0).await;
    cluster.append(1, &[entry("carol", "intrusion.step")]).await;
    cluster.wait_until_answered("mx1").await;

    // A page has as many rows as it states. No forged row is attributed to another node, and every malformed row is shown with
    // the reason.
    let page = cluster.page("limit=200&from=2d").await.json();
    let rows = page["entries"].as_array().unwrap();
    assert_eq!(page["count"], rows.len());
    assert_eq!((page["complete"].clone(), page["proven"].clone()), (json!(false), json!(false)), "{page}");
    let of_mx2: Vec<&Value> = rows.iter().filter(|row| row["entry"]["node_id"] == "mx2").collect();
    assert!(of_mx2.iter().all(|row| row["integrity"] == "ok" && row["entry"]["seq"].as_u64() < Some(20)), "{of_mx2:?}");
    let mut found = Vec::new();
    for row in rows.iter().filter(|row| row["integrity"] != "ok") {
        assert!(row["reason"].as_str().is_some_and(|reason| !reason.is_empty()), "{row}");
        let place = &row["found_at"];
        assert_eq!(place["node_id"], "mx1", "{row}");
        found.push(place["seq"].as_u64().unwrap());
    }
    found.sort_unstable();
    assert_eq!(found, bad);
    let later = rows.iter().find(|row| row["entry"]["seq"] == sound[0] && row["entry"]["node_id"] == "mx1").unwrap();
    assert_eq!((&later["integrity"], &later["entry"]["added_later"]["of"][1]), (&json!("ok"), &json!(1)), "{later}");

    // All other outputs remain usable: each of them contains mx2's newest row, and none of them reports success.
    let query = cluster.run(&["query", "--json", "--limit", "200"]);
    assert_eq!(query.code, 4, "{}", query.stderr);
    let path = cluster.dir.path().join("out.ndjson");
    let export = cluster.run(&["export", "--output", path.to_str().unwrap()]);
    assert_eq!(export.code, 4, "{}", export.stderr);
    let written = std::fs::read_dir(cluster.dir.path()).unwrap().flatten().map(|file| file.path());
    let written = written.filter(|path| path.to_string_lossy().contains("out_PARTIAL") || path.ends_with("out.ndjson"));
    let lines = std::fs::read_to_string(written.into_iter().next().unwrap()).unwrap();
    assert!(lines.contains("intrusion.step"), "{lines}");
    for line in lines.lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        assert!(line.get("entry").is_some() != line.get("final").is_some(), "{line}");
    }
    let csv = cluster.run(&["export", "--format", "csv", "--output", "-"]);
    assert!(csv.code == 4 && csv.stdout.contains("intrusion.step"), "{}", csv.stderr);
    assert_eq!(cluster.run(&["verify"]).code, 4);
    assert_eq!(cluster.on_node(0, &["verify"]).code, 4);
    let local = cluster.on_node(0, &["query", "--limit", "200", "--json"]);
    assert_eq!(local.code, 4, "{}", local.stderr);
    // The exporter writes no bundle that the verifier would refuse.
    let bundle = cluster.dir.path().join("evidence.tar");
    // The export succeeds if the checkpoint was witnessed before the malformed rows were added; the bundle must then verify.
    let made = cluster.run(&["export", "--bundle", bundle.to_str().unwrap(), "--reason", "test"]);
    if made.code == 0 {
        let trust = cluster.dir.path().join("trust.toml");
        std::fs::write(&trust, cluster.authority().trust().unwrap().to_text()).unwrap();
        let checked = cluster.run(&["verify-bundle", bundle.to_str().unwrap(), "--trust", trust.to_str().unwrap()]);
        assert_eq!(checked.code, 0, "{}{}{}", checked.stdout, checked.stderr, made.stderr);
    }
    let other = cluster.run(&["query", "node:mx2", "--json"]);
    assert_eq!(other.code, 0, "the rows of the other node are whole: {}", other.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn values_of_a_scan_are_checked_and_no_reader_dies() {
    let mut cluster = Cluster::start(&["mx1"]).await;
    cluster.append(0, &(0..50).map(|n| entry(&format!("u{n}"), "auth.login")).collect::<Vec<_>>()).await;
    let scan = |change: &dyn Fn(&mut Value)| {
        let mut request =
            json!({ "filter": "", "from": "2020-01-01T00:00:00Z", "to": "2035-01-01T00:00:00Z", "order": "asc" });
        change(&mut request);
        on_socket(&cluster, 0, "/v1/scan", Some(&request.to_string()))
    };
    for _ in 0..5 {
        for width in [0, -1, i64::MIN, i64::MAX] {
            let (status, body) =
                scan(&|request| request["count"] = json!({ "facets": [], "top": 1, "bucket_micros": width }));
            assert_eq!(status, 400, "{width}: {body}");
            assert!(body.contains("bucket_micros"), "{body}");
        }
    }
    for (name, values) in [
        ("limit", vec![json!(0), json!(u64::MAX)]),
        ("from_seq", vec![json!(u64::MAX), json!(i64::MAX)]),
        ("head", vec![json!(u64::MAX), json!(0)]),
        ("prove", vec![json!(0), json!(u64::MAX)]),
        ("from", vec![json!("9999-12-31T23:59:59.999999Z"), json!("0001-01-01T00:00:00Z")]),
        ("to", vec![json!("0001-01-01T00:00:00Z")]),
        ("after", vec![json!({ "timestamp": "9999-12-31T23:59:59.999999Z", "seq": u64::MAX })]),
        (
            "count",
            vec![
                json!({ "facets": [], "top": 1, "bucket_micros": 1 }),
                json!({ "facets": vec!["user"; 50], "top": 1 }),
            ],
        ),
    ] {
        for value in values {
            let (status, body) = scan(&|request| request[name] = value.clone());
            assert!(status == 200 || (400..500).contains(&status), "{name} {value}: {status} {body}");
        }
    }
    let (status, body) = scan(&|_| {});
    assert!(status == 200 && body.lines().count() > 50, "{status}");
    let (_, health) = on_socket(&cluster, 0, "/healthz", None);
    assert_eq!(health, "ok\n");
    // The node still stops on request.
    cluster.stop(0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_text_of_brackets_harms_no_node() {
    let mut cluster = Cluster::made(&["mx1"], |_| None).await;
    let followed = cluster.dir.path().canonicalize().unwrap().join("audit.log");
    super::configure(
        &cluster,
        &format!("[[intake]]\nname = \"k8s\"\nfile = \"{}\"\nmap = \"kubernetes-audit\"\n", followed.display()),
    );
    cluster.run_all().await;
    for levels in [100, 8_000, 30_000] {
        let text = super::deep(levels);
        let body = json!({ "category": "data", "action": "deep.test", "details": { "note": text } }).to_string();
        let (status, answer) = on_socket(&cluster, 0, "/v1/entries", Some(&body));
        assert_eq!(status, 201, "{levels}: {answer}");
        let mut file = std::fs::OpenOptions::new().create(true).append(true).open(&followed).unwrap();
        let event = json!({ "kind": "Event", "stage": "ResponseComplete", "verb": "get", "auditID": uuid::Uuid::new_v4().to_string(),
            "objectRef": { "resource": "secrets", "name": text }, "responseStatus": { "code": 404 } });
        writeln!(file, "{event}").unwrap();
    }
    let deep = piperoll_tests::until("all are recorded", async || {
        let found = super::entries(&cluster, "");
        let deep: Vec<Value> =
            found.into_iter().filter(|entry| entry.to_string().contains("nested too deep")).collect();
        (deep.len() >= 6).then_some(deep)
    })
    .await;
    assert!(deep.iter().all(|entry| !entry.to_string().contains("[[[[")), "{deep:?}");
    cluster.stop(0);
    cluster.restart(0).await;
    cluster.verify_all();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_reaches_its_caller_whatever_they_sent() {
    let cluster = Cluster::start(&["mx1"]).await;
    let client = cluster.browser_like();
    for size in [10, 20_000, 60_000] {
        for _ in 0..5 {
            let request = client.post(format!("{}/api/v1/searches", cluster.url)).bearer_auth("prl_wrong");
            let answer = request.body("x".repeat(size)).send().await.expect("an answer and no broken stream");
            assert_eq!((answer.status().as_u16(), answer.version()), (401, http::Version::HTTP_2));
        }
    }
    // A client that connects and sends nothing is disconnected, and no other client waits for it.
    let address = cluster.url.strip_prefix("https://").unwrap();
    let mut silent = std::net::TcpStream::connect(address).unwrap();
    silent.set_read_timeout(Some(std::time::Duration::from_secs(30))).unwrap();
    assert_eq!(silent.read(&mut [0; 16]).unwrap(), 0);
}
