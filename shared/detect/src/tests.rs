//! Tests each rule at its limits, with events in any order, and after a rollback.

use super::*;
use piperoll_format::entry::CallerEntry;

/// 2026-04-15T12:00:00Z, a Wednesday.
const NOON: i64 = 1_776_254_400_000_000;
const MINUTE: i64 = 60_000_000;

fn detector() -> Detector {
    Detector::new(Rules::default())
}

fn rules_hit(detector: &mut Detector, entry: &str, at: i64) -> Vec<String> {
    let entry = CallerEntry::parse(entry.as_bytes()).expect("an entry");
    detector.detect(entry.rule_input(), Timestamp::from_micros(at)).into_iter().map(|flag| flag.rule).collect()
}

#[test]
fn each_rule_at_its_limit() {
    let mut detector = detector();
    let price = |old: &str, new: &str| {
        format!(
            r#"{{"category":"data","action":"order.update","changes":[{{"field":"line.unit_price","old":{old},"new":{new}}}]}}"#
        )
    };
    for (old, new, flagged) in [
        ("100", "125", false),
        ("100", "126", true),
        ("100", "74", true),
        ("0", "1", true),
        ("0", "0", false),
        ("1.2", "1.5", false),
        (r#""12.50 EUR""#, r#""20.00 EUR""#, true),
        (r#""a""#, r#""b""#, false),
    ] {
        let hit = rules_hit(&mut detector, &price(old, new), NOON);
        assert_eq!(hit == ["value_changed"], flagged, "{old} to {new}: {hit:?}");
    }

    let act = r#"{"category":"data","action":"mail.release","user":"alice"}"#;
    for n in 0..20 {
        assert!(rules_hit(&mut detector, act, NOON + n).is_empty());
    }
    assert_eq!(rules_hit(&mut detector, act, NOON + 20), ["many_operations"]);
    assert!(rules_hit(&mut detector, act, NOON + 6 * MINUTE).is_empty());

    let at = |hour: i64| NOON + (hour - 12) * 60 * MINUTE;
    let night = r#"{"category":"config","action":"dns.set","user":"bob"}"#;
    assert!(rules_hit(&mut detector, night, at(21)).is_empty());
    assert_eq!(rules_hit(&mut detector, night, at(22)), ["outside_hours"]);
    assert_eq!(rules_hit(&mut detector, night, at(29)), ["outside_hours"]);
    assert!(rules_hit(&mut detector, night, at(30)).is_empty());
    let service = r#"{"category":"config","action":"dns.set","user":"cron","user_type":"service"}"#;
    assert!(rules_hit(&mut detector, service, at(23)).is_empty());

    let gone = |kind: &str| {
        format!(r#"{{"category":"user","action":"{kind}.delete","entity_type":"{kind}","entity_id":"7"}}"#)
    };
    assert_eq!(rules_hit(&mut detector, &gone("user"), NOON), ["sensitive_deletion"]);
    assert!(rules_hit(&mut detector, &gone("note"), NOON).is_empty());

    let edit = r#"{"category":"data","action":"page.update","user":"eve","entity_type":"page","entity_id":"7"}"#;
    for n in 0..4 {
        assert!(rules_hit(&mut detector, edit, NOON + n * MINUTE).is_empty());
    }
    assert_eq!(rules_hit(&mut detector, edit, NOON + 5 * MINUTE), ["repeated_edits"]);

    let failed =
        r#"{"category":"auth","action":"auth.login","user":"x","outcome":"failure","ip_address":"2001:db8::1"}"#;
    let neighbour = failed.replace("::1", "::2");
    for n in 0..4 {
        assert!(rules_hit(&mut detector, if n % 2 == 0 { failed } else { &neighbour }, NOON + n).is_empty());
    }
    assert_eq!(rules_hit(&mut detector, failed, NOON + 9 * MINUTE), ["failed_logins"]);

    let login = |ip: &str| {
        format!(r#"{{"category":"auth","action":"auth.login","user":"kim","outcome":"success","ip_address":"{ip}"}}"#)
    };
    assert!(rules_hit(&mut detector, &login("192.0.2.1"), NOON).is_empty(), "the first login of all");
    assert_eq!(rules_hit(&mut detector, &login("192.0.2.2"), NOON), ["new_address"]);
    assert!(rules_hit(&mut detector, &login("192.0.2.2"), NOON).is_empty());
    assert_eq!(
        rules_hit(&mut detector, &login("192.0.2.1"), NOON + 91 * MICROS_PER_DAY),
        ["new_address"],
        "not for so long"
    );

    let acting = r#"{"category":"data","action":"mail.read","user":"victim","impersonator":"root"}"#;
    assert_eq!(rules_hit(&mut detector, acting, NOON), ["impersonation"]);
}

#[test]
fn a_login_with_another_program_is_marked_and_an_update_is_not() {
    let mut detector = detector();
    let login = |user: &str, agent: &str| {
        format!(
            r#"{{"category":"auth","action":"auth.login","user":"{user}","outcome":"success","ip_address":"192.0.2.1","user_agent":"{agent}"}}"#
        )
    };
    let firefox = "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0";
    let updated = "Mozilla/5.0 (X11; Linux x86_64; rv:129.0) Gecko/20100101 Firefox/129.0.1";
    let phone = "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) Safari/604.1";
    assert!(rules_hit(&mut detector, &login("kim", firefox), NOON).is_empty(), "the first login of all");
    assert!(rules_hit(&mut detector, &login("kim", updated), NOON).is_empty());
    assert_eq!(rules_hit(&mut detector, &login("kim", phone), NOON), ["new_device"]);
    assert!(rules_hit(&mut detector, &login("kim", phone), NOON).is_empty());
    assert_eq!(
        rules_hit(&mut detector, &login("kim", firefox), NOON + 91 * MICROS_PER_DAY),
        ["new_address", "new_device"]
    );
    // Without a user agent, the device is unknown.
    let silent =
        r#"{"category":"auth","action":"auth.login","user":"lee","outcome":"success","ip_address":"192.0.2.1"}"#;
    assert!(rules_hit(&mut detector, silent, NOON).is_empty());
    assert!(rules_hit(&mut detector, &login("lee", phone), NOON).is_empty());
    // Expenses are among the sensitive entity types.
    let gone = r#"{"category":"data","action":"expense.delete","entity_type":"expenses","entity_id":"7","user":"kim"}"#;
    assert_eq!(rules_hit(&mut detector, gone, NOON), ["sensitive_deletion"]);
}

#[test]
fn names_are_read_as_people_write_them() {
    let mut detector = detector();
    for (action, kind, flagged) in [
        ("DeleteUser", "User", true),
        ("users.deleteMany", "users", true),
        ("user.undelete_request", "user", false),
        ("user.remove", "user", true),
        ("user.delete", "feedback", false),
    ] {
        let entry = format!(r#"{{"category":"user","action":"{action}","entity_type":"{kind}","entity_id":"7"}}"#);
        assert_eq!(rules_hit(&mut detector, &entry, NOON) == ["sensitive_deletion"], flagged, "{action} {kind}");
    }
    for (field, flagged) in
        [("price", true), ("unitPrice", true), ("feedback_id", false), ("generated_count", false), ("iterate", false)]
    {
        let entry = format!(r#"{{"category":"data","action":"a","changes":[{{"field":"{field}","old":1,"new":9}}]}}"#);
        assert_eq!(rules_hit(&mut detector, &entry, NOON) == ["value_changed"], flagged, "{field}");
    }
    let denied =
        r#"{"category":"user","action":"user.delete","entity_type":"user","entity_id":"7","outcome":"denied"}"#;
    let entry = CallerEntry::parse(denied.as_bytes()).expect("an entry");
    let flags = detector.detect(entry.rule_input(), Timestamp::from_micros(NOON));
    assert_eq!(flags[0].reason, "user: deletion attempted");
    let failed = r#"{"category":"auth","action":"auth.login_failed","user":"x","peer_address":"192.0.2.9"}"#;
    for n in 0..4 {
        assert!(rules_hit(&mut detector, failed, NOON + n).is_empty());
    }
    assert_eq!(rules_hit(&mut detector, failed, NOON + 5), ["failed_logins"]);
}

#[test]
fn what_a_full_window_drove_out_comes_back() {
    let mut detector = detector();
    let act = r#"{"category":"data","action":"mail.release","user":"alice"}"#;
    for n in 0..20 {
        rules_hit(&mut detector, act, NOON + n);
    }
    detector.commit();
    for n in 20..50 {
        rules_hit(&mut detector, act, NOON + n);
    }
    detector.rollback_to(0);
    assert_eq!(rules_hit(&mut detector, act, NOON + 60), ["many_operations"]);
}

#[test]
fn rules_look_at_when_it_happened() {
    let mut detector = detector();
    let night = r#"{"category":"data","action":"a.b","user":"bob","occurred_at":"2026-04-15T23:30:00+02:00"}"#;
    assert!(rules_hit(&mut detector, night, NOON).is_empty(), "21:30 UTC");
    let rules: Rules = toml::from_str("outside_hours = { zone = \"Europe/Berlin\", weekends = true }").expect("rules");
    let mut berlin = Detector::new(rules);
    assert_eq!(rules_hit(&mut berlin, night, NOON), ["outside_hours"]);
    let sunday = night.replace("2026-04-15T23", "2026-04-19T12");
    assert_eq!(rules_hit(&mut berlin, &sunday, NOON), ["outside_hours"]);
}

#[test]
fn what_was_not_recorded_is_forgotten() {
    let mut detector = detector();
    let act = r#"{"category":"data","action":"mail.release","user":"alice"}"#;
    let mark = detector.mark();
    for n in 0..20 {
        rules_hit(&mut detector, act, NOON + n);
    }
    detector.rollback_to(mark);
    for n in 0..20 {
        assert!(rules_hit(&mut detector, act, NOON + n).is_empty());
    }
    detector.commit();
    detector.rollback_to(0);
    assert_eq!(rules_hit(&mut detector, act, NOON + 30), ["many_operations"], "what was settled stays");

    let login =
        r#"{"category":"auth","action":"auth.login","user":"kim","outcome":"success","ip_address":"192.0.2.1"}"#;
    let mark = detector.mark();
    rules_hit(&mut detector, login, NOON);
    detector.rollback_to(mark);
    assert!(rules_hit(&mut detector, &login.replace("2.1", "2.2"), NOON).is_empty());
}

#[test]
fn rules_are_checked_and_can_be_off() {
    let none: Rules = toml::from_str("impersonation = false\nmany_operations = true\nfailed_logins = { at_least = 3 }")
        .expect("rules");
    assert!(none.impersonation.0.is_none());
    assert_eq!(none.many_operations, Rule::default());
    assert_eq!(none.failed_logins.0.as_ref().map(|r| (r.at_least, r.within.as_secs())), Some((3, 600)));
    none.check().expect("good numbers");
    for bad in [
        "many_operations = { more_than = 0 }",
        "repeated_edits = { within = \"8d\" }",
        "value_changed = { over_percent = -1.0 }",
        "new_address = { days = 0 }",
        "machines = [\"\"]",
    ] {
        assert!(toml::from_str::<Rules>(bad).expect(bad).check().is_err(), "{bad}");
    }
    for bad in [
        "outside_hours = { zone = \"Mars\" }",
        "outside_hours = { from = \"25:00\" }",
        "outside_hours = { from = \"1093:00\" }",
        "odd = true",
    ] {
        assert!(toml::from_str::<Rules>(bad).is_err(), "{bad}");
    }
    let mut detector = Detector::new(Rules::none());
    assert!(
        rules_hit(&mut detector, r#"{"category":"data","action":"a","user":"v","impersonator":"r"}"#, NOON).is_empty()
    );
}

#[test]
fn reasons_fit_what_is_set_aside_for_them() {
    let mut detector = detector();
    let user = "\u{1F600}\\\"".repeat(40);
    let entry = serde_json::json!({
        "category": "auth", "action": "auth.login", "user": user, "impersonator": user, "outcome": "success",
        "ip_address": "192.0.2.1", "changes": [{"field": "price".to_owned() + &user, "old": 1, "new": 3}],
    });
    let entry = CallerEntry::parse(entry.to_string().as_bytes()).expect("an entry");
    let flags = detector.detect(entry.rule_input(), Timestamp::from_micros(NOON));
    assert_eq!(flags.len(), 2);
    for flag in flags {
        let text = serde_json::to_string(&flag.reason).expect("text");
        assert!(text.len() <= FLAG_REASON_BYTES_MAX + 2, "{text}");
    }
}
