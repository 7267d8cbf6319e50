//! Tests that statistics equal a manual count over all readable entries, and that they name nodes that are missing from them.

use std::collections::BTreeMap;

use piperoll_tests::{Answer, Cluster, edit};
use serde_json::{Value, json};

const NODES: &str = "node:mx1,mx2,mx3";

/// Returns entries that differ in every counted field and are identical in every run.
fn entries(node: usize) -> Vec<String> {
    let line = |n: usize| {
        let action = ["auth.login", "mail.release"][n % 2];
        let outcome = ["success", "success", "failure", "denied"][n * (node + 3) % 4];
        let mut entry = json!({ "category": "auth", "action": action, "outcome": outcome,
            "entity_type": "mail", "entity_id": format!("m{}", n % 7) });
        if !n.is_multiple_of(5) {
            entry["user"] = json!(format!("u{}", n * n % 11));
        }
        if !n.is_multiple_of(3) {
            entry["ip_address"] = json!(format!("192.0.2.{}", n % (node + 4)));
        }
        entry.to_string()
    };
    (0..60).map(line).collect()
}

async fn stats(cluster: &Cluster, parameters: &str) -> Answer {
    cluster.get(&format!("/api/v1/stats?{parameters}"), Some(&cluster.token)).await
}

/// Exports all entries that match a filter.
async fn export(cluster: &Cluster, filter: &str) -> Vec<Value> {
    let text = cluster.page(&format!("format=ndjson&from=1d&filter={filter}")).await.text;
    let rows = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    rows.filter(|row| row["entry"].is_object()).map(|row| row["entry"].clone()).collect()
}

fn counted<'a>(rows: &'a [Value], value: impl Fn(&'a Value) -> Option<String>) -> (Vec<(String, u64)>, u64) {
    let (mut counts, mut none) = (BTreeMap::new(), 0);
    for row in rows {
        match value(row) {
            Some(value) => *counts.entry(value).or_insert(0) += 1,
            None => none += 1,
        }
    }
    let mut counts: Vec<(String, u64)> = counts.into_iter().collect();
    counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    (counts, none)
}

fn check(stats: &Value, rows: &[Value], top: usize) {
    let outcome = |word: &str| rows.iter().filter(|row| row["outcome"] == word).count();
    assert_eq!(stats["entries"], rows.len());
    assert_eq!((&stats["failed"], &stats["denied"]), (&json!(outcome("failure")), &json!(outcome("denied"))));
    let text = |row: &Value, field: &str| row[field].as_str().map(str::to_owned);
    assert_eq!(stats["distinct_users"], counted(rows, |row| text(row, "user")).0.len());
    for counts in stats["by"].as_array().unwrap() {
        let field = counts["field"].as_str().unwrap();
        let (expected, none) = counted(rows, |row| match field {
            "entity" => Some(format!("{}/{}", row["entity_type"].as_str()?, row["entity_id"].as_str()?)),
            field => text(row, field),
        });
        assert_eq!((&counts["distinct"], &counts["none"]), (&json!(expected.len()), &json!(none)), "{field}");
        let other: u64 = expected.iter().skip(top).map(|(_, count)| count).sum();
        assert_eq!(counts["other"], other, "{field}");
        let shown: Vec<(String, u64)> = counts["top"]
            .as_array()
            .unwrap()
            .iter()
            .map(|value| (value["value"].as_str().unwrap().to_owned(), value["count"].as_u64().unwrap()))
            .collect();
        assert_eq!(shown, expected[..expected.len().min(top)], "{field}");
    }
    let buckets = stats["histogram"]["buckets"].as_array().unwrap();
    for bucket in buckets {
        let second = &bucket["from"].as_str().unwrap()[..19];
        let inside = rows.iter().filter(|row| row["timestamp"].as_str().unwrap().starts_with(second)).count();
        assert_eq!(bucket["entries"], inside, "{second}");
    }
    assert_eq!(buckets.iter().map(|bucket| bucket["entries"].as_u64().unwrap()).sum::<u64>(), rows.len() as u64);
}

