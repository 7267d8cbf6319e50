//! Tests what an answer proves beyond signatures: every row is covered by the cosigned checkpoint, every page and stream is complete, and
//! a node cannot change witnessed rows even with all its keys.

use piperoll_format::ids::Generation;
use piperoll_format::mac::{EpochSecret, MacKey, Origin};
use piperoll_tests::{Answer, Cluster, edit, entry, until};
use rusqlite::Connection;
use serde_json::Value;

use crate::witness::{cluster_of, report, witnessed};

/// Reads all pages of a query, passes each page to `each`, and returns the positions of the rows in order.
async fn pages(cluster: &Cluster, parameters: &str, each: impl Fn(&Answer)) -> Vec<String> {
    let mut places = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = cluster.page(&format!("{parameters}{cursor}")).await;
        each(&page);
        places.extend(page.places());
        match page.json()["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return places,
        }
    }
}

fn rows(answer: &Answer) -> Vec<Value> {
    answer.json()["entries"].as_array().unwrap().clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_streams_and_ranges_are_proven_whole() {
    let cluster = cluster_of(700).await;
    // Use the time of the newest row as the end of all ranges. The rows before it will be witnessed; the aggregator's own entries
    // about the queries below are newer.
    let newest = cluster.page("limit=1").await;
    let end = rows(&newest)[0]["entry"]["timestamp"].as_str().unwrap().to_owned();
    let head = newest.node("agg")["head_seq"].as_u64();
    report(&cluster, "agg", |line| line["witnessed"].as_u64() > head).await;
    for parameters in [
        format!("to={end}&limit=150&order=asc"),
        format!("to={end}&limit=150&order=desc"),
        format!("to={end}&limit=1000"),
    ] {
        let places = pages(&cluster, &parameters, |page| {
            let words = page.json();
            assert_eq!((&words["complete"], &words["proven"]), (&true.into(), &true.into()), "{}", words["nodes"]);
            assert!(rows(page).iter().all(|row| row["witnessed"] == true), "{words}");
            let expected = if words["more"] == true {
                "where this page ends"
            } else {
                "proven complete: no row of this range is missing"
            };
            assert!(words["completeness"].as_str().unwrap().contains(expected), "{}", words["completeness"]);
            assert_eq!(words["more"].as_bool(), Some(!words["next_cursor"].is_null()), "{words}");
        })
        .await;
        assert!(places.len() > 1_400, "{}", places.len());
    }
    // Query a range in the middle, and an empty range.
    let from = rows(&cluster.page(&format!("to={end}&limit=600&order=asc")).await)[300]["entry"]["timestamp"].clone();
    for range in
        [format!("from={}&to={end}&limit=1000", from.as_str().unwrap()), "from=2020-01-01&to=2020-01-02".into()]
    {
        let page = cluster.page(&range).await;
        assert_eq!(page.json()["proven"], true, "{}", page.json()["nodes"]);
    }
    // With a filter the rows are proven, but their completeness is not.
    let filtered = cluster.page(&format!("to={end}&filter=user:u1,u500,u699&limit=50")).await;
    assert_eq!(rows(&filtered).len(), 6);
    assert!(rows(&filtered).iter().all(|row| row["witnessed"] == true && row["integrity"] == "ok"));
    let words = filtered.json();
    assert_eq!((&words["complete"], &words["proven"]), (&true.into(), &false.into()));
    assert_eq!(words["completeness"], "authentic, completeness not proven (the query has a filter)");
    // Read a stream, and verify all rows.
    let stream =
        cluster.get(&format!("/api/v1/audit-log?format=ndjson&to={end}&order=asc"), Some(&cluster.token)).await;
    let last: Value = serde_json::from_str(stream.text.lines().last().unwrap()).unwrap();
    assert_eq!(last["final"]["proven"], true, "{last}");
    assert!(stream.text.lines().filter(|line| line.contains("\"witnessed\":true")).count() > 1_400);
    let run = cluster.run(&["query", "--to", &end]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert!(run.stderr.contains("proven complete"), "{}", run.stderr);
}

/// Rows newer than the last witness poll are authenticated, and reported separately from those that are proven.
#[tokio::test(flavor = "multi_thread")]
async fn new_rows_are_told_apart() {
    let cluster = Cluster::witnessed(&["mx1"], 3_000).await;
    witnessed(&cluster, "mx1").await;
    // The answer also contains the aggregator's own log, which is witnessed separately.
    until("every log was witnessed", async || {
        (cluster.page("order=asc&limit=1000").await.json()["proven"] == true).then_some(())
    })
    .await;
    // The witness may poll between an append and the query after it, but not every time.
    let mut tries = 0..20;
    let words = loop {
        tries.next().expect("new rows are always witnessed at once");
        cluster.append(0, &[entry("alice", "auth.login")]).await;
        let page = cluster.page("order=asc&limit=1000").await;
        let mine: Vec<Value> = rows(&page).into_iter().filter(|row| row["entry"]["node_id"] == "mx1").collect();
        assert_eq!(mine[0]["witnessed"], true);
        if mine[mine.len() - 1]["witnessed"] == false {
            break page.json();
        }
    };
    assert_eq!(words["proven"], true, "what was witnessed is all here: {words}");
    assert!(words["completeness"].as_str().unwrap().contains("authentic but not proven"), "{words}");
}

/// An attacker with the node's secret can give an edited row a valid MAC, but cannot make it match the witnessed checkpoint.
#[tokio::test(flavor = "multi_thread")]
async fn a_row_sealed_anew_does_not_fit_what_was_witnessed() {
    let mut cluster = cluster_of(600).await;
    let database = cluster.database(0);
    let conn = Connection::open(&database).unwrap();
    let meta = |key: &str| -> String {
        conn.query_row("SELECT value FROM meta WHERE key = ?1", [key], |row| row.get(0)).unwrap()
    };
    let generation: Generation = meta("generation").parse().unwrap();
    let secret = std::fs::read_to_string(cluster.nodes[0].folder.join("secret.0")).unwrap();
    let secret = EpochSecret::from_hex(secret.trim()).unwrap();
    let origin = Origin { cluster: "test".parse().unwrap(), node_id: "mx1".parse().unwrap(), generation };
    let body: String = conn.query_row("SELECT body FROM entries WHERE seq = 40", [], |row| row.get(0)).unwrap();
    drop(conn);
    let forged = body.replace("\"user\":\"u", "\"user\":\"x");
    let mac = hex::encode(MacKey::derive(&secret, &origin, 0).mac(forged.as_bytes()));
    let sql = format!("UPDATE entries SET body = '{}', mac = x'{mac}' WHERE seq = 40", forged.replace('\'', "''"));
    let indexed = || {
        let status = cluster.on_node(0, &["status", "--json"]).stdout;
        let index = serde_json::from_str::<Value>(&status).unwrap()["index"].clone();
        index["rows"] == index["of"]
    };
    while !indexed() {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    edit(&database, &sql);
    let answer = cluster.page("order=asc&limit=200").await;
    let row =
        rows(&answer).into_iter().find(|row| row["entry"]["seq"] == 40 && row["entry"]["node_id"] == "mx1").unwrap();
    assert_eq!(
        (&row["integrity"], &row["witnessed"]),
        (&"ok".into(), &false.into()),
        "its mac fits, its place does not"
    );
    assert_eq!(answer.status_of("mx1"), "invalid");
    assert!(
        answer.node("mx1")["reason"].as_str().unwrap().contains("do not match the witnessed checkpoint"),
        "{}",
        answer.node("mx1")
    );
    assert_eq!(answer.status_of("mx2"), "ok");
    let found = cluster.run(&["query", "--json", "user:u39"]);
    assert!(
        found.code == 4 && found.stdout.contains("was changed after it was indexed"),
        "also by what it said: {}",
        found.stdout
    );
    assert_eq!(cluster.run(&["verify"]).code, 4);
    // Also replace the hash in the tile, so that it matches the forged row: the tree's root then differs from the witnessed one.
    let conn = Connection::open(&database).unwrap();
    let tile: Vec<u8> = conn.query_row("SELECT hashes FROM tiles WHERE id = 0", [], |row| row.get(0)).unwrap();
    drop(conn);
    let mut hashes = tile;
    let leaf = piperoll_format::merkle::leaf_hash(forged.as_bytes(), &hex::decode(&mac).unwrap());
    hashes[40 * 32..41 * 32].copy_from_slice(&leaf);
    edit(&database, &format!("UPDATE tiles SET hashes = x'{}' WHERE id = 0", hex::encode(hashes)));
    let answer = cluster.page("order=asc&limit=200").await;
    assert_eq!(answer.status_of("mx1"), "invalid");
    // The running node may have cached the original tile, which proves other rows but never the forged row.
    let forged = |row: &&Value| row["entry"]["node_id"] == "mx1" && row["entry"]["seq"] == 40;
    assert!(rows(&answer).iter().filter(forged).all(|row| row["witnessed"] == false));
    // Restarting the node after the edit does not help either.
    cluster.stop(0);
    cluster.restart(0).await;
    let answer = cluster.page("order=asc&limit=200").await;
    assert_eq!(answer.status_of("mx1"), "invalid");
    assert!(rows(&answer).iter().filter(forged).all(|row| row["witnessed"] == false));
    witnessed(&cluster, "mx2").await;
}

/// If clocks were set back, a time range consists of several separate runs of rows, and each run is proven.
#[tokio::test(flavor = "multi_thread")]
async fn ranges_over_several_eras_are_proven() {
    let mut cluster = cluster_of(20).await;
    for time in ["+60s", "+0s", "+40s", "+20s"] {
        cluster.stop(0);
        cluster.set_clock(0, time);
        cluster.restart(0).await;
        let lines: Vec<String> = (0..20).map(|n| entry(&format!("u{n}"), "auth.login")).collect();
        cluster.append(0, &lines).await;
    }
    witnessed(&cluster, "mx1").await;
    let all = rows(&cluster.page("filter=node:mx1&order=asc&limit=1000").await);
    assert_eq!(all.iter().map(|row| row["entry"]["era"].as_u64().unwrap()).max(), Some(2));
    let whole = |page: &Answer| {
        assert_eq!(page.node("mx1")["proven"], true, "{}", page.node("mx1"));
        let mine = rows(page).into_iter().filter(|row| row["entry"]["node_id"] == "mx1");
        assert!(mine.into_iter().all(|row| row["witnessed"] == true));
    };
    for order in ["asc", "desc"] {
        pages(&cluster, &format!("order={order}&limit=9"), whole).await;
    }
    for at in (0..all.len() - 10).step_by(17) {
        let time = |n: usize| all[n]["entry"]["timestamp"].as_str().unwrap();
        whole(&cluster.page(&format!("from={}&to={}&limit=1000", time(at), time(at + 10))).await);
    }
}
