//! A service that records its callers' changes: `axum-service SOCKET SPOOL` serves on a free loopback port, prints its address,
//! and exits when its standard input is closed. The tests run it; the README shows its middle part.

use std::collections::HashMap;
use std::path::Path as FilePath;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::{StatusCode, request::Parts};
use axum::routing::{get, put};
use axum::{Extension, Json, Router};
use piperoll_client::{AuditContext, Caller, Category, Changes, Entry, RecordLayer, Recorder, Secret};
use serde::{Deserialize, Serialize};

#[derive(Clone, Default, Serialize, Deserialize)]
struct Domain {
    quota_mb: u64,
    #[serde(default)]
    relay: String,
    /// The password is compared, but its value is never recorded.
    #[serde(default)]
    relay_password: Secret<String>,
}

type Domains = Arc<Mutex<HashMap<String, Domain>>>;

// README: begin
async fn update(
    State(domains): State<Domains>,
    Path(name): Path<String>,
    Extension(context): Extension<AuditContext>,
    Json(new): Json<Domain>,
) -> Result<&'static str, StatusCode> {
    let old = domains.lock().expect("no handler panics").insert(name.clone(), new.clone()).unwrap_or_default();
    let changes = Changes::between(&old, &new).map_err(|_| StatusCode::BAD_REQUEST)?;
    context.action(Category::Config, "domain.update").update(|entry| entry.entity("domain", name).changes(changes));
    Ok("saved")
}

fn service(recorder: Recorder, domains: Domains) -> Router {
    let record = RecordLayer::new(recorder).category(Category::Config).identify(who);
    Router::new()
        .route("/domains/{name}", put(update))
        .route("/healthz", get(async || "ok"))
        .with_state(domains)
        .layer(record)
}
// README: end

/// Returns the caller as identified by the application's own sign-in, which is a header in this example.
fn who(request: &Parts) -> Option<Caller> {
    let user = request.headers.get("x-user")?.to_str().ok()?.to_owned();
    Some(Caller { user, user_type: "admin".to_owned(), ..Caller::default() })
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let (Some(socket), Some(spool)) = (args.next(), args.next()) else {
        return Err("usage: axum-service SOCKET SPOOL".into());
    };
    let recorder =
        Recorder::builder(FilePath::new(&socket))?.spool(FilePath::new(&spool)).source("axum-service").open()?;
    // An event that belongs to no request is recorded with a single call. The category `cluster` is strict, so the service does
    // not start unless the entry is recorded.
    recorder.emit(Entry::new(Category::Cluster, "service.start").user("axum-service").user_type("service")).await?;

    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    println!("http://{}", listener.local_addr()?);
    let app = service(recorder.clone(), Domains::default());
    let app = app.into_make_service_with_connect_info::<std::net::SocketAddr>();
    let until_standard_input_ends = async {
        let input = || std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        let _ = tokio::task::spawn_blocking(input).await;
    };
    axum::serve(listener, app).with_graceful_shutdown(until_standard_input_ends).await?;
    recorder.close(Duration::from_secs(5)).await;
    Ok(())
}
