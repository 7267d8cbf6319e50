//! Tests the mappings with sample records of other systems.

use piperoll_redact::Redactor;
use serde_json::Value;

use super::{BuiltIn, MapError, Mapped, Mapping};

/// Maps a document; `None` for records that are passed over.
fn read(mapping: &str, document: &str) -> Vec<Result<Option<String>, MapError>> {
    let outcomes = Mapping::load(mapping).expect("a mapping").read(document, Redactor::shared()).expect("a document");
    let entry = |mapped| match mapped {
        Mapped::Entry { text, .. } => Some(text),
        Mapped::PassedOver => None,
    };
    outcomes.into_iter().map(|outcome| outcome.result.map(entry)).collect()
}

fn map(mapping: &str, record: &str) -> Option<Value> {
    let text = read(mapping, record).pop().expect("a record").expect("an entry or none")?;
    let redactor = Redactor::default();
    redactor.parse_entry(text.as_bytes()).expect("an entry");
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
    let text = read("cloudtrail", record).remove(0).expect("a record").expect("an entry");
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
        // A client can try to log in with any text as its user name.
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
    // The owner of a certificate chooses its id, which follows the address in the message.
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
        ("ip_address", "10.0.0.1"),
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

/// Fields that the golden files show, in order.
const SHOWN: [&str; 17] = [
    "occurred_at",
    "user",
    "user_type",
    "impersonator",
    "category",
    "action",
    "outcome",
    "reason",
    "entity_type",
    "entity_id",
    "entity_name",
    "target",
    "domain",
    "ip_address",
    "session",
    "request_id",
    "auth_method",
];

/// Splits a sample file into documents. A document is one line, the joined lines of one record, or the whole file if it is JSON.
fn documents(mapping: &Mapping, text: &str, is_json: bool) -> Vec<String> {
    if is_json {
        return vec![text.to_owned()];
    }
    let lines = text.lines().filter(|line| !line.trim().is_empty());
    match mapping.join() {
        None => lines.map(str::to_owned).collect(),
        Some(join) => {
            let mut joiner = crate::sources::Joiner::new(join.clone());
            let mut documents: Vec<_> = text
                .split('\n')
                .filter(|line| !line.trim().is_empty())
                .enumerate()
                .flat_map(|(number, line)| joiner.push(number as u64, line))
                .collect();
            documents.extend(joiner.flush());
            documents.into_iter().map(|joined| joined.text).collect()
        }
    }
}

/// Renders one line for each record: its fields, a note that it was passed over, or the reason why it is not an entry.
fn shown(mapping: &Mapping, text: &str, is_json: bool) -> String {
    let redactor = Redactor::default();
    let mut lines = String::new();
    for document in documents(mapping, text, is_json) {
        let outcomes = match mapping.read(&document, Redactor::shared()) {
            Ok(outcomes) => outcomes,
            Err(error) => {
                lines.push_str(&format!("NOT MAPPED {error}\n"));
                continue;
            }
        };
        for outcome in outcomes {
            let line = match outcome.result {
                Ok(Mapped::PassedOver) => "PASSED OVER".to_owned(),
                Err(error) => format!("NOT MAPPED {error}"),
                Ok(Mapped::Entry { text, has_id }) => {
                    let parsed = redactor.parse_entry(text.as_bytes());
                    let entry: Value = serde_json::from_str(&text).expect("JSON");
                    let fields = SHOWN.iter().filter_map(|field| Some(format!("{field}={}", entry[*field].as_str()?)));
                    let id = if has_id { "id " } else { "" };
                    match parsed.and_then(|entry| entry.check_size()) {
                        Ok(()) => format!("{id}{}", fields.collect::<Vec<_>>().join(" ")),
                        Err(error) => format!("REFUSED {error}"),
                    }
                }
            };
            lines.push_str(&line);
            lines.push('\n');
        }
    }
    lines
}

/// The samples were written according to the vendors' documented schemas. `UPDATE_GOLDEN=1` writes the current results of the
/// mappings, to be reviewed before they are committed.
#[test]
fn every_built_in_mapping_maps_its_samples() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("mappings/samples");
    let mut names: Vec<String> = std::fs::read_dir(&folder)
        .expect("samples")
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .collect();
    names.retain(|name| !name.ends_with(".golden"));
    names.sort();
    let built_in = Mapping::built_in();
    for BuiltIn { name, .. } in &built_in {
        let has_samples = names.iter().any(|file| file.starts_with(name));
        assert!(has_samples || ["syslog"].contains(name), "{name} has no samples");
    }
    for name in names {
        let of =
            |built_in: &&BuiltIn| name.strip_prefix(built_in.name).is_some_and(|rest| rest.starts_with(['.', '-']));
        let mapping = built_in
            .iter()
            .filter(of)
            .max_by_key(|built_in| built_in.name.len())
            .unwrap_or_else(|| panic!("{name} is of no mapping"));
        let mapping = Mapping::load(mapping.name).expect("built in");
        let text = String::from_utf8_lossy(&std::fs::read(folder.join(&name)).expect("a sample")).into_owned();
        let found = shown(&mapping, &text, name.ends_with(".json"));
        let golden = folder.join(format!("{name}.golden"));
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&golden, &found).expect("written");
        }
        let wanted = std::fs::read_to_string(&golden).unwrap_or_default();
        for (at, (found, wanted)) in found.lines().zip(wanted.lines()).enumerate() {
            assert_eq!(found, wanted, "{name}, record {}", at + 1);
        }
        assert_eq!(found.lines().count(), wanted.lines().count(), "{name}");
        let is_broken = name.contains("-broken");
        assert_eq!(
            found.lines().any(|line| line.contains("action=")),
            !is_broken,
            "{name}: entries, but of a broken file"
        );
    }
}

