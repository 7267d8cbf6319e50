//! Generates a realistic day of a mail cluster with an intrusion in it, deterministically.

use chrono::{DateTime, Duration, NaiveDate, NaiveTime, Utc};
use serde_json::{Value, json};

const NODES: usize = 3;
const ORDINARY_EVENTS: usize = 3_600;
const STAFF: [(&str, &str); 6] = [
    ("s.bauer", "198.51.100.21"),
    ("m.keller", "198.51.100.34"),
    ("a.novak", "198.51.100.47"),
    ("j.lindqvist", "2001:db8:40::17"),
    ("r.okafor", "198.51.100.52"),
    ("t.moreau", "2001:db8:40::2a"),
];
const DOMAINS: [&str; 4] = ["example.org", "example.net", "shop.example.com", "clinic.example.org"];
const ATTACKER: &str = "203.0.113.77";

/// A small random number generator with a fixed seed (xorshift, Marsaglia 2003), so that every run generates the same day.
struct SeededRng(u64);

impl SeededRng {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % sides.max(1) as u64).unwrap_or(0)
    }
}

struct ScenarioEvent {
    at: DateTime<Utc>,
    node: usize,
    entry: Value,
}

/// Date of the scenario, in UTC.
pub(super) const DAY: &str = "2026-04-15";

/// Returns the NDJSON lines of each node, ordered by the time of the event.
pub(super) fn day() -> Vec<Vec<String>> {
    let midnight = DAY.parse().map(|day: NaiveDate| day.and_time(NaiveTime::MIN).and_utc()).unwrap_or_default();
    let mut dice = SeededRng(0x9e37_79b9_7f4a_7c15);
    let mut events: Vec<ScenarioEvent> = (0..ORDINARY_EVENTS).map(|_| ordinary(&mut dice, midnight)).collect();
    events.extend(intrusion(&mut dice, midnight));
    events.extend(four_eyes(midnight));
    events.sort_by_key(|event| event.at);
    let mut nodes = vec![Vec::new(); NODES];
    for mut event in events {
        event.entry["occurred_at"] = json!(event.at.to_rfc3339_opts(chrono::SecondsFormat::Millis, true));
        nodes[event.node].push(event.entry.to_string());
    }
    nodes
}

/// Returns a random time, mostly in office hours.
fn office_time(dice: &mut SeededRng, midnight: DateTime<Utc>) -> DateTime<Utc> {
    let seconds = if dice.roll(10) < 8 { 7 * 3_600 + dice.roll(11 * 3_600) } else { dice.roll(24 * 3_600) };
    midnight + Duration::seconds(seconds as i64) + Duration::milliseconds(dice.roll(1_000) as i64)
}

fn ordinary(dice: &mut SeededRng, midnight: DateTime<Utc>) -> ScenarioEvent {
    let (user, ip) = STAFF[dice.roll(STAFF.len())];
    let domain = DOMAINS[dice.roll(DOMAINS.len())];
    let mail = format!("{:08x}", dice.roll(0xffff_ffff));
    let base = |category: &str, action: &str, outcome: &str, text: String| {
        json!({
            "category": category, "action": action, "outcome": outcome, "user": user, "user_type": "admin",
            "ip_address": ip, "domain": domain, "description": text,
        })
    };
    let entry = match dice.roll(20) {
        0..=4 => {
            let mut entry = base("auth", "auth.login", "success", format!("{user} signed in"));
            entry["auth_method"] = json!("password+totp");
            entry
        }
        5 => {
            let mut entry = base("auth", "auth.login", "failure", format!("{user} mistyped the password"));
            entry["reason"] = json!("bad_password");
            entry
        }
        6..=11 => {
            let mut entry =
                base("data", "quarantine.release", "success", format!("released message {mail} to its recipient"));
            entry["entity_type"] = json!("mail");
            entry["entity_id"] = json!(mail);
            entry["target"] = json!(format!("office@{domain}"));
            entry
        }
        12..=14 => {
            let mut entry = base("data", "quarantine.view", "success", format!("viewed message {mail}"));
            entry["entity_type"] = json!("mail");
            entry["entity_id"] = json!(mail);
            entry
        }
        15 | 16 => {
            let limit = 10 + dice.roll(40);
            let mut entry =
                base("config", "policy.update", "success", format!("changed the spam threshold of {domain}"));
            entry["entity_type"] = json!("domain");
            entry["entity_id"] = json!(domain);
            entry["changes"] = json!([{ "field": "spam_threshold", "old": limit, "new": limit + 5 }]);
            entry
        }
        17 => {
            let mut entry = base("config", "dkim.rotate", "success", format!("rotated the DKIM key of {domain}"));
            entry["entity_type"] = json!("domain");
            entry["entity_id"] = json!(domain);
            entry["changes"] = json!([{ "field": "selector", "old": "s2025b", "new": "s2026a" }]);
            entry
        }
        18 => {
            let mut entry = base("cluster", "queue.flush", "success", "flushed the deferred queue".to_owned());
            entry["details"] = json!({ "counts": { "succeeded": dice.roll(400), "failed": dice.roll(6) } });
            entry
        }
        _ => {
            let mut entry =
                base("config", "policy.delete", "denied", format!("not allowed to delete policies of {domain}"));
            entry["reason"] = json!("role_missing");
            entry
        }
    };
    ScenarioEvent { at: office_time(dice, midnight), node: dice.roll(NODES), entry }
}

