//! Writes Elastic Common Schema 9 (elastic.co/docs/reference/ecs). `user.*` is the actual actor, `user.effective.*` the impersonated
//! user, `user.target.*` the affected user. Fields that ECS does not define are stored under `piperoll`, which no other product uses.

use serde_json::{Value, json};

use super::event::{Event, OmittedFields};
use super::parts::Parts;

const VERSION: &str = "9.4.0";

pub(super) fn write(event: &Event<'_>) -> String {
    let Event { view, .. } = event;
    let flags = event.flags();
    let is_address = |text: &&str| text.parse::<std::net::IpAddr>().is_ok();
    let ip = view.ip_address.as_deref().filter(is_address);
    let outcome = match event.outcome() {
        "success" => "success",
        "failure" | "denied" => "failure",
        _ => "unknown",
    };
    let related: Vec<&str> = [view.user.as_deref(), view.impersonator.as_deref(), event.person().map(|(_, name)| name)]
        .into_iter()
        .flatten()
        .collect();
    let document = json!({
        "@timestamp": event.time().to_text(),
        "ecs": { "version": VERSION },
        "message": event.sentence(),
        "event": {
            "kind": "event", "category": category(event).map(|(name, _)| [name]), "type": kinds(event), "action": event.action(), "outcome": outcome,
            "reason": view.reason, "id": view.id, "sequence": event.seq, "created": event.recorded.to_text(),
            "provider": "piperoll", "dataset": "piperoll.entry", "module": "piperoll", "hash": event.digest(),
            "severity": if event.is_sound() { 6 } else { 2 },
        },
        "agent": { "id": event.node_id, "name": event.node_id, "type": "piperoll" },
        "host": { "id": event.node_id, "name": event.node_id, "hostname": event.node_id },
        "user": user(event),
        "source": { "ip": ip, "address": view.ip_address },
        "client": { "ip": ip, "address": view.ip_address },
        "related": { "ip": [ip], "user": related, "hash": [event.digest()], "hosts": [event.node_id] },
        "organization": { "id": view.domain },
        "user_agent": { "original": view.user_agent },
        "http": { "request": { "id": view.request_id, "method": view.method } },
        "url": { "path": view.path },
        "rule": { "name": flags.first() },
        "tags": tags(event, &flags),
    });
    let mut document = Parts::of(document);
    document.push_text("piperoll", &own_fields(event));
    document.finish()
}

fn user(event: &Event<'_>) -> Value {
    let view = &event.view;
    let target = event.person().map(|(id, name)| json!({ "id": id, "name": name }));
    let roles = view.user_type.as_ref().map(|kind| [kind]);
    match (&view.impersonator, &view.user) {
        (Some(real), effective) => json!({
            "id": real, "name": real, "effective": { "id": effective, "name": effective, "roles": roles }, "target": target,
        }),
        (None, user) => json!({ "id": user, "name": user, "roles": roles, "domain": view.domain, "target": target }),
    }
}

/// A value of `event.category`, and the values of `event.type` that ECS allows for it.
type Category = (&'static str, &'static [&'static str]);

const AUTHENTICATION: Category = ("authentication", &["start", "end", "info"]);
const IAM: Category = ("iam", &["admin", "change", "creation", "deletion", "group", "info", "user"]);
const CONFIGURATION: Category = ("configuration", &["access", "change", "creation", "deletion", "info"]);
const HOST: Category = ("host", &["access", "change", "end", "info", "start"]);
const API: Category = (
    "api",
    &["access", "admin", "allowed", "change", "creation", "deletion", "denied", "end", "info", "start", "user"],
);

fn category(event: &Event<'_>) -> Option<Category> {
    Some(match event.view.category.as_deref()? {
        "auth" => AUTHENTICATION,
        "user" => IAM,
        "config" | "security" => CONFIGURATION,
        "cluster" | "log" => HOST,
        _ => API,
    })
}

/// Returns the values of `event.type`, which describe the action in the terms of ECS.
fn kinds(event: &Event<'_>) -> Vec<&'static str> {
    let mut kinds = match event.verb() {
        "login" | "logon" | "signin" | "sign_in" | "start" | "started" => vec!["start"],
        "logout" | "logoff" | "signout" | "sign_out" | "stop" | "stopped" => vec!["end"],
        "create" | "add" | "register" | "invite" | "upload" | "import" => vec!["creation"],
        "delete" | "remove" | "purge" => vec!["deletion"],
        "read" | "view" | "show" | "get" | "list" | "search" | "query" | "export" | "download" => vec!["access"],
        "login_failed" => vec!["start"],
        "" | "unknown" => vec!["info"],
        _ => vec!["change"],
    };
    if event.view.category.as_deref() == Some("user") {
        kinds.push("user");
    }
    if event.outcome() == "denied" {
        kinds.push("denied");
    }
    if let Some((_, expected)) = category(event) {
        kinds.retain(|kind| expected.contains(kind));
    }
    if kinds.is_empty() {
        kinds.push("info");
    }
    kinds
}

fn tags(event: &Event<'_>, flags: &[String]) -> Vec<String> {
    let mut tags: Vec<String> = flags.iter().map(|rule| format!("flag:{rule}")).collect();
    if event.row.integrity != piperoll_format::verify::Integrity::Ok {
        tags.push(format!("integrity:{}", event.integrity()));
    }
    tags
}

fn own_fields(event: &Event<'_>) -> String {
    let view = &event.view;
    let mut own = Parts::of(json!({
        "cluster": event.cluster, "generation": event.generation, "signature": hex::encode(&event.row.mac),
        "integrity": event.integrity(), "category": view.category, "outcome": view.outcome, "session": view.session,
        "auth_method": view.auth_method, "credential": view.credential,
        "entity": { "type": view.entity_type, "id": view.entity_id, "name": view.entity_name }, "target": view.target,
        "peer_address": view.peer_address, "via": view.via,
        "description": view.description.as_ref().filter(|_| event.row.integrity != piperoll_format::verify::Integrity::Ok),
        "omitted": (event.omit != OmittedFields::Nothing).then_some(event.omit.label()),
        "whole_at": (event.omit != OmittedFields::Nothing).then(|| event.place()),
        "bytes": (event.omit != OmittedFields::Nothing).then_some(event.row.body.len()),
    }));
    own.push_raw("changes", view.changes);
    own.push_raw("details", view.details);
    own.push_raw("flags", event.flags_with_reasons());
    own.push_raw("redacted", view.redacted);
    own.finish()
}
