//! Tests how each edit by an attacker who has the database file but not the keys is reported (the tamper matrix).

use piperoll_tests::{Cluster, edit, entry};
use rusqlite::Connection;

const FIRST: u64 = 5;

/// An edit: its name, its SQL, the row that `verify` must name (`None` for the log as a whole), and a part of the finding's text.
const MATRIX: [(&str, &str, Option<u64>, &str); 21] = [
    (
        "a user",
        "UPDATE entries SET body = replace(body, '\"user\":\"u4\"', '\"user\":\"u3\"') WHERE seq = 5",
        Some(5),
        "signature does not match",
    ),
    (
        "the outcome",
        "UPDATE entries SET body = replace(body, 'success', 'failure') WHERE seq = 5",
        Some(5),
        "signature does not match",
    ),
    (
        "the timestamp",
        "UPDATE entries SET body = replace(body, '\"timestamp\":\"2', '\"timestamp\":\"1') WHERE seq = 5",
        Some(5),
        "signature does not match",
    ),
    (
        "the node id",
        "UPDATE entries SET body = replace(body, '\"node_id\":\"mx1\"', '\"node_id\":\"mx2\"') WHERE seq = 5",
        Some(5),
        "signature does not match",
    ),
    (
        "the seq",
        "UPDATE entries SET body = replace(body, '\"seq\":5', '\"seq\":6') WHERE seq = 5",
        Some(5),
        "signature does not match",
    ),
    (
        "the salt",
        "UPDATE entries SET body = replace(body, '\"salt\":\"', '\"salt\":\"0') WHERE seq = 5",
        Some(5),
        "signature does not match",
    ),
    (
        "a space",
        "UPDATE entries SET body = replace(body, ',\"user\"', ', \"user\"') WHERE seq = 5",
        Some(5),
        "signature does not match",
    ),
    ("the body emptied", "UPDATE entries SET body = NULL WHERE seq = 5", Some(5), "signature does not match"),
    ("no mac", "UPDATE entries SET mac = NULL WHERE seq = 5", Some(5), "signature is missing"),
    ("a short mac", "UPDATE entries SET mac = substr(mac, 1, 31) WHERE seq = 5", Some(5), "signature does not match"),
    (
        "another row's mac",
        "UPDATE entries SET mac = (SELECT mac FROM entries WHERE seq = 6) WHERE seq = 5",
        Some(5),
        "signature does not match",
    ),
    ("another epoch", "UPDATE entries SET epoch = 1 WHERE seq = 5", Some(5), "key epoch"),
    ("the time column", "UPDATE entries SET ts = ts + 1 WHERE seq = 5", Some(5), "time column"),
    ("the era column", "UPDATE entries SET era = 1 WHERE seq = 5", Some(5), "era column"),
    ("deleted first", "DELETE FROM entries WHERE seq = 0", None, "row 0 is missing"),
    ("deleted in the middle", "DELETE FROM entries WHERE seq IN (5, 6)", None, "rows 5 to 6 are missing"),
    (
        "swapped",
        "UPDATE entries SET seq = -1 WHERE seq = 5; UPDATE entries SET seq = 5 WHERE seq = 6; UPDATE entries SET seq = 6 WHERE seq = -1",
        Some(5),
        "a different position",
    ),
    (
        "duplicated",
        "UPDATE entries SET (mac, body, ts) = (SELECT mac, body, ts FROM entries WHERE seq = 6) WHERE seq = 5",
        Some(5),
        "a different position",
    ),
    (
        "inserted",
        "INSERT INTO entries SELECT seq + 1000, ts, era, epoch, mac, body FROM entries WHERE seq = 5",
        Some(1005),
        "a different position",
    ),
    (
        "inserted below",
        "INSERT INTO entries SELECT -7, ts, era, epoch, mac, body FROM entries WHERE seq = 5",
        None,
        "numbered below 0",
    ),
    ("an id hidden", "DELETE FROM ids WHERE seq = 5", Some(5), "not in the index of ids"),
];

async fn cluster() -> Cluster {
    let cluster = Cluster::start(&["mx1", "mx2"]).await;
    for index in 0..2 {
        let lines: Vec<String> = (0..20).map(|n| entry(&format!("u{n}"), "auth.login")).collect();
        cluster.append(index, &lines).await;
    }
    cluster.wait_until_complete().await;
    cluster
}

