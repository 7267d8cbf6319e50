//! Counts the datagrams that the kernel dropped because the socket's buffer was full.
//!
//! The kernel reports drops by `SO_RXQ_OVFL`, but only together with a later datagram, so drops at the end of a burst would not
//! be reported until then. `/proc/net/udp` has the same counter, by the inode of the socket, and can be read at any time
//! (proc_net_udp(5), column `drops`).

use std::os::fd::AsFd;

/// Tables of this process's network namespace.
const TABLES: [&str; 2] = ["/proc/self/net/udp", "/proc/self/net/udp6"];
/// Column of the inode, counted from 0; `drops` is the last column.
const INODE_COLUMN: usize = 9;

/// Counts the drops of one socket since the last query.
pub(super) struct KernelDrops {
    inode: Option<u64>,
    counted: u64,
}

impl KernelDrops {
    pub(super) fn of(socket: &impl AsFd) -> Self {
        let inode = nix::sys::stat::fstat(socket).ok().map(|stat| stat.st_ino);
        let mut drops = Self { inode, counted: 0 };
        drops.since_last();
        drops
    }

    /// Returns the number of datagrams that were dropped since the last call.
    pub(super) fn since_last(&mut self) -> u64 {
        let Some(inode) = self.inode else { return 0 };
        let tables = TABLES.iter().filter_map(|table| std::fs::read_to_string(table).ok());
        let Some(total) = tables.into_iter().find_map(|table| drops_in(&table, inode)) else { return 0 };
        let new = total.saturating_sub(self.counted);
        self.counted = total;
        new
    }
}

fn drops_in(table: &str, inode: u64) -> Option<u64> {
    let inode = inode.to_string();
    let row = table.lines().skip(1).find(|row| row.split_whitespace().nth(INODE_COLUMN) == Some(&inode))?;
    row.split_whitespace().last()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket;

    #[test]
    fn the_kernel_says_what_it_dropped() -> std::io::Result<()> {
        let receiver = UdpSocket::bind("127.0.0.1:0")?;
        let mut drops = KernelDrops::of(&receiver);
        assert_eq!(drops.since_last(), 0);
        let sender = UdpSocket::bind("127.0.0.1:0")?;
        let sent: u64 = 4_000;
        for _ in 0..sent {
            sender.send_to(&[b'x'; 1_000], receiver.local_addr()?)?;
        }
        let dropped = drops.since_last();
        receiver.set_nonblocking(true)?;
        let mut received = 0;
        while receiver.recv(&mut [0; 2_000]).is_ok() {
            received += 1;
        }
        assert_eq!(received + dropped, sent);
        assert!(dropped > 0 && drops.since_last() == 0);
        Ok(())
    }
}
