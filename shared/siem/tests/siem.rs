//! Golden files of every format, and properties that hold for any entry.
//! `UPDATE_GOLDEN=1 cargo test -p piperoll-siem --test siem` rewrites the files.

use std::path::Path;

use piperoll_format::entry::{CallerEntry, NodeFields, write_body};
use piperoll_format::ids::Generation;
use piperoll_format::limits;
use piperoll_format::row::Row;
use piperoll_format::time::Timestamp;
use piperoll_format::verify::Integrity;
use piperoll_siem::{ENTERPRISE_DEFAULT, Event, Format, OmittedFields, SYSLOG_BYTES_MIN, Syslog};
use serde_json::Value;

const FLAG: &str = r#"[{"rule":"outside_hours","reason":"at 23:10, outside 06:00 to 22:00 (UTC)"}]"#;

fn body(seq: u64, caller: &str, flags: &str) -> String {
    let caller = CallerEntry::parse(caller.as_bytes()).expect("an entry");
    let stamp = NodeFields {
        node_id: &"mx1".parse().expect("a node id"),
        generation: &Generation::from_bytes([7; 16]),
        seq,
        era: 0,
        salt: [9; 16],
        timestamp: Timestamp::from_micros(1_776_000_000_123_456 + i64::try_from(seq).expect("small") * 1_000_000),
        id: format!("0192f0c0-0000-7000-8000-{seq:012}").parse().expect("an id"),
        via: "socket uid=1000",
    };
    write_body(&stamp, &caller, flags).expect("it fits")
}

fn texts() -> Vec<(String, Integrity)> {
    let callers = [
        (
            r#"{"category":"auth","action":"auth.login","outcome":"success","user":"alice","user_type":"admin","ip_address":"192.0.2.7","auth_method":"password+totp","user_agent":"Mozilla/5.0 (X11; \"quoted\") = | \\","session":"s-1","request_id":"r-1"}"#,
            FLAG,
        ),
        (
            r#"{"category":"auth","action":"auth.login","outcome":"failure","reason":"bad_password","user":"bob","ip_address":"2001:db8::7","peer_address":"192.0.2.1","occurred_at":"2026-04-12T08:00:00+02:00"}"#,
            "",
        ),
        (
            r#"{"category":"auth","action":"auth.impersonate","outcome":"success","user":"carol","impersonator":"root@example.org"}"#,
            "",
        ),
        (
            r#"{"category":"user","action":"user.create","outcome":"success","user":"alice","entity_type":"user","entity_id":"17","entity_name":"dave"}"#,
            "",
        ),
        (
            r#"{"category":"user","action":"role.grant","outcome":"success","user":"alice","target":"dave","entity_type":"role","entity_name":"auditor"}"#,
            "",
        ),
        (
            r#"{"category":"config","action":"domain.update","outcome":"success","user":"alice","entity_type":"domain","entity_id":"example.org","changes":[{"field":"quota","old":1.00000000000000000001,"new":2}],"description":"quota of example.org: 1 → 2"}"#,
            "",
        ),
        (
            r#"{"category":"data","action":"quarantine.release","outcome":"success","user":"alice","entity_type":"message","entity_id":"m-1","target":"bob@example.org","domain":"example.org","method":"POST","path":"/quarantine/m-1/release","details":{"counts":{"succeeded":3,"failed":1},"big":12345678901234567890123}}"#,
            "",
        ),
        (
            r#"{"category":"data","action":"mailbox.export","outcome":"denied","reason":"not_allowed","credential":"key-7","user_type":"service"}"#,
            "",
        ),
        (r#"{"category":"cluster","action":"node.join","outcome":"success","entity_name":"mx3"}"#, ""),
        (
            r#"{"category":"security","action":"rule.change","outcome":"unknown","user":"a]b","description":"line one\nline two | a=b \\ ] \" ü"}"#,
            "",
        ),
    ];
    let mut rows: Vec<(String, Integrity)> =
        callers.iter().zip(0..).map(|((caller, flags), seq)| (body(seq, caller, flags), Integrity::Ok)).collect();
    rows.push((rows[0].0.replace("alice", "mallory"), Integrity::Violation));
    rows.push(("not an entry any more".to_owned(), Integrity::Violation));
    rows
}

fn row(body: &str, integrity: Integrity) -> Row<'_> {
    Row {
        body: body.as_bytes().into(),
        mac: vec![0xab; 32].into(),
        integrity,
        witnessed: false,
        reason: (integrity != Integrity::Ok).then(|| "the signature does not fit".into()),
        found_at: None,
        erased: None,
        withheld: false,
    }
}

fn event<'a>(row: &'a Row<'a>, seq: u64) -> Event<'a> {
    let recorded = Timestamp::from_micros(1_776_000_000_123_456 + i64::try_from(seq).expect("small") * 1_000_000);
    Event::new(("example", "mx1", "07070707070707070707070707070707", seq), recorded, row)
}

fn compare(name: &str, found: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/siem").join(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, found).expect("the golden file");
    }
    let golden = std::fs::read_to_string(&path).expect("the golden file");
    for (number, (found, golden)) in found.lines().zip(golden.lines()).enumerate() {
        assert_eq!(found, golden, "{name}, line {}", number + 1);
    }
    assert_eq!(found.lines().count(), golden.lines().count(), "{name}");
}