/// Edits a stopped node and runs `verify`: every edit is reported with its row and its finding.
#[tokio::test(flavor = "multi_thread")]
async fn every_edit_of_a_stopped_node_is_named() {
    let mut cluster = cluster().await;
    cluster.stop(0);
    let database = cluster.database(0);
    let pristine = cluster.dir.path().join("pristine.db");
    Connection::open(&database).unwrap().execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
    std::fs::copy(&database, &pristine).unwrap();
    assert_eq!(cluster.on_node(0, &["verify"]).code, 0);
    for (what, sql, row, words) in MATRIX {
        edit(&database, sql);
        let run = cluster.on_node(0, &["verify", "--json"]);
        assert_eq!(run.code, 4, "{what}: {}{}", run.stdout, run.stderr);
        let named = run.stdout.lines().any(|line| {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            line["type"] == "finding"
                && row.is_none_or(|row| line["seq"] == row)
                && line["detail"].as_str().unwrap().contains(words)
        });
        assert!(named, "{what} is not named: {}", run.stdout);
        for suffix in ["-wal", "-shm"] {
            let _ = std::fs::remove_file(format!("{}{suffix}", database.display()));
        }
        std::fs::copy(&pristine, &database).unwrap();
    }
    // The last row of a stopped log is deleted: no MAC shows this, but the signed checkpoint does. If the checkpoint is also
    // deleted from the database, the checkpoint file next to the database still shows the truncation. Without that file only a
    // witness can detect it, which `verify` points out.
    edit(
        &database,
        "DELETE FROM entries WHERE seq = (SELECT max(seq) FROM entries); DELETE FROM ids WHERE seq > (SELECT max(seq) FROM entries)",
    );
    let run = cluster.on_node(0, &["verify"]);
    assert!(run.code == 4 && run.stdout.contains("the end was cut off"), "{}", run.stdout);
    edit(&database, "DELETE FROM checkpoints");
    let run = cluster.on_node(0, &["verify"]);
    assert!(run.code == 4 && run.stdout.contains("the end was cut off"), "the file beside it stands: {}", run.stdout);
    std::fs::remove_file(database.with_file_name("log.checkpoint")).unwrap();
    let run = cluster.on_node(0, &["verify"]);
    assert_eq!(run.code, 0, "{}", run.stdout);
    assert!(run.stderr.contains("only a witness detects"), "the limit is said: {}", run.stderr);
}

/// On a running node the same edits are reported in the next answer, and an edit cannot hide a row from a filter.
#[tokio::test(flavor = "multi_thread")]
async fn edits_of_a_running_node_show_when_read() {
    let cluster = cluster().await;
    let database = cluster.database(0);
    let original: (String, Vec<u8>) = Connection::open(&database)
        .unwrap()
        .query_row("SELECT body, mac FROM entries WHERE seq = ?1", [FIRST], |row| Ok((row.get(0)?, row.get(1)?)))
        .unwrap();
    for (what, sql, row, _) in MATRIX.iter().filter(|(what, ..)| {
        !what.contains("deleted")
            && !what.contains("insert")
            && !what.contains("swapped")
            && !what.contains("id hidden")
    }) {
        edit(&database, sql);
        let answer = cluster.page("limit=1000").await;
        let report = answer.node("mx1");
        assert_eq!(answer.json()["complete"], false, "{what}");
        assert_eq!(report["status"], "invalid", "{what}: {report}");
        assert_eq!(answer.status_of("mx2"), "ok");
        if *what == "the era column" {
            // The era column is not part of the signed bytes: the node reports the edit, but the row itself is valid.
            assert!(report["reason"].as_str().unwrap().contains("era column"), "{report}");
            edit(&database, "UPDATE entries SET era = 0 WHERE seq = 5");
            continue;
        }
        let invalid = report["invalid"].as_u64().unwrap() + u64::from(*what == "another epoch");
        assert_eq!(invalid, 1, "{what}: {report}");
        let shown = answer.json()["entries"].as_array().unwrap().iter().any(|line| {
            line["found_at"]["seq"] == row.unwrap() && line["found_at"]["node_id"] == "mx1" && line["integrity"] != "ok"
        });
        assert!(shown, "{what}: the row is not shown");
        // The edit may change whether a filter matches the row. Nevertheless, every query with the filter reports the edit.
        let hidden = cluster.page("user=u4&limit=1000").await;
        assert_eq!(hidden.status_of("mx1"), "invalid", "{what} hides the row from a filter");
        let run = cluster.run(&["query", "user:u4", "--json"]);
        assert_eq!(run.code, 4, "{what}: {}", run.stderr);
        let undo = format!(
            "UPDATE entries SET body = '{}', mac = x'{}', epoch = 0, era = 0 WHERE seq = 5",
            original.0.replace('\'', "''"),
            hex::encode(&original.1)
        );
        let ts = piperoll_format::entry::Prefix::parse(original.0.as_bytes()).unwrap().timestamp.micros();
        edit(&database, &format!("{undo}; UPDATE entries SET ts = {ts} WHERE seq = 5"));
        assert_eq!(cluster.page("limit=1000").await.status_of("mx1"), "ok", "{what}: put back");
    }
    assert_eq!(cluster.run(&["verify"]).code, 0);

    edit(&database, "DELETE FROM entries WHERE seq IN (7, 8)");
    let answer = cluster.page("limit=1000").await;
    assert!(
        answer.node("mx1")["reason"].as_str().unwrap().contains("rows 7 to 8 are missing"),
        "{}",
        answer.node("mx1")
    );
    assert_eq!(cluster.run(&["verify"]).code, 4);
    // A running node remembers its log's head, so it reports even the last row as missing.
    let last: u64 =
        Connection::open(&database).unwrap().query_row("SELECT max(seq) FROM entries", [], |r| r.get(0)).unwrap();
    edit(&database, &format!("DELETE FROM entries WHERE seq = {last}"));
    let reason = cluster.page("limit=1000").await.node("mx1")["reason"].as_str().unwrap().to_owned();
    assert!(reason.contains(&format!("row {last} is missing")), "{reason}");
}

