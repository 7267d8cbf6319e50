//! Records of other systems, and the entries they become.

use serde_json::Value;

use super::mapping::Mapping;

fn map(mapping: &str, record: &str) -> Option<Value> {
    let text = Mapping::load(mapping).expect("a mapping").apply(record).expect("a record")?;
    let redactor = piperoll_shared::log::redact::Redactor::default();
    piperoll_shared::log::entry::CallerEntry::parse_redacted(text.as_bytes(), &redactor).expect("an entry");
    Some(serde_json::from_str(&text).expect("JSON"))
}

#[test]
fn a_record_is_mapped_without_loss() {
    let record = r#"{"eventVersion":"1.08","userIdentity":{"type":"IAMUser","userName":"benjamin"},
        "eventTime":"2023-07-10T11:42:18Z","eventSource":"iam.amazonaws.com","eventName":"ListUsers",
        "sourceIPAddress":"cloudtrail.amazonaws.com","errorCode":"AccessDenied","big":1.00000000000000000001,
        "eventID":"875240ac-e821-4fc6-a311-8c352a1d20f5"}"#;
    let entry = map("cloudtrail", record).expect("an entry");
    assert_eq!(entry["user"], "benjamin");
    assert_eq!(entry["outcome"], "denied");
    assert_eq!(entry["ip_address"], "cloudtrail.amazonaws.com");
    assert_eq!(entry["id"], "875240ac-e821-4fc6-a311-8c352a1d20f5");
    assert_eq!(entry["user_type"], "IAMUser");
    assert!(entry["details"].get("userIdentity").is_none(), "nothing is left of it");
    assert_eq!(entry["reason"], "AccessDenied");
    let text = Mapping::load("cloudtrail").expect("a mapping").apply(record).expect("a record").expect("an entry");
    assert!(text.contains("\"big\":1.00000000000000000001"), "{text}");
}

