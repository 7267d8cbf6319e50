//! Measures how fast entries are found, counted and paged: `scripts/bench-find`. Prints the figures without checking them.
//!
//! Three nodes have `FIND_ROWS` entries each (default five million) over thirty days. Every search runs on one node's store, and
//! on all three nodes through an aggregator over mTLS, after one warm-up round.

#![allow(clippy::unwrap_used, reason = "a benchmark that cannot continue panics")]

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use piperoll_format::order::Order;
use piperoll_format::time::Timestamp;
use piperoll_net::clock::{Clock, SystemClock};
use piperoll_node::config::NodeConfig;
use piperoll_node::store::{LogDir, Store};
use piperoll_protocol::node::ScanRequest;
use piperoll_tests::{Cluster, Fault, new_entry};

#[allow(dead_code, reason = "the tests use more of it")]
#[path = "../browser/driver.rs"]
mod driver;

use driver::Browser;

const PAGE_ROUNDS: usize = 20;
const NODES: [&str; 3] = ["mx1", "mx2", "mx3"];
const ROUNDS: usize = 200;
/// Wait before the first query to the aggregator.
const WARM_UP: Duration = Duration::from_secs(5);
const STATS_ROUNDS: usize = 10;
const MANY: usize = 100;
const DAYS: i64 = 30;
const DAY_MICROS: i64 = 86_400_000_000;

/// Searches listed in the table: a name, the filter, and further parameters such as the time range.
const SEARCHES: [(&str, &str, &str); 9] = [
    ("user", "user:user-0417", ""),
    ("action set and range", "action:mailbox.create,token.revoke", "&from=21d&to=20d"),
    ("user and action", "user:user-0417 action:quarantine.release", ""),
    ("entity", "entity:mail/000000000000c0de", ""),
    ("address", "ip:203.0.113.77", ""),
    ("addresses /16", "ip:10.77.0.0/16", ""),
    ("piece of text", "\"ticket 48113\"", ""),
    ("piece of details", "details:queue-0c07", ""),
    ("nothing fits", "user:nobody-at-all", ""),
];

/// A clock whose readings are spread evenly over thirty days.
struct Past {
    next: AtomicI64,
    step: i64,
}

impl Clock for Past {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.next.fetch_add(self.step, Ordering::Relaxed))
    }
}

fn main() {
    piperoll_net::crypto::install();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    // `cargo bench … -- find` or `-- nodes` runs only that half.
    let wanted = |half: &str| {
        let asked: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
        asked.is_empty() || asked.iter().any(|arg| arg == half)
    };
    if wanted("find") {
        runtime.block_on(find());
    }
    if wanted("nodes") {
        runtime.block_on(nodes());
    }
}

/// Measures one page over a hundred nodes: with all of them up, with one dead, and with one that hangs.
async fn nodes() {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, most, most).unwrap();
    let ids: Vec<String> = (0..MANY).map(|n| format!("n{n:03}")).collect();
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    let mut cluster = Cluster::made(&ids, |_| None).await;
    for first in (0..MANY - 1).step_by(25) {
        cluster.spawn_pack(first..(first + 25).min(MANY - 1)).await;
    }
    // The last node has its own process, so that it can be killed.
    cluster.spawn(MANY - 1);
    cluster.spawn_aggregator();
    cluster.wait_for_node(&cluster.nodes[MANY - 1]).await;
    cluster.wait_for_aggregator().await;
    for index in 0..MANY {
        let lines: Vec<String> = (0..2_000).map(piperoll_tests::caller_entry).collect();
        cluster.append(index, &lines).await;
    }
    cluster.wait_until_complete().await;
    println!("\n{MANY} nodes in 5 processes on this machine, first page of 50, {ROUNDS} times, ms");
    println!("{:<32} {:>8} {:>8} {:>8} {:>12}", "", "p50", "p99", "max", "slowest node");
    many_pages(&cluster, "all answer", ROUNDS).await;
    cluster.kill(MANY - 1);
    for _ in 0..5 {
        cluster.page("limit=50").await;
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    many_pages(&cluster, "one is known to be dead", ROUNDS).await;
    cluster.nodes[MANY / 2].proxy.set(Fault::Silent);
    many_pages(&cluster, "and one accepts, and is silent", 5).await;
}

