//! Tests every route, for every role, with and without a scope. The list of routes is compared with the program's own list, so a
//! route that is not expected here fails the test.

use piperoll_protocol::access::{Permission, Role};
use piperoll_tests::{Cluster, entry};
use reqwest::{Client, Method, RequestBuilder};
use serde_json::{Value, json};

/// Text in a row that the limited callers must not see.
const SECRET: &str = "lantern-77";
const SCOPE: &str = "user:alice";

/// Rights that a route requires.
#[derive(Clone, Copy)]
enum Needs {
    /// No authentication.
    Nothing,
    /// Any authenticated caller.
    Authenticated,
    One(Permission),
    /// The permission, held without a limiting scope.
    Everything(Permission),
}

struct RouteCase {
    method: &'static str,
    path: &'static str,
    needs: Needs,
    /// Returns the path and the body of the request.
    request: fn() -> (String, Option<Value>),
    status: u16,
    /// Status that a limited caller gets for the row outside its scope.
    outside: Option<u16>,
}

fn route_cases() -> Vec<RouteCase> {
    use Needs::{Authenticated, Everything, Nothing, One};
    use Permission::{AcceptHistory, Export, ManageArchive, ManageTokens, Verify, View};
    let case = |method, path, needs, request, status| RouteCase { method, path, needs, request, status, outside: None };
    let row =
        |method, path, needs, request| RouteCase { method, path, needs, request, status: 200, outside: Some(404) };
    vec![
        case("GET", "/audit-log", One(View), || ("/audit-log?filter=node:mx1".into(), None), 200),
        case("GET", "/audit-log/tail", One(View), || ("/audit-log/tail?filter=node:mx1&from=1h".into(), None), 200),
        row("GET", "/audit-log/{node}/{seq}", One(View), || ("/audit-log/mx1/1".into(), None)),
        row("GET", "/audit-log/{node}/{seq}/body", One(View), || ("/audit-log/mx1/1/body".into(), None)),
        row("GET", "/audit-log/{node}/{seq}/proof", One(Export), || ("/audit-log/mx1/1/proof".into(), None)),
        case(
            "POST",
            "/exports",
            One(Export),
            || ("/exports".into(), Some(json!({ "reason": "a look", "format": "ndjson" }))),
            200,
        ),
        case("GET", "/stats", One(View), || ("/stats?by=user,action&filter=node:mx1".into(), None), 200),
        case("POST", "/verify", Everything(Verify), || ("/verify".into(), Some(json!({}))), 200),
        case("POST", "/bundles/verify", One(Verify), || ("/bundles/verify".into(), Some(json!("no bundle"))), 200),
        case(
            "POST",
            "/acknowledgements",
            Everything(Verify),
            || ("/acknowledgements".into(), Some(json!({ "node": "mx1", "verdict": "fork", "reason": "seen" }))),
            204,
        ),
        RouteCase {
            method: "POST",
            path: "/verdicts",
            needs: One(Verify),
            request: || {
                (
                    "/verdicts".into(),
                    Some(json!({ "node": "mx1", "seq": 1, "verdict": "true_positive", "reason": "x" })),
                )
            },
            // The row is found, but it is not flagged.
            status: 409,
            outside: None,
        },
        case("GET", "/nodes", One(View), || ("/nodes".into(), None), 200),
        case(
            "POST",
            "/nodes/{node}/accept",
            One(AcceptHistory),
            || ("/nodes/mx1/accept".into(), Some(json!({ "generation": "0".repeat(32), "reason": "seen" }))),
            409,
        ),
        // This aggregator writes no archive.
        case("GET", "/archive", One(View), || ("/archive".into(), None), 404),
        case("POST", "/archive/run", One(ManageArchive), || ("/archive/run".into(), Some(json!({}))), 404),
        case("GET", "/filter", Authenticated, || ("/filter".into(), None), 200),
        case("GET", "/searches", Authenticated, || ("/searches".into(), None), 200),
        case(
            "POST",
            "/searches",
            One(View),
            || ("/searches".into(), Some(json!({ "name": "x", "parameters": "" }))),
            204,
        ),
        case("DELETE", "/searches/{name}", One(View), || ("/searches/x".into(), None), 204),
        case("GET", "/session", Authenticated, || ("/session".into(), None), 200),
        case("POST", "/session", Nothing, || ("/session".into(), Some(json!({ "token": "prl_x" }))), 401),
        // The request carries a token, so there is no session to end.
        case("DELETE", "/session", Authenticated, || ("/session".into(), None), 409),
        case("POST", "/session/links", Authenticated, || ("/session/links".into(), None), 201),
        case("GET", "/tokens", One(ManageTokens), || ("/tokens".into(), None), 200),
        case(
            "POST",
            "/tokens",
            One(ManageTokens),
            || ("/tokens".into(), Some(json!({ "name": "y", "role": "viewer" }))),
            201,
        ),
        case("DELETE", "/tokens/{name}", One(ManageTokens), || ("/tokens/y".into(), None), 204),
    ]
}

