//! `piperoll browse`: opens the web UI without a token in the URL.

use piperoll_protocol::access::SignInLink;
use reqwest::Method;

use super::connection::{Answer, Connection, PAGE_TIMEOUT};
use crate::args::ConnectionArgs;
use crate::exit::Exit;

/// Prints only the address, so that it can be passed to another program that opens it.
pub(crate) async fn browse(args: ConnectionArgs) -> anyhow::Result<Exit> {
    let connection = Connection::open(&args)?;
    let request = connection.request(Method::POST, "/api/v1/session/links").timeout(PAGE_TIMEOUT);
    match connection.send(request).await? {
        Answer::Good(response) => {
            let link: SignInLink = response.json().await?;
            outln!("{}{}", connection.url(), link.path);
            errln!("valid for one browser until {}; opening it signs that browser in as you", link.expires);
            Ok(Exit::Complete)
        }
        Answer::Unavailable(envelope) => Ok(connection.refused(&envelope)),
    }
}
