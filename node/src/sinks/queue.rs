//! Reads the number of bytes that the receiver's kernel has not accepted yet, from the kernel's table of connections
//! (proc_pid_net(5), `tcp` and `tcp6`).
//!
//! If a receiver closes a connection while it has unread data, or while bytes are in flight, its kernel answers with a reset. So
//! if no bytes were in flight and the connection ends without a reset, the receiver has read everything.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

const POLL: Duration = Duration::from_millis(20);

/// Waits until no bytes are in flight; fails if the receiver accepts no bytes for `patience`.
pub(super) async fn wait_until_taken(ends: (SocketAddr, SocketAddr), patience: Duration) -> Result<(), String> {
    let mut least = u64::MAX;
    let mut since = Instant::now();
    loop {
        let table = tokio::task::spawn_blocking(move || read_table(ends)).await.map_err(|e| e.to_string())??;
        match table {
            None => return Err("the connection was reset".to_owned()),
            Some(0) => return Ok(()),
            Some(bytes) if bytes < least => (least, since) = (bytes, Instant::now()),
            Some(bytes) if since.elapsed() >= patience => {
                return Err(format!("{bytes} bytes were not accepted within {} s", patience.as_secs()));
            }
            Some(_) => {}
        }
        tokio::time::sleep(POLL).await;
    }
}

/// Whether the kernel still lists a connection that both ends have closed. It stays listed, in `TIME_WAIT`, for a minute unless
/// it was reset or the other end closed it first; in the latter case its rows are sent again.
pub(super) async fn is_known(ends: (SocketAddr, SocketAddr)) -> bool {
    let looked = tokio::task::spawn_blocking(move || read_table(ends)).await;
    matches!(looked, Ok(Ok(Some(_))))
}

/// Returns the number of bytes of a connection that were not sent or not acknowledged yet; `None` if the connection no longer
/// exists.
fn read_table(ends: (SocketAddr, SocketAddr)) -> Result<Option<u64>, String> {
    let path = if ends.0.is_ipv4() { "/proc/self/net/tcp" } else { "/proc/self/net/tcp6" };
    let table = std::fs::read_to_string(path).map_err(|error| format!("{path}: {error}"))?;
    Ok(find(&table, &(kernel_form(ends.0), kernel_form(ends.1))))
}

fn find(table: &str, (local, remote): &(String, String)) -> Option<u64> {
    table.lines().skip(1).find_map(|line| {
        // sl local_address rem_address st tx_queue:rx_queue …
        let mut fields = line.split_ascii_whitespace().skip(1);
        let is_it = fields.next()? == local && fields.next()? == remote;
        let (tx, _) = fields.nth(1).filter(|_| is_it)?.split_once(':')?;
        u64::from_str_radix(tx, 16).ok()
    })
}

/// Formats an address as the kernel's table does, such as `0100007F:1F90`: the address in groups of 32 bits in this machine's byte order,
/// and the port.
#[expect(
    clippy::host_endian_bytes,
    reason = "the kernel prints words in network byte order as if they were in host byte order"
)]
fn kernel_form(end: SocketAddr) -> String {
    let word =
        |bytes: &[u8]| bytes.try_into().map_or(String::new(), |bytes| format!("{:08X}", u32::from_ne_bytes(bytes)));
    let address: String = match end.ip() {
        IpAddr::V4(ip) => word(&ip.octets()),
        IpAddr::V6(ip) => ip.octets().chunks(4).map(word).collect(),
    };
    format!("{address}:{:04X}", end.port())
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn bytes_that_nobody_takes_are_counted() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = TcpListener::bind(address) else { continue };
            let mut ours = TcpStream::connect(listener.local_addr().expect("an address")).expect("a connection");
            let (mut theirs, _) = listener.accept().expect("a connection");
            let ends = (ours.local_addr().expect("an address"), ours.peer_addr().expect("an address"));
            ours.write_all(b"taken by the other kernel").expect("room");
            while read_table(ends).expect("a table") != Some(0) {}
            ours.set_nonblocking(true).expect("a socket");
            while ours.write(&[0; 65_536]).is_ok() {}
            assert!(read_table(ends).expect("a table") > Some(0), "{address}");
            let mut sink = vec![0; 1 << 20];
            while read_table(ends).expect("a table") != Some(0) {
                assert!(theirs.read(&mut sink).expect("bytes") > 0);
            }
            drop(theirs);
            let _ = ours.write(b"x");
            std::thread::sleep(Duration::from_millis(50));
            let _ = ours.write(b"x");
            assert_eq!(read_table(ends).expect("a table"), None, "{address}: reset");
        }
    }
}
