//! Tests receivers that accept data but do not keep it: every row still reaches a receiver that works.

use std::io::Read as _;
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use piperoll_tests::{Cluster, entry, free_address};

use super::{assert_whole_and_in_order, configure, wait_for, wait_until_all_arrived};

/// Behavior of a receiver on one connection. The last behavior in a list applies to all further connections.
#[derive(Clone, Copy)]
enum Manner {
    /// Reads some data and closes the connection in an orderly way, long before the node does.
    ClosesEarly,
    /// Never reads from the socket, and never closes it.
    Silent,
    Good,
}

fn receive(address: &str, manners: Vec<Manner>) -> Arc<Mutex<Vec<u64>>> {
    let received: Arc<Mutex<Vec<u64>>> = Arc::default();
    let listener = TcpListener::bind(address).unwrap();
    let kept = Arc::clone(&received);
    std::thread::spawn(move || {
        let mut silent: Vec<TcpStream> = Vec::new();
        for (number, connection) in listener.incoming().enumerate() {
            let mut connection = connection.unwrap();
            match manners[number.min(manners.len() - 1)] {
                Manner::ClosesEarly => {
                    // Read at least the start of one message, so that the node has sent data that it could mistake for delivered.
                    let mut first = [0; 16];
                    connection.read_exact(&mut first).unwrap();
                    connection.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
                    let mut rest = Vec::new();
                    let _ = connection.read_to_end(&mut rest);
                }
                Manner::Silent => silent.push(connection),
                Manner::Good => {
                    let mut bytes = Vec::new();
                    connection.read_to_end(&mut bytes).unwrap();
                    let text = String::from_utf8(bytes).unwrap();
                    let seqs =
                        text.split(" seq=\"").skip(1).map(|rest| rest.split('"').next().unwrap().parse().unwrap());
                    kept.lock().unwrap().extend(seqs.collect::<Vec<u64>>());
                }
            }
        }
    });
    received
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_closes_before_we_do_is_not_believed() {
    let mut cluster = Cluster::made(&["mx1"], |_| None).await;
    let address = free_address();
    configure(&cluster, 0, &format!("[[forward]]\nname = \"tcp\"\nto = \"tcp://{address}\"\nconfirm_every = \"3s\"\n"));
    let received = receive(&address, vec![Manner::ClosesEarly, Manner::ClosesEarly, Manner::Good]);
    cluster.run_all().await;
    // Append some rows before the receiver closes the connection, and some afterwards, when it no longer reads them.
    for round in 0..6 {
        let lines: Vec<String> = (0..20).map(|n| entry(&format!("r{round}-{n}"), "auth.login")).collect();
        cluster.append(0, &lines).await;
        tokio::time::sleep(Duration::from_millis(700)).await;
    }
    let done = wait_until_all_arrived(&cluster, 0, "tcp");
    let rows = done["next_seq"].as_u64().unwrap();
    // Count only rows that arrived on an intact connection: the receiver discards rows from a broken one.
    let seqs = received.lock().unwrap().clone();
    assert!(done["errors"].as_u64() > Some(0), "{done}");
    let first = *seqs.first().unwrap();
    assert!(first <= 1, "rows up to {first} were believed to have arrived");
    assert_whole_and_in_order(&[(0..first).collect(), seqs].concat(), rows);
    cluster.verify_all();
}

#[tokio::test(flavor = "multi_thread")]
async fn stopping_a_node_that_waits_for_a_receiver_marks_nothing_as_arrived() {
    let mut cluster = Cluster::made(&["mx1"], |_| None).await;
    let address = free_address();
    configure(
        &cluster,
        0,
        &format!("[[forward]]\nname = \"tcp\"\nto = \"tcp://{address}\"\nconfirm_every = \"200ms\"\n"),
    );
    let received = receive(&address, vec![Manner::Silent, Manner::Good]);
    cluster.run_all().await;
    // The node has sent rows, and waits for the receiver to close the connection, which it never does.
    wait_for(&cluster, 0, "tcp", "sent", |status| status["rows_sent"].as_u64() >= Some(1));
    let lines: Vec<String> = (0..50).map(|n| entry(&format!("user-{n}"), "auth.login")).collect();
    cluster.append(0, &lines).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    cluster.stop(0);
    let place = std::fs::read_to_string(cluster.nodes[0].folder.join("data/forward/tcp.json")).unwrap();
    assert!(place.contains("\"next_seq\": 0"), "{place}");
    cluster.spawn(0);
    cluster.wait_for_node(&cluster.nodes[0]).await;
    let done = wait_until_all_arrived(&cluster, 0, "tcp");
    assert_whole_and_in_order(&received.lock().unwrap(), done["next_seq"].as_u64().unwrap());
    cluster.verify_all();
}
