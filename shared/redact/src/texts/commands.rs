//! Finds secrets in command lines and argument lists: values of options that have a secret's name, and of options with which
//! particular programs accept a password.

use std::ops::Range;

use regex::Regex;

use super::examined::{Examined, Parts, pattern};
use crate::names::{Class, Names};
use crate::values::{is_spared, is_state};

/// Maximum number of words of one command line that are examined.
const WORDS_MAX: usize = 1_024;

/// Forms in which a program accepts a password with a short option.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum How {
    /// `-pS` only. A separate `-p` makes the program ask for the password, so the next word is not the password.
    Glued,
    /// `-p S`, and `-pS`.
    Apart,
    /// `-u user:S`; without a colon, the word is only a name.
    BehindColon,
    /// `-U user%S`
    BehindPercent,
    /// `-passin pass:S`: an option that is a whole word, followed by the password with the prefix `pass:`.
    Pass,
}

/// Programs and their password options, from their manual pages.
const OPTIONS: [(&[&str], &str, How); 26] = [
    (
        &[
            "mysql",
            "mysqldump",
            "mysqladmin",
            "mysqlimport",
            "mysqlcheck",
            "mysqlshow",
            "mysqlbinlog",
            "mysqlslap",
            "mariadb",
            "mariadb-dump",
            "mariadb-admin",
            "mycli",
            "xtrabackup",
            "innobackupex",
        ],
        "-p",
        How::Glued,
    ),
    (&["7z", "7za", "7zz", "7zr", "rar", "unrar"], "-p", How::Glued),
    (&["rar"], "-hp", How::Glued),
    (&["sshpass"], "-p", How::Apart),
    (&["redis-cli", "keydb-cli", "valkey-cli"], "-a", How::Apart),
    (&["curl", "wget"], "-u", How::BehindColon),
    (&["curl"], "-U", How::BehindColon),
    (&["curl"], "--user", How::BehindColon),
    (&["curl"], "--proxy-user", How::BehindColon),
    (&["http", "https", "httpie", "xh"], "-a", How::BehindColon),
    (&["http", "https", "httpie", "xh"], "--auth", How::BehindColon),
    (
        &["ldapsearch", "ldapmodify", "ldapadd", "ldapdelete", "ldappasswd", "ldapwhoami", "ldapmodrdn", "ldapcompare"],
        "-w",
        How::Apart,
    ),
    (&["ldappasswd"], "-s", How::Apart),
    (&["sqlcmd", "bcp", "osql", "isql", "ipmitool", "mosquitto_pub", "mosquitto_sub"], "-P", How::Apart),
    (&["zip", "unzip"], "-P", How::Apart),
    (
        &[
            "mongo",
            "mongosh",
            "mongodump",
            "mongorestore",
            "mongoexport",
            "mongoimport",
            "cqlsh",
            "rdesktop",
            "wkhtmltopdf",
            "kinit",
            "psexec",
            "psexec64",
            "influx",
            "rabbitmqadmin",
        ],
        "-p",
        How::Apart,
    ),
    (&["rabbitmqadmin", "k6"], "--password", How::Apart),
    (&["smbclient", "rpcclient", "net", "winexe", "smbget", "wmic"], "-U", How::BehindPercent),
    (&["snmpget", "snmpwalk", "snmpset", "snmpbulkwalk"], "-A", How::Apart),
    (&["snmpget", "snmpwalk", "snmpset", "snmpbulkwalk"], "-X", How::Apart),
    (&["snmpget", "snmpwalk", "snmpset", "snmpbulkwalk"], "-c", How::Apart),
    (&["openssl"], "-k", How::Apart),
    (&["openssl"], "-K", How::Apart),
    (&["openssl"], "-pass", How::Pass),
    (&["openssl"], "-passin", How::Pass),
    (&["openssl"], "-passout", How::Pass),
];
/// Programs whose `login` command accepts `-p S`.
const LOGINS: [&str; 12] =
    ["docker", "podman", "nerdctl", "buildah", "skopeo", "helm", "oras", "crane", "az", "cf", "oc", "argocd"];
