//! Journals of several boots and machines, written by `systemd-journal-remote` and read by journalctl.

use std::path::{Path, PathBuf};

use piperoll_tests::Cluster;
use serde_json::{Value, json};

use super::{JOURNAL_WRITER, configure, entries, wait_for, write_journal};

const MAP: &str = "[field.category]\nconstant = \"data\"\n[field.action]\nconstant = \"journal.said\"\n[field.description]\npointer = \"/MESSAGE\"\n";

/// Formats one journal entry in the export format.
fn entry(micros: u64, boot: &str, machine: &str, fields: &str) -> String {
    format!(
        "__REALTIME_TIMESTAMP={}\n__MONOTONIC_TIMESTAMP={}\n_BOOT_ID={}\n_MACHINE_ID={}\n_SYSTEMD_UNIT=app.service\n{fields}\n",
        1_795_000_000_000_000_u64 + micros,
        1_000 + micros,
        boot.repeat(16),
        machine.repeat(16),
    )
}

async fn following(unit: &str) -> Option<(Cluster, PathBuf)> {
    if !Path::new(JOURNAL_WRITER).exists() {
        println!("SKIPPED: nothing here writes journals (apt-get install systemd-journal-remote)");
        return None;
    }
    let cluster = Cluster::made(&["mx1"], |_| None).await;
    let journal = cluster.dir.path().join("journal");
    std::fs::create_dir(&journal).unwrap();
    std::fs::write(cluster.nodes[0].folder.join("app.toml"), MAP).unwrap();
    configure(
        &cluster,
        &format!(
            "[[intake]]\nname = \"app\"\njournald = \"{unit}\"\njournal_directory = \"../../../journal\"\nmap = \"app.toml\"\n"
        ),
    );
    Some((cluster, journal))
}

fn said(found: &[Value]) -> Vec<&str> {
    found.iter().map(|entry| entry["description"].as_str().unwrap()).collect()
}

