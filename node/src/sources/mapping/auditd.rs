//! Converts an event of the Linux audit daemon to one record; each line of the event has a type and fields.
//!
//! Format: linux-audit documentation, "SPEC Audit Event Enrichment" and audit.rules(7). Enriched lines contain a group
//! separator (0x1d) before the names that the daemon added. Values that could contain a blank or a quote are in hexadecimal;
//! they are decoded after the line was split into fields, and decoded values are never split again.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

/// Separator before the names that the daemon added to a line.
const SEPARATOR: char = '\u{1d}';
/// Maximum lines and fields of one event.
const LINES_MAX: usize = 1_024;
const FIELDS_MAX: usize = 512;
/// Fields whose values are hexadecimal when they are not quoted (linux-audit field dictionary, format "encoded").
const ENCODED: [&str; 21] = [
    "acct",
    "comm",
    "exe",
    "cwd",
    "name",
    "cmd",
    "data",
    "proctitle",
    "key",
    "dir",
    "path",
    "old",
    "new",
    "grp",
    "unit",
    "root_dir",
    "vm",
    "file",
    "ocomm",
    "watch",
    "sw",
];
/// Values that mean that the field has no value, including those for an account that does not exist.
const NONE: [&str; 8] = ["?", "(null)", "(none)", "unset", "", "(unknown)", "(unknown user)", "(invalid user)"];
/// Exit codes of calls whose result is not known yet: EINPROGRESS for a call that continues in the background, and the codes
/// with which the kernel restarts a call (errno.h, ERESTARTSYS to ERESTART_RESTARTBLOCK).
const UNDECIDED_EXITS: [&str; 10] = [
    "-115",
    "-512",
    "-513",
    "-514",
    "-516",
    "EINPROGRESS",
    "ERESTARTSYS",
    "ERESTARTNOINTR",
    "ERESTARTNOHAND",
    "ERESTART_RESTARTBLOCK",
];
/// A user id of -1: no user has logged in.
const NOBODY: [&str; 2] = ["4294967295", "-1"];

struct Line<'a> {
    node: Option<&'a str>,
    kind: &'a str,
    time: &'a str,
    serial: &'a str,
    fields: Map<String, Value>,
    /// Text that does not consist of fields, such as the beginning of an AVC message.
    prose: String,
}

/// Converts the lines of one event to a record, as JSON text; `None` if no line comes from the audit daemon.
pub(super) fn event(text: &str) -> Option<String> {
    let lines: Vec<Line<'_>> =
        text.split('\n').filter(|line| !line.trim().is_empty()).take(LINES_MAX).filter_map(line).collect();
    let first = lines.first()?;
    // Select the line that says what happened, which is neither the end marker nor a line that only adds details to another
    // line.
    let main = lines
        .iter()
        .find(|line| !matches!(line.kind, "EOE" | "PATH" | "CWD" | "PROCTITLE" | "SOCKADDR" | "EXECVE"))
        .unwrap_or(first);
    let mut record = Map::new();
    record.insert(
        "id".to_owned(),
        json!(format!(
            "{}{}:{}",
            first.node.map(|node| format!("{node} ")).unwrap_or_default(),
            first.time,
            first.serial
        )),
    );
    record.insert("time".to_owned(), json!(first.time));
    if let Some(node) = first.node {
        record.insert("node".to_owned(), json!(node));
    }
    record.insert("type".to_owned(), json!(main.kind));
    let mut put = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            record.insert(name.to_owned(), json!(value));
        }
    };
    let field = |name: &str| known(main.fields.get(name));
    // If the selected line does not name the user, take the user from the system call's line.
    let call = lines.iter().find(|line| line.kind == "SYSCALL");
    let of_call = |name: &str| call.and_then(|call| known(call.fields.get(name)));
    let is_person = |id: &String| !NOBODY.contains(&id.as_str());
    // A service's message about a denial contains the field `auid` twice: first that of the service, then that of the
    // requester.
    let asked = field("auid#2").filter(|_| main.kind == "USER_AVC");
    let login = asked
        .or_else(|| field("AUID"))
        .or_else(|| field("auid").filter(is_person))
        .or_else(|| of_call("AUID"))
        .or_else(|| of_call("auid"))
        .filter(is_person);
    put("person", login);
    put("account", field("acct").or_else(|| field("ID")).or_else(|| field("id")));
    put("uid", field("UID").or_else(|| field("uid")).or_else(|| of_call("UID")).or_else(|| of_call("uid")));
    put("result", result(&lines, main));
    put("address", field("addr").or_else(|| lines.iter().find_map(|line| socket_address(&line.fields))));
    put("command", command(&lines));
    put("path", path(&lines));
    let mut all = Map::new();
    for line in lines.iter().filter(|line| line.kind != "EOE") {
        let mut fields = line.fields.clone();
        if !line.prose.is_empty() {
            fields.insert("text".to_owned(), json!(line.prose));
        }
        match all.get_mut(line.kind) {
            None => drop(all.insert(line.kind.to_owned(), Value::Object(fields))),
            Some(Value::Array(list)) => list.push(Value::Object(fields)),
            Some(one) => *one = Value::Array(vec![one.take(), Value::Object(fields)]),
        }
    }
    record.insert("records".to_owned(), Value::Object(all));
    Some(Value::Object(record).to_string())
}

