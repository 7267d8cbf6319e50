//! Writes OCSF 1.8.0 (schema.ocsf.io/1.8.0): selects the class of an action and fills that class's attributes.
//!
//! A class with a required attribute that the entry cannot fill is not used. API Activity (6003) is used for all remaining
//! entries, with the node itself as the source endpoint if no other source is known. Flags become labels and a severity, not
//! Findings classes, because nothing has been investigated. A MAC is not a digital signature, so it is stored in `unmapped`.

use serde_json::{Value, json};

use super::event::{Event, OmittedFields, millis};
use super::parts::Parts;
use piperoll_format::verify::Integrity;

const VERSION: &str = "1.8.0";

/// An event class and one of its activities.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Route {
    class: u32,
    activity: u32,
    activity_name: &'static str,
}

const AUTHENTICATION: u32 = 3002;
const ACCOUNT_CHANGE: u32 = 3001;
const ENTITY_MANAGEMENT: u32 = 3004;
const USER_ACCESS: u32 = 3005;
const APPLICATION_LIFECYCLE: u32 = 6002;
const API_ACTIVITY: u32 = 6003;
/// Activity id that every class reserves for activities that the schema does not name.
const OTHER: u32 = 99;

pub(super) fn write(event: &Event<'_>) -> String {
    let Event { view, .. } = event;
    let route = route(event);
    let (category, category_name, class_name) = match route.class {
        AUTHENTICATION => (3, "Identity & Access Management", "Authentication"),
        ACCOUNT_CHANGE => (3, "Identity & Access Management", "Account Change"),
        ENTITY_MANAGEMENT => (3, "Identity & Access Management", "Entity Management"),
        USER_ACCESS => (3, "Identity & Access Management", "User Access Management"),
        APPLICATION_LIFECYCLE => (6, "Application Activity", "Application Lifecycle"),
        _ => (6, "Application Activity", "API Activity"),
    };
    let flags = event.flags();
    let (severity, severity_name) = match (event.is_sound(), flags.is_empty()) {
        (false, _) => (5, "Critical"),
        (true, false) => (3, "Medium"),
        (true, true) => (1, "Informational"),
    };
    let (status, status_name) = match event.outcome() {
        "success" => (1, "Success"),
        "failure" | "denied" => (2, "Failure"),
        _ => (0, "Unknown"),
    };
    let truncated = event.omit != OmittedFields::Nothing;
    let mut labels: Vec<String> = flags.iter().map(|rule| format!("flag:{rule}")).collect();
    if event.row.integrity != Integrity::Ok {
        labels.push(format!("integrity:{}", event.integrity()));
    }
    let mut document = json!({
        "activity_id": route.activity,
        "activity_name": if route.activity == OTHER { event.verb() } else { route.activity_name },
        "category_uid": category, "category_name": category_name,
        "class_uid": route.class, "class_name": class_name,
        "type_uid": route.class * 100 + route.activity,
        "time": millis(event.time()),
        "severity_id": severity, "severity": severity_name,
        "status_id": status, "status": status_name,
        "status_code": view.reason,
        "message": event.sentence(),
        "actor": actor(event),
        "device": { "hostname": event.node_id, "type_id": 1, "uid": event.node_id },
        "metadata": {
            "version": VERSION,
            "product": { "name": "Piperoll", "vendor_name": "Piperoll" },
            "profiles": ["host"],
            "uid": view.id, "event_code": event.action(), "sequence": event.seq,
            "original_time": event.time().to_text(), "logged_time": millis(event.recorded),
            "tenant_uid": view.domain, "correlation_uid": view.request_id, "labels": labels,
            "log_name": format!("{}/{}", event.cluster, event.node_id),
            "is_truncated": truncated.then_some(true), "untruncated_size": truncated.then_some(event.row.body.len()),
        },
    });
    if !event.row.body.is_empty() {
        document["raw_data_hash"] = json!({ "algorithm": "SHA-256", "algorithm_id": 3, "value": event.digest() });
    }
    if route.class != APPLICATION_LIFECYCLE {
        document["src_endpoint"] = source(event, route.class);
        document["http_request"] = json!({
            "http_method": view.method, "url": { "path": view.path }, "user_agent": view.user_agent, "uid": view.request_id,
        });
    }
    add_class(&mut document, event, route);
    let mut document = Parts::of(document);
    document.push_text("unmapped", &unmapped(event, route));
    document.finish()
}