/// Programs that accept a password as a separate word: the program, the words that precede the password, and the distance from
/// such a word to the password, where 0 means that the password is the last word of the command.
const POSITIONS: [(&str, &[&str], usize); 11] = [
    ("rabbitmqctl", &["add_user", "change_password", "authenticate_user"], 2),
    ("vault", &["login"], 1),
    ("net", &["user"], 2),
    ("mysqladmin", &["password"], 1),
    ("htpasswd", &["-b", "-bc", "-cb", "-nb", "-nbB", "-Bb", "-bB", "-cbB", "-nbm"], 0),
    ("ansible-vault", &["encrypt_string"], 1),
    ("cryptsetup", &["--key"], 1),
    ("signtool", &["/p", "/P"], 1),
    ("gh", &["--body", "-b"], 1),
    ("nmcli", &["password", "wifi-sec.psk", "802-11-wireless-security.psk"], 1),
    ("rootpw", &["--plaintext", "--iscrypted"], 1),
];
/// Prefixes of options that have a secret's name but no value.
const ASKING: [&str; 16] = [
    "no-",
    "ask",
    "prompt-",
    "with-",
    "without-",
    "skip-",
    "generate-",
    "show-",
    "print-",
    "reset-",
    "rotate-",
    "has-",
    "use-",
    "enable-",
    "disable-",
    "require-",
];
/// Programs that accept a password as `/p:S`.
const WINDOWS: [&str; 4] = ["xfreerdp", "wlfreerdp", "psexec", "schtasks"];
/// Options that have a secret's name, but whose value is a number or the name of a secret.
const NAMING: [(&str, &[&str]); 5] = [
    ("docker", &["--secret"]),
    ("podman", &["--secret"]),
    ("buildah", &["--secret"]),
    ("gcloud", &["--secret"]),
    ("kubectl", &["--token-ttl"]),
];

#[derive(Debug, Clone)]
pub(super) struct Commands {
    /// Quick first test of whether a line may be a command line with a secret.
    worth: Regex,
    piped: Regex,
    /// An argument in a record of auditd: `a2="…"`
    argument: Regex,
}