fn known(value: Option<&Value>) -> Option<String> {
    value.and_then(Value::as_str).filter(|text| !NONE.contains(text)).map(str::to_owned)
}

/// Parses `node=N type=T msg=audit(SECONDS.MILLIS:SERIAL): FIELDS`.
fn line(text: &str) -> Option<Line<'_>> {
    let text = text.trim_matches([' ', '\r']);
    let (node, rest) = match text.strip_prefix("node=") {
        Some(rest) => rest.split_once(' ').map(|(node, rest)| (Some(node), rest))?,
        None => (None, text),
    };
    let (kind, rest) = rest.strip_prefix("type=")?.split_once(' ')?;
    let (stamp, rest) = rest.strip_prefix("msg=audit(")?.split_once("):")?;
    let (time, serial) = stamp.split_once(':')?;
    let is_stamp = time.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.')
        && serial.bytes().all(|byte| byte.is_ascii_digit());
    if !is_stamp || kind.is_empty() {
        return None;
    }
    let mut fields = Map::new();
    let mut prose = String::new();
    let (raw, enriched) = rest.split_once(SEPARATOR).unwrap_or((rest, ""));
    read_fields(raw.trim(), &mut fields, &mut prose, Some(kind));
    read_fields(&enriched.replace(SEPARATOR, " "), &mut fields, &mut String::new(), None);
    Some(Line { node, kind, time, serial, fields, prose })
}

/// Parses a sequence of `name=value`. If a name occurs twice, the second value is stored under `name#2`. The value of `msg='…'`
/// is itself a sequence of fields. Values are decoded as in a record of type `kind`, or not at all if `kind` is `None`.
fn read_fields(mut text: &str, fields: &mut Map<String, Value>, prose: &mut String, kind: Option<&str>) {
    while fields.len() < FIELDS_MAX {
        text = text.trim_start();
        let Some(end) = text.find([' ', '=']) else {
            push_word(prose, text);
            return;
        };
        if text.as_bytes()[end] == b' ' {
            push_word(prose, &text[..end]);
            text = &text[end..];
            continue;
        }
        // Older programs enclose some fields in parentheses and separate them with commas.
        let (name, rest) = (text[..end].trim_start_matches('('), &text[end + 1..]);
        let (value, after) = match rest.as_bytes().first() {
            Some(quote @ (b'"' | b'\'')) => match rest[1..].find(char::from(*quote)) {
                Some(close) => (&rest[..close + 2], &rest[close + 2..]),
                None => (rest, ""),
            },
            Some(b'{') => rest.find('}').map_or((rest, ""), |close| rest.split_at(close + 1)),
            _ => rest.find(' ').map_or((rest, ""), |blank| rest.split_at(blank)),
        };
        text = after;
        if name == "msg" && value.starts_with('\'') {
            read_fields(value.trim_matches('\''), fields, prose, kind);
            continue;
        }
        let value = match value.strip_prefix('"').map(|inner| inner.strip_suffix('"').unwrap_or(inner)) {
            Some(quoted) => quoted.to_owned(),
            None => {
                let value = value.trim_end_matches(',');
                let value = if value.starts_with('(') { value } else { value.trim_end_matches(')') };
                match kind {
                    // In an EXECVE line, every argument without quotes is encoded.
                    Some("EXECVE") if is_argument(name) => decoded(value, 2),
                    Some(kind) if is_encoded(name, kind) => decoded(value, ENCODED_DIGITS_MIN),
                    _ => value.to_owned(),
                }
            }
        };
        let mut key = name.to_owned();
        let mut times = 1;
        while fields.contains_key(&key) && times < 16 {
            times += 1;
            key = format!("{name}#{times}");
        }
        fields.insert(key, json!(value));
    }
}

fn push_word(prose: &mut String, word: &str) {
    if !word.is_empty() {
        if !prose.is_empty() {
            prose.push(' ');
        }
        prose.push_str(word);
    }
}

/// Minimum digits of an encoded value: a shorter one may be a number.
const ENCODED_DIGITS_MIN: usize = 4;

