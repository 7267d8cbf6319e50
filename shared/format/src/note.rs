//! Signed notes and the keys that sign them (C2SP signed-note v1.0.0, with its Ed25519 signature type and that of
//! tlog-cosignature v1.0.1).

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::Signer as _;
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

/// Limits of a whole note and of its number of signatures; a cosigned checkpoint has two signatures.
pub const NOTE_BYTES_MAX: usize = 64 * 1024;
pub const SIGNATURES_MAX: usize = 64;

const DASH: &str = "\u{2014} ";

/// Type of a key, which determines the message that it signs and how it signs. Encoded as the type byte of signed-note, section
/// "Signature types".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KeyKind {
    /// Ed25519 over the note's text, 0x01: a log's own signature.
    Log,
    /// Ed25519 over time and text, 0x04: a witness's cosignature.
    Witness,
}

impl KeyKind {
    fn byte(self) -> u8 {
        match self {
            Self::Log => 0x01,
            Self::Witness => 0x04,
        }
    }

    fn of(byte: u8) -> Option<Self> {
        [Self::Log, Self::Witness].into_iter().find(|kind| kind.byte() == byte)
    }
}

/// Reasons why a note or key cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoteError {
    #[error("not a signed note: {0}")]
    Form(&'static str),
    #[error("not a verification key (name+id+base64)")]
    Key,
    #[error("the note carries no signature of {0}")]
    Unsigned(String),
    #[error("the signature of {0} does not match the note")]
    Signature(String),
}

/// A public key and the name under which its owner signs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifyingKey {
    name: String,
    kind: KeyKind,
    key: ed25519_dalek::VerifyingKey,
}

impl VerifyingKey {
    /// Creates a key; returns `None` if the name is not valid or the bytes are not a point on the curve.
    pub fn new(name: &str, kind: KeyKind, public: &[u8; 32]) -> Option<Self> {
        let key = ed25519_dalek::VerifyingKey::from_bytes(public).ok()?;
        is_name(name).then(|| Self { name: name.to_owned(), kind, key })
    }

    /// Reads `name+hex8(id)+base64(type ‖ key)`.
    pub fn parse(text: &str) -> Result<Self, NoteError> {
        let mut parts = text.splitn(3, '+');
        let (Some(name), Some(id), Some(key)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(NoteError::Key);
        };
        let bytes = STANDARD.decode(key).map_err(|_| NoteError::Key)?;
        let (kind, public) = bytes.split_first().ok_or(NoteError::Key)?;
        let kind = KeyKind::of(*kind).ok_or(NoteError::Key)?;
        let public: [u8; 32] = public.try_into().map_err(|_| NoteError::Key)?;
        let key = Self::new(name, kind, &public).ok_or(NoteError::Key)?;
        // The id must be exactly eight lower-case digits, so that a key has only one text form.
        if hex::encode(key.id()) == id { Ok(key) } else { Err(NoteError::Key) }
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn kind(&self) -> KeyKind {
        self.kind
    }

    pub fn public_bytes(&self) -> [u8; 32] {
        self.key.to_bytes()
    }

    /// Key id: `SHA-256(name ‖ 0x0A ‖ type ‖ key)[0..4]`. The id only helps to find the key; it proves nothing.
    pub fn id(&self) -> [u8; 4] {
        let hash = Sha256::new()
            .chain_update(&self.name)
            .chain_update([0x0a, self.kind.byte()])
            .chain_update(self.key.as_bytes())
            .finalize();
        [hash[0], hash[1], hash[2], hash[3]]
    }

    fn fits(&self, message: &[u8], signature: &[u8]) -> bool {
        ed25519_dalek::Signature::from_slice(signature)
            .is_ok_and(|signature| self.key.verify_strict(message, &signature).is_ok())
    }
}

/// The verification key's text form.
impl fmt::Display for VerifyingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = vec![self.kind.byte()];
        bytes.extend_from_slice(self.key.as_bytes());
        write!(f, "{}+{}+{}", self.name, hex::encode(self.id()), STANDARD.encode(bytes))
    }
}

/// A private key. Never printed; wiped when dropped.
#[derive(Clone)]
pub struct SigningSeed(Zeroizing<[u8; 32]>);

impl SigningSeed {
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// Reads the text form of a key file: 64 hexadecimal digits.
    pub fn from_hex(text: &str) -> Option<Self> {
        let mut bytes = Zeroizing::new([0; 32]);
        hex::decode_to_slice(text.trim(), bytes.as_mut_slice()).ok()?;
        Some(Self(bytes))
    }

    pub fn to_hex(&self) -> Zeroizing<String> {
        Zeroizing::new(hex::encode(self.0.as_slice()))
    }

    pub fn public_bytes(&self) -> [u8; 32] {
        ed25519_dalek::SigningKey::from_bytes(&self.0).verifying_key().to_bytes()
    }

    /// Returns a key that signs under `name`, or `None` if the name is not valid.
    pub fn named(&self, name: &str, kind: KeyKind) -> Option<SigningKey> {
        let secret = ed25519_dalek::SigningKey::from_bytes(&self.0);
        let public = VerifyingKey::new(name, kind, &secret.verifying_key().to_bytes())?;
        Some(SigningKey { secret, public })
    }
}