struct Caller {
    name: &'static str,
    role: Role,
    limited: bool,
    token: String,
}

fn allowed(needs: Needs, caller: &Caller) -> bool {
    // The permissions of each role as documented, repeated here independently.
    let may = |permission| {
        matches!(
            (&caller.role, permission),
            (_, Permission::View) | (Role::Auditor, Permission::Export | Permission::Verify) | (Role::Admin, _)
        )
    };
    match needs {
        Needs::Nothing | Needs::Authenticated => true,
        Needs::One(permission) => may(permission),
        Needs::Everything(permission) => may(permission) && !caller.limited,
    }
}

fn request(client: &Client, cluster: &Cluster, case: &RouteCase) -> RequestBuilder {
    let (path, body) = (case.request)();
    let method: Method = case.method.parse().unwrap();
    let request = client.request(method, format!("{}/api/v1{path}", cluster.url));
    match body {
        Some(body) => request.json(&body),
        None => request,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_way_in_for_every_role_and_limit() {
    let cluster = Cluster::witnessed(&["mx1"], 200).await;
    cluster.append(0, &[entry("alice", "auth.login"), entry(SECRET, "auth.login")]).await;
    cluster.wait_until_complete().await;
    let client = cluster.browser_like();
    let callers = [
        ("viewer", Role::Viewer, false),
        ("auditor", Role::Auditor, false),
        ("admin", Role::Admin, false),
        ("limited-viewer", Role::Viewer, true),
        ("limited-auditor", Role::Auditor, true),
    ]
    .map(|(name, role, limited)| {
        let token = if limited { cluster.limited_token(name, role, SCOPE) } else { cluster.token(name, role, None) };
        Caller { name, role, limited, token }
    });

    let known: Vec<(String, String)> =
        route_cases().iter().map(|case| (case.method.to_owned(), format!("/api/v1{}", case.path))).collect();
    let real = piperoll_aggregator::api_routes();
    for (method, path) in &real {
        assert!(known.contains(&((*method).to_owned(), path.clone())), "{method} {path} is not expected here");
    }
    assert_eq!(known.len(), real.len(), "something is expected that does not exist");
    // The OpenAPI document has exactly these routes.
    let document: Value = serde_json::from_str(piperoll_aggregator::openapi_json()).unwrap();
    let documented = document["paths"].as_object().unwrap().iter().filter(|(path, _)| path.starts_with("/api/v1"));
    let documented: usize = documented.map(|(_, methods)| methods.as_object().unwrap().len()).sum();
    assert_eq!(documented, real.len());

    wait_for_proof(&cluster).await;
    for case in route_cases() {
        let name = format!("{} {}", case.method, case.path);
        for caller in &callers {
            let answer = request(&client, &cluster, &case).bearer_auth(&caller.token).send().await.unwrap();
            let expected = if allowed(case.needs, caller) { case.status } else { 403 };
            assert_eq!(answer.status().as_u16(), expected, "{} {name}", caller.name);
            if expected == 403 {
                let words = answer.text().await.unwrap();
                assert!(words.contains("this needs") || words.contains("limited to"), "{name}: {words}");
            } else if caller.limited && !case.path.ends_with("/tail") {
                let words = answer.text().await.unwrap();
                assert!(!words.contains(SECRET), "{} {name}: {words}", caller.name);
            }
            if let Some(outside) = case.outside {
                let path = (case.request)().0.replace("/mx1/1", "/mx1/2");
                let answer = client.get(format!("{}/api/v1{path}", cluster.url)).bearer_auth(&caller.token);
                let expected = if caller.limited && expected != 403 { outside } else { expected };
                assert_eq!(answer.send().await.unwrap().status().as_u16(), expected, "{} {path}", caller.name);
            }
        }
        // An unauthenticated request is refused, and so is one that a page of another site sends.
        let stranger = request(&client, &cluster, &case).send().await.unwrap();
        assert_eq!(stranger.status().as_u16(), 401, "{name}");
        for (header, value) in
            [("sec-fetch-site", "cross-site"), ("sec-fetch-site", "same-site"), ("origin", "https://evil.example")]
        {
            let answer = request(&client, &cluster, &case).header(header, value).send().await.unwrap();
            assert_eq!(answer.status().as_u16(), 403, "{name} with {header}: {value}");
        }
    }
    cluster.verify_all();
}

/// Waits until row 2 has a proof, which exists only after a witness has seen the row.
async fn wait_for_proof(cluster: &Cluster) {
    for _ in 0..200 {
        if cluster.get("/api/v1/audit-log/mx1/2/proof", Some(&cluster.token)).await.status == 200 {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    panic!("row 2 was never witnessed");
}
