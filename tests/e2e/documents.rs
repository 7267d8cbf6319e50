//! The commands and filters that the guides tell users to type are valid.

use std::path::Path;
use std::process::Command;

use piperoll_format::time::Timestamp;
use piperoll_query::filter::Filter;
use piperoll_tests::piperoll;

fn document(name: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(name)).unwrap()
}

/// Finds the commands in backticks or indented code that begin with the program's name.
fn commands(text: &str) -> Vec<String> {
    let inline = text.split('`').skip(1).step_by(2).map(str::to_owned);
    let blocks = text.lines().map(|line| line.trim().to_owned());
    inline.chain(blocks).filter(|piece| piece.starts_with("piperoll ") && !piece.contains('\n')).collect()
}

#[test]
fn commands_of_the_guides_are_understood() {
    let mut seen = 0;
    for name in ["compliance.md", "gdpr.md", "actions.md", "flags.md"] {
        for command in commands(&document(name)) {
            // With `--help` at the end, a command still reports errors in the arguments before it.
            let command = command.trim_end_matches('\\').replace(" …", "");
            let output = Command::new("sh")
                .args(["-c", &format!("{command} --help")])
                .env("PATH", format!("{}:/usr/bin:/bin", piperoll().parent().unwrap().display()))
                .output()
                .unwrap();
            let stderr = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{name}: {command}: {stderr}");
            seen += 1;
        }
    }
    assert!(seen > 40, "only {seen} commands were found");
}

#[test]
fn filters_of_the_guides_are_filters() {
    let text = document("actions.md");
    let watch = text.split("## What to watch").nth(1).unwrap();
    let mut seen = 0;
    for row in watch.lines().filter(|line| line.starts_with("| `")) {
        let filter = row.split('`').nth(1).unwrap();
        Filter::parse(filter, Timestamp::MAX).unwrap_or_else(|error| panic!("{filter}: {error}"));
        seen += 1;
    }
    assert!(seen > 12, "only {seen} filters were found");
    for command in commands(&document("compliance.md")) {
        for word in command.split(' ').filter(|word| word.contains(':') && !word.starts_with("--")) {
            Filter::parse(word, Timestamp::MAX).unwrap_or_else(|error| panic!("{word}: {error}"));
        }
    }
}