/// A private key and the name under which it signs.
#[derive(Clone)]
pub struct SigningKey {
    secret: ed25519_dalek::SigningKey,
    public: VerifyingKey,
}

impl SigningKey {
    pub fn public(&self) -> &VerifyingKey {
        &self.public
    }

    /// Signs a note's text as a log does.
    pub fn sign(&self, text: &str) -> NoteSignature {
        self.line(self.secret.sign(text.as_bytes()).to_bytes().to_vec())
    }

    /// Signs time and text as a witness does: "the largest consistent tree that I have seen by this time".
    pub fn cosign(&self, text: &str, seconds: u64) -> NoteSignature {
        let signature = self.secret.sign(cosigned_message(text, seconds).as_bytes());
        self.line([&seconds.to_be_bytes()[..], &signature.to_bytes()].concat())
    }

    fn line(&self, bytes: Vec<u8>) -> NoteSignature {
        NoteSignature { name: self.public.name.clone(), id: self.public.id(), bytes }
    }
}

fn cosigned_message(text: &str, seconds: u64) -> String {
    format!("cosignature/v1\ntime {seconds}\n{text}")
}

/// One signature line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoteSignature {
    name: String,
    id: [u8; 4],
    bytes: Vec<u8>,
}

impl NoteSignature {
    /// Reads one line, without its line end.
    pub fn parse(line: &str) -> Result<Self, NoteError> {
        let bad = NoteError::Form("a signature line must be \u{2014} NAME BASE64");
        let (name, base64) =
            line.strip_prefix(DASH).and_then(|rest| rest.split_once(' ')).ok_or_else(|| bad.clone())?;
        let bytes = STANDARD.decode(base64).map_err(|_| bad.clone())?;
        match bytes.split_first_chunk::<4>() {
            Some((id, signature)) if is_name(name) && !signature.is_empty() => {
                Ok(Self { name: name.to_owned(), id: *id, bytes: signature.to_vec() })
            }
            _ => Err(bad),
        }
    }

    pub fn name(&self) -> &str {
        &self.name
    }
}

impl fmt::Display for NoteSignature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{DASH}{} {}", self.name, STANDARD.encode([&self.id[..], &self.bytes].concat()))
    }
}

/// A text and its signatures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// Text of the note, with its final newline, which is signed too.
    text: String,
    signatures: Vec<NoteSignature>,
}

impl Note {
    /// Creates a note without signatures. The text must not be empty, must end in a newline, and must contain no other control character.
    pub fn unsigned(text: String) -> Result<Self, NoteError> {
        if text.len() < 2 || !text.ends_with('\n') {
            return Err(NoteError::Form("its text does not end with a newline"));
        }
        if text.chars().any(|c| c < ' ' && c != '\n') {
            return Err(NoteError::Form("its text contains a control character"));
        }
        Ok(Self { text, signatures: Vec::new() })
    }

    /// Reads a note. The signatures are not checked yet.
    pub fn parse(note: &str) -> Result<Self, NoteError> {
        Self::parse_up_to(note, NOTE_BYTES_MAX)
    }

    /// Reads a note of at most `bytes_max` bytes; used for notes that may be longer than a checkpoint.
    pub fn parse_up_to(note: &str, bytes_max: usize) -> Result<Self, NoteError> {
        if note.len() > bytes_max {
            return Err(NoteError::Form("it is too long"));
        }
        let (text, lines) =
            note.rsplit_once("\n\n").ok_or(NoteError::Form("no empty line separates its text from its signatures"))?;
        let lines = lines.strip_suffix('\n').ok_or(NoteError::Form("its last line does not end with a newline"))?;
        let mut parsed = Self::unsigned(format!("{text}\n"))?;
        for line in lines.split('\n') {
            if parsed.signatures.len() == SIGNATURES_MAX {
                return Err(NoteError::Form("it has too many signatures"));
            }
            parsed.signatures.push(NoteSignature::parse(line)?);
        }
        Ok(parsed)
    }

    pub fn text(&self) -> &str {
        &self.text
    }

    /// Number of signatures on the note, verified or not.
    pub fn signatures(&self) -> usize {
        self.signatures.len()
    }

    /// Adds a signature and removes an earlier one by the same key.
    #[must_use]
    pub fn with(mut self, signature: NoteSignature) -> Self {
        self.signatures.retain(|known| (&known.name, known.id) != (&signature.name, signature.id));
        self.signatures.push(signature);
        self
    }

    /// Time of the newest cosignature of any witness, in seconds since 1970. The signatures are not verified.
    pub fn cosigned_at(&self) -> Option<u64> {
        const COSIGNATURE_BYTES: usize = 8 + 64;
        let times = self.signatures.iter().filter(|signature| signature.bytes.len() == COSIGNATURE_BYTES);
        times.filter_map(|signature| signature.bytes.first_chunk().map(|time| u64::from_be_bytes(*time))).max()
    }

