//! The API as OpenAPI, generated from the code; a test compares `docs/openapi.json` with it.

use std::sync::OnceLock;

use piperoll_protocol::access::{
    Acknowledge, CreatedToken, Judge, Judgement, NewToken, Permission, Role, SavedSearch, SessionInfo, SessionTimes,
    SignIn, SignInLink, TokenInfo,
};
use piperoll_protocol::aggregator::{
    AcceptRequest, Envelope, ExportFormat, ExportRequest, FinalRecord, IncompleteArg, NodeInfo, NodeReport,
    NodesAnswer, StatsAnswer, Status,
};
use piperoll_protocol::problem::Problem;
use piperoll_query::stats::{Bucket, FieldCounts, Histogram, Stats, Totals, ValueCount};
use utoipa::OpenApi;
use utoipa::openapi::path::Operation;
use utoipa::openapi::{Content, ContentBuilder, Ref, RefOr, ResponseBuilder};

use super::log::VerifyRequest;
use super::searches::{FilterKey, FilterWords};

mod paths;

struct Security;

impl utoipa::Modify for Security {
    fn modify(&self, openapi: &mut utoipa::openapi::OpenApi) {
        use utoipa::openapi::security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme};
        let components = openapi.components.get_or_insert_with(Default::default);
        let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build();
        components.add_security_scheme("bearer", SecurityScheme::Http(bearer));
        let certificate = SecurityScheme::MutualTls {
            description: Some("A user's certificate of this cluster".to_owned()),
            extensions: None,
            deprecated: None,
        };
        components.add_security_scheme("certificate", certificate);
        let cookie = ApiKeyValue::with_description("__Host-piperoll", "A browser that is signed in");
        components.add_security_scheme("session", SecurityScheme::ApiKey(ApiKey::Cookie(cookie)));
    }
}

/// What every route can answer besides its own.
const EVERYWHERE: [(&str, &str); 6] = [
    ("400", "What was sent cannot be read"),
    ("401", "No, unknown or expired credentials"),
    ("403", "The role or the limit of the caller does not allow it, or another site's page asked"),
    ("404", "There is nothing at this path"),
    ("429", "Asked too often, or too much is under way; Retry-After says how long to wait where that is known"),
    ("503", "The entry about this request could not be recorded, so it is not answered"),
];

struct CommonAnswers;

impl utoipa::Modify for CommonAnswers {
    fn modify(&self, openapi: &mut utoipa::openapi::OpenApi) {
        for (path, item) in &mut openapi.paths.paths {
            let operations = [&mut item.get, &mut item.post, &mut item.delete].into_iter().flatten();
            if path.starts_with("/api/v1") {
                operations.for_each(add_common_answers);
            }
        }
    }
}

fn add_common_answers(operation: &mut Operation) {
    let problem = RefOr::Ref(Ref::from_schema_name("Problem"));
    for answer in operation.responses.responses.values_mut() {
        let RefOr::T(answer) = answer else { continue };
        let is_problem =
            |content: &RefOr<Content>| matches!(content, RefOr::T(c) if c.schema.as_ref() == Some(&problem));
        if answer.content.get("application/json").is_some_and(is_problem)
            && let Some(content) = answer.content.shift_remove("application/json")
        {
            answer.content.insert(Problem::MEDIA_TYPE.to_owned(), content);
        }
    }
    for (status, words) in EVERYWHERE {
        let problem = ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem"))).build();
        let answer = ResponseBuilder::new().description(words).content(Problem::MEDIA_TYPE, problem).build();
        operation.responses.responses.entry(status.to_owned()).or_insert_with(|| answer.into());
    }
}

#[derive(OpenApi)]
#[openapi(
    info(title = "Piperoll aggregator", description = "One merged, verified timeline of all nodes; the missing ones by name.", license(name = "MIT OR Apache-2.0")),
    paths(
        paths::audit_log, paths::tail, paths::entry, paths::proof, paths::exports, paths::stats, paths::verify, paths::nodes, paths::accept, paths::list_tokens, paths::create_token,
        paths::revoke_token, paths::body, paths::verify_upload, paths::acknowledge, paths::judge, paths::filter_words, paths::list_searches,
        paths::keep_search, paths::remove_search, paths::who_am_i, paths::sign_in, paths::sign_out, paths::link, paths::healthz, paths::readyz, paths::metrics
    ),
    components(schemas(
        AcceptRequest, Envelope, ExportRequest, IncompleteArg, FinalRecord, NodeReport, NodeInfo, NodesAnswer, StatsAnswer, Stats, Totals, FieldCounts, ValueCount, Histogram, Bucket, Status, Role, TokenInfo, NewToken, CreatedToken, Problem, VerifyRequest, Acknowledge, Judge, Judgement, ExportFormat, FilterKey, FilterWords, Permission, SavedSearch, SessionInfo, SessionTimes, SignIn, SignInLink
    )),
    modifiers(&Security, &CommonAnswers)
)]
struct Api;

/// The document, pretty-printed; made once.
pub fn openapi_json() -> &'static str {
    static DOCUMENT: OnceLock<String> = OnceLock::new();
    DOCUMENT.get_or_init(|| Api::openapi().to_pretty_json().unwrap_or_default() + "\n")
}
