//! Tests random queries over three nodes: their pages, streams and counts equal the result of reading every row of the nodes that
//! are up, and name the node that is down.

use piperoll_format::time::Timestamp;
use piperoll_query::filter::Filter;
use piperoll_tests::{Cluster, place};
use serde_json::Value;

use entries::{Raw, dice, entry, filter};

#[path = "../find/entries.rs"]
mod entries;

const SECOND: i64 = 1_000_000;
const IDS: [&str; 3] = ["mx1", "mx2", "mx3"];
const ROUNDS: usize = 24;
const QUERIES_PER_ROUND: usize = 6;
/// Arbitrary fixed seed, so that every run of the test is the same.
const SEED: u64 = 20_261_121;

/// HTTP status if none of the nodes that the filter selects answered. The response body is then only the envelope.
const NOBODY: u16 = 503;

/// Reads the rows of one node from its database.
fn rows_of(cluster: &Cluster, index: usize) -> Vec<Raw> {
    let conn = rusqlite::Connection::open(cluster.database(index)).unwrap();
    let mut statement = conn.prepare("SELECT seq, ts, body FROM entries ORDER BY seq").unwrap();
    let rows = statement.query_map([], |row| {
        let (timestamp, body) = (Timestamp::from_micros(row.get(1)?), row.get::<_, String>(2)?.into_bytes());
        Ok(Raw { seq: row.get(0)?, timestamp, body })
    });
    rows.unwrap().map(Result::unwrap).collect()
}

/// Returns the matching rows of all nodes that are up, in order, by testing every row.
fn naive(rows: &[Vec<Raw>], missing: Option<usize>, filter: &str, order: &str) -> Vec<String> {
    let filter = Filter::parse(filter, Timestamp::from_micros(0)).unwrap();
    let mut found: Vec<(Timestamp, &str, u64)> = Vec::new();
    for (index, rows) in rows.iter().enumerate().filter(|(index, _)| Some(*index) != missing) {
        let fits = rows.iter().filter(|row| filter.matches(&row.view().unwrap()));
        found.extend(fits.map(|row| (row.timestamp, IDS[index], row.seq)));
    }
    found.sort_unstable();
    if order == "desc" {
        found.reverse();
    }
    found.into_iter().map(|(_, node, seq)| format!("{node}/{seq}")).collect()
}

/// Checks that the answer states which nodes contributed to it. A filter may exclude some of the three nodes.
fn check_names(envelope: &Value, missing: Option<usize>) {
    let mut lacking = false;
    for (index, id) in IDS.iter().enumerate() {
        let report = envelope["nodes"].as_array().unwrap().iter().find(|node| node["node_id"] == *id).unwrap();
        let status = report["status"].as_str().unwrap();
        let expected = if Some(index) == missing { "unreachable" } else { "ok" };
        assert!([expected, "excluded"].contains(&status), "{report}");
        lacking |= status == "unreachable";
    }
    assert_eq!(envelope["complete"], !lacking, "{envelope}");
}

async fn paged(cluster: &Cluster, parameters: &str, missing: Option<usize>) -> Vec<String> {
    let (mut found, mut cursor) = (Vec::new(), String::new());
    loop {
        let answer = cluster.page(&format!("{parameters}{cursor}")).await;
        let json = answer.json();
        check_names(&json, missing);
        if answer.status == NOBODY {
            return found;
        }
        found.extend(json["entries"].as_array().unwrap().iter().map(place));
        match json["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return found,
        }
    }
}

async fn streamed(cluster: &Cluster, parameters: &str, missing: Option<usize>) -> Vec<String> {
    let answer = cluster.page(&format!("{parameters}&format=ndjson")).await;
    if answer.status == NOBODY {
        check_names(&answer.json(), missing);
        return Vec::new();
    }
    let lines: Vec<Value> = answer.text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    check_names(&lines.last().unwrap()["final"], missing);
    lines.iter().filter(|line| line["entry"].is_object()).map(place).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_found_equals_reading_every_row_of_the_nodes_that_are_there() {
    let mut roll = dice(SEED);
    let mut cluster = Cluster::start(&IDS).await;
    let lines = |roll: &mut dyn FnMut(u64) -> u64, count: u64| -> Vec<String> {
        let mut roll = |sides| roll(sides);
        (0..count).map(|_| entry(&mut roll, Timestamp::from_micros(1_776_240_000 * SECOND))).collect()
    };
    for index in 0..3 {
        let lines = lines(&mut roll, 400);
        cluster.append(index, &lines).await;
    }
    cluster.wait_until_complete().await;
    let mut missing: Option<usize> = None;
    for round in 0..ROUNDS {
        match (missing, roll(3)) {
            (None, 0) => {
                let index = roll(3) as usize;
                cluster.kill(index);
                missing = Some(index);
            }
            (Some(index), 0 | 1) => {
                cluster.restart(index).await;
                cluster.wait_until_answered(IDS[index]).await;
                missing = None;
            }
            (None, 1) => assert_eq!(cluster.on_node(roll(3) as usize, &["reindex"]).code, 0),
            _ => {
                let index = (0..3).find(|index| Some(*index) != missing).unwrap();
                let (index, lines) = ((index + round % 2).min(2), lines(&mut roll, 30));
                if Some(index) != missing {
                    cluster.append(index, &lines).await;
                }
            }
        }
        let rows: Vec<Vec<Raw>> = (0..3).map(|index| rows_of(&cluster, index)).collect();
        for _ in 0..QUERIES_PER_ROUND {
            // Exclude the aggregator's own node, because its log grows with every request.
            let of = roll(3) as usize;
            let asked = format!("({}) node:mx1,mx2,mx3", filter(&mut roll, &rows[of]));
            let order = ["asc", "desc"][roll(2) as usize];
            let expected = naive(&rows, missing, &asked, order);
            let encoded: String = asked.bytes().map(|byte| format!("%{byte:02X}")).collect();
            let parameters = format!("filter={encoded}&order={order}&from=0001-01-01");
            let limit = [7, 50, 1_000][roll(3) as usize];
            let found = paged(&cluster, &format!("{parameters}&limit={limit}"), missing).await;
            assert_eq!(found, expected, "round {round}: {asked} {order} {limit} without {missing:?}");
            assert_eq!(streamed(&cluster, &parameters, missing).await, expected, "{asked} {order}");
            let path = format!("/api/v1/stats?filter={encoded}&from=0001-01-01");
            let answer = cluster.get(&path, Some(&cluster.token)).await;
            let counted = answer.json();
            check_names(&counted, missing);
            if answer.status != NOBODY {
                assert_eq!(counted["stats"]["entries"], expected.len(), "{asked}");
            }
        }
    }
    if let Some(index) = missing {
        cluster.restart(index).await;
    }
    cluster.verify_all();
}
