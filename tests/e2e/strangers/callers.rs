//! Tests callers that take all the resources they can get: other callers are still served, and memory stays within its limits.

use std::time::Duration;

use futures::StreamExt as _;
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use hyper::body::{Bytes, Frame};
use hyper_util::rt::{TokioExecutor, TokioIo};
use piperoll_protocol::access::Role;
use piperoll_tests::Cluster;
use serde_json::json;

use super::{entries, on_socket, peak_mib, until};

const AGGREGATOR_MIB_MAX: u64 = 512;
const NODE_MIB_MAX: u64 = 256;

fn large(count: usize, bytes: usize) -> Vec<String> {
    (0..count)
        .map(|n| json!({ "category": "data", "action": "a.b", "user": format!("u{n}"), "details": { "text": "lorem ipsum ".repeat(bytes / 12) } }).to_string())
        .collect()
}

/// Opens a TLS stream that speaks HTTP/2.
async fn connect(cluster: &Cluster) -> impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static {
    use rustls::pki_types::pem::PemObject as _;
    let mut roots = rustls::RootCertStore::empty();
    let ca = rustls::pki_types::CertificateDer::from_pem_file(cluster.ca()).unwrap();
    roots.add(ca).unwrap();
    let mut config = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let address = cluster.url.strip_prefix("https://").unwrap();
    let stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let name = rustls::pki_types::ServerName::try_from("127.0.0.1").unwrap();
    tokio_rustls::TlsConnector::from(std::sync::Arc::new(config)).connect(name, stream).await.unwrap()
}

