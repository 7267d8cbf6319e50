//! Sessions of signed-in browsers. A session refers to a credential that was presented once, and every request checks that
//! credential again, so revoking a token ends its sessions.
//!
//! Sessions live in memory only, so a restart ends them all. Only the hash of a session's secret is kept.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use piperoll_format::time::Timestamp;
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

/// Time without a request after which a session ends. PCI DSS 4.0, 8.2.8, allows at most 15 minutes.
pub const SESSION_IDLE_DEFAULT: Duration = Duration::from_secs(15 * 60);
/// Maximum age of a session.
const SESSION_LIFE_MAX: Duration = Duration::from_secs(12 * 3_600);
/// Maximum number of sessions. Beyond it, the least recently used one ends.
const SESSIONS_MAX: usize = 10_000;
/// Maximum number of sessions of one credential. Beyond it, the least recently used session of that credential ends.
const SESSIONS_OF_ONE_MAX: usize = 20;
/// Lifetime of a one-time sign-in link.
const LINK_LIFE: Duration = Duration::from_secs(5 * 60);
const LINKS_MAX: usize = 1_000;
const LINKS_OF_ONE_MAX: usize = 10;

type Hash = [u8; 32];

/// Credential presented when signing in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Credential {
    /// The token with this SHA-256, in hexadecimal.
    Token { sha256: String },
    /// The certificate of this person.
    Certificate { user: String },
}

/// Identifies a session in a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SessionId(Hash);

/// A valid session.
#[derive(Debug, Clone)]
pub(crate) struct ValidSession {
    pub(crate) id: SessionId,
    pub(crate) credential: Credential,
    pub(crate) ends: Timestamp,
}

/// Reason why a request has no valid session; reported to the browser.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SessionEnded {
    /// Signed out, lost in a restart, or never created here.
    Unknown,
    /// Idle for too long, or older than the maximum age.
    Over,
}

struct Session {
    credential: Credential,
    began: Instant,
    used: Instant,
    ends: Timestamp,
}

struct LoginLink {
    credential: Credential,
    made: Instant,
}

/// All sessions and one-time sign-in links.
pub(crate) struct Sessions {
    pub(crate) idle: Duration,
    sessions: Mutex<HashMap<Hash, Session>>,
    links: Mutex<HashMap<Hash, LoginLink>>,
}

impl Sessions {
    pub(crate) fn new(idle: Duration) -> Self {
        Self { idle, sessions: Mutex::default(), links: Mutex::default() }
    }

    /// Begins a session. The returned text is the value of the cookie and is not stored.
    pub(crate) fn begin(
        &self,
        credential: Credential,
        now: Timestamp,
    ) -> Result<(Zeroizing<String>, ValidSession), getrandom::Error> {
        let (secret, hash) = secret()?;
        let life = i64::try_from(SESSION_LIFE_MAX.as_micros()).unwrap_or(i64::MAX);
        let (began, ends) = (Instant::now(), now.plus_micros(life));
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        sessions.retain(|_, session| self.holds(session));
        let own = |session: &Session| session.credential == credential;
        if sessions.values().filter(|session| own(session)).count() >= SESSIONS_OF_ONE_MAX {
            let oldest = sessions.iter().filter(|(_, session)| own(session)).min_by_key(|(_, session)| session.used);
            oldest.map(|(hash, _)| *hash).and_then(|hash| sessions.remove(&hash));
        }
        if sessions.len() >= SESSIONS_MAX {
            let oldest = sessions.iter().min_by_key(|(_, session)| session.used).map(|(hash, _)| *hash);
            oldest.and_then(|hash| sessions.remove(&hash));
        }
        let id = SessionId(hash);
        sessions.insert(hash, Session { credential: credential.clone(), began, used: began, ends });
        Ok((secret, ValidSession { id, credential, ends }))
    }

    /// Finds the session of a cookie. `keep_alive` restarts the session's idle time; it is false for requests that no user action
    /// caused, such as the automatic reconnect of a tail.
    pub(crate) fn find(&self, cookie: &str, keep_alive: bool) -> Result<ValidSession, SessionEnded> {
        self.lookup(&SessionId(hash(cookie)), keep_alive)
    }

    /// Whether a session is still valid; used by responses that stream for a long time.
    pub(crate) fn is_open(&self, id: &SessionId) -> bool {
        self.lookup(id, false).is_ok()
    }

    fn lookup(&self, id: &SessionId, keep_alive: bool) -> Result<ValidSession, SessionEnded> {
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        let session = sessions.get_mut(&id.0).ok_or(SessionEnded::Unknown)?;
        if !self.holds(session) {
            sessions.remove(&id.0);
            return Err(SessionEnded::Over);
        }
        if keep_alive {
            session.used = Instant::now();
        }
        Ok(ValidSession { id: id.clone(), credential: session.credential.clone(), ends: session.ends })
    }

    fn holds(&self, session: &Session) -> bool {
        session.used.elapsed() < self.idle && session.began.elapsed() < SESSION_LIFE_MAX
    }