fn add_class(document: &mut Value, event: &Event<'_>, route: Route) {
    let view = &event.view;
    match route.class {
        AUTHENTICATION => {
            document["user"] = json!({ "name": view.user, "uid": view.user, "type_id": user_type(event) });
            document["service"] = json!({ "name": view.via });
            document["dst_endpoint"] = json!({ "hostname": event.node_id });
            document["auth_protocol_id"] = json!(view.auth_method.as_ref().map(|_| OTHER));
            document["auth_protocol"] = json!(view.auth_method);
            document["is_mfa"] = json!(view.auth_method.as_deref().map(|method| method.contains('+')));
            if route.activity == 7 {
                document["account_switch_type_id"] = json!(2);
                document["account_switch_type"] = json!("Impersonate");
            }
        }
        ACCOUNT_CHANGE => document["user"] = affected(event),
        USER_ACCESS => {
            document["user"] = affected(event);
            document["privileges"] = json!([view.entity_name.as_deref().unwrap_or(event.action())]);
        }
        ENTITY_MANAGEMENT => {
            document["entity"] = json!({ "name": view.entity_name, "uid": view.entity_id, "type": view.entity_type });
        }
        APPLICATION_LIFECYCLE => {
            document["app"] =
                json!({ "name": view.entity_name.as_deref().unwrap_or("Piperoll"), "vendor_name": "Piperoll" });
        }
        _ => {
            document["api"] = json!({ "operation": event.action(), "service": { "name": view.via } });
            document["resources"] = json!([
                resource(
                    view.entity_name.as_deref(),
                    view.entity_id.as_deref(),
                    view.entity_type.as_deref(),
                    (3, "Affected")
                ),
                resource(view.target.as_deref(), None, None, (1, "Target")),
            ]);
        }
    }
}

fn resource(name: Option<&str>, uid: Option<&str>, kind: Option<&str>, role: (u32, &str)) -> Value {
    if name.is_none() && uid.is_none() {
        return Value::Null;
    }
    json!({ "name": name, "uid": uid, "type": kind, "role_id": role.0, "role": role.1 })
}

/// Returns the actual actor; the impersonated user is stored in `unmapped.effective_user`.
fn actor(event: &Event<'_>) -> Value {
    let view = &event.view;
    let session = json!({ "uid": view.session, "credential_uid": view.credential });
    let user = match (&view.impersonator, &view.user) {
        (Some(real), _) => json!({ "name": real, "uid": real, "type_id": 1 }),
        (None, Some(user)) => {
            json!({ "name": user, "uid": user, "type_id": user_type(event), "type": view.user_type, "domain": view.domain })
        }
        // A class that requires an actor does not accept an empty one, so name the application.
        (None, None) => {
            let app = Some(view.via.as_ref()).filter(|via| !via.is_empty()).unwrap_or("unknown");
            return json!({ "app_name": app, "session": session });
        }
    };
    json!({ "user": user, "session": session })
}

fn user_type(event: &Event<'_>) -> u32 {
    match event.view.user_type.as_deref() {
        None => 0,
        Some("user") => 1,
        Some("admin" | "administrator" | "root") => 2,
        Some("system") => 3,
        Some("service" | "api_key" | "token") => 4,
        Some(_) => OTHER,
    }
}

/// Returns the account that the action affected.
fn affected(event: &Event<'_>) -> Value {
    event.person().map_or(Value::Null, |(id, name)| json!({ "name": name, "uid": id.unwrap_or(name), "type_id": 0 }))
}

fn source(event: &Event<'_>, class: u32) -> Value {
    let view = &event.view;
    let is_address = |text: &&str| text.parse::<std::net::IpAddr>().is_ok();
    let address = view.ip_address.as_deref();
    match (address.filter(is_address), address) {
        (Some(ip), _) => json!({ "ip": ip, "intermediate_ips": [view.peer_address.as_deref().filter(is_address)] }),
        // Some entries name a service in `ip_address`.
        (None, Some(name)) => json!({ "svc_name": name }),
        (None, None) if class == API_ACTIVITY => json!({ "hostname": event.node_id }),
        (None, None) => Value::Null,
    }
}

fn unmapped(event: &Event<'_>, route: Route) -> String {
    let view = &event.view;
    // Fields for which the class has an attribute are stored in that attribute; all other fields are collected here.
    let is_placed = matches!(route.class, ENTITY_MANAGEMENT | API_ACTIVITY);
    let is_call = route.class == API_ACTIVITY;
    let mut unmapped = Parts::of(json!({
        "cluster": event.cluster, "generation": event.generation, "signature": hex::encode(&event.row.mac),
        "integrity": event.integrity(), "category": view.category, "outcome": view.outcome, "via": view.via,
        "effective_user": view.impersonator.as_ref().and(view.user.as_ref()),
        "entity_type": view.entity_type.as_ref().filter(|_| !is_placed),
        "entity_id": view.entity_id.as_ref().filter(|_| !is_placed),
        "entity_name": view.entity_name.as_ref().filter(|_| !is_placed),
        "target": view.target.as_ref().filter(|_| !is_call),
        "auth_method": view.auth_method.as_ref().filter(|_| route.class != AUTHENTICATION),
        "description": view.description.as_ref().filter(|_| event.row.integrity != Integrity::Ok),
        "ip_address": view.ip_address.as_ref().filter(|_| route.class == APPLICATION_LIFECYCLE),
        "user_agent": view.user_agent.as_ref().filter(|_| route.class == APPLICATION_LIFECYCLE),
        "request_id": view.request_id.as_ref().filter(|_| route.class == APPLICATION_LIFECYCLE),
        "method": view.method.as_ref().filter(|_| route.class == APPLICATION_LIFECYCLE),
        "path": view.path.as_ref().filter(|_| route.class == APPLICATION_LIFECYCLE),
        "peer_address": view.peer_address,
        "omitted": (event.omit != OmittedFields::Nothing).then_some(event.omit.label()),
        "whole_at": (event.omit != OmittedFields::Nothing).then(|| event.place()),
    }));
    unmapped.push_raw("changes", view.changes);
    unmapped.push_raw("details", view.details);
    unmapped.push_raw("flags", event.flags_with_reasons());
    unmapped.push_raw("redacted", view.redacted);
    unmapped.finish()
}

