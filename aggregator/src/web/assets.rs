//! Serves the web UI from files embedded in the binary. The pages read the log only through `/api/v1`, like any other
//! client, so loading them requires no authentication: a user who is not signed in sees the sign-in page.

use std::sync::OnceLock;

use askama::Template;
use axum::Router;
use axum::extract::Path;
use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use axum::http::{StatusCode, Uri};
use axum::response::{Html, IntoResponse, Redirect, Response};
use axum::routing::get;
use rust_embed::RustEmbed;
use sha2::{Digest as _, Sha256};

/// Content security policy of every page: scripts and styles are loaded only from this server, text never becomes markup
/// or script (trusted types), and no page can be framed. (W3C CSP 3; W3C Trusted Types)
const PAGE_CSP: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
     form-action 'none'; base-uri 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'";

/// Cache policy of the files. A file's URL contains a hash of all files, so the content at a URL never changes.
const FOREVER: &str = "public, max-age=31536000, immutable";

#[derive(RustEmbed)]
#[folder = "ui/"]
struct Files;

/// Path, title and JavaScript module of each page.
const PAGES: [(&str, &str, &str); 6] = [
    ("/", "Timeline", "pages/timeline"),
    ("/nodes", "Nodes", "pages/nodes"),
    ("/statistics", "Statistics", "pages/statistics"),
    ("/exports", "Exports", "pages/exports"),
    ("/verify", "Verify", "pages/verify"),
    ("/sign-in", "Sign in", "pages/sign-in"),
];

#[derive(Template)]
#[template(path = "page.html")]
struct Page {
    title: &'static str,
    module: &'static str,
    version: &'static str,
    /// The page's module and all modules that it imports, so that the browser requests them at once.
    modules: Vec<String>,
}

/// Returns the routes of all pages and their files.
pub(crate) fn pages() -> Router {
    let mut router = Router::new();
    for (path, title, module) in PAGES {
        router = router.route(path, get(move || async move { page(title, module) }));
    }
    router
        .route("/ui/{version}/{*file}", get(file))
        .route("/favicon.ico", get(|| async { Redirect::permanent(&format!("/ui/{}/icon.svg", version())) }))
        .fallback(not_found)
}

fn page(title: &'static str, module: &'static str) -> Response {
    let page = Page { title, module, version: version(), modules: needed_by(module) };
    match page.render() {
        Ok(html) => ([(CONTENT_SECURITY_POLICY, PAGE_CSP)], Html(html)).into_response(),
        Err(error) => {
            tracing::error!(%error, "cannot render a page");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

async fn file(Path((asked, name)): Path<(String, String)>) -> Response {
    let found = Files::get(&name).filter(|_| asked == version());
    let Some(found) = found else {
        return (StatusCode::NOT_FOUND, "file not found; reload the page\n").into_response();
    };
    let media = match name.rsplit_once('.') {
        Some((_, "js")) => "text/javascript; charset=utf-8",
        Some((_, "css")) => "text/css; charset=utf-8",
        Some((_, "svg")) => "image/svg+xml",
        _ => "application/octet-stream",
    };
    ([(CONTENT_TYPE, media), (CACHE_CONTROL, FOREVER)], found.data.into_owned()).into_response()
}

async fn not_found(uri: Uri) -> Response {
    let message = format!("not found: {}; available pages: {}\n", uri.path(), PAGES.map(|(path, ..)| path).join(", "));
    (StatusCode::NOT_FOUND, message).into_response()
}

/// Returns a hash of the names and contents of all files.
fn version() -> &'static str {
    static VERSION: OnceLock<String> = OnceLock::new();
    VERSION.get_or_init(|| {
        let mut names: Vec<_> = Files::iter().collect();
        names.sort_unstable();
        let mut hash = Sha256::new();
        for name in names {
            hash.update(name.as_bytes());
            hash.update(Files::get(&name).map(|file| file.data).unwrap_or_default());
        }
        hex::encode(&hash.finalize()[..8])
    })
}

/// Returns a module and all modules that it imports, directly or indirectly, as paths below `js/`. Without this list a
/// browser would discover them one after another.
fn needed_by(module: &str) -> Vec<String> {
    let mut needed = vec![format!("{module}.js")];
    let mut next = 0;
    while let Some(name) = needed.get(next).cloned() {
        next += 1;
        let Some(file) = Files::get(&format!("js/{name}")) else { continue };
        let text = String::from_utf8_lossy(&file.data).into_owned();
        for line in text.lines() {
            let import = line.rsplit_once(" from \"").and_then(|(_, rest)| rest.split_once('"'));
            let Some(import) = import.and_then(|(import, _)| resolve(&name, import)) else { continue };
            if !needed.contains(&import) {
                needed.push(import);
            }
        }
    }
    needed
}

/// Resolves an import of a module in one of the folders of `js/`: `./x.js` is in the same folder, `../lib/x.js` in another one.
fn resolve(module: &str, import: &str) -> Option<String> {
    let (folder, _) = module.split_once('/')?;
    match import.strip_prefix("./") {
        Some(name) => Some(format!("{folder}/{name}")),
        None => import.strip_prefix("../").map(str::to_owned),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_lists_all_modules_that_it_needs() {
        for (_, _, module) in PAGES {
            let needed = needed_by(module);
            assert!(needed.iter().any(|name| name == "lib/dom.js"), "{module}: {needed:?}");
            for name in &needed {
                assert!(Files::get(&format!("js/{name}")).is_some(), "{module} imports {name}, which does not exist");
            }
        }
    }

    #[test]
    fn only_files_of_the_pages_are_embedded() {
        for name in Files::iter() {
            let is_served = [".js", ".css", ".svg"].iter().any(|end| name.ends_with(end));
            assert!(is_served && !name.contains(".test."), "{name}");
        }
    }
}
