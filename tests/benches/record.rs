//! Measures the cost of recording for an application: `cargo bench --bench record -p piperoll-tests`. Prints the figures without
//! checking them.
//!
//! Compares the rates of strict entries with one task and with 128 tasks, through a real node. Also compares a service that uses
//! the layer with the same service without it; the difference is the layer's own work per request.

#![allow(clippy::unwrap_used, reason = "a benchmark that cannot continue panics")]

use std::time::{Duration, Instant};

use axum::body::Body;
use axum::http::Request;
use axum::routing::post;
use axum::{Extension, Router};
use nix::sys::resource::{UsageWho, getrusage};
use piperoll_client::{AuditContext, Category, Changes, DeliveryPolicy, Entry, RecordLayer, Recorder};
use piperoll_tests::{Cluster, median};
use serde_json::json;
use tower::ServiceExt as _;

const TIME: Duration = Duration::from_secs(4);
const TOGETHER: usize = 128;
const REQUESTS: usize = 100_000;
const ROUNDS: usize = 5;

fn main() {
    piperoll_net::crypto::install();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(strict());
    // Measure the layer on a runtime with one thread, so that the CPU time of the process is the time of this work alone.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(layer());
}

async fn strict() {
    let mut cluster = Cluster::made(&["mx1"], |_| None).await;
    cluster.spawn(0);
    cluster.wait_for_node(&cluster.nodes[0]).await;
    let socket = cluster.nodes[0].folder.join("node.sock");
    let recorder = Recorder::builder(&socket).unwrap().policy_for_all(DeliveryPolicy::Strict);
    let recorder = recorder.deadline(Duration::from_secs(10)).open().unwrap();
    let mut rates = Vec::new();
    for tasks in [1, TOGETHER] {
        let started = Instant::now();
        let tasks: Vec<_> = (0..tasks)
            .map(|task| {
                let recorder = recorder.clone();
                tokio::spawn(async move {
                    let mut count = 0;
                    while started.elapsed() < TIME {
                        recorder.emit(entry(task * 1_000_000 + count)).await.unwrap();
                        count += 1;
                    }
                    count
                })
            })
            .collect();
        let mut count = 0;
        for task in tasks {
            count += task.await.unwrap();
        }
        rates.push(count as f64 / started.elapsed().as_secs_f64());
    }
    println!("strict entries/s, one task      {:>10.0}", rates[0]);
    println!("strict entries/s, {TOGETHER} tasks     {:>10.0}   {:.1} times (goal 20)", rates[1], rates[1] / rates[0]);
}

fn entry(n: usize) -> Entry {
    Entry::new(Category::Data, "mail.release").user(format!("user{}", n % 97)).entity("mail", n.to_string())
}

async fn layer() {
    let (recorder, captured) = Recorder::in_memory();
    async fn handler(Extension(activity): Extension<AuditContext>) -> &'static str {
        let changes = Changes::default().with("quota", 5, 10);
        activity
            .action(Category::Data, "domain.update")
            .update(|entry| entry.entity("domain", "example.org").changes(changes));
        "done"
    }
    let plain = Router::new().route("/domains", post(async || "done"));
    let with = Router::new()
        .route("/domains", post(handler))
        .layer(RecordLayer::new(recorder.clone()).category(Category::Data));
    let request = || {
        let request = Request::post("/domains?x=1").header("user-agent", "curl/8.0").header("x-request-id", "7");
        request.body(Body::empty()).unwrap()
    };
    let (mut without, mut within, mut emit) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let before = cpu();
        for _ in 0..REQUESTS {
            plain.clone().oneshot(request()).await.unwrap();
        }
        without.push((cpu() - before).as_secs_f64());
        let before = cpu();
        for _ in 0..REQUESTS {
            with.clone().oneshot(request()).await.unwrap();
        }
        within.push((cpu() - before).as_secs_f64());
        assert_eq!(captured.entries().len(), REQUESTS);
        captured.clear();
        // Emit the same entries without the layer, to subtract their cost. The recorder is in memory, so no socket is involved.
        let before = cpu();
        for n in 0..REQUESTS {
            recorder.emit(entry(n).detail("changes", json!([5, 10]))).await.unwrap();
        }
        emit.push((cpu() - before).as_secs_f64());
        captured.clear();
    }
    let micros = |seconds: Vec<f64>| median(seconds) / REQUESTS as f64 * 1e6;
    let (without, within, emit) = (micros(without), micros(within), micros(emit));
    println!("CPU us a request: without layer {without:.1}, with it {within:.1}; an entry emitted by hand {emit:.1}");
    println!("layer beyond the entry itself   {:>10.1} us (goal 20)", within - without - emit);
    println!("layer and entry together        {:>10.1} us", within - without);
}

/// Returns user and system time of this process.
fn cpu() -> Duration {
    let usage = getrusage(UsageWho::RUSAGE_SELF).unwrap();
    let of = |time: nix::sys::time::TimeVal| {
        Duration::new(time.tv_sec().unsigned_abs(), u32::try_from(time.tv_usec()).unwrap_or(0) * 1_000)
    };
    of(usage.user_time()) + of(usage.system_time())
}