#[test]
fn what_sshd_says_becomes_logins() {
    for (message, action, outcome, user, ip) in [
        (
            "Accepted publickey for root from 192.0.2.7 port 50022 ssh2: ED25519 SHA256:x",
            "auth.login",
            "success",
            "root",
            "192.0.2.7",
        ),
        (
            "Failed password for invalid user admin from 2001:db8::7 port 1 ssh2",
            "auth.login",
            "failure",
            "admin",
            "2001:db8::7",
        ),
        ("Failed password for alice from 192.0.2.7 port 1 ssh2", "auth.login", "failure", "alice", "192.0.2.7"),
        (
            "User bob from 192.0.2.7 not allowed because not listed in AllowUsers",
            "auth.login",
            "denied",
            "bob",
            "192.0.2.7",
        ),
        (
            "error: maximum authentication attempts exceeded for root from 192.0.2.7 port 1 ssh2 [preauth]",
            "auth.login",
            "denied",
            "root",
            "192.0.2.7",
        ),
        ("Disconnected from user alice 192.0.2.7 port 50022", "auth.logout", "success", "alice", "192.0.2.7"),
        // Whoever fails to log in chooses the name.
        (
            "Invalid user x from 198.51.100.1 port 22 from 192.0.2.7 port 4711",
            "auth.unknown_user",
            "failure",
            "x from 198.51.100.1 port 22",
            "192.0.2.7",
        ),
        (
            "Failed password for invalid user x from 198.51.100.1 port 22 ssh2 from 192.0.2.7 port 4711 ssh2",
            "auth.login",
            "failure",
            "x from 198.51.100.1 port 22 ssh2",
            "192.0.2.7",
        ),
        (
            "Connection closed by invalid user foo bar 192.0.2.7 port 9 [preauth]",
            "auth.login",
            "failure",
            "foo bar",
            "192.0.2.7",
        ),
    ] {
        let record = serde_json::json!({ "MESSAGE": message, "__REALTIME_TIMESTAMP": "1776000000123456", "_PID": "1", "_HOSTNAME": "h" });
        let entry = map("sshd", &record.to_string()).expect(message);
        assert_eq!((entry["action"].as_str(), entry["outcome"].as_str()), (Some(action), Some(outcome)), "{message}");
        assert_eq!((entry["user"].as_str(), entry["ip_address"].as_str()), (Some(user), Some(ip)), "{message}");
        assert_eq!(entry["occurred_at"], "2026-04-12T13:20:00.123456Z");
        assert_eq!(entry["details"]["_PID"], "1");
    }
    // The id of a certificate is its owner's words, and comes behind the address.
    let id = "Accepted publickey for bob from 203.0.113.77 port 4022 ssh2: ED25519-CERT SHA256:abc ID x from 10.0.0.1 port 22: y (serial 0) CA";
    let entry = map("sshd", &serde_json::json!({ "MESSAGE": id, "_UID": "0" }).to_string()).expect("an entry");
    assert_eq!((&entry["user"], &entry["ip_address"]), (&"bob".into(), &"203.0.113.77".into()));
    let both = "Failed publickey for invalid user x from 10.0.0.1 port 1 ssh2: A SHA256:b ID c from 203.0.113.77 port 2 ssh2: ED25519-CERT SHA256:abc ID d from 10.0.0.2 port 22";
    let entry = map("sshd", &serde_json::json!({ "MESSAGE": both }).to_string()).expect("an entry");
    assert_eq!((&entry["outcome"], entry.get("ip_address"), entry.get("user")), (&"failure".into(), None, None));
    let forged =
        serde_json::json!({ "MESSAGE": "Accepted password for root from 10.0.0.1 port 1 ssh2", "_UID": "1000" });
    assert_eq!(map("sshd", &forged.to_string()), None);
    assert_eq!(map("sshd", r#"{"MESSAGE":"Server listening on 0.0.0.0 port 22."}"#), None);
    assert_eq!(map("sshd", r#"{"MESSAGE":[1,2,3]}"#), None);
}

#[test]
fn what_kubernetes_audits_becomes_entries() {
    let record = r#"{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"Metadata","auditID":"a-1","stage":"ResponseComplete",
        "requestURI":"/api/v1/namespaces/default/secrets/db","verb":"get","user":{"username":"system:admin","groups":["system:masters"]},
        "impersonatedUser":{"username":"alice"},"sourceIPs":["192.0.2.7","10.0.0.1"],"userAgent":"kubectl/v1.30",
        "objectRef":{"resource":"secrets","namespace":"default","name":"db"},"responseStatus":{"metadata":{},"code":403},
        "requestReceivedTimestamp":"2026-04-12T13:20:00.123456Z","stageTimestamp":"2026-04-12T13:20:00.223456Z"}"#;
    let entry = map("kubernetes-audit", record).expect("an entry");
    for (field, value) in [
        ("action", "k8s.secrets.get"),
        ("outcome", "denied"),
        ("user", "alice"),
        ("impersonator", "system:admin"),
        ("ip_address", "192.0.2.7"),
        ("entity_type", "secrets"),
        ("entity_name", "db"),
        ("domain", "default"),
        ("request_id", "a-1"),
        ("occurred_at", "2026-04-12T13:20:00.123456Z"),
    ] {
        assert_eq!(entry[field], value, "{field}");
    }
    assert_eq!(map("kubernetes-audit", &record.replace("ResponseComplete", "RequestReceived")), None);
    let allowed = record.replace("403", "200").replace(r#""impersonatedUser":{"username":"alice"},"#, "");
    let entry = map("kubernetes-audit", &allowed).expect("an entry");
    assert_eq!(
        (&entry["outcome"], &entry["user"], entry.get("impersonator")),
        (&"success".into(), &"system:admin".into(), None)
    );
    assert_eq!(map("kubernetes-audit", &record.replace("403", "500")).expect("an entry")["outcome"], "failure");
}
