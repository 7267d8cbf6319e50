//! An application that only records entries, for tests that kill it: `recording-app SOCKET FOLDER POLICY BYTES COUNT`. It prints
//! the result of every entry, then waits until the recorder has no pending entries. With the policy `strict-handler` it begins
//! one request, prints `running`, and never completes the request.

use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use piperoll_client::{Category, DeliveryPolicy, Emitted, Entry, RecordLayer, Recorder};
use tower::ServiceExt as _;

const FLUSH: Duration = Duration::from_secs(60);
/// Deadline that is so long that no test depends on how fast the machine is. A test of the deadline sets
/// `RECORDING_APP_DEADLINE_MS`.
const DEADLINE: Duration = Duration::from_secs(60);

#[tokio::main]
async fn main() {
    let args: Vec<String> = std::env::args().collect();
    let [_, socket, folder, policy, bytes, count] = args.as_slice() else { panic!("five arguments") };
    let is_handler = policy == "strict-handler";
    let policy = match policy.as_str() {
        "strict" | "strict-handler" => DeliveryPolicy::Strict,
        "spool" => DeliveryPolicy::Spool,
        "best_effort" => DeliveryPolicy::BestEffort,
        other => panic!("{other}: no policy"),
    };
    let deadline = std::env::var("RECORDING_APP_DEADLINE_MS").ok();
    let deadline = deadline.map_or(DEADLINE, |text| Duration::from_millis(text.parse().expect("a number")));
    let recorder = Recorder::builder(Path::new(socket))
        .expect("a client")
        .policy_for_all(policy)
        .spool(Path::new(folder))
        .spool_bytes_max(bytes.parse().expect("a number"))
        .deadline(deadline)
        .source("recording-app")
        .open()
        .expect("a recorder");
    if is_handler {
        return handle(recorder).await;
    }
    for n in 0..count.parse().expect("a number") {
        let entry = Entry::new(Category::Data, "app.write").user("app").user_type("service").detail("n", n);
        let id = entry.id();
        let word = match recorder.emit(entry).await {
            Ok(Emitted::Recorded(_)) => "recorded".to_owned(),
            Ok(Emitted::Spooled(_)) => "kept".to_owned(),
            Ok(Emitted::Dropped) => "dropped".to_owned(),
            Ok(other) => format!("unknown {other:?}"),
            Err(error) => format!("failed {error}"),
        };
        println!("{id} {word}");
        std::io::stdout().flush().expect("standard output");
    }
    println!("done");
    println!("flushed {}", recorder.close(FLUSH).await);
}

/// Sends a request to a handler that prints `running` and never returns.
async fn handle(recorder: Recorder) {
    let endless = axum::routing::post(async || {
        println!("running");
        std::future::pending::<()>().await;
    });
    let app = axum::Router::new().route("/run", endless).layer(RecordLayer::new(recorder));
    let request = http::Request::post("/run").body(axum::body::Body::empty()).expect("a request");
    app.oneshot(request).await.expect("an answer");
}