/// Creates forwarding rules that need a second person's approval: one is approved by another person, one by its creator. The
/// intruder's rule (see `intrusion`) is not approved.
fn four_eyes(midnight: DateTime<Utc>) -> Vec<ScenarioEvent> {
    let event = |minute: i64, node, action: &str, who: usize, mailbox: &str, text: &str| {
        let (user, ip) = STAFF[who];
        let entry = json!({
            "category": "config", "action": action, "outcome": "success", "user": user, "user_type": "admin",
            "ip_address": ip, "entity_type": "mailbox", "entity_id": mailbox, "description": text,
        });
        ScenarioEvent { at: midnight + Duration::minutes(minute), node, entry }
    };
    vec![
        event(612, 0, "forwarding.create", 2, "sales@example.org", "mail to sales is copied to the shop's mailbox"),
        event(624, 2, "forwarding.approve", 4, "sales@example.org", "approved after a call with the shop"),
        event(845, 1, "forwarding.create", 5, "press@example.net", "mail to press is copied to the agency"),
        event(846, 1, "forwarding.approve", 5, "press@example.net", "approved"),
    ]
}

/// Creates the intrusion: password guessing from 02:40 on, a successful login at 03:12, then redirected mail, released malware
/// and an attempt to hide the traces.
fn intrusion(dice: &mut SeededRng, midnight: DateTime<Utc>) -> Vec<ScenarioEvent> {
    let mut events = Vec::new();
    let at = |hour: i64, minute: i64, second: i64| midnight + Duration::seconds(hour * 3_600 + minute * 60 + second);
    let attacker = |category: &str, action: &str, outcome: &str, user: &str, text: &str| {
        json!({
            "category": category, "action": action, "outcome": outcome, "user": user, "ip_address": ATTACKER,
            "user_agent": "python-requests/2.31", "description": text,
        })
    };
    for guess in 0..180 {
        let user = ["admin", "root", "postmaster", "m.keller"][guess % 4];
        let mut entry = attacker("auth", "auth.login", "failure", user, "sign-in refused");
        entry["reason"] = json!("bad_password");
        let time = at(2, 40, 0) + Duration::milliseconds(guess as i64 * 10_600 + dice.roll(900) as i64);
        events.push(ScenarioEvent { at: time, node: guess % NODES, entry });
    }
    let mut tell = |time, node, entry| events.push(ScenarioEvent { at: time, node, entry });
    let mut login =
        attacker("auth", "auth.login", "success", "m.keller", "m.keller signed in from an address never seen before");
    login["auth_method"] = json!("password");
    login["session"] = json!("sess-7f3a91");
    tell(at(3, 12, 7), 1, login);
    let mut rule = attacker(
        "config",
        "forwarding.create",
        "success",
        "m.keller",
        "all mail to finance@example.org is copied to an external address",
    );
    rule["entity_type"] = json!("mailbox");
    rule["entity_id"] = json!("finance@example.org");
    rule["target"] = json!("archive-7@freemail.example");
    rule["session"] = json!("sess-7f3a91");
    tell(at(3, 14, 31), 1, rule);
    let mut denied = attacker(
        "user",
        "user.role.update",
        "denied",
        "m.keller",
        "not allowed to make herself a cluster administrator",
    );
    denied["reason"] = json!("role_missing");
    tell(at(3, 15, 2), 2, denied);
    let mut release = attacker(
        "data",
        "quarantine.release",
        "success",
        "m.keller",
        "released 14 quarantined messages with attachments",
    );
    release["details"] = json!({ "counts": { "succeeded": 14, "failed": 0 }, "verdict": "malware" });
    tell(at(3, 19, 44), 0, release);
    let key = attacker("integration", "apikey.create", "success", "m.keller", "created an API key named backup-sync");
    tell(at(3, 22, 10), 2, key);
    let hide = attacker(
        "security",
        "alert.rule.disable",
        "denied",
        "m.keller",
        "not allowed to disable the alert on new forwarding rules",
    );
    tell(at(3, 25, 58), 1, hide);
    let found = |action: &str, text: &str| {
        json!({
            "category": "security", "action": action, "outcome": "success", "user": "s.bauer", "user_type": "admin",
            "ip_address": "198.51.100.21", "description": text,
        })
    };
    tell(
        at(8, 41, 12),
        0,
        found("incident.open", "mail to finance@example.org has been leaving the company since 03:14"),
    );
    tell(at(8, 43, 50), 1, found("session.revoke", "ended every session of m.keller"));
    tell(at(8, 44, 33), 1, found("forwarding.delete", "removed the forwarding rule of finance@example.org"));
    tell(at(8, 47, 5), 2, found("apikey.revoke", "revoked the API key backup-sync"));
    events
}
