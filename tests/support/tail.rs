//! A client of the live tail, which is a stream of server-sent events (WHATWG HTML, "Server-sent events").

use std::time::Duration;

use serde_json::Value;

use crate::cluster::Cluster;

/// One open tail.
pub struct Tail {
    response: reqwest::Response,
    bytes: Vec<u8>,
}

/// One event.
#[derive(Debug)]
pub struct Event {
    pub name: String,
    /// Id that a client sends as `Last-Event-ID` to resume after this event.
    pub id: String,
    pub data: Value,
}

impl Tail {
    /// Opens a tail with these query parameters.
    pub async fn open(cluster: &Cluster, parameters: &str, last_event_id: Option<&str>) -> Self {
        let ca = std::fs::read(cluster.ca()).unwrap();
        let client = reqwest::Client::builder()
            .no_proxy()
            .tls_certs_only(reqwest::Certificate::from_pem_bundle(&ca).unwrap())
            .build()
            .unwrap();
        let mut request =
            client.get(format!("{}/api/v1/audit-log/tail?{parameters}", cluster.url)).bearer_auth(&cluster.token);
        if let Some(id) = last_event_id {
            request = request.header("Last-Event-ID", id);
        }
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Self { response, bytes: Vec::new() }
    }

    /// Returns the next event; `None` at the end of the stream, or if no event arrives within `wait`.
    pub async fn next(&mut self, wait: Duration) -> Option<Event> {
        loop {
            if let Some(end) = self.bytes.windows(2).position(|pair| pair == b"\n\n") {
                let text: Vec<u8> = self.bytes.drain(..end + 2).collect();
                let text = String::from_utf8(text).unwrap();
                let field = |name: &str| {
                    let start = format!("{name}: ");
                    text.lines().find_map(|line| line.strip_prefix(&start)).unwrap_or_default().to_owned()
                };
                let data = serde_json::from_str(&field("data")).unwrap();
                return Some(Event { name: field("event"), id: field("id"), data });
            }
            let chunk = tokio::time::timeout(wait, self.response.chunk()).await.ok()?.unwrap()?;
            self.bytes.extend_from_slice(&chunk);
        }
    }
}
