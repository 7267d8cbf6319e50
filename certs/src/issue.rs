//! Issues certificates and revocation lists with rcgen.

use piperoll_format::ids::ClusterName;
use piperoll_net::identity::{Identity, Kind};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SanType,
    SerialNumber,
};
use time::{Duration, OffsetDateTime};

use super::error::{CertsError, Result};

const AUTHORITY_DAYS: i64 = 3_650;
/// Lifetime of a member's certificate: a little more than a year, so that a yearly renewal is never late.
const MEMBER_DAYS: i64 = 397;
/// Time by which a certificate is backdated: clocks in a cluster may differ slightly, and a new certificate must be
/// valid everywhere at once.
const BACKDATE_MINUTES: i64 = 10;

pub(crate) struct CertificateAuthority {
    certificate_pem: String,
    key_pem: zeroize::Zeroizing<String>,
    issuer: Issuer<'static, KeyPair>,
}

pub(crate) struct Issued {
    pub(crate) certificate_pem: String,
    pub(crate) key_pem: zeroize::Zeroizing<String>,
    /// Serial number in hexadecimal.
    pub(crate) serial: String,
}

/// Returns a distinguished name that is unique to each certificate. If the authority and a leaf had equal subjects, the leaf
/// would look self-signed.
fn subject(cluster: &ClusterName, name: &str) -> DistinguishedName {
    let mut subject = DistinguishedName::new();
    subject.push(DnType::OrganizationName, cluster.as_str());
    subject.push(DnType::CommonName, name);
    subject
}

impl CertificateAuthority {
    pub(crate) fn new(cluster: &ClusterName) -> Result<Self> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.distinguished_name = subject(cluster, "piperoll authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.not_before = OffsetDateTime::now_utc() - Duration::minutes(BACKDATE_MINUTES);
        params.not_after = OffsetDateTime::now_utc() + Duration::days(AUTHORITY_DAYS);
        let certificate_pem = params.self_signed(&key)?.pem();
        let key_pem = key.serialize_pem();
        Self::load(&certificate_pem, &key_pem)
    }

    pub(crate) fn load(certificate_pem: &str, key_pem: &str) -> Result<Self> {
        let issuer = Issuer::from_ca_cert_pem(certificate_pem, KeyPair::from_pem(key_pem)?)?;
        Ok(Self {
            certificate_pem: certificate_pem.to_owned(),
            key_pem: zeroize::Zeroizing::new(key_pem.to_owned()),
            issuer,
        })
    }

    pub(crate) fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    pub(crate) fn key_pem(&self) -> &str {
        &self.key_pem
    }

    /// Issues a certificate. Its URI name identifies the holder; the DNS and IP names are for programs that check such names.
    pub(crate) fn issue(&self, identity: &Identity, host: &str) -> Result<Issued> {
        let key = KeyPair::generate()?;
        let mut serial = [0u8; 16];
        getrandom::fill(&mut serial).map_err(CertsError::Random)?;
        // A serial number is a positive ASN.1 integer (RFC 5280 section 4.1.2.2).
        serial[0] = (serial[0] & 0x7f) | 0x40;
        let mut names = Vec::new();
        if !host.is_empty() {
            names.push(host.to_owned());
        }
        // Clients on the same machine use these names: for a node's recording interface and an aggregator's health check.
        if identity.kind != Kind::User {
            names.extend(["localhost", "127.0.0.1", "::1"].map(str::to_owned));
            names.dedup();
        }
        let mut params = CertificateParams::new(names)?;
        params.subject_alt_names.push(SanType::URI(identity.to_string().try_into()?));
        let kind = match identity.kind {
            Kind::Node => "node",
            Kind::Aggregator => "aggregator",
            Kind::User => "user",
        };
        params.distinguished_name = subject(&identity.cluster, &format!("{kind} {}", identity.id));
        params.serial_number = Some(SerialNumber::from_slice(&serial));
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = match identity.kind {
            Kind::User => vec![ExtendedKeyUsagePurpose::ClientAuth],
            // An aggregator is a server to people and a client to nodes. A node is only a server.
            Kind::Aggregator => vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth],
            Kind::Node => vec![ExtendedKeyUsagePurpose::ServerAuth],
        };
        params.use_authority_key_identifier_extension = true;
        params.not_before = OffsetDateTime::now_utc() - Duration::minutes(BACKDATE_MINUTES);
        params.not_after = OffsetDateTime::now_utc() + Duration::days(MEMBER_DAYS);
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok(Issued {
            certificate_pem: certificate.pem(),
            key_pem: zeroize::Zeroizing::new(key.serialize_pem()),
            serial: hex::encode(serial),
        })
    }

    pub(crate) fn revocation_list(&self, number: u64, serials: &[String]) -> Result<String> {
        let now = OffsetDateTime::now_utc();
        let revoked_certs = serials
            .iter()
            .filter_map(|serial| hex::decode(serial).ok())
            .map(|serial| RevokedCertParams {
                serial_number: SerialNumber::from_slice(&serial),
                revocation_time: now,
                reason_code: None,
                invalidity_date: None,
            })
            .collect();
        let params = CertificateRevocationListParams {
            this_update: now - Duration::minutes(BACKDATE_MINUTES),
            next_update: now + Duration::days(AUTHORITY_DAYS),
            crl_number: SerialNumber::from(number),
            issuing_distribution_point: None,
            revoked_certs,
            key_identifier_method: KeyIdMethod::Sha256,
        };
        Ok(params.signed_by(&self.issuer)?.pem()?)
    }
}