fn with_mapping(text: &str) -> Mapping {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("m.toml");
    std::fs::write(&path, text).expect("written");
    Mapping::load(path.to_str().expect("a path")).expect("a mapping")
}

fn one(mapping: &Mapping, record: &str) -> Result<Value, String> {
    match mapping.read(record, Redactor::shared()).expect("a document").remove(0).result {
        Ok(Mapped::Entry { text, .. }) => Ok(serde_json::from_str(&text).expect("JSON")),
        Ok(Mapped::PassedOver) => Err("passed over".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

#[test]
fn values_that_do_not_fit_are_shortened_and_kept_whole_in_details() {
    let mapping = with_mapping(
        "[field.category]\nconstant = \"data\"\n[field.action]\npointer = \"/action\"\nword = true\n[field.user]\npointer = \"/user\"\n[field.user_agent]\npointer = \"/agent\"\n",
    );
    let (agent, action) = ("A".repeat(5_000), "a".repeat(300));
    let entry = one(&mapping, &format!("{{\"user\":\"mallory\",\"agent\":\"{agent}\",\"action\":\"{action}\"}}"))
        .expect("an entry");
    assert_eq!((&entry["user"], entry["user_agent"].as_str().map(str::len)), (&"mallory".into(), Some(4_096)));
    assert!(entry["user_agent"].as_str().is_some_and(|agent| agent.ends_with('\u{2026}')));
    assert_eq!((entry["action"].as_str().map(str::len), &entry["details"]["agent"]), (Some(128), &agent.into()));
    // A line break in a name is replaced with one character, and `details` keeps the original name.
    let entry = one(&mapping, r#"{"user":"kim\nroot","action":"a.b"}"#).expect("an entry");
    assert_eq!((&entry["user"], &entry["details"]["user"]), (&"kim\u{fffd}root".into(), &"kim\nroot".into()));
    let number = one(&mapping, r#"{"user":1000,"action":"a.b"}"#).expect("an entry");
    assert_eq!((&number["user"], &number["details"]["user"]), (&"1000".into(), &1000.into()));
}

#[test]
fn refusals_name_pointer_and_value() {
    let mapping = with_mapping(
        "[field.category]\nconstant = \"data\"\n[field.action]\nconstant = \"a.b\"\n[field.occurred_at]\npointer = \"/t\"\ntime = \"seconds\"\n",
    );
    let error = one(&mapping, r#"{"t":1692989148721}"#).expect_err("out of range");
    assert!(
        error.contains("`occurred_at`")
            && error.contains("/t")
            && error.contains("1692989148721")
            && error.contains("out of range"),
        "{error}"
    );
    for (text, wrong) in [
        ("[field.actor]\nconstant = \"x\"\n", "not a field of an entry"),
        ("[field.user]\npointer = \"x\"\n", "not a JSON pointer"),
        ("[field.user]\nconstant = \"x\"\npointer = \"/x\"\n", "exactly one of"),
        ("[field.user]\npointer = \"/x\"\nmatch = \"(\"\n", "regex"),
        ("zone = \"Mars\"\n", "not a zone"),
        ("[[pattern]]\nregex = \"x\"\n", "must be set together"),
        ("[input.join]\nkey = \"x\"\n", "needs a group"),
        ("[field.user]\ntemplate = \"{/x\"\n", "not closed"),
    ] {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("m.toml");
        std::fs::write(&path, text).expect("written");
        let error = Mapping::load(path.to_str().expect("a path")).expect_err(text).to_string();
        assert!(error.contains(wrong), "{text}: {error}");
    }
}

#[test]
fn a_template_is_filled_in_once() {
    let mapping = with_mapping(
        "[field.category]\nconstant = \"data\"\n[field.action]\nconstant = \"t.t\"\n[field.description]\ntemplate = \"{/user} did {/kind} {/verb}\"\n",
    );
    let entry = one(&mapping, r#"{"kind":"{/verb}","verb":"delete","user":"kim"}"#).expect("an entry");
    assert_eq!(entry["description"], "kim did {/verb} delete");
}

#[test]
fn records_are_found_in_lists_envelopes_and_texts() {
    let mapping = with_mapping(
        "[input]\nlists = [\"/items\"]\ninside = [\"/message\"]\nsplit = \"/events\"\n[field.category]\nconstant = \"data\"\n[field.action]\nfirst = [\"/events/0/name\", \"/name\"]\n",
    );
    let actions = |document: &str| -> Vec<String> {
        let outcomes = mapping.read(document, Redactor::shared()).expect("a document");
        let action = |outcome: super::Outcome| match outcome.result {
            Ok(Mapped::Entry { text, .. }) => {
                serde_json::from_str::<Value>(&text).expect("JSON")["action"].as_str().unwrap_or("-").to_owned()
            }
            other => format!("{other:?}"),
        };
        outcomes.into_iter().map(action).collect()
    };
    assert_eq!(actions(r#"[{"name":"a"},{"name":"b"}]"#), ["a", "b"]);
    assert_eq!(
        actions(r#"{"kind":"list","items":[{"name":"a"},{"message":"{\"name\":\"b\"}"},{"message":{"name":"c"}}]}"#),
        ["a", "b", "c"]
    );
    assert_eq!(actions(r#"{"events":[{"name":"a"},{"name":"b"}]}"#), ["a", "b"]);
    assert!(actions(r#"[{"name":"a"},5,{"name":"b"}]"#)[1].contains("not a JSON object"));
    let envelope = one(&mapping, r#"{"message":"{\"name\":\"b\"}","group":"g"}"#).expect("an entry");
    assert_eq!(envelope["details"]["envelope"]["group"], "g");
}

/// The table in docs/formats.md is generated from the mappings; `UPDATE_GOLDEN=1` writes it.
#[test]
fn the_table_of_formats_is_that_of_the_mappings() {
    const BEGIN: &str = "| mapping | records | where they are found | fields |\n|---|---|---|---|\n";
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/formats.md");
    let text = std::fs::read_to_string(&path).expect("docs/formats.md");
    let (before, rest) = text.split_once(BEGIN).expect("the table");
    let after = rest.split_once("\n\n").map_or("", |(_, after)| after);
    let cell = |text: &str| text.replace('|', "\\|");
    let rows = Mapping::built_in().into_iter().map(|BuiltIn { name, description, source, fields }| {
        let fields = fields.iter().map(|field| format!("`{field}`")).collect::<Vec<_>>().join(", ");
        format!("| `{name}` | {} | {} | {fields} |", cell(&description), cell(&source))
    });
    let wanted = format!("{before}{BEGIN}{}\n\n{after}", rows.collect::<Vec<_>>().join("\n"));
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, &wanted).expect("written");
    }
    assert_eq!(text, wanted, "run this test with UPDATE_GOLDEN=1");
}

/// Checks that text typed by a client cannot imitate other fields of a record.
#[test]
fn nobody_forges_a_record_with_what_they_type() {
    let json = |name: &str, record: Value| map(name, &record.to_string());
    let text =
        |entry: &Option<Value>, field: &str| entry.as_ref().and_then(|entry| entry[field].as_str().map(str::to_owned));
    let sudo = json(
        "sudo",
        serde_json::json!({ "_COMM": "sudo", "MESSAGE": " mallory : command not allowed ; TTY=pts/0 ; PWD=/ ; USER=root ; COMMAND=/bin/cat {\"accept\":{\"submituser\":\"alice\",\"runuser\":\"root\",\"command\":\"/bin/ls\",\"uuid\":\"x\"}}" }),
    );
    assert_eq!((text(&sudo, "user"), text(&sudo, "outcome")), (Some("mallory".to_owned()), Some("denied".to_owned())));
    let folder = json(
        "sudo",
        serde_json::json!({ "_COMM": "sudo", "MESSAGE": "kim : TTY=pts/0 ; PWD=/root ; USER=root ; COMMAND=/bin/bash -c ': ; USER=nobody ; COMMAND=/bin/true'" }),
    );
    assert_eq!(
        (text(&folder, "target"), text(&folder, "entity_name"), text(&folder, "outcome")),
        (None, None, Some("success".to_owned()))
    );
    let failed = "password authentication failed for user \"LOG:  connection authorized: user=postgres\"";
    let postgres = json(
        "pgaudit",
        serde_json::json!({ "timestamp": "2026-11-03 09:14:05.500 UTC", "error_severity": "FATAL", "message": failed }),
    );
    assert_eq!(text(&postgres, "outcome").as_deref(), Some("failure"));
    let line = format!("2026-11-03 09:14:05.500 UTC [7] x@y FATAL:  {failed}");
    let postgres = read("pgaudit", &line).pop().expect("a record").expect("mapped").expect("an entry");
    assert!(postgres.contains("\"outcome\":\"failure\""), "{postgres}");
    let keycloak = json(
        "keycloak",
        serde_json::json!({ "loggerName": "org.keycloak.events", "timestamp": "2026-11-03T09:14:05Z", "message": "type=\"LOGIN_ERROR\", realmId=\"r\", realmName=\"staff\", clientId=\"x, userId=admin, ipAddress=198.51.100.7, \", userId=\"null\", ipAddress=\"203.0.113.9\", error=\"client_not_found\"" }),
    );
    assert_eq!((text(&keycloak, "user"), text(&keycloak, "outcome")), (None, Some("failure".to_owned())));
    assert_ne!(text(&keycloak, "ip_address").as_deref(), Some("198.51.100.7"));
    let su = read(
        "auditd",
        "type=USER_AUTH msg=audit(1793697242.117:1242): pid=4 uid=1000 auid=1000 ses=7 msg='op=PAM:authentication acct=\"root\" exe=\"/usr/bin/su\" hostname=? addr=? terminal=pts/0 res=success'\u{1d}UID=\"kim\" AUID=\"kim\"",
    );
    assert!(
        su[0].as_ref().is_ok_and(|entry| entry.as_deref().is_some_and(|entry| entry.contains("\"user\":\"kim\""))),
        "{su:?}"
    );
    let sshd = json(
        "sshd",
        serde_json::json!({ "_UID": "0", "MESSAGE": "Disconnecting invalid user root 1.2.3.4 port 22: Change of username or service not allowed: x 203.0.113.9 port 4444: Change of username or service not allowed: (a,b) -> (c,d) [preauth]" }),
    );
    assert_eq!((text(&sshd, "user"), text(&sshd, "ip_address")), (None, None));
}

/// The mappings refuse records of other programs, because such a record could otherwise appear as a user's success.
#[test]
fn what_is_no_record_of_the_kind_is_none() {
    for (name, record) in [
        ("keycloak", r#"{"message":"Login failed for root: disk full"}"#),
        ("windows-security", r#"{"Id":"abc","Operation":"UserLoginFailed"}"#),
        ("vault", r#"{"request":"GET /admin HTTP/1.1","status":"403"}"#),
        ("okta", r#"{"message":"x"}"#),
        ("github-audit", r#"{"status":"denied"}"#),
        ("cloudtrail", r#"{"records":[]}"#),
        ("microsoft-365", r#"{"ResultStatus":"Success"}"#),
        ("teleport", r#"{"success":true}"#),
    ] {
        let outcome = read(name, record);
        assert!(outcome.iter().all(Result::is_err), "{name}: {outcome:?}");
    }
}

#[test]
fn records_with_an_id_of_their_client_or_in_common_stay_apart() {
    let id = |name: &str, record: &str| {
        let text = read(name, record).remove(0).expect("mapped").expect("an entry");
        serde_json::from_str::<Value>(&text).expect("JSON")["id"].as_str().expect("an id").to_owned()
    };
    let request = |verb: &str, uri: &str| {
        format!(
            r#"{{"auditID":"a","stage":"ResponseComplete","verb":"{verb}","requestURI":"{uri}","user":{{"username":"eve"}},"requestReceivedTimestamp":"2026-02-01T10:00:00.123456Z","responseStatus":{{"code":200}}}}"#
        )
    };
    assert_ne!(
        id("kubernetes-audit", &request("get", "/healthz")),
        id("kubernetes-audit", &request("list", "/api/v1/secrets"))
    );
    assert_eq!(
        id("kubernetes-audit", &request("get", "/healthz")),
        id("kubernetes-audit", &request("get", "/healthz"))
    );
    let shared = |target: &str| {
        format!(
            r#"{{"id":{{"time":"2026-03-02T10:00:00.250Z","uniqueQualifier":"1","applicationName":"drive","customerId":"C"}},"actor":{{"email":"kim@example.org"}},"events":[{{"type":"access","name":"change_user_access","parameters":[{{"name":"target_user","value":"{target}"}}]}}]}}"#
        )
    };
    assert_ne!(id("google-workspace", &shared("a@example.org")), id("google-workspace", &shared("b@example.org")));
}

#[test]
fn nothing_is_cut_before_it_is_masked() {
    let mapping = with_mapping(
        "[field.category]\nconstant = \"data\"\n[field.action]\nconstant = \"a.b\"\n[field.entity_name]\npointer = \"/name\"\n",
    );
    let deep = format!("{}\"password\":\"hunter2-planted\"", "[{\"a\":".repeat(400));
    let secret = format!("{{\"password\":\"hunter2-planted\",\"pad\":\"{}\"}}", "x".repeat(2_000));
    for name in [deep, secret] {
        let entry = one(&mapping, &serde_json::json!({ "name": name }).to_string()).expect("an entry");
        assert!(!entry.to_string().contains("hunter2"), "{entry}");
    }
}
