//! Protects filter terms that look like options.

use std::ffi::OsString;

use piperoll_query::filter::is_key;

/// Commands whose arguments are a filter, at the top level and under `node`.
const FILTERED: [&str; 5] = ["query", "tail", "export", "stats", "report"];

/// Puts a space before filter terms that begin with a minus (`-outcome:success`) and so look like options. The filter language
/// ignores the space. Arguments of other commands, and the value of `--reason`, which is recorded, are not changed.
pub(crate) fn protect_negation(args: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let args: Vec<OsString> = args.collect();
    let word = |at: usize| args.get(at).and_then(|arg| arg.to_str()).unwrap_or_default();
    let command = if word(1) == "node" { word(2) } else { word(1) };
    if !FILTERED.contains(&command) {
        return args;
    }
    let is_reason = |at: usize| at.checked_sub(1).is_some_and(|before| word(before) == "--reason");
    let protected = |(at, arg): (usize, &OsString)| match is_term(arg) && !is_reason(at) {
        false => arg.clone(),
        true => {
            let mut protected = OsString::from(" ");
            protected.push(arg);
            protected
        }
    };
    args.iter().enumerate().map(protected).collect()
}

fn is_term(arg: &OsString) -> bool {
    let rest = arg.to_str().and_then(|text| text.strip_prefix('-'));
    rest.is_some_and(|rest| {
        let key = rest.split([':', '=', '<', '>', '!']).next().filter(|key| key.len() < rest.len());
        rest.starts_with(['"', '(']) || key.is_some_and(|key| is_key(key) || key == "v1")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_are_told_from_options_and_from_what_is_recorded() {
        let protected = |line: &str| {
            let args = protect_negation(line.split(' ').map(OsString::from));
            args.iter().filter(|arg| arg.to_str().is_some_and(|arg| arg.starts_with(' '))).count()
        };
        for (line, count) in [
            ("piperoll query -user:kim -seq>5 -user!=lee -(a -details.n<3 --from 24h -v", 5),
            ("piperoll node query -user:kim", 1),
            ("piperoll node append --user -user:boss", 0),
            ("piperoll export --reason -\"quoted\" -user:kim", 1),
            ("piperoll tail -f -n 5", 0),
        ] {
            assert_eq!(protected(line), count, "{line}");
        }
    }
}
