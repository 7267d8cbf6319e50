//! Tests masking on labeled texts: secrets are masked completely, and other text is kept.
//!
//! A line of a corpus has `text` or `details`. A positive case also has `secrets` (exactly as written) and the texts to `keep`.
//! The signs «» inside keys and tokens are removed when a corpus is read, so that no file in this tree contains text that looks
//! like a key or token.

use piperoll_redact::Redactor;
use proptest::prelude::*;
use serde_json::{Value, json};

/// One labelled text.
struct Case {
    id: String,
    context: String,
    details: Value,
    secrets: Vec<String>,
    keep: Vec<String>,
    is_positive: bool,
}

fn read(corpus: &str) -> Vec<Case> {
    let texts = |value: &Value| -> Vec<String> {
        value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let parse = |line: &str| {
        let case: Value = serde_json::from_str(&line.replace(['«', '»'], "")).expect("a line of JSON");
        let word = |name: &str| case[name].as_str().unwrap_or_default().to_owned();
        Case {
            id: word("id"),
            context: word("context"),
            details: if case["details"].is_null() { json!({ "v": case["text"] }) } else { case["details"].clone() },
            secrets: texts(&case["secrets"]),
            keep: texts(&case["keep"]),
            is_positive: case["kind"] == "positive",
        }
    };
    corpus.lines().filter(|line| !line.trim().is_empty()).map(parse).collect()
}

/// Appends all texts in a value, including keys, each on its own line.
fn texts_of(value: &Value, out: &mut String) {
    match value {
        Value::String(text) => out.push_str(text),
        Value::Array(items) => items.iter().for_each(|item| texts_of(item, out)),
        Value::Object(members) => members.iter().for_each(|(key, value)| {
            out.push_str(key);
            out.push('\n');
            texts_of(value, out);
        }),
        other => out.push_str(&other.to_string()),
    }
    out.push('\n');
}

/// Result of masking a case.
struct Outcome {
    is_masked: bool,
    leaks: bool,
    destroys: bool,
    shown: String,
}

fn outcome(redactor: &Redactor, case: &Case) -> Outcome {
    let entry = json!({ "category": "data", "action": "mask.case", "details": case.details }).to_string();
    let masked = redactor.entry(&entry).into_owned();
    let value: Value = serde_json::from_str(&masked).expect("JSON stays JSON");
    assert_eq!(redactor.entry(&masked), masked, "{}: masking again changes nothing", case.id);
    let mut shown = String::new();
    texts_of(&value["details"], &mut shown);
    Outcome {
        is_masked: !value["redacted"].is_null(),
        leaks: case.secrets.iter().any(|secret| shown.contains(secret)),
        destroys: case.keep.iter().any(|keep| !shown.contains(keep)),
        shown,
    }
}

#[derive(Debug, Default)]
struct Score {
    positives: usize,
    found: usize,
    negatives: usize,
    spared: usize,
    kept: usize,
    lies: usize,
}

impl Score {
    fn recall(&self) -> f64 {
        self.found as f64 / self.positives as f64
    }

    /// Returns the fraction of masked cases that had a secret.
    fn precision(&self) -> f64 {
        self.found as f64 / (self.found + self.negatives - self.spared) as f64
    }
}

fn score(corpus: &str) -> Score {
    let redactor = Redactor::shared();
    let mut score = Score::default();
    for case in read(corpus) {
        let outcome = outcome(redactor, &case);
        if case.is_positive {
            score.positives += 1;
            score.found += usize::from(!outcome.leaks);
            score.kept += usize::from(!outcome.destroys);
            score.lies += usize::from(outcome.leaks && outcome.is_masked);
            if outcome.leaks || outcome.destroys {
                let what = if outcome.leaks && outcome.is_masked {
                    "LIE "
                } else if outcome.leaks {
                    "LEAK"
                } else {
                    "KEEP"
                };
                eprintln!(
                    "{what} {} [{}] {:?} {:?} -> {}",
                    case.id,
                    case.context,
                    case.secrets,
                    case.keep,
                    outcome.shown.trim().replace('\n', "⏎")
                );
            }
        } else {
            score.negatives += 1;
            score.spared += usize::from(!outcome.is_masked);
            if outcome.is_masked {
                eprintln!(
                    "FALSE {} [{}] {} -> {}",
                    case.id,
                    case.context,
                    case.details,
                    outcome.shown.trim().replace('\n', "⏎")
                );
            }
        }
    }
    eprintln!("recall {:.3}, precision {:.3}: {score:?}", score.recall(), score.precision());
    score
}

#[test]
fn secrets_in_every_named_context_are_masked_and_what_is_none_stays() {
    for corpus in [
        include_str!("masking/contexts.ndjson"),
        include_str!("masking/responders.ndjson"),
        include_str!("masking/reviewers.ndjson"),
        include_str!("masking/platform.ndjson"),
    ] {
        let score = score(corpus);
        assert!(score.positives >= 200 && score.negatives >= 200);
        assert_eq!((score.found, score.spared, score.lies), (score.positives, score.negatives, 0));
    }
}

/// Contexts in which `§` marks the position of a secret, and the quoting that the secret needs there.
const CONTEXTS: [(&str, Quoting); 64] = [
    ("GET /login?user=bob&password=§&next=/", Quoting::Url),
    ("POST body user[password]=§&commit=1", Quoting::Url),
    ("/sso?next=%2Fcb%3Faccess_token%3D§%26a%3D1", Quoting::UrlTwice),
    ("/login?pass%77ord=§", Quoting::Url),
    ("/cb?state=1&code=§x9Y8z7&session_state=2", Quoting::Url),
    ("/blob?sv=2022&sig=§x9Y8z7%3D", Quoting::Url),
    ("password=§", Quoting::Bare),
    ("login with password=§ failed", Quoting::Bare),
    ("PGPASSWORD=§ psql -h db", Quoting::Bare),
    ("export API_TOKEN=§\nexport X=1", Quoting::Bare),
    ("password: §", Quoting::Bare),
    ("user: bob\npassword: §\nhost: db", Quoting::Bare),
    ("db:\n  password: \"§\"\n  port: 5", Quoting::Double),
    ("db:\n  secret: |\n    §\n  port: 5", Quoting::Bare),
    ("password = \"§\"", Quoting::Double),
    ("password := \"§\"", Quoting::Double),
    ("password == '§'", Quoting::Single),
    ("{\"user\"=>\"bob\", \"password\"=>\"§\"}", Quoting::Double),
    ("{:user=>\"bob\", :password=>\"§\"}", Quoting::Double),
    ("['password' => '§', 'a' => 1]", Quoting::Single),
    ("array(1) {\n  [\"password\"]=>\n  string(9) \"§\"\n}", Quoting::Double),
    ("{'user': 'bob', 'api_key': '§'}", Quoting::Single),
    ("Config { user: \"bob\", password: \"§\" }", Quoting::Double),
    ("Login(user='bob', password='§')", Quoting::Single),
    ("$user->password -> \"§\"", Quoting::Double),
    ("Authorization: Bearer §", Quoting::Bare),
    ("Authorization: Basic §", Quoting::Bare),
    ("curl -H \"X-Api-Key: §\" https://x/", Quoting::Double),
    ("Cookie: sid=§; theme=dark", Quoting::Bare),
    ("mysql --user root --password §", Quoting::Bare),
    ("mysql --password=§ db", Quoting::Bare),
    ("mysql -uroot -p'§' db", Quoting::Single),
    ("curl -u bob:§ https://x/", Quoting::Bare),
    ("sshpass -p '§' ssh h", Quoting::Single),
    ("redis-cli -a § ping", Quoting::Bare),
    ("docker login -u bob -p § reg", Quoting::Bare),
    ("openssl rsa -passin pass:§ -in k", Quoting::Bare),
    ("CREATE USER bob IDENTIFIED BY '§'", Quoting::Sql),
    ("ALTER ROLE bob WITH PASSWORD '§' VALID UNTIL 'x'", Quoting::Sql),
    ("SET PASSWORD FOR 'bob'@'%' = PASSWORD('§')", Quoting::Sql),
    ("INSERT INTO users (name, password) VALUES ('bob', '§')", Quoting::Sql),
    ("UPDATE users SET password = '§' WHERE id = 1", Quoting::Sql),
    ("postgres://app:§@db/x", Quoting::Url),
    ("redis://:§@h:6379/0", Quoting::Url),
    ("bob:§@tcp(db:3306)/x", Quoting::Url),
    ("Server=h;Uid=b;Pwd=§;Database=d", Quoting::Bare),
    ("host=h user=b password='§' dbname=x", Quoting::Single),
    ("jdbc:postgresql://h/x?user=b&password=§", Quoting::Url),
    ("AccountName=a;AccountKey=§==;EndpointSuffix=x", Quoting::Bare),
    ("<login><user>b</user><password>§</password></login>", Quoting::Xml),
    ("<password><![CDATA[§]]></password>", Quoting::Bare),
    ("<add key=\"DbPassword\" value=\"§\"/>", Quoting::Xml),
    ("<x password=\"§\" y=\"1\"/>", Quoting::Xml),
    ("&lt;password&gt;§&lt;/password&gt;", Quoting::Xml),
    ("body {\"password\":\"§\",\"n\":1}", Quoting::Json),
    ("body [{\"name\":\"password\",\"value\":\"§\"}]", Quoting::Json),
    ("{\"op\":\"replace\",\"path\":\"/users/0/password\",\"value\":\"§\"}", Quoting::Json),
    ("[[\"X-Auth-Token\",\"§\"]]", Quoting::Json),
    ("[\"mysql\",\"--password\",\"§\"]", Quoting::Json),
    ("{\"a\":{\"secret\":{\"value\":\"§\"}}}", Quoting::Json),
    ("body {\\\"token\\\": \\\"§\\\"}", Quoting::Plain),
    ("s:8:\"password\";s:9:\"§\";", Quoting::Plain),
    ("headers=[('x-api-key', '§'), ('a', 'b')]", Quoting::Single),
    ("the password is \"§x9Y#\"", Quoting::Double),
];

/// Quoting that a context requires for a secret.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Quoting {
    /// Unchanged: the context needs no quoting.
    Bare,
    /// Letters and digits only.
    Plain,
    Single,
    Double,
    Sql,
    Url,
    /// In a URL that is a parameter of another URL.
    UrlTwice,
    Xml,
    Json,
}