    pub(crate) fn end(&self, id: &SessionId) {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner).remove(&id.0);
    }

    /// Creates a one-time code that can be redeemed to begin a session.
    pub(crate) fn link(
        &self,
        credential: Credential,
        now: Timestamp,
    ) -> Result<(Zeroizing<String>, Timestamp), getrandom::Error> {
        let (secret, hash) = secret()?;
        let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        links.retain(|_, link| link.made.elapsed() < LINK_LIFE);
        // A credential with too many links loses its own oldest link. The oldest link of any credential is removed only
        // when there are too many in total.
        let own = |link: &LoginLink| link.credential == credential;
        while links.len() >= LINKS_MAX || links.values().filter(|link| own(link)).count() >= LINKS_OF_ONE_MAX {
            let crowded = links.len() >= LINKS_MAX;
            let oldest = links.iter().filter(|(_, link)| crowded || own(link)).min_by_key(|(_, link)| link.made);
            let Some(hash) = oldest.map(|(hash, _)| *hash) else { break };
            links.remove(&hash);
        }
        links.insert(hash, LoginLink { credential, made: Instant::now() });
        Ok((secret, now.plus_micros(i64::try_from(LINK_LIFE.as_micros()).unwrap_or(i64::MAX))))
    }

    /// Redeems a code: returns its credential, and invalidates the code.
    pub(crate) fn redeem(&self, code: &str) -> Option<Credential> {
        let link = self.links.lock().unwrap_or_else(PoisonError::into_inner).remove(&hash(code))?;
        (link.made.elapsed() < LINK_LIFE).then_some(link.credential)
    }
}

/// Returns 256 random bits as text, and their hash. Because secrets are looked up by hash, the time that a lookup takes does not
/// reveal how much of a guess was right.
fn secret() -> Result<(Zeroizing<String>, Hash), getrandom::Error> {
    let mut random = Zeroizing::new([0u8; 32]);
    getrandom::fill(random.as_mut_slice())?;
    let text = Zeroizing::new(URL_SAFE_NO_PAD.encode(random.as_slice()));
    let hash = hash(&text);
    Ok((text, hash))
}

fn hash(text: &str) -> Hash {
    Sha256::digest(text.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn credential() -> Credential {
        Credential::Token { sha256: "ab".to_owned() }
    }

    #[test]
    fn a_session_ends_when_nothing_is_asked_and_when_it_is_ended() -> Result<(), getrandom::Error> {
        let sessions = Sessions::new(Duration::from_millis(200));
        let (cookie, open) = sessions.begin(credential(), Timestamp::MIN)?;
        for _ in 0..6 {
            std::thread::sleep(Duration::from_millis(50));
            assert!(sessions.find(&cookie, true).is_ok());
        }
        assert!(sessions.is_open(&open.id));
        std::thread::sleep(Duration::from_millis(250));
        assert_eq!(sessions.find(&cookie, true).err(), Some(SessionEnded::Over));
        assert_eq!(sessions.find(&cookie, true).err(), Some(SessionEnded::Unknown));

        let (cookie, open) = sessions.begin(credential(), Timestamp::MIN)?;
        sessions.end(&open.id);
        assert_eq!(sessions.find(&cookie, true).err(), Some(SessionEnded::Unknown));
        Ok(())
    }

    #[test]
    fn one_credential_cannot_end_the_sessions_of_others() -> Result<(), getrandom::Error> {
        let sessions = Sessions::new(SESSION_IDLE_DEFAULT);
        let other = Credential::Certificate { user: "kim".to_owned() };
        let (cookie, _) = sessions.begin(other, Timestamp::MIN)?;
        let (first, _) = sessions.begin(credential(), Timestamp::MIN)?;
        for _ in 0..SESSIONS_OF_ONE_MAX {
            let _ = sessions.begin(credential(), Timestamp::MIN)?;
        }
        assert!(sessions.find(&cookie, true).is_ok());
        assert_eq!(sessions.find(&first, true).err(), Some(SessionEnded::Unknown), "its own oldest one ends");
        Ok(())
    }

    #[test]
    fn looking_without_keeping_alive_lets_a_session_end() -> Result<(), getrandom::Error> {
        let sessions = Sessions::new(Duration::from_millis(150));
        let (cookie, _) = sessions.begin(credential(), Timestamp::MIN)?;
        for _ in 0..4 {
            std::thread::sleep(Duration::from_millis(50));
            let _ = sessions.find(&cookie, false);
        }
        assert!(sessions.find(&cookie, true).is_err());
        Ok(())
    }

    #[test]
    fn a_link_works_once() -> Result<(), getrandom::Error> {
        let sessions = Sessions::new(SESSION_IDLE_DEFAULT);
        let (code, _) = sessions.link(credential(), Timestamp::MIN)?;
        assert_eq!(sessions.redeem("another"), None);
        assert_eq!(sessions.redeem(&code), Some(credential()));
        assert_eq!(sessions.redeem(&code), None);
        Ok(())
    }
}
