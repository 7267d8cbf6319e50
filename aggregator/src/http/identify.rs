//! Authenticates a client: by bearer token, browser session, or personal certificate, in this order.

use axum::http::HeaderMap;
use axum::http::header::{AUTHORIZATION, COOKIE};
use cookie::{Cookie, SameSite};
use piperoll_format::time::Timestamp;
use piperoll_net::identity::Kind;
use piperoll_net::serve::TlsPeer;
use piperoll_protocol::access::{Permission, Role};

use super::error::ApiError;
use crate::access::scope::Scope;
use crate::access::sessions::{Credential, SessionEnded, ValidSession};
use crate::access::tokens::Lookup;
use crate::state::App;

/// Name of the session cookie. Because of the prefix, browsers accept the cookie only with `Secure` and the path `/`, and send it
/// to no other host (draft-ietf-httpbis-rfc6265bis, section 4.1.3.2).
const COOKIE_NAME: &str = "__Host-piperoll";

/// The person or program that sends a request.
#[derive(Debug, Clone)]
pub(super) struct Caller {
    name: String,
    role: Role,
    scope: Scope,
    credential: Credential,
    /// The browser session that authenticated the request, if any.
    session: Option<ValidSession>,
}

/// Reason why a caller could not be authenticated: a stable code, and the response.
pub(super) type Refusal = (&'static str, ApiError);

impl Caller {
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn role(&self) -> Role {
        self.role
    }

    pub(super) fn session(&self) -> Option<&ValidSession> {
        self.session.as_ref()
    }

    pub(super) fn credential(&self) -> &Credential {
        &self.credential
    }

    /// Returns the method by which the caller was authenticated.
    pub(super) fn method(&self) -> &'static str {
        match self.credential {
            Credential::Token { .. } => "token",
            Credential::Certificate { .. } => "certificate",
        }
    }

    /// Returns the caller in the form used in audit entries.
    pub(super) fn in_entry(&self) -> piperoll_client::Caller {
        piperoll_client::Caller {
            user: self.name.clone(),
            auth_method: self.method().to_owned(),
            ..piperoll_client::Caller::default()
        }
    }

    /// Returns the scope that limits what the caller may see.
    pub(super) fn scope(&self) -> &Scope {
        &self.scope
    }

    /// Refuses a caller with a scope, for operations that need all rows.
    pub(super) fn require_everything(&self) -> Result<(), ApiError> {
        match self.scope.describe() {
            None => Ok(()),
            Some(scope) => Err(ApiError::new(
                403,
                "scope_forbidden",
                format!(
                    "this request reads every row, but {} is limited to {scope}; ask a user without a scope",
                    self.name
                ),
            )),
        }
    }

    pub(super) fn require(&self, permission: Permission) -> Result<(), ApiError> {
        if self.role.may(permission) {
            return Ok(());
        }
        let roles = Role::ALL.iter().filter(|role| role.may(permission)).map(|role| role.word());
        let needs = roles.collect::<Vec<_>>().join(" or ");
        let detail = format!("{} has the role {}; this needs {needs}", self.name, self.role.word());
        Err(ApiError::new(403, "not_permitted", detail))
    }
}

impl App {
    /// Authenticates the caller of a request. `keep_alive` is false for requests that a browser sends by itself.
    pub(super) fn identify(
        &self,
        peer: &TlsPeer,
        headers: &HeaderMap,
        now: Timestamp,
        keep_alive: bool,
    ) -> Result<Caller, Refusal> {
        if let Some(header) = headers.get(AUTHORIZATION) {
            let token = header.to_str().ok().and_then(|text| text.strip_prefix("Bearer ")).map(str::trim);
            let Some(token) = token else {
                return refuse("bad_authorization", "send the token as `Authorization: Bearer <token>`");
            };
            return self.holder_of(token, now);
        }
        if let Some(cookie) = session_cookie(headers) {
            let open = match self.sessions.find(&cookie, keep_alive) {
                Ok(open) => open,
                Err(SessionEnded::Over) => {
                    return refuse(
                        "session_expired",
                        "you were signed out after a period of inactivity; sign in again",
                    );
                }
                Err(SessionEnded::Unknown) => {
                    return refuse("session_unknown", "you are no longer signed in; sign in again");
                }
            };
            if let Credential::Certificate { user } = &open.credential {
                // The certificate is checked on every connection, so revoking it ends its sessions too.
                let shown = peer.identity.as_ref().filter(|identity| identity.kind == Kind::User);
                if shown.is_none_or(|identity| identity.id.as_str() != user || identity.cluster != self.cluster_name) {
                    return refuse(
                        "session_unknown",
                        format!("this session belongs to the certificate of {user}, which was not presented"),
                    );
                }
            }
            let caller = self.holder(&open.credential, now).inspect_err(|(reason, _)| {
                // A token file that is temporarily unreadable must not sign users out.
                if *reason != "token_file" {
                    self.sessions.end(&open.id);
                }
            })?;
            return Ok(Caller { session: Some(open), ..caller });
        }
        self.person(peer, now)
    }