#[tokio::test(flavor = "multi_thread")]
async fn counts_equal_counting_by_hand_also_while_a_node_is_missing() {
    let mut cluster = Cluster::witnessed(&["mx1", "mx2", "mx3"], 200).await;
    for node in 0..3 {
        cluster.append(node, &entries(node)).await;
    }
    cluster.wait_until_complete().await;
    for missing in [false, true] {
        if missing {
            cluster.kill(1);
        }
        for filter in
            ["", "%20outcome:failure", "%20action:auth.*%20-user:u4", "%20ip:192.0.2.1,192.0.2.2", "%20user:nobody"]
        {
            for (top, verify) in [(1, true), (1, false), (3, false), (100, true), (100, false)] {
                let rows = export(&cluster, &format!("{NODES}{filter}")).await;
                let parameters = format!(
                    "from=1h&bucket=1s&top={top}&verify={verify}&by=user,ip_address&by=entity,outcome,node_id&filter={NODES}{filter}"
                );
                let answer = stats(&cluster, &parameters).await;
                assert_eq!(answer.status, 200, "{}", answer.text);
                let answer = answer.json();
                assert_eq!((&answer["complete"], &answer["count"]), (&json!(!missing), &json!(rows.len())), "{answer}");
                assert_eq!(answer["verified"], verify);
                check(&answer["stats"], &rows, top);
            }
        }
        // The numbers do not include the missing node, and the output reports this.
        let run = cluster.run(&["stats", NODES, "--by", "node_id", "--from", "1d", "--bucket", "1h", "--table"]);
        assert_eq!(
            (run.code, run.stdout.starts_with("AT LEAST ")),
            (if missing { 3 } else { 0 }, missing),
            "{}",
            run.stdout
        );
        assert_eq!(run.stdout.contains(" mx2 "), !missing, "{}", run.stdout);
        let all = cluster.run(&["stats", NODES, "--require-complete", "--json"]);
        assert_eq!(all.code, if missing { 3 } else { 0 }, "{}", all.stderr);
        assert_eq!(all.stdout.contains("\"stats\""), !missing, "{}", all.stdout);
    }
    cluster.restart(1).await;
    cluster.wait_until_complete().await;

    // Without a filter the numbers are proven complete.
    let whole = stats(&cluster, "from=1d&verify=true").await.json();
    assert_eq!((&whole["complete"], &whole["proven"]), (&json!(true), &json!(true)), "{}", whole["completeness"]);

    // Rows that fail verification are not counted, and erased rows are counted as erased.
    let erased = cluster.on_node(0, &["erase", "--seq", "3", "--reason", "request 12"]);
    assert_eq!(erased.code, 0, "{}", erased.stderr);
    cluster.stop(2);
    edit(&cluster.database(2), "UPDATE entries SET body = replace(body, 'auth', 'ruth') WHERE seq = 4");
    cluster.restart(2).await;
    cluster.wait_until_answered("mx3").await;
    let rows = export(&cluster, NODES).await;
    let sound = rows.iter().filter(|row| row["category"] != "ruth").count();
    for verify in [true, false] {
        let answer = stats(&cluster, &format!("from=1d&verify={verify}&filter={NODES}")).await;
        let json = answer.json();
        assert_eq!((&json["stats"]["erased"], answer.status_of("mx3").as_str()), (&json!(1), "invalid"), "{json}");
        assert_eq!(json["stats"]["entries"], sound, "{json}");
    }
    let run = cluster.run(&["stats", NODES, "--from", "1d", "--table"]);
    assert!(run.code == 4 && run.stdout.contains("and 1 erased"), "{}{}", run.stdout, run.stderr);
    // A search text that is too short for the index is reported as such.
    let answer = stats(&cluster, &format!("filter={NODES} zz zebra")).await;
    assert_eq!(answer.json()["unindexed_texts"], json!(["zz"]));
    let run = cluster.run(&["query", NODES, "zz", "zebra"]);
    assert!(
        run.stderr.contains("\"zz\" is shorter than 3 characters") && !run.stderr.contains("\"zebra\""),
        "{}",
        run.stderr
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_counted_is_refused_with_the_reason() {
    let cluster = Cluster::start(&["mx1"]).await;
    for (parameters, words) in [
        ("by=nobody", "cannot count by \\\"nobody\\\"; the fields are user, "),
        ("by=user,user_type,session,credential,action,outcome,reason,target,domain", "at most 8 fields"),
        ("top=0", "use 1 to 1000"),
        ("top=5&top=6", "duplicate parameter"),
        ("bucket=1ms", "a whole number of seconds"),
        ("bucket=soon", "a whole number of seconds"),
        ("bucket=18446744073709551615s%201000000000ns", "a whole number of seconds"),
        ("from=18446744073709551615s%201000000000ns", "from"),
        ("bucket=1s&from=30d", "more than 10000 buckets"),
        ("limit=5", "statistics accept by, top, bucket"),
        ("filter=usr:alice", "usr"),
        ("filter=node:mx9", "is not in the roster"),
        ("from=tomorrow", "from"),
    ] {
        let answer = stats(&cluster, parameters).await;
        assert_eq!(answer.status, 400, "{parameters}: {}", answer.text);
        assert!(answer.text.contains(words), "{parameters}: {}", answer.text);
    }
    assert_eq!(stats(&cluster, "by=user%00").await.status, 400);
    assert_eq!(cluster.get("/api/v1/stats", None).await.status, 401);
    let recorded = cluster.page("filter=action:audit.stats&from=1d").await;
    assert!(recorded.text.contains("audit.stats"), "{}", recorded.text);
}
