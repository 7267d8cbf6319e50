//! Tests queries over a hundred nodes: only a few rows are requested from each node, and the page equals the merge of all rows.

use piperoll_tests::{Cluster, entry, place};
use serde_json::Value;

const NODES: usize = 100;

#[tokio::test(flavor = "multi_thread")]
async fn a_page_over_a_hundred_nodes_is_the_merge_of_all_their_rows() {
    let ids: Vec<String> = (0..NODES).map(|n| format!("n{n:03}")).collect();
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    let mut cluster = Cluster::made(&ids, |_| None).await;
    for first in (0..NODES).step_by(25) {
        cluster.spawn_pack(first..first + 25).await;
    }
    cluster.spawn_aggregator();
    cluster.wait_for_aggregator().await;
    // Most nodes have one old entry each. Two nodes have recorded all recent entries, most of them on node 7.
    for node in 0..NODES {
        cluster.append(node, &[entry(&format!("early-{node}"), "many.first")]).await;
    }
    let lines = |count: usize| (0..count).map(|n| entry(&format!("u{n}"), "many.more")).collect::<Vec<_>>();
    cluster.append(7, &lines(40)).await;
    cluster.append(93, &lines(30)).await;
    cluster.append(7, &lines(120)).await;
    cluster.wait_until_complete().await;

    let rows = |text: &str| -> Vec<Value> {
        let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        lines.filter(|row| row["entry"].is_object()).collect()
    };
    for order in ["asc", "desc"] {
        // A stream reads every node to the end, so its rows are the rows that the pages must have.
        let all = cluster.page(&format!("from=1h&format=ndjson&order={order}&filter=action:many.*")).await;
        let expected: Vec<String> = rows(&all.text).iter().map(place).collect();
        assert_eq!(expected.len(), NODES + 190);
        for limit in [1, 7, 50, 120, 1_000] {
            let (mut found, mut cursor) = (Vec::new(), String::new());
            loop {
                let parameters = format!("from=1h&limit={limit}&order={order}&filter=action:many.*{cursor}");
                let page = cluster.page(&parameters).await;
                let json = page.json();
                assert_eq!(json["complete"], true, "{}", page.text);
                let places = page.places();
                let next = json["next_cursor"].as_str();
                assert!(places.len() == limit || next.is_none(), "{} of {limit} rows", places.len());
                found.extend(places);
                let Some(next) = next else { break };
                cursor = format!("&cursor={next}");
                if limit == 1 && found.len() == 20 {
                    break;
                }
            }
            let expected = if limit == 1 { &expected[..20] } else { &expected };
            assert_eq!(found, expected, "{order} {limit}");
        }
    }
    // Without a filter the page is proven, even though the aggregator may have queried a node twice.
    cluster.wait_until_complete().await;
    let page = cluster.page("from=1h&limit=200").await;
    assert_eq!(page.places().len(), 200);
}