    /// Returns the holder of a token.
    pub(super) fn holder_of(&self, token: &str, now: Timestamp) -> Result<Caller, Refusal> {
        caller_of(self.tokens.find(token, now).map_err(|error| ("token_file", error.into()))?)
    }

    /// Returns the caller that a credential identifies at this moment.
    pub(super) fn holder(&self, credential: &Credential, now: Timestamp) -> Result<Caller, Refusal> {
        match credential {
            Credential::Token { sha256 } => {
                caller_of(self.tokens.find_hash(sha256, now).map_err(|error| ("token_file", error.into()))?)
            }
            Credential::Certificate { user } => match self.users.get(user) {
                Some(known) => Ok(Caller {
                    name: user.clone(),
                    role: known.role,
                    scope: known.scope.clone(),
                    credential: credential.clone(),
                    session: None,
                }),
                None => refuse(
                    "user_unknown",
                    format!("the certificate names the user {user}, who has no role on this aggregator"),
                ),
            },
        }
    }

    /// Authenticates a user by the client certificate.
    pub(super) fn person(&self, peer: &TlsPeer, now: Timestamp) -> Result<Caller, Refusal> {
        match &peer.identity {
            Some(identity) if identity.kind == Kind::User && identity.cluster == self.cluster_name => {
                self.holder(&Credential::Certificate { user: identity.id.to_string() }, now)
            }
            Some(identity) => refuse("not_a_user", format!("the certificate names {identity}, which is not a user")),
            None => refuse(
                "no_credentials",
                "sign in, send a token (`Authorization: Bearer …`), or use a user's certificate",
            ),
        }
    }

    /// Returns whether the caller's credential is still valid, for responses that stream for a long time. A certificate itself is
    /// not checked here, because its connection is closed when the certificate is no longer valid.
    pub(super) fn still_holds(&self, caller: &Caller, now: Timestamp) -> bool {
        caller.session.as_ref().is_none_or(|open| self.sessions.is_open(&open.id))
            && self.holder(&caller.credential, now).is_ok()
    }
}

fn refuse<T>(code: &'static str, detail: impl Into<String>) -> Result<T, Refusal> {
    Err((code, ApiError::new(401, code, detail)))
}

fn caller_of(lookup: Lookup) -> Result<Caller, Refusal> {
    match lookup {
        Lookup::Good(holder) => Ok(Caller {
            name: holder.name,
            role: holder.role,
            scope: holder.scope,
            credential: Credential::Token { sha256: holder.sha256 },
            session: None,
        }),
        Lookup::Expired(name) => {
            refuse("token_expired", format!("the token {name:?} has expired; ask an admin for a new one"))
        }
        Lookup::Unknown => refuse("token_unknown", "unknown or revoked token"),
    }
}

fn session_cookie(headers: &HeaderMap) -> Option<String> {
    let texts = headers.get_all(COOKIE).into_iter().filter_map(|value| value.to_str().ok());
    texts
        .flat_map(|text| Cookie::split_parse(text.to_owned()))
        .filter_map(Result::ok)
        .find(|cookie| cookie.name() == COOKIE_NAME)
        .map(|cookie| cookie.value().to_owned())
}

/// Builds the session cookie: scripts cannot read it, and browsers send it only over TLS and never for a page of
/// another site. The cookie has no expiry, because the server decides when a session ends.
pub(super) fn set_cookie(secret: &str) -> String {
    let cookie = Cookie::build((COOKIE_NAME, secret.to_owned()));
    cookie.path("/").secure(true).http_only(true).same_site(SameSite::Strict).build().to_string()
}

/// Builds the cookie that makes the browser forget the session.
pub(super) fn unset_cookie() -> String {
    let cookie = Cookie::build((COOKIE_NAME, "")).path("/").secure(true).http_only(true).same_site(SameSite::Strict);
    cookie.max_age(cookie::time::Duration::ZERO).build().to_string()
}