fn written(secret: &str, quoting: Quoting) -> String {
    match quoting {
        Quoting::Bare => secret.to_owned(),
        Quoting::Plain => secret.chars().filter(char::is_ascii_alphanumeric).collect(),
        Quoting::Single => secret.replace('\\', "\\\\").replace('\'', "\\'"),
        Quoting::Double => secret.replace('\\', "\\\\").replace('"', "\\\""),
        Quoting::Sql => secret.replace('\'', "''"),
        Quoting::Xml => secret.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;"),
        Quoting::UrlTwice => written(secret, Quoting::Url).replace('%', "%25"),
        Quoting::Json => {
            let quoted = json!(secret).to_string();
            quoted[1..quoted.len() - 1].to_owned()
        }
        Quoting::Url => secret
            .bytes()
            .map(|b| {
                if b.is_ascii_alphanumeric() || b"-._~!*()@:/$".contains(&b) {
                    char::from(b).to_string()
                } else {
                    format!("%{b:02X}")
                }
            })
            .collect(),
    }
}

/// Wraps a text with a secret in an entry.
fn entry_with(text: &str, wrapping: u8) -> Value {
    let details = match wrapping {
        0 => json!({ "v": text }),
        1 => json!({ "v": json!({ "inner": text }).to_string() }),
        2 => json!({ "v": json!({ "a": json!({ "inner": text }).to_string() }).to_string() }),
        3 => json!({ "list": [{ "message": text }] }),
        _ => json!({ "v": "x" }),
    };
    match wrapping {
        4 => json!({ "category": "data", "action": "a", "description": text }),
        5 => json!({ "category": "data", "action": "a", "changes": [{ "field": "note", "old": text, "new": text }] }),
        _ => json!({ "category": "data", "action": "a", "details": details }),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4_000, failure_persistence: None, ..ProptestConfig::default() })]

    /// A secret in any of `CONTEXTS` is masked completely, however it is quoted and wrapped. No output is marked `redacted` while
    /// a part of the secret remains in it.
    #[test]
    fn no_context_leaves_a_secret_beside_its_mask(
        head in "[A-Za-z0-9]{3,6}",
        sign in "[-_.!#$^*+,;()'\"&%/@:|~]?",
        tail in "[a-z][A-Z][0-9][A-Za-z0-9]{3,8}",
        context in 0..CONTEXTS.len(),
        wrapping in 0..6_u8,
    ) {
        let secret = format!("{head}{sign}{tail}");
        let (template, quoting) = CONTEXTS[context];
        let as_written = written(&secret, quoting);
        let text = template.replace('§', &as_written);
        let entry = entry_with(&text, wrapping).to_string();
        let out = Redactor::shared().entry(&entry).into_owned();
        // If the mask ended too early, the end of the secret would remain.
        prop_assert!(!out.contains(&tail), "{text} -> {out}");
        prop_assert!(out.contains("\"redacted\""), "{text} -> {out}");
        prop_assert_eq!(Redactor::shared().entry(&out).into_owned(), out.clone(), "masking again changes nothing");
        prop_assert!(serde_json::from_str::<Value>(&out).is_ok());
    }

    /// For any text, masking terminates, returns JSON, and sets `redacted` if and only if it masked something.
    #[test]
    fn any_text_is_masked_into_json(text in "(password|token|[a-z:=&?'\"\\\\{}\\[\\]<>%/@ -]){0,40}") {
        let entry = entry_with(&text, 0).to_string();
        let out = Redactor::shared().entry(&entry).into_owned();
        let value: Value = serde_json::from_str(&out).expect("JSON");
        prop_assert_eq!(value["redacted"].is_null(), out == entry);
    }
}

