//! HTTP server for tests: answers every request with a function.

use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// Maximum size of a request's head in bytes.
const HEAD_BYTES_MAX: usize = 64 * 1024;

/// A request as the server received it.
#[derive(Debug, Clone)]
pub(super) struct Request {
    pub(super) method: String,
    /// Path with query, as it was sent.
    pub(super) target: String,
    /// Header lines, in lower case.
    pub(super) headers: String,
}

impl Request {
    /// A parameter of the query, decoded.
    pub(super) fn query(&self, name: &str) -> Option<String> {
        let url = reqwest::Url::parse(&format!("http://localhost{}", self.target)).expect("a target");
        url.query_pairs().find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
    }
}

/// Answer: status, header lines, body.
pub(super) type Reply = (u16, String, String);

/// Starts a server on the loopback interface, and returns its address. It ends with the test's runtime.
pub(super) async fn serve(reply: impl FnMut(&Request) -> Reply + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let reply = Arc::new(Mutex::new(reply));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let reply = Arc::clone(&reply);
            tokio::spawn(async move { answer(stream, |request| (reply.lock().expect("no panic"))(request)).await });
        }
    });
    format!("http://{address}")
}

async fn answer(mut stream: TcpStream, reply: impl FnOnce(&Request) -> Reply) -> Option<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") && head.len() < HEAD_BYTES_MAX {
        head.push(stream.read_u8().await.ok()?);
    }
    let head = String::from_utf8(head).ok()?;
    let (line, headers) = head.split_once("\r\n")?;
    let mut words = line.split(' ');
    let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
    let request = Request { method, target, headers: headers.to_lowercase() };
    let (status, headers, body) = reply(&request);
    let (length, body) = (body.len(), if request.method == "HEAD" { String::new() } else { body });
    let text = format!("HTTP/1.1 {status} x\r\nconnection: close\r\ncontent-length: {length}\r\n{headers}\r\n{body}");
    stream.write_all(text.as_bytes()).await.ok()
}
