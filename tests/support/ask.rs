//! HTTP requests to the aggregator, and the tokens for them.

use std::time::Instant;

use piperoll_aggregator::access::tokens::TokenStore;
use piperoll_format::time::Timestamp;
use piperoll_net::clock::{Clock as _, SystemClock};
use piperoll_protocol::access::Role;
use serde_json::Value;

use crate::{Answer, Cluster};

impl Cluster {
    /// Sends `GET /api/v1/audit-log?…`.
    pub async fn page(&self, parameters: &str) -> Answer {
        self.get(&format!("/api/v1/audit-log?{parameters}"), Some(&self.token)).await
    }

    pub async fn get(&self, path: &str, token: Option<&str>) -> Answer {
        self.send(reqwest::Method::GET, path, token, None).await
    }

    pub async fn send(&self, method: reqwest::Method, path: &str, token: Option<&str>, body: Option<Value>) -> Answer {
        let asked = Instant::now();
        let mut request = self.client.request(method, format!("{}{path}", self.url));
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        if let Some(body) = body {
            request = request.json(&body);
        }
        let response = request.send().await.unwrap();
        let status = response.status().as_u16();
        let complete_header = response.headers().get("audit-complete").map(|v| v.to_str().unwrap().to_owned());
        let text = response.text().await.unwrap();
        Answer { status, complete_header, text, took: asked.elapsed() }
    }

    /// Returns a client that trusts the cluster's authority and has no certificate.
    pub fn browser_like(&self) -> reqwest::Client {
        self.client_builder().build().unwrap()
    }

    /// Returns a client that trusts the cluster's authority and has a person's certificate.
    pub fn browser_with(&self, identity: reqwest::Identity) -> reqwest::Client {
        self.client_builder().identity(identity).build().unwrap()
    }

    fn client_builder(&self) -> reqwest::ClientBuilder {
        let ca = reqwest::Certificate::from_pem_bundle(&std::fs::read(self.ca()).unwrap()).unwrap();
        reqwest::Client::builder().no_proxy().tls_certs_only(ca)
    }

    /// Creates another token.
    pub fn token(&self, name: &str, role: Role, expires: Option<Timestamp>) -> String {
        let state = self.aggregator_folder().join("state");
        TokenStore::open(&state).unwrap().create(name, role, None, expires, SystemClock.now()).unwrap().token
    }

    /// Creates a token whose holder sees only the entries that the filter `scope` selects.
    pub fn limited_token(&self, name: &str, role: Role, scope: &str) -> String {
        let state = self.aggregator_folder().join("state");
        TokenStore::open(&state).unwrap().create(name, role, Some(scope), None, SystemClock.now()).unwrap().token
    }
}
