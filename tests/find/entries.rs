//! Random entries that differ in every searchable field, and random filters over these fields.

use piperoll_format::time::Timestamp;
use piperoll_format::view::EntryView;

use super::SECOND;

pub(super) fn dice(seed: u64) -> impl FnMut(u64) -> u64 {
    let mut state = seed;
    move |sides| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % sides
    }
}

const USERS: [&str; 4] = ["alice", "bob", "Ünal", "eve\\\"x"];
const ACTIONS: [&str; 4] = ["auth.login", "auth.logout", "quarantine.release", "policy.update"];
const OUTCOMES: [&str; 3] = ["success", "failure", "denied"];
const ADDRESSES: [&str; 5] = ["10.1.0.3", "10.2.200.9", "::ffff:10.1.0.3", "2001:db8::7", "lambda.amazonaws.com"];
const TEXTS: [&str; 6] =
    ["released to its RECIPIENT", "Straße gesperrt", "ΟΔΟΣ", "a", "ticket 481 closed", "İstanbul'da oturum"];
const DETAILS: [&str; 6] = [
    "{\"queue\":\"q-0c07\"}",
    "{\"counts\":{\"ok\":3},\"affected\":[\"7\",\"domain/3\"]}",
    "{\"password\":\"x\",\"note\":\"GRÜSSE\"}",
    "{\"who\":\"M\\u00fcller\",\"url\":\"\\/index.php\",\"n\":41}",
    "{\"who\":\"Müller\",\"url\":\"/index.php\",\"n\":4.10e1}",
    "{\"queue.name\":{\"deep\":[1,{\"x\":\"Ψ\\ud83d\\ude00\"}]},\"n\":7}",
];

pub(super) fn entry(roll: &mut impl FnMut(u64) -> u64, now: Timestamp) -> String {
    let mut fields = vec![
        "\"category\":\"auth\"".to_owned(),
        format!("\"action\":\"{}\"", ACTIONS[roll(4) as usize]),
        format!("\"request_id\":\"r-{}\"", roll(10_000)),
    ];
    let mut n = roll(1 << 31);
    let mut maybe = |key: &str, value: String, one_in: u64| {
        if roll(one_in) > 0 {
            fields.push(format!("\"{key}\":{value}"));
        }
    };
    let word = |words: &[&str], n: u64| format!("\"{}\"", words[n as usize % words.len()]);
    let mut next = || {
        n = n.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        n >> 33
    };
    maybe("user", word(&USERS, next()), 8);
    maybe("outcome", word(&OUTCOMES, next()), 4);
    maybe("entity_type", word(&["mail", "domain"], next()), 4);
    maybe("entity_id", format!("\"{}\"", next() % 20), 3);
    maybe("ip_address", word(&ADDRESSES, next()), 5);
    maybe("user_agent", word(&["Mozilla/5.0 Firefox", "curl/8.1"], next()), 2);
    maybe("description", word(&TEXTS, next()), 5);
    maybe("details", DETAILS[next() as usize % DETAILS.len()].to_owned(), 2);
    maybe("changes", "[{\"field\":\"role\",\"old\":\"user\",\"new\":\"Admin\"}]".to_owned(), 2);
    maybe("impersonator", word(&["root"], 0), 2);
    if next() % 5 == 0 {
        fields.push(format!("\"occurred_at\":\"{}\"", now.plus_micros(-90 * SECOND).to_text()));
    }
    format!("{{{}}}", fields.join(","))
}

const TERMS: [&str; 62] = [
    "user:alice",
    "user:alice,bob",
    "user:\"eve\\\"x\"",
    "user:nobody",
    "actor:root",
    "subject:7",
    "subject:alice,recipient",
    "impersonator:root",
    "action:auth.login",
    "action:auth.*,policy.update",
    "outcome:failure",
    "outcome:unknown,denied",
    "entity:mail",
    "entity:mail/7,domain/3",
    "ip:10.0.0.0/8",
    "ip:10.1.0.3",
    "ip:2001:db8::/32",
    "ip:\"lambda.amazonaws.com\"",
    "agent:firefox",
    "node:mx1",
    "node:mx2",
    "via:socket",
    "category:auth",
    "category:log",
    "is:failed",
    "is:denied,bulk",
    "is:impersonated",
    "is:flagged",
    "is:redacted",
    "is:erased",
    "details:Q-0C0",
    "details:grüsse",
    "\"recipient\"",
    "STRASSE",
    "straße",
    "οδος",
    "\"81\"",
    "i̇stan",
    "user:a*",
    "user:~ALICE",
    "user:*",
    "user:*\"\\\"\"*",
    "actor:~Ro*t",
    "action:*.release,*log*",
    "verb:login,update",
    "verb:~LOG*",
    "entity:*/7",
    "entity:ma*",
    "entity:domain/3,mail/1*",
    "ip:10.1.*",
    "ip:10.1.0.0..10.2.255.255",
    "ip:*.amazonaws.com",
    "request:r-1*",
    "details:müller",
    "details:\"/index.php\"",
    "details:m*ller*php",
    "details.who:Müller",
    "details.n:41",
    "details.n:>7",
    "details.queue.name.deep.x:Ψ*",
    "changes.role.new:admin,Admin",
    "re*cip*ent",
];

pub(super) fn filter(roll: &mut impl FnMut(u64) -> u64, rows: &[Raw]) -> String {
    let mut terms = Vec::new();
    for _ in 0..=roll(3) {
        let minus = if roll(4) == 0 { "-" } else { "" };
        let any = &rows[roll(rows.len() as u64) as usize];
        let term = match roll(80) {
            0 => format!("seq:{}..{}", any.seq, any.seq + roll(400)),
            1 => format!("occurred:{}..", any.timestamp.to_text()),
            2 => format!("occurred:..{}", any.timestamp.plus_micros(-80 * SECOND).to_text()),
            3 | 4 => any.view().map_or_else(|| "seq:7".to_owned(), |view| format!("id:{}", view.id)),
            5 => format!("request:r-{}", roll(10_000)),
            n => TERMS[(n as usize - 6) % TERMS.len()].to_owned(),
        };
        terms.push(format!("{minus}{term}"));
    }
    joined(terms, roll)
}

/// Combines the terms with AND, OR and NOT, with or without parentheses.
fn joined(mut terms: Vec<String>, roll: &mut impl FnMut(u64) -> u64) -> String {
    while terms.len() > 1 {
        let at = roll(terms.len() as u64 - 1) as usize;
        let second = terms.remove(at + 1);
        let between = [" ", " AND ", " OR ", " OR "][roll(4) as usize];
        let both = format!("{}{between}{second}", terms[at]);
        terms[at] = [both.clone(), format!("({both})"), format!("NOT ({both})"), format!("-({both})")]
            [roll(4) as usize]
            .clone();
    }
    terms.remove(0)
}

/// A row as stored in SQLite.
pub(super) struct Raw {
    pub(super) seq: u64,
    pub(super) timestamp: Timestamp,
    pub(super) body: Vec<u8>,
}

impl Raw {
    pub(super) fn view(&self) -> Option<EntryView<'_>> {
        EntryView::parse(&self.body)
    }
}