#[test]
fn what_is_nested_too_deep_is_masked_whole_and_said() {
    for levels in [33, 8_000, 100_000] {
        let text = "[".repeat(levels) + "\"x\"" + &"]".repeat(levels);
        let out = Redactor::shared().entry(&entry_with(&text, 0).to_string()).into_owned();
        assert_eq!(
            out,
            r#"{"action":"a","category":"data","details":{"v":"***"},"redacted":["details.v (nested too deep)"]}"#
        );
    }
    // JSON nested in JSON strings: the fourth level is not parsed.
    let mut text = json!({ "password": "x9" }).to_string();
    for _ in 0..6 {
        text = json!({ "a": text }).to_string();
    }
    let out = Redactor::shared().entry(&entry_with(&text, 0).to_string()).into_owned();
    assert!(!out.contains("x9") && out.contains("nested too deep"), "{out}");
}

#[test]
fn copies_of_a_secret_go_too() {
    let entry = json!({ "category": "data", "action": "a", "description": "kim typed Tr0ub4dor-9x", "details": { "password": "Tr0ub4dor-9x", "raw": "Tr0ub4dor-9x/again" } });
    let out = Redactor::shared().entry(&entry.to_string()).into_owned();
    assert!(!out.contains("Tr0ub4dor"), "{out}");
    // A user name is not masked merely because another field contains the same text as a password.
    let entry = json!({ "category": "data", "action": "a", "user": "admin", "details": { "password": "admin" } });
    assert!(Redactor::shared().entry(&entry.to_string()).contains(r#""user":"admin""#));
}