    /// Checks that `key` signed this text; every signature under the name and id of `key` must be valid. Returns the time of
    /// the newest signature in seconds since 1970 for a witness's key, otherwise 0.
    pub fn verify(&self, key: &VerifyingKey) -> Result<u64, NoteError> {
        let mut newest = None;
        for signature in self.signatures.iter().filter(|s| s.name == key.name && s.id == key.id()) {
            let time = match key.kind {
                KeyKind::Log => key.fits(self.text.as_bytes(), &signature.bytes).then_some(0),
                KeyKind::Witness => signature.bytes.split_first_chunk::<8>().and_then(|(time, bytes)| {
                    let seconds = u64::from_be_bytes(*time);
                    key.fits(cosigned_message(&self.text, seconds).as_bytes(), bytes).then_some(seconds)
                }),
            };
            newest = newest.max(Some(time.ok_or_else(|| NoteError::Signature(key.name.clone()))?));
        }
        newest.ok_or_else(|| NoteError::Unsigned(key.name.clone()))
    }
}

/// Writes the text, an empty line and the signature lines.
impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.text)?;
        self.signatures.iter().try_for_each(|signature| writeln!(f, "{signature}"))
    }
}

/// Returns whether a key name is valid: not empty, no spaces, no plus sign (signed-note, "Format").
fn is_name(name: &str) -> bool {
    !name.is_empty() && !name.chars().any(|c| c == '+' || c.is_whitespace() || c.is_control())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// From C2SP signed-note; its known answer is checked in tests/public_vectors.rs.
    const VKEY: &str = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k";

    fn signed() -> (Note, SigningKey) {
        let key = SigningSeed::from_bytes([7; 32]).named("example/mx1/g", KeyKind::Log).expect("a key");
        let note = Note::unsigned("example/mx1/g\n3\nroot\n".to_owned()).expect("a text");
        let signature = key.sign(note.text());
        (note.with(signature), key)
    }

    #[test]
    fn keys_and_notes_read_back() {
        let (note, key) = signed();
        let text = key.public().to_string();
        assert_eq!(VerifyingKey::parse(&text).as_ref(), Ok(key.public()));
        assert_eq!(Note::parse(&note.to_string()), Ok(note.clone()));
        assert_eq!(note.verify(key.public()), Ok(0));
        let stranger = SigningSeed::from_bytes([8; 32]).named("example/mx1/g", KeyKind::Log).expect("a key");
        assert_eq!(note.verify(stranger.public()), Err(NoteError::Unsigned("example/mx1/g".to_owned())));
        for broken in [text.replace("+", ""), text.to_uppercase(), format!("{text}A"), VKEY.replace("530d", "530e")] {
            assert_eq!(VerifyingKey::parse(&broken), Err(NoteError::Key), "{broken}");
        }
    }

    #[test]
    fn cosignatures_carry_their_time() {
        let (note, key) = signed();
        let witness = SigningSeed::from_bytes([9; 32]).named("example/reader", KeyKind::Witness).expect("a key");
        let cosigned = note.clone().with(witness.cosign(note.text(), 100)).with(witness.cosign(note.text(), 200));
        assert_eq!((cosigned.verify(witness.public()), cosigned.verify(key.public())), (Ok(200), Ok(0)));
        // A cosignature is not valid as a log signature, nor a log signature as a cosignature.
        let as_log = VerifyingKey::new("example/reader", KeyKind::Log, &witness.public().public_bytes());
        assert!(cosigned.verify(&as_log.expect("a key")).is_err());
        let mut later = cosigned.clone();
        later.signatures[1].bytes[7] += 1;
        assert_eq!(later.verify(witness.public()), Err(NoteError::Signature("example/reader".to_owned())));
    }

    #[test]
    fn malformed_notes_are_refused() {
        let (note, _) = signed();
        let good = note.to_string();
        for bad in [
            String::new(),
            "\n\n".to_owned(),
            good.trim_end().to_owned(),
            good.replace("\n\n", "\n"),
            good.replace('\u{2014}', "-"),
            good.replace("root", "ro\u{7}ot"),
            format!("{good}\n"),
            format!("{good}trailing\n"),
            format!("{}{}", good, "\u{2014} x AAAAAAAA\n".repeat(SIGNATURES_MAX)),
            "x".repeat(NOTE_BYTES_MAX + 1),
        ] {
            assert!(Note::parse(&bad).is_err(), "{bad:?}");
        }
    }

    proptest! {
        /// A note in which any byte was changed does not verify.
        #[test]
        fn any_change_is_noticed(at: usize, to: u8) {
            let (note, key) = signed();
            let mut bytes = note.to_string().into_bytes();
            let at = at % bytes.len();
            prop_assume!(bytes[at] != to);
            bytes[at] = to;
            if let Ok(text) = String::from_utf8(bytes) {
                let verdict = Note::parse(&text).and_then(|note| note.verify(key.public()));
                prop_assert!(verdict.is_err());
            }
        }

        #[test]
        fn garbage_never_panics(text in "\\PC{0,200}") {
            let _ = Note::parse(&text);
            let _ = VerifyingKey::parse(&text);
        }
    }
}