/// Selects the class and the activity of an entry.
fn route(event: &Event<'_>) -> Route {
    let view = &event.view;
    let verb = event.verb();
    let to = |class, table: &[(&str, u32, &'static str)]| {
        let found = table.iter().find(|(message, ..)| message.split(' ').any(|word| word == verb));
        let (activity, activity_name) = found.map_or((OTHER, ""), |(_, activity, name)| (*activity, *name));
        Route { class, activity, activity_name }
    };
    let has_entity = view.entity_id.is_some() || view.entity_name.is_some();
    match view.category.as_deref() {
        Some("auth") if view.user.is_some() => to(AUTHENTICATION, &LOGONS),
        Some("user") if GRANTS.iter().any(|(message, ..)| message.split(' ').any(|word| word == verb)) => {
            if event.person().is_some() { to(USER_ACCESS, &GRANTS) } else { to(API_ACTIVITY, &CALLS) }
        }
        Some("user") if event.person().is_some() => to(ACCOUNT_CHANGE, &ACCOUNTS),
        Some("config") if has_entity => to(ENTITY_MANAGEMENT, &ENTITIES),
        Some("cluster" | "log") => to(APPLICATION_LIFECYCLE, &LIFECYCLES),
        _ => to(API_ACTIVITY, &CALLS),
    }
}

const LOGONS: [(&str, u32, &str); 3] = [
    ("login logon signin sign_in login_failed authenticate", 1, "Logon"),
    ("logout logoff signout sign_out session_end", 2, "Logoff"),
    ("impersonate impersonation_start impersonation_started", 7, "Account Switch"),
];
const ACCOUNTS: [(&str, u32, &str); 10] = [
    ("create add register invite", 1, "Create"),
    ("enable activate", 2, "Enable"),
    ("password_change change_password", 3, "Password Change"),
    ("password_reset reset_password", 4, "Password Reset"),
    ("disable deactivate suspend", 5, "Disable"),
    ("delete remove", 6, "Delete"),
    ("lock", 9, "Lock"),
    ("mfa_enable mfa_add totp_enable", 10, "MFA Factor Enable"),
    ("mfa_disable mfa_remove totp_disable", 11, "MFA Factor Disable"),
    ("unlock", 12, "Unlock"),
];
const GRANTS: [(&str, u32, &str); 2] = [
    ("grant assign role_assign role_grant permission_grant", 1, "Assign Privileges"),
    ("revoke unassign role_revoke permission_revoke", 2, "Revoke Privileges"),
];
const ENTITIES: [(&str, u32, &str); 11] = [
    ("create add", 1, "Create"),
    ("read view show get", 2, "Read"),
    ("update change edit set modify rename", 3, "Update"),
    ("delete remove", 4, "Delete"),
    ("move", 5, "Move"),
    ("enable", 8, "Enable"),
    ("disable", 9, "Disable"),
    ("activate", 10, "Activate"),
    ("deactivate", 11, "Deactivate"),
    ("suspend", 12, "Suspend"),
    ("resume", 13, "Resume"),
];
const LIFECYCLES: [(&str, u32, &str); 8] = [
    ("install join joined", 1, "Install"),
    ("remove leave left retire", 2, "Remove"),
    ("start started", 3, "Start"),
    ("stop stopped", 4, "Stop"),
    ("restart restarted", 5, "Restart"),
    ("enable", 6, "Enable"),
    ("disable", 7, "Disable"),
    ("update upgrade upgraded", 8, "Update"),
];
const CALLS: [(&str, u32, &str); 4] = [
    ("create add upload import send", 1, "Create"),
    ("read view show get list search query export download", 2, "Read"),
    ("update change edit set modify rename release restore", 3, "Update"),
    ("delete remove purge", 4, "Delete"),
];
