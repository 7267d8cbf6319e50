//! Reads the identity of a certificate's holder: exactly one URI SAN in the form of a SPIFFE ID
//! (`spiffe://<cluster>/node/<id>`; SPIFFE X.509-SVID section 2: more than one URI SAN must be rejected).

use std::fmt;
use std::str::FromStr;

use piperoll_format::ids::{ClusterName, NameError, NodeId};

/// Holder of a certificate of one cluster. It is parsed once and is not passed around as a plain string.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Identity {
    pub cluster: ClusterName,
    pub kind: Kind,
    pub id: NodeId,
}

/// Kind of certificate holder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    Node,
    Aggregator,
    User,
}

impl Kind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Node => "node",
            Self::Aggregator => "aggregator",
            Self::User => "user",
        }
    }
}

/// Error for a certificate or URI that does not contain a valid identity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    #[error("cannot parse the certificate")]
    Unreadable,
    #[error("the certificate must have exactly one URI among its subject alternative names, but has {0}")]
    Count(usize),
    #[error("{0:?} is not of the form spiffe://<cluster>/node|aggregator|user/<id>")]
    Form(String),
    #[error(transparent)]
    Name(#[from] NameError),
}

impl Identity {
    pub fn new(cluster: &ClusterName, kind: Kind, id: &NodeId) -> Self {
        Self { cluster: cluster.clone(), kind, id: id.clone() }
    }

    /// Reads the identity of a certificate in DER, without checking whether the certificate is trusted.
    pub fn of_certificate(der: &[u8]) -> Result<Self, IdentityError> {
        use x509_parser::extensions::GeneralName;
        use x509_parser::prelude::{FromDer as _, X509Certificate};

        let (_, certificate) = X509Certificate::from_der(der).map_err(|_| IdentityError::Unreadable)?;
        let names = certificate.subject_alternative_name().map_err(|_| IdentityError::Unreadable)?;
        let uris: Vec<&str> = names
            .iter()
            .flat_map(|extension| &extension.value.general_names)
            .filter_map(|name| match name {
                GeneralName::URI(uri) => Some(*uri),
                _ => None,
            })
            .collect();
        match uris.as_slice() {
            [uri] => uri.parse(),
            other => Err(IdentityError::Count(other.len())),
        }
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "spiffe://{}/{}/{}", self.cluster, self.kind.as_str(), self.id)
    }
}

impl FromStr for Identity {
    type Err = IdentityError;

    fn from_str(text: &str) -> Result<Self, IdentityError> {
        let form = || IdentityError::Form(text.to_owned());
        let rest = text.strip_prefix("spiffe://").ok_or_else(form)?;
        let mut parts = rest.split('/');
        let (Some(cluster), Some(kind), Some(id), None) = (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(form());
        };
        let kind = match kind {
            "node" => Kind::Node,
            "aggregator" => Kind::Aggregator,
            "user" => Kind::User,
            _ => return Err(form()),
        };
        Ok(Self { cluster: cluster.parse()?, kind, id: id.parse()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_form_is_an_identity() {
        let good: Identity = "spiffe://example/node/mx1".parse().expect("an identity");
        assert_eq!(good.to_string(), "spiffe://example/node/mx1");
        for bad in [
            "https://example/node/mx1",
            "spiffe://example/node",
            "spiffe://example/node/mx1/x",
            "spiffe://example/root/mx1",
            "spiffe://Example/node/mx1",
            "spiffe:///node/mx1",
            "spiffe://example/node/",
        ] {
            assert!(bad.parse::<Identity>().is_err(), "{bad}");
        }
    }
}