async fn many_pages(cluster: &Cluster, name: &str, rounds: usize) {
    let (mut times, mut slowest) = (Vec::new(), Vec::new());
    for _ in 0..=rounds {
        let answer = cluster.page("limit=50").await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        times.push(answer.took.as_secs_f64() * 1_000.0);
        let all = answer.json()["nodes"].as_array().cloned().unwrap();
        slowest.push(all.iter().filter_map(|node| node["took_ms"].as_f64()).fold(0.0, f64::max));
    }
    times.remove(0);
    times.sort_by(f64::total_cmp);
    let at = |part: f64| times[((times.len() as f64 * part) as usize).min(times.len() - 1)];
    let slowest = piperoll_tests::median(slowest);
    println!("{name:<32} {:>8.1} {:>8.1} {:>8.1} {slowest:>12.1}", at(0.5), at(0.99), at(1.0));
}

async fn find() {
    let rows: u64 = std::env::var("FIND_ROWS").map_or(5_000_000, |text| text.parse().unwrap());
    let mut cluster = Cluster::made(&NODES, |_| None).await;
    let started = Instant::now();
    for (number, node) in cluster.nodes.iter().enumerate() {
        let store = open(&node.folder, rows);
        fill(&store, rows, number as u64).await;
        let filled = started.elapsed();
        while store.index().rows < store.index().of {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let index = store.index();
        println!(
            "{}: {rows} entries; filled after {:.0} s, indexed after {:.0} s; index {} files, {:.0} bytes an entry",
            node.id,
            filled.as_secs_f64(),
            started.elapsed().as_secs_f64(),
            index.blocks,
            index.bytes as f64 / rows as f64
        );
        if number == 0 {
            on_one_node(&store).await;
        }
        store.close().await;
        let database = std::fs::metadata(node.folder.join("data/log.db")).map_or(0, |meta| meta.len());
        println!("{}: {:.0} bytes an entry in the database", node.id, database as f64 / rows as f64);
    }
    cluster.run_all().await;
    cluster.wait_until_complete().await;
    // Let each node rebuild its newest block after the start, and let the witness catch up with all rows.
    tokio::time::sleep(WARM_UP).await;
    through_the_aggregator(&cluster).await;
    in_a_browser(&cluster).await;
}

/// Measures the time from navigation to rendered rows and to rendered counts, from the performance marks of the page.
async fn in_a_browser(cluster: &Cluster) {
    let Some(browser) = Browser::signed_in(cluster, &cluster.token).await else { return };
    let (mut rows, mut counts) = (Vec::new(), Vec::new());
    for _ in 0..=PAGE_ROUNDS {
        browser.go("/").await;
        let marked = "return performance.getEntriesByName('counts').length > 0";
        browser.until("counts", async || browser.js(marked, serde_json::json!([])).await == true).await;
        for (name, times) in [("rows", &mut rows), ("counts", &mut counts)] {
            let at = "return performance.getEntriesByName(arguments[0])[0].startTime";
            let ms = browser.js(at, serde_json::json!([name])).await.as_f64().unwrap();
            times.push(Duration::from_secs_f64(ms / 1_000.0));
        }
    }
    println!("\nthe page in a browser, {PAGE_ROUNDS} times, ms from its address");
    line("rows can be read", &mut rows, browser.places().await.len());
    line("counts are there", &mut counts, 0);
    browser.close().await;
}

fn open(folder: &std::path::Path, rows: u64) -> Store {
    let config = NodeConfig::load(&folder.join("node.toml")).unwrap();
    let span = DAYS * DAY_MICROS;
    let first = SystemClock.now().plus_micros(-span);
    let clock = Past { next: AtomicI64::new(first.micros()), step: span / i64::try_from(rows).unwrap() };
    Store::open(LogDir::new(&config.data_dir), config.keys, Arc::new(clock), config.flags).unwrap()
}

async fn fill(store: &Store, rows: u64, node: u64) {
    let via: Arc<str> = Arc::from("socket uid=0");
    let mut dice = node + 1;
    let mut waiting = tokio::task::JoinSet::new();
    for first in (0..rows).step_by(1_000) {
        let new_entries = (first..rows.min(first + 1_000)).map(|n| new_entry(&entry(n, &mut dice), &via)).collect();
        let store = store.clone();
        waiting.spawn(async move { assert!(store.append(new_entries).await.iter().all(Result::is_ok)) });
        while waiting.len() > 4 {
            waiting.join_next().await.unwrap().unwrap();
        }
    }
    while let Some(done) = waiting.join_next().await {
        done.unwrap();
    }
}

/// Returns an entry of a mail platform with a thousand users (some more active than others), five actions and twenty thousand
/// addresses.
fn entry(n: u64, dice: &mut u64) -> String {
    let mut roll = |sides: u64| {
        *dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (*dice >> 33) % sides
    };
    let user = roll(1_000) * roll(1_000) / 1_000;
    let action =
        ["quarantine.release", "auth.login", "mailbox.create", "token.revoke", "policy.update"][roll(5) as usize];
    let outcome = if roll(10) == 0 { "failure" } else { "success" };
    let address = match roll(1_000) {
        0 => format!("203.0.113.{}", roll(250)),
        _ => format!("10.{}.{}.{}", roll(80), roll(4), roll(64)),
    };
    let (entity, ticket, queue) = (roll(1_000_000), roll(1_000_000), roll(65_536));
    format!(
        "{{\"category\":\"data\",\"action\":\"{action}\",\"outcome\":\"{outcome}\",\"user\":\"user-{user:04}\",\"user_type\":\"admin\",\"entity_type\":\"mail\",\"entity_id\":\"{entity:016x}\",\"target\":\"office-{}@example.org\",\"domain\":\"example.org\",\"ip_address\":\"{address}\",\"description\":\"message {n:08x} of ticket {ticket:06} went to its recipient\",\"details\":{{\"queue\":\"queue-{queue:04x}\",\"size\":{}}}}}",
        roll(500),
        roll(100_000)
    )
}

async fn on_one_node(store: &Store) {
    println!("\nnewest 50 on one node, {ROUNDS} times each, ms");
    println!("{:<24} {:>8} {:>8} {:>8} {:>7}", "", "p50", "p99", "max", "rows");
    let now = SystemClock.now();
    for (name, filter, range) in SEARCHES {
        let (from, to) = match range {
            "" => (Timestamp::MIN, Timestamp::MAX),
            _ => (now.plus_micros(-21 * DAY_MICROS), now.plus_micros(-20 * DAY_MICROS)),
        };
        let request: ScanRequest = serde_json::from_value(serde_json::json!({
            "filter": filter, "order": Order::Desc, "limit": 50, "from": from, "to": to,
        }))
        .unwrap();
        let (mut times, mut found) = (Vec::new(), 0);
        for _ in 0..=ROUNDS {
            let started = Instant::now();
            let mut scan = store.scan(request.clone()).await.unwrap();
            found = 0;
            loop {
                let (returned, batch) = store.next_batch(scan).await.unwrap();
                (scan, found) = (returned, found + batch.rows.len());
                if batch.done {
                    break;
                }
            }
            times.push(started.elapsed());
        }
        line(name, &mut times, found);
    }
}

async fn through_the_aggregator(cluster: &Cluster) {
    println!("\nnewest 50 of three nodes through the aggregator, {ROUNDS} times each, ms");
    println!("{:<24} {:>8} {:>8} {:>8} {:>7}", "", "p50", "p99", "max", "rows");
    for (name, filter, range) in SEARCHES {
        let range = if range.is_empty() { "&from=40d" } else { range };
        let path = format!("limit=50&filter={}{range}", encode(filter));
        let (mut times, mut found) = (Vec::new(), 0);
        for _ in 0..=ROUNDS {
            let answer = cluster.page(&path).await;
            assert_eq!(answer.json()["complete"], true, "{}", answer.text);
            times.push(answer.took);
            found = answer.json()["entries"].as_array().unwrap().len();
        }
        line(name, &mut times, found);
    }
    println!("\ncounts over three nodes, {STATS_ROUNDS} times each, ms");
    for (name, path) in [
        ("top 20 addresses, failed", "by=ip_address&filter=action:auth.login%20outcome:failure&from=7d"),
        ("histogram, 30 days", "bucket=1d&from=30d"),
    ] {
        let (mut times, mut found) = (Vec::new(), 0);
        for _ in 0..=STATS_ROUNDS {
            let answer = cluster.get(&format!("/api/v1/stats?{path}"), Some(&cluster.token)).await;
            assert_eq!(answer.status, 200, "{}", answer.text);
            times.push(answer.took);
            found = answer.json()["stats"]["entries"].as_u64().unwrap_or_default() as usize;
        }
        line(name, &mut times, found);
    }
}

/// Prints one line of the table. The first round is a warm-up and does not count.
fn line(name: &str, times: &mut Vec<Duration>, rows: usize) {
    times.remove(0);
    times.sort();
    let ms = |part: f64| times[((times.len() as f64 * part) as usize).min(times.len() - 1)].as_secs_f64() * 1_000.0;
    println!("{name:<24} {:>8.2} {:>8.2} {:>8.2} {rows:>7}", ms(0.5), ms(0.99), ms(1.0));
}

fn encode(text: &str) -> String {
    text.bytes()
        .map(|byte| if byte.is_ascii_alphanumeric() { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}