impl Commands {
    pub(super) fn new() -> Self {
        Self {
            worth: pattern(
                r#"(?i)(?:^|[\s=/\\("'])(?:-{1,2}[A-Za-z]|/[pP]:)|(?-u:\b)(?:rabbitmqctl|vault|net|mysqladmin|htpasswd|sqlplus|ansible-vault|config|configure|npm|nmcli|rootpw|signtool|psexec(?:64)?)(?-u:\b)"#,
            ),
            argument: pattern(r#"(?-u:\b)a[0-9]{1,3}="([^"]*)""#),
            // `echo S | passwd --stdin bob`, `echo "bob:S" | chpasswd`, `<<< S`
            piped: pattern(
                r#"(?:echo|printf)\s+(?:-[a-zA-Z]+\s+)?(?:'%s(?:\\n)?'\s+)?(?:'([^'\r\n]*)'|"([^"\r\n]*)"|([^\s|'"]+))\s*\|\s*(?:sudo\s+(?:-\S+\s+)*)?(\S*/)?(chpasswd|passwd|sudo|cryptsetup|docker|podman|helm|gpg|openssl|smbpasswd|kinit|faillock|su|mysql|htpasswd|vault|gh)(?-u:\b)"#,
            ),
        }
    }
}

/// Finds secrets in those lines of a text that look like commands, and in text that is piped to a program.
pub(super) fn in_text(commands: &Commands, examined: &Examined<'_>, parts: &mut Parts) {
    for found in commands.piped.captures_iter(examined.text) {
        let Some(said) = found.get(1).or(found.get(2)).or(found.get(3)) else { continue };
        // Keep the user name in `bob:S`.
        let begin = match said.as_str().split_once(':') {
            Some((user, _)) if found.get(5).is_some_and(|program| program.as_str() == "chpasswd") => {
                said.start() + user.len() + 1
            }
            _ => said.start(),
        };
        if !is_spared(examined.names, Class::Password, &examined.text[begin..said.end()]) {
            parts.add(begin, said.end());
        }
    }
    let mut line_start = 0;
    for line in examined.text.split_inclusive('\n') {
        let from = line_start;
        line_start += line.len();
        let is_execve = line.contains("a0=\"");
        if !is_execve && !commands.worth.is_match(line) {
            continue;
        }
        let words = if is_execve {
            let arguments = commands.argument.captures_iter(line).filter_map(|found| found.get(1));
            arguments.take(WORDS_MAX).map(|word| word.range()).collect()
        } else {
            shell_words(line)
        };
        let texts: Vec<&str> = words.iter().map(|word| &line[word.clone()]).collect();
        for (at, range) in secrets_in_words(examined.names, &texts) {
            let begin = from + words[at].start;
            parts.add(begin + range.start, begin + range.end);
        }
    }
}

/// Splits a line into words as a shell does, without the quotes around them.
fn shell_words(line: &str) -> Vec<Range<usize>> {
    let bytes = line.as_bytes();
    let mut words = Vec::new();
    let mut at = 0;
    while at < bytes.len() && words.len() < WORDS_MAX {
        let opens = bytes[at] == b'('
            || matches!(bytes[at], b',' | b'[' | b'(') && matches!(bytes.get(at + 1), Some(b'"' | b'\'' | b' '));
        if opens
            || bytes[at].is_ascii_whitespace()
            || matches!(bytes[at], b'|' | b';' | b'(' | b')') && at + 1 < bytes.len() && bytes[at + 1] == b' '
        {
            at += 1;
            continue;
        }
        let quote = Some(bytes[at]).filter(|b| matches!(b, b'"' | b'\''));
        if let Some(quote) = quote
            && let Some(length) = closing_quote(&bytes[at + 1..], quote)
            && bytes
                .get(at + 2 + length)
                .is_none_or(|b| b.is_ascii_whitespace() || matches!(b, b',' | b']' | b')' | b';' | b'|'))
        {
            words.push(at + 1..at + 1 + length);
            at += length + 2;
            continue;
        }
        let start = at;
        while at < bytes.len() && !bytes[at].is_ascii_whitespace() {
            match bytes[at] {
                b'\\' => at += 2,
                quote @ (b'"' | b'\'') if at > start => {
                    at += closing_quote(&bytes[at + 1..], quote).map_or(1, |length| length + 2);
                }
                _ => at += 1,
            }
        }
        at = at.min(bytes.len());
        while !line.is_char_boundary(at) {
            at += 1;
        }
        words.push(start..at);
    }
    words
}

fn closing_quote(bytes: &[u8], quote: u8) -> Option<usize> {
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' if quote == b'"' => at += 2,
            b if b == quote => return Some(at),
            _ => at += 1,
        }
    }
    None
}

/// State while the words of a command are read.
struct Line<'w> {
    names: &'w Names,
    words: &'w [&'w str],
    program: &'static str,
    /// Set for `docker login` and the like, where `-p` is followed by a password.
    logs_in: bool,
    found: Vec<(usize, Range<usize>)>,
}

/// Finds the secrets in a command's words. Returns, for each secret, the index of its word and its byte range in that word.
pub(in super::super) fn secrets_in_words(names: &Names, words: &[&str]) -> Vec<(usize, Range<usize>)> {
    let mut line = Line { names, words, program: "", logs_in: false, found: Vec::new() };
    let mut at = 0;
    while at < words.len().min(WORDS_MAX) {
        at += line.word(at);
    }
    let mut found = line.found;
    found.sort_by_key(|(at, range)| (*at, range.start));
    // Mask each word once, with the widest range found in it.
    found.dedup_by(|later, first| {
        let same = later.0 == first.0;
        if same {
            first.1.start = first.1.start.min(later.1.start);
            first.1.end = first.1.end.max(later.1.end);
        }
        same
    });
    found
}

