//! Tests that rows come in exact `(timestamp, node_id, seq)` order, and that all pages together equal one long read.

use piperoll_tests::{Answer, Cluster, edit, entry, place};
use serde_json::Value;

/// Returns the merge key of a row.
fn key(row: &Value) -> (String, String, u64) {
    let entry = &row["entry"];
    let text = |field: &str| entry[field].as_str().unwrap().to_owned();
    (text("timestamp"), text("node_id"), entry["seq"].as_u64().unwrap())
}

/// Reads page by page until there is no cursor. Requests an incomplete page again, which works because a cursor is a position and
/// not a state.
async fn pages(
    cluster: &mut Cluster,
    order: &str,
    limit: usize,
    mut between: impl AsyncFnMut(&mut Cluster, usize),
) -> Vec<Value> {
    let mut rows = Vec::new();
    let mut cursor: Option<String> = None;
    for number in 0.. {
        between(cluster, number).await;
        let parameters = match &cursor {
            None => format!("order={order}&limit={limit}&from=0001-01-01"),
            Some(cursor) => format!("order={order}&limit={limit}&from=0001-01-01&cursor={cursor}"),
        };
        let answer: Answer = loop {
            let answer = cluster.page(&parameters).await;
            if answer.status == 200 && answer.json()["complete"] == true {
                break answer;
            }
            tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        };
        let json = answer.json();
        rows.extend(json["entries"].as_array().unwrap().iter().cloned());
        match json["next_cursor"].as_str() {
            Some(next) => cursor = Some(next.to_owned()),
            None => return rows,
        }
    }
    unreachable!("the loop ends at the last page")
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_equal_one_long_read_while_rows_arrive_and_a_node_comes_and_goes() {
    let mut cluster = Cluster::start(&["mx1", "mx2", "mx3"]).await;
    for index in 0..3 {
        let lines: Vec<String> = (0..70).map(|n| entry(&format!("u{n}"), "auth.login")).collect();
        cluster.append(index, &lines).await;
    }
    cluster.wait_until_complete().await;
    for order in ["asc", "desc"] {
        let long = cluster.page(&format!("order={order}&limit=1000&from=0001-01-01")).await.json();
        let long: Vec<Value> = long["entries"].as_array().unwrap().clone();
        let keys: Vec<_> = long.iter().map(key).collect();
        let mut sorted = keys.clone();
        sorted.sort();
        if order == "desc" {
            sorted.reverse();
        }
        assert_eq!(keys, sorted, "the order is not (timestamp, node_id, seq)");

        let paged = pages(&mut cluster, order, 17, async |cluster, page| {
            // Rows arrive all the time; they are newer than the first page's snapshot and never shift a page.
            if page > 0 {
                cluster.append(page % 3, &[entry("later", "auth.login")]).await;
            }
            match page {
                3 => cluster.kill(1),
                4 => {}
                _ => return,
            }
            if page == 3 {
                // A page without the killed node reports that it is incomplete. After the node has restarted, paging continues
                // with the same cursor.
                let partial = cluster.page("limit=5").await;
                assert_eq!(partial.json()["complete"], false);
                cluster.restart(1).await;
            }
        })
        .await;
        let snapshot: Vec<_> = paged.iter().map(place).collect();
        let expected: Vec<_> = long.iter().map(place).collect();
        // The snapshot also contains the aggregator's own entries about earlier queries, so compare only the rows of the nodes.
        let of_nodes = |rows: &[String]| rows.iter().filter(|p| !p.starts_with("agg/")).cloned().collect::<Vec<_>>();
        assert_eq!(of_nodes(&snapshot), of_nodes(&expected), "order={order}");
    }
    cluster.verify_all();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_missing_at_the_first_page_adds_no_rows_later() {
    let mut cluster = Cluster::start(&["mx1", "mx2"]).await;
    for index in 0..2 {
        let lines: Vec<String> = (0..30).map(|n| entry(&format!("u{n}"), "auth.login")).collect();
        cluster.append(index, &lines).await;
    }
    cluster.wait_until_complete().await;
    cluster.kill(1);
    let first = cluster.page("limit=10").await.json();
    assert_eq!(first["complete"], false);
    cluster.restart(1).await;
    cluster.wait_until_complete().await;
    let mut cursor = first["next_cursor"].as_str().unwrap().to_owned();
    loop {
        let answer = cluster.page(&format!("limit=10&cursor={cursor}")).await;
        let json = answer.json();
        assert_eq!(answer.status_of("mx2"), "unreachable", "it stays listed until the last page");
        assert_eq!(json["complete"], false);
        assert!(answer.places().iter().all(|p| !p.starts_with("mx2/")));
        match json["next_cursor"].as_str() {
            Some(next) => cursor = next.to_owned(),
            None => break,
        }
    }
}

/// Two nodes whose clocks are stopped at the same instant: every row has the same timestamp.
#[tokio::test(flavor = "multi_thread")]
async fn equal_timestamps_and_mixed_clocks() {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() + 120;
    let mut cluster = Cluster::start_with(&["mx1", "mx2", "mx3"], |id| {
        Some(if id == "mx3" { "-7s".to_owned() } else { format!("@{now}") })
    })
    .await;
    for index in 0..3 {
        let lines: Vec<String> = (0..25).map(|n| entry(&format!("u{n}"), "auth.login")).collect();
        cluster.append(index, &lines).await;
    }
    cluster.wait_until_complete().await;
    for order in ["asc", "desc"] {
        let long = cluster.page(&format!("order={order}&limit=1000&from=0001-01-01")).await;
        let rows = long.json()["entries"].as_array().unwrap().clone();
        let keys: Vec<_> = rows.iter().map(key).collect();
        let mut sorted = keys.clone();
        sorted.sort();
        if order == "desc" {
            sorted.reverse();
        }
        assert_eq!(keys, sorted);
        let equal = keys.windows(2).filter(|pair| pair[0].0 == pair[1].0 && pair[0].1 != pair[1].1).count();
        assert!(equal > 0, "no equal timestamps on different nodes: the test tests nothing");
        let paged = pages(&mut cluster, order, 7, async |_, _| {}).await;
        let of_nodes = |rows: &[Value]| rows.iter().map(place).filter(|p| !p.starts_with("agg/")).collect::<Vec<_>>();
        assert_eq!(of_nodes(&paged), of_nodes(&rows));
    }
    // The offset of the clock that is seven seconds slow is measured and reported, and never used to correct times.
    let offset = cluster.page("limit=1").await.node("mx3")["clock_offset_ms"].as_f64().unwrap();
    assert!((-7_500.0..-6_500.0).contains(&offset), "{offset}");
    let uncertainty = cluster.page("limit=1").await.json()["order_uncertainty_ms"].as_f64().unwrap();
    assert!(uncertainty > 100_000.0, "two minutes apart: {uncertainty}");
}

/// A clock that steps back by more than a second begins a new era, and the log records this.
#[tokio::test(flavor = "multi_thread")]
async fn a_clock_step_begins_an_era_and_order_holds() {
    let mut cluster = Cluster::start_with(&["mx1"], |_| Some("+0s".to_owned())).await;
    for time in ["+60s", "+0s", "+30s"] {
        cluster.stop(0);
        cluster.set_clock(0, time);
        cluster.restart(0).await;
        let lines: Vec<String> = (0..20).map(|n| entry(&format!("u{n}"), "auth.login")).collect();
        cluster.append(0, &lines).await;
    }
    cluster.wait_until_complete().await;
    let answer = cluster.page("order=asc&limit=1000&from=0001-01-01&node=mx1").await;
    let rows = answer.json()["entries"].as_array().unwrap().clone();
    let keys: Vec<_> = rows.iter().map(key).collect();
    assert!(keys.is_sorted(), "merged by time across eras");
    let steps = rows.iter().filter(|row| row["entry"]["action"] == "log.clock_stepped").count();
    assert_eq!(steps, 1, "one step back of more than a second");
    assert_eq!(rows.iter().map(|row| row["entry"]["era"].as_u64().unwrap()).max(), Some(1));
    let paged = pages(&mut cluster, "desc", 9, async |_, _| {}).await;
    let mut paged: Vec<_> = paged.iter().filter(|row| row["entry"]["node_id"] == "mx1").map(key).collect();
    paged.reverse();
    assert_eq!(paged, keys);
    cluster.verify_all();
}

/// Upper bound for the number of pages in these tests. A test that reaches this number fails, because paging does not end.
const PAGES_MAX: usize = 200;

/// Pages forward to the end and back to the beginning, and returns the rows of each page in both directions.
async fn there_and_back(cluster: &Cluster, order: &str, limit: usize) -> (Vec<Vec<String>>, Vec<Vec<String>>) {
    let ask = async |cursor: &Option<String>| {
        let cursor = cursor.as_ref().map(|cursor| format!("&cursor={cursor}")).unwrap_or_default();
        let path = format!("order={order}&limit={limit}&from=0001-01-01&filter=node:mx1,mx2{cursor}");
        let answer = cluster.page(&path).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        let json = answer.json();
        let text = |name: &str| json[name].as_str().map(str::to_owned);
        (answer.places(), text("previous_cursor"), text("next_cursor"))
    };
    let (mut there, mut back, mut cursor) = (Vec::new(), Vec::<Vec<String>>::new(), None);
    let mut before = loop {
        let (places, before, next) = ask(&cursor).await;
        there.push(places);
        assert!(there.len() < PAGES_MAX, "there is no end: {there:?}");
        match next {
            Some(next) => cursor = Some(next),
            None => break before,
        }
    };
    while let Some(cursor) = before {
        let (places, again, next) = ask(&Some(cursor)).await;
        // The page that follows this one must share rows with the page from which paging backward led to this one.
        let (behind, ..) = ask(&next).await;
        let known = back.last().unwrap_or(there.last().unwrap());
        let way = || format!("{order} {limit}: {places:?} is followed by {behind:?}, not by {known:?}; {next:?}");
        assert!(known.is_empty() || behind.iter().any(|place| known.contains(place)), "{}", way());
        back.push(places);
        assert!(back.len() < PAGES_MAX, "there is no beginning: {back:?}");
        before = again;
    }
    back.reverse();
    (there, back)
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_lead_back_over_the_same_rows_also_over_rows_that_do_not_fit() {
    let mut cluster = Cluster::start(&["mx1", "mx2"]).await;
    for turn in 0..15 {
        cluster.append(turn % 2, &[entry(&format!("user{turn}"), "auth.login"), entry("other", "auth.login")]).await;
    }
    cluster.wait_until_complete().await;
    for order in ["asc", "desc"] {
        for limit in [1, 3, 4, 7] {
            let (there, back) = there_and_back(&cluster, order, limit).await;
            let last = there.len() - 1;
            assert_eq!(back, there[..last], "{order} {limit}");
        }
    }
    // Invalid rows may be sorted by a time other than their own. Paging backward must not lose them between two pages.
    for (node, seq) in [(0, 3), (0, 4), (1, 6), (1, 9)] {
        edit(
            &cluster.database(node),
            &format!("UPDATE entries SET body = replace(body, 'auth.login', 'auth.logon') WHERE seq = {seq}"),
        );
    }
    for index in 0..2 {
        cluster.stop(index);
        cluster.restart(index).await;
        cluster.wait_until_answered(&cluster.nodes[index].id).await;
    }
    for limit in [1, 2, 3, 5] {
        everything_is_seen_both_ways(&cluster, limit).await;
    }
    // A missing node must cause neither a page that ends where it begins nor endless backward paging.
    cluster.kill(1);
    everything_is_seen_both_ways(&cluster, 3).await;
}

async fn everything_is_seen_both_ways(cluster: &Cluster, limit: usize) {
    let all = |pages: &[Vec<String>]| pages.iter().flatten().cloned().collect::<std::collections::BTreeSet<String>>();
    for order in ["asc", "desc"] {
        let (there, mut back) = there_and_back(cluster, order, limit).await;
        back.extend(there.last().cloned());
        assert_eq!(all(&back), all(&there), "{order} {limit}");
    }
}

/// A search with few matches continues while the nodes report progress: the page ends at the position that all nodes have
/// reached, reports that position, and its cursor continues there. No row is found twice or skipped, and every node stays `ok`.
#[tokio::test(flavor = "multi_thread")]
async fn a_long_search_goes_on_page_by_page() {
    /// Maximum number of rows. With that many rows, a search is cut off on any machine.
    const ROWS_MAX: usize = 2_000_000;

    let mut cluster = Cluster::made(&["mx1", "mx2"], |_| None).await;
    cluster.configure_aggregator("[limits]\npage_ms = 150\nsearch_ms = 160\n");
    cluster.run_all().await;
    let (mut wanted, mut rows, mut cut) = (0, 0, 0);
    // Nodes report progress ten times a second, so on a fast machine more rows are needed before a search is cut off.
    while cut == 0 {
        for _ in 0..12 {
            let line = |n: u32| {
                let text = if n == 7 { "a zz" } else { "common words of every day" };
                serde_json::json!({ "category": "data", "action": "mail.view", "user": "u", "description": text })
                    .to_string()
            };
            let lines: Vec<String> = (0..5_000).map(line).collect();
            cluster.append(0, &lines).await;
            cluster.append(1, &lines[..1_000]).await;
            (wanted, rows) = (wanted + 2, rows + 6_000);
        }
        assert!(rows < ROWS_MAX, "no search was ever cut");
        for order in ["asc", "desc"] {
            let (found, stops) = found_page_by_page(&cluster, order).await;
            let once: std::collections::BTreeSet<&String> = found.iter().collect();
            assert_eq!((found.len(), once.len()), (wanted, wanted), "{order}: {found:?}");
            cut += stops;
        }
    }
    cluster.verify_all();
}

/// Returns the rows found on all pages, and the number of pages that ended because of the time limit.
async fn found_page_by_page(cluster: &Cluster, order: &str) -> (Vec<String>, usize) {
    let (mut found, mut cut, mut cursor) = (Vec::new(), 0, String::new());
    for _ in 0..PAGES_MAX {
        // On a busy machine a node may need the whole limit for its first rows. The page names this node, and the client retries.
        let (mut answer, mut json);
        let mut tries = 0;
        loop {
            answer = cluster.page(&format!("filter=zz&from=1d&order={order}&limit=1000{cursor}")).await;
            json = answer.json();
            tries += 1;
            if json["complete"] == true || tries == PAGES_MAX {
                break;
            }
        }
        assert_eq!((answer.status, &json["complete"]), (200, &true.into()), "{}", answer.text);
        found.extend(answer.places());
        if let Some(time) = json["searched_to"].as_str() {
            cut += 1;
            assert!(json["more"] == true && json["complete_through"] == time, "{}", answer.text);
        }
        match json["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return (found, cut),
        }
    }
    panic!("there is no end: {found:?}");
}
