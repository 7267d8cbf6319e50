//! Real CloudTrail records across three nodes, counted through the aggregator and straight from the file.

use std::collections::BTreeMap;
use std::path::Path;

use piperoll_shared::log::redact::Redactor;
use piperoll_tests::Cluster;
use serde_json::Value;

const RECORDS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/data/cloudtrail/stratus-attack.ndjson");

fn count(rows: impl Iterator<Item = Option<String>>) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for value in rows.flatten() {
        *counts.entry(value).or_default() += 1;
    }
    counts
}

/// The record again, from the entry: fields that moved go back, `details` is the rest.
fn record_of(entry: &Value) -> Value {
    let mut record = entry["details"].clone();
    let mut put = |pointer: &[&str], value: &Value| {
        if value.is_null() {
            return;
        }
        let mut place = &mut record;
        for step in pointer {
            place = &mut place[*step];
        }
        if place.is_null() {
            *place = value.clone();
        }
    };
    put(&["eventID"], &entry["id"]);
    put(&["eventTime"], &entry["occurred_at"]);
    put(&["userIdentity", "type"], &entry["user_type"]);
    put(&["userIdentity", "accessKeyId"], &entry["credential"]);
    put(&["errorCode"], &entry["reason"]);
    put(&["recipientAccountId"], &entry["target"]);
    put(&["awsRegion"], &entry["domain"]);
    put(&["sourceIPAddress"], &entry["ip_address"]);
    put(&["userAgent"], &entry["user_agent"]);
    put(&["requestID"], &entry["request_id"]);
    record
}

#[tokio::test(flavor = "multi_thread")]
async fn cloudtrail_records_are_all_there_and_nothing_of_them_is_lost() {
    if !Path::new(RECORDS).exists() {
        eprintln!("SKIPPED: {RECORDS} is not here");
        return;
    }
    let text = std::fs::read_to_string(RECORDS).unwrap();
    let records: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let cluster = Cluster::start(&["mx1", "mx2", "mx3"]).await;
    for index in 0..3 {
        let part: Vec<&str> = text.lines().skip(index).step_by(3).collect();
        let file = cluster.dir.path().join(format!("part{index}.ndjson"));
        std::fs::write(&file, part.join("\n")).unwrap();
        let run = cluster.on_node(index, &["append", "--map", "cloudtrail", file.to_str().unwrap()]);
        assert_eq!(run.code, 0, "{}", run.stderr);
        assert!(run.stderr.contains("0 refused"), "{}", run.stderr);
        // Their ids make loading a file twice harmless.
        let again = cluster.on_node(index, &["append", "--map", "cloudtrail", file.to_str().unwrap()]);
        assert!(again.stderr.contains("0 recorded"), "{}", again.stderr);
    }
    cluster.wait_until_complete().await;

    let run = cluster.run(&["export", "via:import", "--output", "-"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    let mut rows: Vec<Value> = run.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let last = rows.pop().unwrap();
    assert_eq!(last["final"]["complete"], true);
    assert_eq!(rows.len(), records.len());
    assert!(rows.iter().all(|row| row["integrity"] == "ok"));

    let field = |name: &'static str| count(rows.iter().map(move |row| row["entry"][name].as_str().map(str::to_owned)));
    let straight = |pointer: &'static str| {
        count(records.iter().map(move |r| r.pointer(pointer).and_then(Value::as_str).map(str::to_owned)))
    };
    assert_eq!(field("ip_address"), straight("/sourceIPAddress"));
    assert_eq!(field("reason"), straight("/errorCode"));
    let first_of = [
        "/userIdentity/userName",
        "/userIdentity/sessionContext/sessionIssuer/userName",
        "/userIdentity/arn",
        "/userIdentity/invokedBy",
        "/userIdentity/principalId",
    ];
    let users = count(records.iter().map(|record| {
        first_of
            .iter()
            .find_map(|p| record.pointer(p).and_then(Value::as_str).filter(|s| !s.is_empty()))
            .map(str::to_owned)
    }));
    assert_eq!(field("user"), users);

    // The same counts through filters, evaluated on the nodes.
    for (key, counts) in [("user", &users), ("ip", &straight("/sourceIPAddress")), ("reason", &straight("/errorCode"))]
    {
        for (value, expected) in counts {
            let run = cluster.run(&["export", &format!("{key}:\"{value}\""), "via:import", "--output", "-"]);
            assert_eq!(run.code, 0, "{key}:{value}: {}", run.stderr);
            assert_eq!(run.stdout.lines().count() - 1, *expected, "{key}:{value}");
        }
    }

    // Not one value of any record is lost.
    let by_id: BTreeMap<&str, &Value> = records.iter().map(|r| (r["eventID"].as_str().unwrap(), r)).collect();
    for row in &rows {
        let entry = &row["entry"];
        let original = by_id[entry["id"].as_str().unwrap()];
        let mut restored = record_of(entry);
        // `eventName` and `eventSource` were rewritten, so they also stayed; the user goes back where it was.
        for pointer in first_of {
            let Some(value) = original.pointer(pointer).and_then(Value::as_str).filter(|s| !s.is_empty()) else {
                continue;
            };
            assert_eq!(entry["user"], value);
            let mut place = &mut restored;
            for step in pointer.split('/').skip(1) {
                place = &mut place[step];
            }
            *place = Value::String(value.to_owned());
            break;
        }
        // What was masked is what should be, and the entry says where.
        let whole = serde_json::json!({ "details": original }).to_string();
        let masked: Value = serde_json::from_str(&Redactor::shared().entry(&whole)).unwrap();
        assert_eq!(restored, masked["details"]);
        assert_eq!(entry["redacted"].as_array().map_or(0, Vec::len), masked["redacted"].as_array().map_or(0, Vec::len));
    }
    cluster.verify_all();
}