impl Line<'_> {
    /// Examines one word; returns the number of words consumed.
    fn word(&mut self, at: usize) -> usize {
        let word = self.words[at];
        if let Some(name) = program_of(word) {
            // For `gh`, only `gh secret …` accepts secrets; `gh pr create --body …` does not.
            let is_gh = name == "gh" && self.words.get(at + 1) != Some(&"secret");
            (self.program, self.logs_in) = (if is_gh { "" } else { name }, false);
        }
        self.logs_in |= word == "login" && LOGINS.contains(&self.program);
        let mut taken = 1;
        if let Some(option) = word.strip_prefix('-').map(|rest| rest.strip_prefix('-').unwrap_or(rest)) {
            if self.named_option(at, option) {
                taken = 2;
            } else {
                self.short_option(at);
                self.login_option(at);
            }
        } else {
            self.plain_word(at);
        }
        self.position(at);
        taken
    }

    /// Adds a secret without the quotes around it, as in `-p'S'`.
    fn add(&mut self, at: usize, range: Range<usize>) {
        let value = &self.words[at][range.clone()];
        let inner = value.trim_matches(['"', '\'']);
        let lead = value.len() - value.trim_start_matches(['"', '\'']).len();
        if !inner.is_empty() && !is_spared(self.names, Class::Password, inner) && !is_state(inner) {
            self.found.push((at, range.start + lead..range.start + lead + inner.len()));
        }
    }

    fn value_behind(&self, at: usize) -> Option<&str> {
        self.words.get(at + 1).copied().filter(|next| is_value(next))
    }

    /// Handles `--password S`. Returns whether the next word was the option's value.
    fn named_option(&mut self, at: usize, option: &str) -> bool {
        let word = self.words[at];
        let naming = NAMING.iter().any(|(other, options)| *other == self.program && options.contains(&word));
        let asks = ASKING.iter().any(|begin| option.starts_with(begin));
        let is_long = option.len() > 2
            && !option.contains('=')
            && option.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
        if !is_long || naming || asks || !self.names.class(option).is_secret() {
            return false;
        }
        let Some(next) = self.value_behind(at) else { return false };
        // openssl: the part before the colon is the source of the password. Only `pass:` is followed by the password itself.
        let (begin, end) = match next.split_once(':') {
            Some(("pass", secret)) => (next.len() - secret.len(), next.len()),
            Some(("env" | "file" | "fd" | "stdin" | "id" | "src", _)) => return false,
            _ if next.starts_with("id=") => return false,
            _ => (0, next.len()),
        };
        self.add(at + 1, begin..end);
        true
    }

    /// Handles short options such as `-pS`, `-a S` and `-u bob:S` with the program's rows in [`OPTIONS`].
    fn short_option(&mut self, at: usize) {
        let word = self.words[at];
        for (programs, flag, how) in OPTIONS {
            if !programs.contains(&self.program) || !word.starts_with(flag) {
                continue;
            }
            let glued = word.len() > flag.len();
            let is_other = flag.starts_with("--") || word.as_bytes().get(flag.len()) == Some(&b'-');
            if glued && is_other {
                continue;
            }
            let next = self.value_behind(at).map(str::len);
            let (place, range) = match (how, glued, next) {
                (How::Pass, false, Some(length)) if self.words[at + 1].starts_with("pass:") => (at + 1, 5..length),
                (How::Pass, ..) | (How::Glued, false, _) | (_, false, None) => continue,
                (_, true, _) => (at, flag.len()..word.len()),
                (_, false, Some(length)) => (at + 1, 0..length),
            };
            let sign = match how {
                How::BehindColon => Some(':'),
                How::BehindPercent => Some('%'),
                _ => None,
            };
            let begin = match sign {
                None => range.start,
                Some(sign) => match self.words[place][range.clone()].find(sign) {
                    Some(found) => range.start + found + 1,
                    None => continue,
                },
            };
            return self.add(place, begin..range.end);
        }
    }

    fn login_option(&mut self, at: usize) {
        let word = self.words[at];
        if !self.logs_in || !word.starts_with("-p") {
            return;
        }
        match self.value_behind(at).map(str::len).filter(|_| word == "-p") {
            Some(length) => self.add(at + 1, 0..length),
            None if word.len() > 3 => self.add(at, 2..word.len()),
            None => {}
        }
    }

    /// Handles words that are not options: `/p:S`, `scott/tiger@db`, `config set NAME S`.
    fn plain_word(&mut self, at: usize) {
        let word = self.words[at];
        let slash = word.strip_prefix("/p:").or(word.strip_prefix("/P:"));
        if let Some(value) = slash.filter(|_| WINDOWS.contains(&self.program)) {
            self.add(at, word.len() - value.len()..word.len());
        } else if self.program == "sqlplus"
            && let Some((user, rest)) = word.split_once('/').filter(|(user, rest)| !user.is_empty() && !rest.is_empty())
        {
            let end = rest.rfind('@').unwrap_or(rest.len());
            self.add(at, user.len() + 1..user.len() + 1 + end);
        } else if matches!(word, "set" | "add" | "put")
            && let (Some(name), Some(value)) = (self.words.get(at + 1), self.words.get(at + 2))
        {
            // After `set`, a bare word such as `password` is a subcommand.
            let is_setting = name.contains(['.', '_', ':', '-']) && !name.starts_with('-');
            if is_setting && self.names.class(name).is_secret() && is_value(value) {
                self.add(at + 2, 0..value.len());
            }
        }
    }

    /// Handles a password that is a separate word at a position listed in [`POSITIONS`].
    fn position(&mut self, at: usize) {
        let word = self.words[at];
        for (other, subcommands, offset) in POSITIONS {
            if other != self.program || !subcommands.contains(&word) {
                continue;
            }
            let place = if offset == 0 { self.words.len() - 1 } else { at + offset };
            let Some(value) = self.words.get(place).copied().filter(|value| is_value(value)) else { continue };
            let is_far = place > at + usize::from(offset == 0) && !value.starts_with('/');
            if is_far || offset == 1 && !value.contains('=') {
                self.add(place, 0..value.len());
            }
        }
    }
}

/// Returns whether a word can be the value of an option.
fn is_value(word: &str) -> bool {
    !word.is_empty()
        && !word.starts_with("--")
        && !matches!(word, "|" | "||" | "&&" | ";" | ">" | "<" | ">>" | "-" | "\\")
        && (!word.starts_with('-') || word.len() != 2)
}

fn base_name(word: &str) -> &str {
    let word = word.rsplit(['/', '\\', '=']).next().unwrap_or(word);
    word.strip_suffix(".exe").unwrap_or(word)
}

/// Returns the program that a word names, spelled as in the tables.
fn program_of(word: &str) -> Option<&'static str> {
    let name = base_name(word);
    let is_it = |known: &&'static str| known.eq_ignore_ascii_case(name);
    let of_options = OPTIONS.iter().flat_map(|(programs, ..)| programs.iter().copied());
    let of_tables = POSITIONS.iter().map(|(program, ..)| *program).chain(NAMING.iter().map(|(program, _)| *program));
    let others = ["sqlplus", "xfreerdp", "wlfreerdp", "psexec", "schtasks"];
    of_options.chain(LOGINS).chain(of_tables).chain(others).find(is_it)
}