/// Whether a field is encoded. In records of a changed setting, `old` and `new` are numbers and therefore not encoded.
fn is_encoded(name: &str, kind: &str) -> bool {
    let is_number = matches!(name, "old" | "new") && (kind == "CONFIG_CHANGE" || kind.starts_with("TIME_"));
    ENCODED.contains(&name) && !is_number
}

/// Whether a name is that of an argument: `a0`, or `a0[0]` for a part of a long argument.
fn is_argument(name: &str) -> bool {
    argument(name).is_some()
}

/// Returns the number of an argument and the number of the part within it.
fn argument(name: &str) -> Option<(u32, u32)> {
    let rest = name.strip_prefix('a')?;
    match rest.strip_suffix(']') {
        Some(rest) => rest.split_once('[').and_then(|(at, part)| Some((at.parse().ok()?, part.parse().ok()?))),
        None => rest.parse().ok().map(|at| (at, 0)),
    }
}

fn decoded(value: &str, digits_min: usize) -> String {
    let is_hex = value.len() >= digits_min
        && value.len().is_multiple_of(2)
        && value.bytes().all(|byte| byte.is_ascii_digit() || (b'A'..=b'F').contains(&byte));
    match hex::decode(value) {
        // In a process title, zero bytes separate the arguments.
        Ok(bytes) if is_hex => String::from_utf8_lossy(&bytes).replace('\0', " ").trim_end().to_owned(),
        _ => value.to_owned(),
    }
}