#[test]
fn every_form_is_what_it_was() {
    for format in [Format::Native, Format::Ocsf, Format::Ecs, Format::Cef] {
        let mut lines = String::new();
        for (seq, (body, integrity)) in (0..).zip(texts()) {
            let row = row(&body, integrity);
            let line = event(&row, seq).to_text(format);
            assert!(!line.contains(['\n', '\r']), "{line}");
            if format != Format::Cef {
                serde_json::from_str::<Value>(&line).expect("JSON");
            }
            lines.push_str(&line);
            lines.push('\n');
        }
        compare(&format!("{}.txt", format.as_str()), &lines);
    }
}

#[test]
fn syslog_is_what_it_was() {
    let syslog = Syslog { format: Format::Native, enterprise: ENTERPRISE_DEFAULT, size_max: 8_192 };
    let mut lines = String::new();
    for (seq, (body, integrity)) in (0..).zip(texts()) {
        let row = row(&body, integrity);
        let (frame, omit) = syslog.frame(event(&row, seq), (seq % 2 == 0).then_some(true));
        assert_eq!(omit, OmittedFields::Nothing);
        lines.push_str(std::str::from_utf8(&frame).expect("UTF-8"));
        lines.push('\n');
    }
    // This entry exceeds both size limits: with the first limit, `OmittedFields::Bulk` is omitted, with the second one
    // `OmittedFields::Most`.
    let large = format!(
        r#"{{"category":"data","action":"file.upload","outcome":"success","user":"alice","details":{{"text":"{}"}}}}"#,
        "x".repeat(9_000)
    );
    let text = body(10, &large, "");
    let row = row(&text, Integrity::Ok);
    for size_max in [4_096, 900] {
        let (frame, _) = Syslog { size_max, ..syslog }.frame(event(&row, 10), None);
        lines.push_str(std::str::from_utf8(&frame).expect("UTF-8"));
        lines.push('\n');
    }
    compare("syslog.txt", &lines);
}

#[test]
fn a_frame_says_its_length() {
    let syslog = Syslog { format: Format::Ocsf, enterprise: 1, size_max: 8_192 };
    for (seq, (body, integrity)) in (0..).zip(texts()) {
        let row = row(&body, integrity);
        let (frame, _) = syslog.frame(event(&row, seq), None);
        let space = frame.iter().position(|byte| *byte == b' ').expect("a space");
        let length: usize = std::str::from_utf8(&frame[..space]).expect("digits").parse().expect("a length");
        assert_eq!(length, frame.len() - space - 1);
    }
}

/// The largest entry that a caller can record can be shortened to fit into the smallest message that can be configured.
#[test]
fn the_longest_entry_fits_into_the_smallest_message() {
    let text = |count: usize| "\\\"".repeat(count / 2);
    let long = |bytes: usize| Value::from(text(bytes));
    let caller = serde_json::json!({
        "category": "security", "action": format!("{}.x", "a".repeat(limits::ACTION_BYTES_MAX - 2)), "outcome": "success",
        "user": long(limits::IDENTIFIER_BYTES_MAX), "impersonator": long(limits::IDENTIFIER_BYTES_MAX),
        "session": long(limits::IDENTIFIER_BYTES_MAX), "ip_address": long(250), "description": long(limits::LONG_TEXT_BYTES_MAX),
        "path": long(limits::LONG_TEXT_BYTES_MAX), "user_agent": long(limits::LONG_TEXT_BYTES_MAX), "details": { "a": long(15_000) },
    });
    let flag = r#"{"rule":"sensitive_deletion","reason":"0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123"}"#;
    let flags = format!("[{}]", [flag; 8].join(","));
    let body = body(u64::from(u32::MAX), &caller.to_string(), &flags);
    for format in [Format::Native, Format::Ocsf, Format::Ecs, Format::Cef] {
        let row = row(&body, Integrity::Ok);
        let syslog = Syslog { format, enterprise: u32::MAX, size_max: SYSLOG_BYTES_MIN };
        let (frame, omit) = syslog.frame(event(&row, 1 << 40), Some(false));
        assert_eq!(omit, OmittedFields::Most);
        assert!(frame.len() <= SYSLOG_BYTES_MIN, "{format:?}: {} bytes", frame.len());
        // An edited row may exceed every limit of entries.
        let edited = body.replace("security", &"s".repeat(9_000)).replace("sensitive_deletion", &"d".repeat(900));
        let row = self::row(&edited, Integrity::Violation);
        let (frame, _) = syslog.frame(event(&row, 1), None);
        assert!(frame.len() <= SYSLOG_BYTES_MIN, "{format:?}: {} bytes", frame.len());
        let edited = body.replace("success", &"\\u0001".repeat(256)).replace("security", &"\\u0002".repeat(256));
        let row = self::row(&edited, Integrity::Violation);
        let (frame, _) = syslog.frame(event(&row, 1), None);
        assert!(frame.len() <= SYSLOG_BYTES_MIN, "{format:?}: {} bytes", frame.len());
    }
}

/// An attacker who edits a row must not be able to add a line to the output.
#[test]
fn an_edited_row_stays_one_line() {
    let edited = body(1, r#"{"category":"data","action":"a.b","details":{"a":1}}"#, "")
        .replace("{\"a\":1}", "[\n{\"forged\":true}\n]");
    let row = row(&edited, Integrity::Violation);
    for format in [Format::Native, Format::Ocsf, Format::Ecs, Format::Cef] {
        let line = event(&row, 1).to_text(format);
        assert!(!line.contains('\n') && line.contains("violation"), "{line}");
    }
}