/// Plants views and triggers, and deletes triggers.
#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_schema_is_noticed_running_and_stopped() {
    let mut cluster = cluster().await;
    let plant = |cluster: &Cluster, index: usize, sql: &str| {
        Connection::open(cluster.database(index)).unwrap().execute_batch(sql).unwrap()
    };
    plant(&cluster, 0, "CREATE TRIGGER lose AFTER INSERT ON ids BEGIN SELECT 1; END");
    let answer = cluster.page("").await;
    assert_eq!(answer.status_of("mx1"), "invalid");
    assert!(answer.node("mx1")["reason"].as_str().unwrap().contains("\"lose\" was added"), "{}", answer.node("mx1"));
    let run = cluster.on_node(0, &["append", "--retry-for", "0s", "--category", "auth", "--action", "auth.login"]);
    assert_eq!(run.code, 1);
    assert!(run.stderr.contains("\"lose\" was added"), "{}", run.stderr);
    assert_eq!(cluster.on_node(0, &["verify"]).code, 4);

    cluster.stop(1);
    plant(&cluster, 1, "CREATE VIEW shadow AS SELECT * FROM entries; DROP TRIGGER entries_append_only_update");
    let run = cluster.on_node(1, &["verify"]);
    assert_eq!(run.code, 4);
    assert!(
        run.stdout.contains("\"shadow\" was added")
            && run.stdout.contains("\"entries_append_only_update\" was removed"),
        "{}",
        run.stdout
    );
    // The node starts, so that its log can be read, but accepts no entries.
    cluster.restart(1).await;
    assert_eq!(
        cluster.on_node(1, &["append", "--retry-for", "0s", "--category", "auth", "--action", "auth.login"]).code,
        1
    );
    let answer = cluster.page("").await;
    assert!(answer.node("mx2")["reason"].as_str().unwrap().contains("shadow"), "{}", answer.node("mx2"));
}

/// Tampers with the database file itself: the file is unlinked, replaced, emptied, or taken from another node.
#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_not_the_one_expected() {
    let mut cluster = cluster().await;
    let database = cluster.database(0);
    let aside = cluster.dir.path().join("aside.db");

    std::fs::rename(&database, &aside).unwrap();
    let run = cluster.on_node(0, &["append", "--retry-for", "0s", "--category", "auth", "--action", "auth.login"]);
    assert!(run.code == 1 && run.stderr.contains("was removed"), "{}", run.stderr);
    let answer = cluster.page("").await;
    assert_eq!(answer.status_of("mx1"), "invalid", "{}", answer.node("mx1"));
    assert!(answer.node("mx1")["rows"].as_u64().unwrap() > 0, "what the open file holds is still shown");
    std::fs::rename(&aside, &database).unwrap();
    cluster.kill(0);

    let refuses = |cluster: &Cluster, words: &str| {
        let output = std::process::Command::new(piperoll_tests::piperoll())
            .args(["node", "serve", "--config"])
            .arg(cluster.nodes[0].folder.join("node.toml"))
            .output()
            .unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(1) && stderr.contains(words), "{words}: {stderr}");
    };
    std::fs::rename(&database, &aside).unwrap();
    refuses(&cluster, "is missing");
    assert_eq!(cluster.on_node(0, &["verify"]).code, 1, "a missing log is not a good one");

    Connection::open(cluster.database(1)).unwrap().execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
    std::fs::copy(cluster.database(1), &database).unwrap();
    for suffix in ["-wal", "-shm"] {
        let _ = std::fs::remove_file(format!("{}{suffix}", database.display()));
    }
    refuses(&cluster, "is the log of test/mx2");

    std::fs::copy(&aside, &database).unwrap();
    edit(&database, "DELETE FROM entries; DELETE FROM ids");
    refuses(&cluster, "was emptied");

    for suffix in ["", "-wal", "-shm"] {
        let _ = std::fs::remove_file(format!("{}{suffix}", database.display()));
    }
    std::fs::write(&database, b"this is not a database, and long enough to be looked at as one").unwrap();
    refuses(&cluster, "not a readable database");
}
