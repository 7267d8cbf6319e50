//! Syslog messages in the forms that real relays and devices send.

use std::io::Write as _;
use std::net::{Shutdown, TcpStream, UdpSocket};

use nix::sys::signal::Signal;
use piperoll_tests::{Cluster, free_address};
use serde_json::{Value, json};

use super::{configure, entries, wait_for};

async fn listening() -> (Cluster, String) {
    let mut cluster = Cluster::made(&["mx1"], |_| None).await;
    let address = free_address();
    configure(&cluster, &format!("[[intake]]\nname = \"legacy\"\nsyslog = \"{address}\"\n"));
    cluster.run_all().await;
    (cluster, address)
}

fn send(address: &str, bytes: &[u8]) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(bytes).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_relays_send_arrives_whole() {
    let (cluster, address) = listening().await;
    // On one connection, a line that begins with a year arrives between two messages.
    send(
        &address,
        b"<13>Oct 11 22:14:15 h app: before\n2026-04-30 10:00:00 192.0.2.1 TCP_DENIED/403 GET\n<13>Oct 11 22:14:16 h app: after A\n<13>Oct 11 22:14:17 h app: after B\n",
    );
    let found = wait_for(&cluster, "via:syslog", 4);
    let said: Vec<&str> = found.iter().map(|entry| entry["description"].as_str().unwrap()).collect();
    assert!(said[1].contains("TCP_DENIED/403 GET"), "{said:?}");
    assert_eq!((said[0], said[2], said[3]), ("before", "after A", "after B"));

    send(
        &address,
        b"<13>1 2026-10-11T22:14:15Z h repeated 1 - [origin ip=\"192.0.2.1\" ip=\"192.0.2.129\"] both addresses\n",
    );
    let repeated = &wait_for(&cluster, "action:syslog.repeated", 1)[0];
    assert_eq!(repeated["details"]["structured_data"]["origin"]["ip"], json!(["192.0.2.1", "192.0.2.129"]));

    send(
        &address,
        b"<38>2026-11-28T23:30:00.123456+05:00 web1 zoned[77]: Failed password for kim from 203.0.113.5 port 1 ssh2\n",
    );
    let zoned = &wait_for(&cluster, "action:syslog.zoned", 1)[0];
    assert_eq!(zoned["occurred_at"], "2026-11-28T23:30:00.123456+05:00");
    assert_eq!(zoned["details"]["hostname"], "web1");

    send(&address, b"<13>Oct 11 22:14:15 h latin: M\xfcller logged in\n");
    let latin = &wait_for(&cluster, "action:syslog.latin", 1)[0];
    assert_eq!(latin["description"], "M\u{fc}ller logged in");
    assert_eq!(latin["details"]["encoding"], "not UTF-8; read as ISO 8859-1");
    assert!(entries(&cluster, "action:log.gap").is_empty());
    cluster.verify_all();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_kernel_drops_is_counted() {
    let (cluster, address) = listening().await;
    let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
    let message = format!("<13>1 2026-10-11T22:14:15Z h burst 1 - - {}", "x".repeat(1_000));
    sender.send_to(message.as_bytes(), &address).unwrap();
    wait_for(&cluster, "action:syslog.burst", 1);
    // Stop the node during the burst, so that the kernel drops messages. No message follows the burst, so the node must notice
    // the loss without one.
    cluster.signal(0, Signal::SIGSTOP);
    let sent = 12_000;
    for _ in 1..sent {
        sender.send_to(message.as_bytes(), &address).unwrap();
    }
    cluster.signal(0, Signal::SIGCONT);
    let is_kernel = |gap: &&Value| gap["details"]["cause"].as_str().unwrap().contains("kernel");
    let begun = std::time::Instant::now();
    loop {
        let gaps = entries(&cluster, "action:log.gap");
        let lost: u64 = gaps.iter().map(|gap| gap["details"]["count"].as_u64().unwrap()).sum();
        let recorded = count(&cluster);
        if gaps.iter().any(|gap| is_kernel(&gap)) && recorded + lost == sent {
            break;
        }
        assert!(begun.elapsed() < super::PATIENCE, "{recorded} recorded, {lost} lost, of {sent}: {gaps:?}");
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    }
    cluster.verify_all();
}

fn count(cluster: &Cluster) -> u64 {
    let run = cluster.on_node(0, &["export", "action:syslog.burst"]);
    run.stdout.lines().filter(|line| line.starts_with("{\"entry\"")).count() as u64
}