/// Builds a request to the aggregator, with a token unless it is empty.
fn ask(cluster: &Cluster, token: &str, method: &str, path: &str, body: &str) -> http::Request<Full<Bytes>> {
    let mut request = http::Request::builder().method(method).uri(format!("{}/api/v1{path}", cluster.url));
    if !token.is_empty() {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    request = request.header("content-type", "application/json");
    request.body(Full::new(Bytes::from(body.to_owned()))).unwrap()
}

/// Sends requests over one HTTP/2 connection whose windows are zero from the start, so that no part of a response body can be
/// sent. The connection stays open as long as the returned values exist.
async fn never_read(
    stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
    requests: impl Iterator<Item = http::Request<Full<Bytes>>>,
) -> (hyper::client::conn::http2::SendRequest<Full<Bytes>>, tokio::task::JoinSet<()>) {
    let mut builder = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
    builder.initial_stream_window_size(0);
    let (mut sender, connection) = builder.handshake(TokioIo::new(stream)).await.unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(async move {
        let _ = connection.await;
    });
    for request in requests {
        let Ok(()) = sender.ready().await else { break };
        let answer = sender.send_request(request);
        tasks.spawn(async move {
            // The response head may arrive. It is kept, because dropping it would tell the server that the client needs no more
            // data.
            let _head = answer.await;
            std::future::pending::<()>().await;
        });
    }
    (sender, tasks)
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_nobody_reads_take_bounded_memory() {
    let cluster = Cluster::start(&["mx1", "mx2"]).await;
    for index in 0..2 {
        cluster.append(index, &large(600, 30_000)).await;
    }
    cluster.wait_until_complete().await;
    let token = cluster.token("greedy", Role::Viewer, None);
    let mut unread = Vec::new();
    for _ in 0..2 {
        let page = || ask(&cluster, &token, "GET", "/audit-log?limit=1000&from=2d", "");
        unread.push(never_read(connect(&cluster).await, (0..75).map(|_| page())).await);
    }
    tokio::time::sleep(Duration::from_secs(10)).await;
    // Other callers are still served.
    let page = cluster.page("limit=5&from=2d").await;
    assert_eq!(page.status, 200, "{}", page.text);
    let everything = json!({ "filter": "", "from": "0001-01-01T00:00:00Z", "to": "9999-01-01T00:00:00Z" }).to_string();
    for _ in 0..12 {
        let stream = tokio::net::UnixStream::connect(cluster.nodes[1].folder.join("node.sock")).await.unwrap();
        let scan = || http::Request::post("http://node/v1/scan").header("content-type", "application/json");
        let scan = || scan().body(Full::new(Bytes::from(everything.clone()))).unwrap();
        unread.push(never_read(stream, (0..14).map(|_| scan())).await);
    }
    tokio::time::sleep(Duration::from_secs(8)).await;
    cluster.append(1, &large(1, 100)).await;
    let (aggregator, node) = (peak_mib(cluster.aggregator_pid()), peak_mib(cluster.pid(1)));
    eprintln!("peaks with unread answers: aggregator {aggregator} MiB, node {node} MiB");
    assert!(aggregator < AGGREGATOR_MIB_MAX && node < NODE_MIB_MAX, "{aggregator} MiB, {node} MiB");
    drop(unread);
}

/// Tails, exports, counts over every row, verifications, bundles, proofs and requests that consist mostly of headers, all from
/// one caller: memory stays bounded, and another caller is served.
#[tokio::test(flavor = "multi_thread")]
async fn streams_and_headers_of_one_caller_take_bounded_memory() {
    let cluster = Cluster::start(&["mx1", "mx2"]).await;
    for index in 0..2 {
        cluster.append(index, &large(600, 30_000)).await;
    }
    cluster.wait_until_complete().await;
    let token = cluster.token("greedy", Role::Admin, None);
    let bundle = json!({ "reason": "r", "incomplete": "partial" }).to_string();
    let kinds = [
        ("GET", "/audit-log/tail?from=2d", ""),
        ("GET", "/audit-log?format=ndjson&from=2d", ""),
        ("GET", "/audit-log?format=csv&from=2d", ""),
        ("GET", "/stats?verify=true&from=2d", ""),
        ("POST", "/verify", "{}"),
        ("POST", "/exports", &bundle),
        ("GET", "/audit-log/mx1/5/proof", ""),
    ];
    let mut unread = Vec::new();
    for (method, path, body) in kinds {
        let requests = (0..40).map(|_| ask(&cluster, &token, method, path, body));
        unread.push(never_read(connect(&cluster).await, requests).await);
    }
    for connection in 0..8 {
        // Half of the connections have no token: an unauthenticated caller can send just as many headers.
        let token = if connection % 2 == 0 { token.as_str() } else { "" };
        let mut stuffed = Vec::new();
        for _ in 0..60 {
            let mut request = ask(&cluster, token, "GET", "/audit-log?limit=1", "");
            for n in 0..90 {
                let name = http::HeaderName::from_bytes(format!("x-stuffing-{n}").as_bytes()).unwrap();
                request.headers_mut().insert(name, http::HeaderValue::from_str(&"x".repeat(150)).unwrap());
            }
            stuffed.push(request);
        }
        unread.push(never_read(connect(&cluster).await, stuffed.into_iter()).await);
    }
    // Rows keep arriving while no client reads them.
    for round in 0..4 {
        tokio::time::sleep(Duration::from_secs(2)).await;
        cluster.append(round % 2, &large(150, 30_000)).await;
    }
    let page = until("another caller is served", async || {
        let page = cluster.page("limit=5&from=2d").await;
        (page.status == 200).then_some(page)
    });
    assert_eq!(page.await.json()["count"], 5);
    let (aggregator, node) = (peak_mib(cluster.aggregator_pid()), peak_mib(cluster.pid(1)));
    eprintln!("peaks with unread streams and many headers: aggregator {aggregator} MiB, node {node} MiB");
    assert!(aggregator < AGGREGATOR_MIB_MAX && node < NODE_MIB_MAX, "{aggregator} MiB, {node} MiB");
    drop(unread);
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_never_end_take_bounded_memory() {
    let cluster = Cluster::start(&["mx1"]).await;
    let unfinished = |bytes: usize| {
        let first =
            futures::stream::iter([Ok::<_, std::convert::Infallible>(Frame::data(Bytes::from(vec![b' '; bytes])))]);
        BodyExt::boxed(StreamBody::new(first.chain(futures::stream::pending())))
    };
    let mut connections = Vec::new();
    for _ in 0..2 {
        let stream = TokioIo::new(connect(&cluster).await);
        let (mut sender, connection) =
            hyper::client::conn::http2::Builder::new(TokioExecutor::new()).handshake(stream).await.unwrap();
        tokio::spawn(connection);
        for _ in 0..60 {
            let request = http::Request::post(format!("{}/api/v1/searches", cluster.url))
                .header("authorization", format!("Bearer {}", cluster.token))
                .header("content-type", "application/json");
            let Ok(()) = sender.ready().await else { break };
            tokio::spawn(sender.send_request(request.body(unfinished(1_900_000)).unwrap()));
        }
        connections.push(sender);
    }
    let mut sockets = Vec::new();
    for path in ["/v1/gaps", "/v1/entries"] {
        let stream = tokio::net::UnixStream::connect(cluster.nodes[0].folder.join("node.sock")).await.unwrap();
        let (mut sender, connection) = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
            .handshake(TokioIo::new(stream))
            .await
            .unwrap();
        tokio::spawn(connection);
        for _ in 0..60 {
            let request = http::Request::post(format!("http://node{path}")).header("content-type", "application/json");
            let Ok(()) = sender.ready().await else { break };
            tokio::spawn(sender.send_request(request.body(unfinished(1_900_000)).unwrap()));
        }
        sockets.push(sender);
    }
    tokio::time::sleep(Duration::from_secs(8)).await;
    let (aggregator, node) = (peak_mib(cluster.aggregator_pid()), peak_mib(cluster.pid(0)));
    eprintln!("peaks with unfinished bodies: aggregator {aggregator} MiB, node {node} MiB");
    assert!(aggregator < AGGREGATOR_MIB_MAX && node < NODE_MIB_MAX);
    cluster.append(0, &large(10, 100)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn batches_that_are_announced_and_do_not_come_hold_nobody_up() {
    let cluster = Cluster::start(&["mx1"]).await;
    let mut held = Vec::new();
    for _ in 0..3 {
        let mut stream = tokio::net::UnixStream::connect(cluster.nodes[0].folder.join("node.sock")).await.unwrap();
        let head = format!(
            "POST /v1/entries HTTP/1.1\r\nhost: node\r\ncontent-type: application/x-ndjson\r\ncontent-length: {}\r\n\r\n",
            64 * 1024 * 1024
        );
        tokio::io::AsyncWriteExt::write_all(&mut stream, head.as_bytes()).await.unwrap();
        held.push(stream);
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let entry = json!({ "category": "data", "action": "honest.entry", "user": "u" }).to_string();
    for _ in 0..3 {
        let (status, body) = on_socket(&cluster, 0, "/v1/entries", Some(&entry));
        assert_eq!(status, 201, "{body}");
    }
    assert_eq!(entries(&cluster, "action:honest.entry").len(), 3);
}

/// A client that is still sending its request body receives the response nevertheless.
#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_reaches_who_is_still_sending() {
    let cluster = Cluster::start(&["mx1"]).await;
    for bytes in [1_000, 300_000, 10_000_000] {
        let request = cluster.browser_like().post(format!("{}/api/v1/searches", cluster.url));
        let answer = request.bearer_auth("prl_nobody").body(vec![b' '; bytes]).send().await.unwrap();
        assert_eq!(answer.status(), 401, "{bytes} bytes");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_has_a_share_of_the_tails_and_others_have_theirs() {
    let cluster = Cluster::start(&["mx1"]).await;
    cluster.wait_until_complete().await;
    let greedy = cluster.token("greedy", Role::Viewer, None);
    let client = cluster.browser_like();
    let tail = |token: &str| client.get(format!("{}/api/v1/audit-log/tail", cluster.url)).bearer_auth(token).send();
    let (mut open, mut told) = (Vec::new(), 0);
    for _ in 0..10 {
        let answer = tail(&greedy).await.unwrap();
        match answer.status().as_u16() {
            200 => open.push(answer),
            429 => told += 1,
            other => panic!("{other}"),
        }
    }
    assert!(!open.is_empty() && told > 0, "{} open, {told} refused", open.len());
    assert_eq!(tail(&cluster.token).await.unwrap().status(), 200);
    // A position to resume from may name only nodes of this cluster.
    let made_up: Vec<String> = (0..1_000).map(|n| format!("z{n}@1")).collect();
    let request = client.get(format!("{}/api/v1/audit-log/tail", cluster.url)).bearer_auth(&cluster.token);
    let answer = request.header("last-event-id", made_up.join(",")).send().await.unwrap();
    assert_eq!(answer.status(), 400);
    assert!(answer.text().await.unwrap().contains("not in the roster"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_token_ends_its_export() {
    let cluster = Cluster::start(&["mx1"]).await;
    cluster.append(0, &large(3_000, 20_000)).await;
    cluster.wait_until_complete().await;
    let token = cluster.token("leaver", Role::Auditor, None);
    let request =
        cluster.browser_like().get(format!("{}/api/v1/audit-log?format=ndjson&from=2d&order=asc", cluster.url));
    let answer = request.bearer_auth(&token).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    let mut body = answer.bytes_stream();
    let mut came = body.next().await.unwrap().unwrap().len();
    let revoked = cluster.send(reqwest::Method::DELETE, "/api/v1/tokens/leaver", Some(&cluster.token), None).await;
    assert!(revoked.status < 300, "{}", revoked.text);
    tokio::time::sleep(Duration::from_secs(5)).await;
    // Data already in flight arrives; then the stream is aborted without a final record.
    let ended = loop {
        match body.next().await {
            Some(Ok(bytes)) => {
                assert!(!bytes.windows(9).any(|window| window == b"{\"final\":"), "the export came to its end");
                came += bytes.len();
            }
            other => break other,
        }
    };
    assert!(ended.is_some_and(|last| last.is_err()), "it ends as a broken stream");
    assert!(came < 50_000_000, "{came} bytes");
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_who_hold_connections_keep_nobody_out() {
    let cluster = Cluster::start(&["mx1"]).await;
    let mut held = Vec::new();
    for _ in 0..300 {
        let stream = TokioIo::new(connect(&cluster).await);
        let handshake =
            hyper::client::conn::http2::Builder::new(TokioExecutor::new()).handshake::<_, Empty<Bytes>>(stream).await;
        let Ok((sender, connection)) = handshake else { continue };
        tokio::spawn(connection);
        held.push(sender);
    }
    // Some connections leave a response unread, so that they count as in use.
    for _ in 0..64 {
        let stream = TokioIo::new(connect(&cluster).await);
        let mut builder = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
        builder.initial_stream_window_size(0);
        let Ok((mut sender, connection)) = builder.handshake::<_, Empty<Bytes>>(stream).await else { continue };
        tokio::spawn(connection);
        if sender.ready().await.is_ok() {
            let request = http::Request::get(format!("{}/api/openapi.json", cluster.url)).body(Empty::new()).unwrap();
            tokio::spawn(sender.send_request(request));
        }
        held.push(sender);
    }
    let page = until("an honest caller is served", async || {
        let request = cluster.browser_like().get(format!("{}/api/v1/audit-log?limit=1", cluster.url));
        let answer = request.bearer_auth(&cluster.token).timeout(Duration::from_secs(5)).send().await.ok()?;
        Some(answer.status().as_u16())
    })
    .await;
    assert_eq!(page, 200);
    until("most of what nobody asks on is closed", async || {
        (held.iter().filter(|sender| !sender.is_closed()).count() <= 64).then_some(())
    })
    .await;
}