fn gaps(cluster: &Cluster) -> Vec<Value> {
    let gaps = entries(cluster, "action:log.gap").into_iter().map(|gap| gap["details"].clone());
    gaps.filter(|details| details["cause"] != "unclean stop").collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_boot_and_machine_arrives_once_in_order() {
    let Some((mut cluster, journal)) = following("app.service").await else { return };
    let message = |text: &str| format!("MESSAGE={text}\n");
    let one = |micros, boot, machine, text: &str| entry(micros, boot, machine, &message(text));
    write_journal(&journal, "a.journal", &(one(1, "aa", "33", "a1") + &one(3, "aa", "33", "a3")));
    write_journal(&journal, "other.journal", &one(2, "cc", "44", "other 2"));
    cluster.run_all().await;
    assert_eq!(said(&wait_for(&cluster, "action:journal.said", 3)), ["a1", "other 2", "a3"]);
    // While the node is down the old boot ends, the next one begins, and the other machine's journal is collected late.
    cluster.stop(0);
    write_journal(&journal, "b.journal", &one(4, "aa", "33", "last of the old boot"));
    write_journal(&journal, "c.journal", &one(9, "bb", "33", "first of the new boot"));
    write_journal(&journal, "other.journal", &(one(3, "cc", "44", "other 3") + &one(10, "cc", "44", "other 10")));
    cluster.restart(0).await;
    let wanted = ["a1", "other 2", "a3", "other 3", "last of the old boot", "first of the new boot", "other 10"];
    assert_eq!(said(&wait_for(&cluster, "action:journal.said", wanted.len())), wanted);
    // A machine whose journal is collected only now: its entry is older than every entry read so far.
    let machine = journal.join("55".repeat(16));
    std::fs::create_dir(&machine).unwrap();
    write_journal(&machine, "system.journal", &one(0, "dd", "55", "late"));
    wait_for(&cluster, "action:journal.said late", 1);
    // After a kill the node reads the journal again and records nothing twice.
    for _ in 0..2 {
        cluster.kill(0);
        cluster.restart(0).await;
    }
    write_journal(&journal, "c.journal", &one(11, "bb", "33", "the end"));
    wait_for(&cluster, "action:journal.said \"the end\"", 1);
    assert_eq!(entries(&cluster, "action:journal.said").len(), wanted.len() + 2);
    assert_eq!(gaps(&cluster), Vec::<Value>::new());
    cluster.verify_all();
}

#[tokio::test(flavor = "multi_thread")]
async fn fields_are_text_where_they_are_text_and_equal_entries_are_two() {
    let Some((mut cluster, journal)) = following("*").await else { return };
    let coloured = "gr\u{fc}n \u{1b}[32m";
    let binary = |name: &[u8], value: &[u8]| [name, b"\n", &(value.len() as u64).to_le_bytes(), value, b"\n"].concat();
    // The binary fields are built as bytes. The bytes are valid UTF-8, so they can be passed to `entry`, which takes text.
    let colour = String::from_utf8(binary(b"MESSAGE", coloured.as_bytes())).unwrap();
    let lines = String::from_utf8(binary(b"MESSAGE", b"two\nlines")).unwrap();
    let twice = entry(1, "aa", "33", "MESSAGE=tick\n");
    let all = twice.clone()
        + &twice
        + &entry(2, "aa", "33", &colour)
        + &entry(3, "aa", "33", &lines)
        + &entry(4, "aa", "33", "MESSAGE=tagged\nTAG=one\nTAG=two\n");
    write_journal(&journal, "a.journal", &all);
    cluster.run_all().await;
    let found = wait_for(&cluster, "action:journal.said", 5);
    assert_eq!(said(&found), ["tick", "tick", coloured, "two\nlines", "tagged"]);
    assert_eq!(found[4]["details"]["TAG"], json!(["one", "two"]));
    cluster.kill(0);
    cluster.restart(0).await;
    write_journal(&journal, "a.journal", &entry(5, "aa", "33", "MESSAGE=end\n"));
    wait_for(&cluster, "action:journal.said end", 1);
    assert_eq!(entries(&cluster, "action:journal.said").len(), 6);
    cluster.verify_all();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gap_is_said_where_entries_are_really_gone() {
    let Some((mut cluster, journal)) = following("*").await else { return };
    write_journal(
        &journal,
        "a.journal",
        &(0..10).map(|n| entry(n, "aa", "33", &format!("MESSAGE=n{n}\n"))).collect::<String>(),
    );
    cluster.run_all().await;
    wait_for(&cluster, "action:journal.said", 10);
    // If a journal file is removed after all of it was read, and another file replaces it, no gap is recorded.
    let copy = std::fs::read(journal.join("a.journal")).unwrap();
    std::fs::remove_file(journal.join("a.journal")).unwrap();
    write_journal(&journal, "b.journal", &entry(20, "bb", "33", "MESSAGE=b\n"));
    wait_for(&cluster, "action:journal.said b", 1);
    assert_eq!(gaps(&cluster), Vec::<Value>::new());
    // When a file is restored, its entries are duplicates.
    std::fs::write(journal.join("a.journal"), copy).unwrap();
    write_journal(&journal, "b.journal", &entry(21, "bb", "33", "MESSAGE=b2\n"));
    wait_for(&cluster, "action:journal.said b2", 1);
    assert_eq!(entries(&cluster, "action:journal.said").len(), 12);
    // A file that is removed while the node is down causes a gap entry, because its final content is unknown to the node.
    cluster.stop(0);
    std::fs::remove_file(journal.join("b.journal")).unwrap();
    write_journal(&journal, "c.journal", &entry(30, "cc", "33", "MESSAGE=c\n"));
    cluster.restart(0).await;
    wait_for(&cluster, "action:journal.said c", 1);
    let found = gaps(&cluster);
    assert!(matches!(&found[..], [gap] if gap["cause"].as_str().unwrap().contains("removed")), "{found:?}");
    cluster.verify_all();
}
