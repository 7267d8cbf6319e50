//! Runs the commands of docs/verify-by-hand.md as written.

use std::process::Command;

use super::golden;

#[test]
fn the_page_for_doing_it_by_hand_works() {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/verify-by-hand.md")).unwrap();
    let blocks: Vec<&str> = page.split("```sh\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    assert_eq!(blocks.len(), 3);
    let run = |bundle: &[u8]| {
        let desk = tempfile::tempdir().unwrap();
        std::fs::write(desk.path().join("bundle.tar"), bundle).unwrap();
        std::fs::copy(golden("trust.toml"), desk.path().join("trust.toml")).unwrap();
        let script = format!("set -e\n{}", blocks.join("\n"));
        let output = Command::new("bash").arg("-c").arg(script).current_dir(desk.path()).output().unwrap();
        (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let bundle = std::fs::read(golden("whole.tar")).unwrap();
    let (good, said) = run(&bundle);
    assert!(good && said.contains("row 42 of 300 under golden/mx1/") && said.contains("\"user\":\"alice\""), "{said}");
    assert_eq!(said.matches("Signature Verified Successfully").count(), 2, "{said}");
    // Change one letter of another entry.
    let mut edited = bundle.clone();
    let at = edited.windows(13).position(|window| window == b"\"user\":\"carol").unwrap();
    edited[at + 8] = b'k';
    let (good, said) = run(&edited);
    assert!(!good && !said.contains("Verified"), "{said}");
}
