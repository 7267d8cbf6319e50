//! A TCP proxy between aggregator and node that can fail in every way a network can.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::AsRawFd as _;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Number of bytes from the node after which [`Fault::Busy`] blocks. A node sends its part of a TLS handshake at once, and that
/// part is longer than this.
const HANDSHAKE_BYTES: usize = 200;

/// Fault that the proxy applies to connections.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// Bytes are forwarded unchanged.
    None,
    /// Connections are accepted and closed at once.
    Close,
    /// Connections are accepted, but no byte is ever sent back.
    Silent,
    /// Connections complete their TLS handshakes, but no later byte from the node is forwarded.
    Busy,
    /// The node's bytes are forwarded at one per second.
    Trickle,
    /// Each chunk of the node's bytes is delayed.
    Delay(Duration),
    /// One bit of each chunk of the node's bytes is flipped.
    Corrupt,
    /// The connection is cut after this many more bytes from the node.
    CutAfter(usize),
    /// Connections are answered by a server that speaks neither TLS nor Piperoll's protocol.
    Garbage,
    /// Connections are forwarded to another address.
    Other(String),
}

/// Proxy that accepts the aggregator's connections and forwards them to the node.
pub struct FaultProxy {
    pub address: String,
    state: Arc<State>,
}

struct State {
    target: String,
    fault: Mutex<Fault>,
    connections: Mutex<Vec<TcpStream>>,
}

impl FaultProxy {
    pub fn start(target: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let state = Arc::new(State {
            target: target.to_owned(),
            fault: Mutex::new(Fault::None),
            connections: Mutex::default(),
        });
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let state = Arc::clone(&shared);
                std::thread::spawn(move || state.serve(client));
            }
        });
        Self { address, state }
    }

    /// Sets the fault, which also applies to open connections.
    pub fn set(&self, fault: Fault) {
        *self.state.fault.lock().unwrap() = fault;
    }

    /// Breaks every open connection, so that the next request has to connect again.
    pub fn cut(&self) {
        for connection in self.state.connections.lock().unwrap().drain(..) {
            let _ = connection.shutdown(Shutdown::Both);
        }
    }

    pub fn heal(&self) {
        self.set(Fault::None);
    }
}

impl State {
    fn fault(&self) -> Fault {
        self.fault.lock().unwrap().clone()
    }

    fn serve(&self, mut client: TcpStream) {
        let target = match self.fault() {
            Fault::Close => return,
            Fault::Silent => {
                self.connections.lock().unwrap().push(client.try_clone().unwrap());
                let mut sink = [0; 1024];
                while client.read(&mut sink).is_ok_and(|n| n > 0) {}
                return;
            }
            Fault::Garbage => {
                let _ = client.write_all(b"220 mail.example.org ESMTP ready\r\n");
                std::thread::sleep(Duration::from_millis(200));
                return;
            }
            Fault::Other(target) => target,
            _ => self.target.clone(),
        };
        let Ok(node) = TcpStream::connect(&target) else { return };
        for stream in [&client, &node] {
            stream.set_nodelay(true).unwrap();
            self.connections.lock().unwrap().push(stream.try_clone().unwrap());
        }
        let (from_client, to_node) = (client.try_clone().unwrap(), node.try_clone().unwrap());
        std::thread::scope(|scope| {
            scope.spawn(|| copy(from_client, to_node));
            self.copy_faulty(node, client);
        });
    }

    /// Copies bytes from the node to the client, applying the fault.
    fn copy_faulty(&self, mut node: TcpStream, mut client: TcpStream) {
        let mut buffer = [0; 16 * 1024];
        let mut passed = 0;
        loop {
            let wanted = if self.fault() == Fault::Trickle { 1 } else { buffer.len() };
            let Ok(n) = node.read(&mut buffer[..wanted]) else { break };
            if n == 0 {
                break;
            }
            let mut send = n;
            match self.fault() {
                Fault::Silent => continue,
                Fault::Busy if passed >= HANDSHAKE_BYTES => continue,
                Fault::Trickle => std::thread::sleep(Duration::from_secs(1)),
                Fault::Delay(time) => std::thread::sleep(time),
                Fault::Corrupt => buffer[n / 2] ^= 1,
                Fault::CutAfter(left) => {
                    send = n.min(left);
                    *self.fault.lock().unwrap() = Fault::CutAfter(left - send);
                }
                _ => {}
            }
            passed += send;
            if client.write_all(&buffer[..send]).is_err() || send < n {
                break;
            }
        }
        let _ = client.shutdown(Shutdown::Both);
        let _ = node.shutdown(Shutdown::Both);
    }
}

fn copy(mut from: TcpStream, mut to: TcpStream) {
    let mut buffer = [0; 16 * 1024];
    while let Ok(n) = from.read(&mut buffer) {
        if n == 0 || to.write_all(&buffer[..n]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
}

/// An address at which connection attempts get no reply: the kernel drops a SYN for a listener whose queue is full.
pub struct BlackHole {
    pub address: String,
    _listener: std::os::fd::OwnedFd,
    _queued: Vec<TcpStream>,
}

impl BlackHole {
    pub fn start() -> Self {
        use nix::sys::socket::{
            AddressFamily, Backlog, SockFlag, SockType, SockaddrIn, bind, connect, getsockname, listen, socket,
        };
        let listener = socket(AddressFamily::Inet, SockType::Stream, SockFlag::empty(), None).unwrap();
        bind(listener.as_raw_fd(), &SockaddrIn::new(127, 0, 0, 1, 0)).unwrap();
        listen(&listener, Backlog::new(0).unwrap()).unwrap();
        let place: SockaddrIn = getsockname(listener.as_raw_fd()).unwrap();
        // One connection fills a queue of length zero; open a few more to be sure.
        let queued = (0..4)
            .map(|_| {
                let flags = SockFlag::SOCK_NONBLOCK;
                let stream = socket(AddressFamily::Inet, SockType::Stream, flags, None).unwrap();
                let _ = connect(stream.as_raw_fd(), &place);
                TcpStream::from(stream)
            })
            .collect();
        Self { address: place.to_string(), _listener: listener, _queued: queued }
    }
}
