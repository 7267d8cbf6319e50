//! The API as OpenAPI, generated from the code; a test compares `docs/openapi.json` with it.

use std::sync::{Arc, OnceLock};

use piperoll_protocol::access::{Permission, Role};
use piperoll_protocol::aggregator::{FinalRecord, IncompleteArg};
use piperoll_protocol::problem::Problem;
use utoipa::OpenApi;
use utoipa::openapi::path::Operation;
use utoipa::openapi::security::SecurityRequirement;
use utoipa::openapi::{Content, ContentBuilder, PathItem, Ref, RefOr, ResponseBuilder};
use utoipa_axum::router::UtoipaMethodRouter;

use super::declared::{API, declared, open, sign_in};
use crate::state::App;

struct Security;

impl utoipa::Modify for Security {
    fn modify(&self, openapi: &mut utoipa::openapi::OpenApi) {
        use utoipa::openapi::security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme};
        let components = openapi.components.get_or_insert_with(Default::default);
        let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build();
        components.add_security_scheme("bearer", SecurityScheme::Http(bearer));
        let certificate = SecurityScheme::MutualTls {
            description: Some("A user certificate issued by this cluster".to_owned()),
            extensions: None,
            deprecated: None,
        };
        components.add_security_scheme("certificate", certificate);
        let cookie = ApiKeyValue::with_description("__Host-piperoll", "Session cookie of a signed-in browser");
        components.add_security_scheme("session", SecurityScheme::ApiKey(ApiKey::Cookie(cookie)));
    }
}

/// Responses that every route can give in addition to its own.
const EVERYWHERE: [(&str, &str); 6] = [
    ("400", "The request cannot be parsed"),
    ("401", "Missing, unknown or expired credentials"),
    ("403", "The request is outside the caller's scope, or is cross-site"),
    ("404", "Not found"),
    ("429", "Too many requests, or too many in progress; Retry-After gives the time to wait if it is known"),
    (
        "503",
        "The entry about this request could not be recorded, so the answer is withheld; a change may have been made",
    ),
];

/// Adds what every route has in common: how callers identify themselves, the roles that may use the route, and common responses.
fn complete(operation: &mut Operation, needs: Option<Permission>) {
    if operation.security.is_none() {
        let schemes = ["bearer", "certificate", "session"];
        operation.security = Some(schemes.map(|name| SecurityRequirement::new::<_, _, &str>(name, [])).into());
    }
    if let Some(permission) = needs {
        let roles = Role::ALL.iter().filter(|role| role.may(permission)).map(|role| role.word()).collect::<Vec<_>>();
        let message = format!(
            "The caller's role is not {}, or the request is outside the caller's scope or cross-site",
            roles.join(" or ")
        );
        let problem = ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem"))).build();
        let answer = ResponseBuilder::new().description(message).content(Problem::MEDIA_TYPE, problem).build();
        operation.responses.responses.entry("403".to_owned()).or_insert_with(|| answer.into());
    }
    add_common_answers(operation);
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
    for (status, message) in EVERYWHERE {
        let problem = ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem"))).build();
        let answer = ResponseBuilder::new().description(message).content(Problem::MEDIA_TYPE, problem).build();
        operation.responses.responses.entry(status.to_owned()).or_insert_with(|| answer.into());
    }
}

/// The parts of the document that are not about a path.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "Piperoll aggregator",
        description = "One merged, verified timeline of all nodes; missing nodes are listed by name.",
        license(name = "MIT OR Apache-2.0")
    ),
    components(schemas(IncompleteArg, FinalRecord, Problem)),
    modifiers(&Security)
)]
struct Base;

fn document() -> utoipa::openapi::OpenApi {
    let mut document = Base::openapi();
    let schemas = &mut document.components.get_or_insert_with(Default::default).schemas;
    let mut add = |prefix: &str, (found, paths, _): UtoipaMethodRouter<Arc<App>>, needs: Option<Permission>| {
        schemas.extend(found);
        for (path, mut item) in paths.paths {
            if !prefix.is_empty() {
                operations(&mut item).for_each(|operation| complete(operation, needs));
            }
            document.paths.paths.entry(format!("{prefix}{path}")).or_default().merge_operations(item);
        }
    };
    declared().into_iter().for_each(|route| add(API, route.handler, route.rules.needs));
    add(API, sign_in(), None);
    open().into_iter().for_each(|handler| add("", handler, None));
    document
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    [&mut item.get, &mut item.post, &mut item.delete].into_iter().flatten()
}

/// Returns the document, pretty-printed; it is generated once.
pub fn openapi_json() -> &'static str {
    static DOCUMENT: OnceLock<String> = OnceLock::new();
    DOCUMENT.get_or_init(|| document().to_pretty_json().unwrap_or_default() + "\n")
}
