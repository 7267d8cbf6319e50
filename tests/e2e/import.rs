//! Imports real CloudTrail records on three nodes, and compares counts through the aggregator with counts from the file itself.

use std::collections::BTreeMap;
use std::path::Path;

use piperoll_redact::Redactor;
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

/// Restores the record from its entry: moved fields go back to their original locations, and `details` has the rest.
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

/// Returns the user of a record: the session name of an assumed role or federated user, otherwise the first name found. In the
/// second case the pointer to the name is returned too, because the mapping moved this name into its field unchanged.
fn person(record: &Value) -> Option<(Option<&'static str>, String)> {
    let text = |pointer: &str| record.pointer(pointer).and_then(Value::as_str).filter(|text| !text.is_empty());
    if ["AssumedRole", "FederatedUser"].contains(&text("/userIdentity/type").unwrap_or_default()) {
        let (_, session) = text("/userIdentity/arn")?.rsplit_once('/')?;
        return Some((None, session.to_owned()));
    }
    let pointers =
        ["/userIdentity/userName", "/userIdentity/arn", "/userIdentity/invokedBy", "/userIdentity/principalId"];
    pointers.into_iter().find_map(|pointer| Some((Some(pointer), text(pointer)?.to_owned())))
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
        // Loading a file twice is harmless, because the ids of its records are duplicates.
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
    let users = count(records.iter().map(|record| {
        let (_, person) = person(record)?;
        // A user name that also occurs in a secret field of the record is masked in both places.
        let whole = serde_json::json!({ "user": person, "details": record }).to_string();
        let masked: Value = serde_json::from_str(&Redactor::shared().entry(&whole)).unwrap();
        masked["user"].as_str().map(str::to_owned)
    }));
    assert_eq!(field("user"), users);

    // Count again with filters, which the nodes evaluate.
    for (key, counts) in [("user", &users), ("ip", &straight("/sourceIPAddress")), ("reason", &straight("/errorCode"))]
    {
        for (value, expected) in counts {
            let run = cluster.run(&["export", &format!("{key}:\"{value}\""), "via:import", "--output", "-"]);
            assert_eq!(run.code, 0, "{key}:{value}: {}", run.stderr);
            assert_eq!(run.stdout.lines().count() - 1, *expected, "{key}:{value}");
        }
    }

    // No value of any record is lost.
    let by_id: BTreeMap<&str, &Value> = records.iter().map(|r| (r["eventID"].as_str().unwrap(), r)).collect();
    for row in &rows {
        let entry = &row["entry"];
        let original = by_id[entry["id"].as_str().unwrap()];
        let mut restored = record_of(entry);
        // Put the user name back if it was moved. `eventName` and `eventSource` need not be put back: the mapping rewrote
        // them, so `details` kept the originals.
        if let Some((Some(pointer), name)) = person(original) {
            let mut place = &mut restored;
            for step in pointer.split('/').skip(1) {
                place = &mut place[step];
            }
            *place = Value::String(name);
        }
        // Exactly the right values were masked, and the entry lists the right number of locations.
        let whole = serde_json::json!({ "details": original }).to_string();
        let masked: Value = serde_json::from_str(&Redactor::shared().entry(&whole)).unwrap();
        assert_eq!(restored, masked["details"]);
        let in_details = |value: &Value| {
            let paths = value["redacted"].as_array().cloned().unwrap_or_default();
            paths.iter().filter(|path| **path != "user").count()
        };
        assert_eq!(in_details(entry), in_details(&masked));
    }
    cluster.verify_all();
}