/// Returns `success`, `failure` or `denied`; `None` if the event has no result.
fn result(lines: &[Line<'_>], main: &Line<'_>) -> Option<String> {
    let is_denied_message = |line: &&Line<'_>| matches!(line.kind, "AVC" | "USER_AVC");
    if let Some(avc) = lines.iter().find(is_denied_message) {
        let is_let_through = avc.fields.get("permissive").and_then(Value::as_str) == Some("1");
        if avc.prose.contains("denied") {
            return Some(if is_let_through { "success" } else { "denied" }.to_owned());
        }
    }
    if let Some(apparmor) = lines.iter().find_map(|line| line.fields.get("apparmor").and_then(Value::as_str)) {
        return match apparmor {
            "DENIED" => Some("denied".to_owned()),
            "ALLOWED" => Some("success".to_owned()),
            _ => None,
        };
    }
    if main.kind.starts_with("ANOM_") || main.kind.starts_with("RESP_") {
        return None;
    }
    let text = |line: &Line<'_>, name: &str| known(line.fields.get(name));
    if let Some(outcome) = text(main, "res").or_else(|| text(main, "result")) {
        let is_refusal = matches!(main.kind, "USER_ACCT" | "USER_CMD");
        return Some(
            match (outcome.as_str(), is_refusal) {
                ("success" | "1" | "yes", _) => "success",
                (_, true) => "denied",
                _ => "failure",
            }
            .to_owned(),
        );
    }
    let call = lines.iter().find(|line| line.kind == "SYSCALL")?;
    match (text(call, "success")?.as_str(), text(call, "exit").as_deref()) {
        ("yes", _) => Some("success".to_owned()),
        (_, Some("-13" | "-1" | "EACCES" | "EPERM")) => Some("denied".to_owned()),
        (_, Some(exit)) if UNDECIDED_EXITS.contains(&exit) => None,
        _ => Some("failure".to_owned()),
    }
}

/// Returns the command line: the joined arguments or, if there are none, the command of sudo or the process title.
fn command(lines: &[Line<'_>]) -> Option<String> {
    // Long commands are split over several lines, and long arguments into parts.
    let mut arguments: BTreeMap<u32, BTreeMap<u32, &str>> = BTreeMap::new();
    for (name, value) in lines.iter().filter(|line| line.kind == "EXECVE").flat_map(|line| &line.fields) {
        if let (Some((at, part)), Some(value)) = (argument(name), value.as_str()) {
            arguments.entry(at).or_default().insert(part, value);
        }
    }
    if !arguments.is_empty() {
        let whole = arguments.into_values().map(|parts| parts.into_values().collect::<String>());
        return Some(whole.collect::<Vec<_>>().join(" "));
    }
    let named = |kind: &str, name: &str| {
        lines.iter().filter(|line| line.kind == kind).find_map(|line| known(line.fields.get(name)))
    };
    named("USER_CMD", "cmd").or_else(|| named("PROCTITLE", "proctitle"))
}

/// Returns the path of the file that was accessed; a relative name is joined to the working directory.
fn path(lines: &[Line<'_>]) -> Option<String> {
    // Older kernels call this field `objtype`.
    let kind = |line: &Line<'_>| known(line.fields.get("nametype").or_else(|| line.fields.get("objtype")));
    let is_parent = |line: &&Line<'_>| kind(line).as_deref() != Some("PARENT");
    let name = lines
        .iter()
        .filter(|line| line.kind == "PATH")
        .filter(is_parent)
        .find_map(|line| known(line.fields.get("name")))?;
    let folder = lines.iter().filter(|line| line.kind == "CWD").find_map(|line| known(line.fields.get("cwd")));
    Some(match folder {
        Some(folder) if !name.starts_with('/') => format!("{}/{name}", folder.trim_end_matches('/')),
        _ => name,
    })
}

/// Returns the address of a peer from `saddr`, a `sockaddr` in hexadecimal digits, of family 2 (IPv4) or 10 (IPv6).
fn socket_address(fields: &Map<String, Value>) -> Option<String> {
    let bytes = hex::decode(fields.get("saddr")?.as_str()?).ok()?;
    match bytes.get(..2)? {
        [2, 0] => Some(std::net::Ipv4Addr::from(<[u8; 4]>::try_from(bytes.get(4..8)?).ok()?).to_string()),
        [10, 0] => Some(std::net::Ipv6Addr::from(<[u8; 16]>::try_from(bytes.get(8..24)?).ok()?).to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(text: &str) -> Value {
        serde_json::from_str(&event(text).expect("an event")).expect("JSON")
    }

    #[test]
    fn the_lines_of_one_event_are_one_record() {
        let event = record(
            "type=SYSCALL msg=audit(1793697246.117:1246): arch=c000003e syscall=257 success=no exit=-13 a0=ffffff9c items=1 auid=1000 uid=1000 comm=\"cat\" exe=\"/usr/bin/cat\" key=\"shadow\"\u{1d}ARCH=x86_64 SYSCALL=openat AUID=\"kim\" UID=\"kim\"\n\
             type=CWD msg=audit(1793697246.117:1246): cwd=\"/home/kim\"\n\
             type=PATH msg=audit(1793697246.117:1246): item=0 name=\"/etc\" nametype=PARENT\n\
             type=PATH msg=audit(1793697246.117:1246): item=1 name=\"shadow\" nametype=NORMAL\u{1d}OUID=\"root\"\n\
             type=PROCTITLE msg=audit(1793697246.117:1246): proctitle=636174002F6574632F736861646F77\n\
             type=EOE msg=audit(1793697246.117:1246): \n",
        );
        for (name, wanted) in [
            ("id", "1793697246.117:1246"),
            ("type", "SYSCALL"),
            ("person", "kim"),
            ("result", "denied"),
            ("command", "cat /etc/shadow"),
            ("path", "/home/kim/shadow"),
        ] {
            assert_eq!(event[name], wanted, "{name}: {event}");
        }
        assert_eq!(event["records"]["PATH"].as_array().map(Vec::len), Some(2));
        assert_eq!(event["records"]["SYSCALL"]["a0"], "ffffff9c");
    }

    #[test]
    fn what_somebody_typed_is_never_taken_apart() {
        let user = |res: &str, acct: &str| {
            record(&format!(
                "type=USER_LOGIN msg=audit(1793697245.117:1245): pid=4242 uid=0 auid=4294967295 ses=4294967295 msg='op=login acct={acct} exe=\"/usr/sbin/sshd\" hostname=? addr=203.0.113.9 terminal=ssh res={res}'\u{1d}UID=\"root\" AUID=\"unset\"",
            ))
        };
        // `eve res=success`
        let forged = user("failed", "657665207265733D73756363657373");
        assert_eq!((&forged["account"], &forged["result"]), (&json!("eve res=success"), &json!("failure")), "{forged}");
        assert_eq!(forged.get("person"), None);
        assert_eq!(forged["address"], "203.0.113.9");
        let quoted = user("success", "\"DEADBEEF\"");
        assert_eq!((&quoted["account"], &quoted["result"]), (&json!("DEADBEEF"), &json!("success")));
    }

    #[test]
    fn a_message_that_something_was_denied_says_so() {
        let avc = |permissive: &str| {
            record(&format!(
                "type=AVC msg=audit(1793697250.1:7): avc:  denied  {{ read }} for  pid=1 comm=\"cat\" scontext=a tcontext=b permissive={permissive}"
            ))
        };
        assert_eq!(avc("0")["result"], "denied");
        assert_eq!(avc("1")["result"], "success");
        for odd in ["", "no line", "type=X", "type=X msg=audit(abc): a=b", "type= msg=audit(1:2): "] {
            assert_eq!(event(odd), None, "{odd:?}");
        }
    }
}
