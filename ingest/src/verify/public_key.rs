//! Signatures by a key pair. The source holds the sender's public key in place of a secret, and
//! cannot sign itself.

use hookwell_common::time::Timestamp;
use p256::ecdsa::signature::hazmat::PrehashVerifier as _;
use p256::ecdsa::{Signature, VerifyingKey};
use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use ring::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_FIXED, ED25519, ED25519_PUBLIC_KEY_LEN,
    RSA_PKCS1_2048_8192_SHA1_FOR_LEGACY_USE_ONLY, RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey,
    VerificationAlgorithm,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, SubjectPublicKeyInfoDer};
use spki::SubjectPublicKeyInfoRef;
use spki::der::Tag;
use spki::der::asn1::{AnyRef, ObjectIdentifier, UintRef};
use x509_cert::Certificate;
use x509_cert::der::{Decode as _, Encode as _};
use x509_cert::time::Time;

use super::signature::Encoding;

/// What stands around a public key in PEM.
const PEM_BEGINS: &str = "-----BEGIN PUBLIC KEY-----";
const PEM_ENDS: &str = "-----END PUBLIC KEY-----";

/// What the public key of Standard Webhooks begins with.
const WHPK: &str = "whpk_";

/// The most signatures of one request that are looked at: each costs more than an HMAC.
const MAX_SIGNATURES: usize = 4;

/// How a pair of keys signs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Ed25519.
    Ed25519,
    /// ECDSA on P-256 with SHA-256, the signature in DER.
    EcdsaP256,
    /// The same, the signature as two numbers of 32 bytes, as tokens have it.
    EcdsaP256Fixed,
    /// ECDSA on P-256 with SHA-1, for a sender that still has it.
    EcdsaP256Sha1,
    /// RSA with PKCS #1 v1.5 and SHA-1, for a sender that still has it.
    RsaSha1,
    /// RSA with PKCS #1 v1.5 and SHA-256.
    RsaSha256,
}

/// A sender's public key.
#[derive(Clone, Debug)]
pub struct PublicKey {
    kind: Kind,
    bytes: Vec<u8>,
}

/// When a certificate holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// From when on.
    pub from: Timestamp,
    /// Until when.
    pub until: Timestamp,
}

impl Kind {
    fn verify(self, key: &[u8], content: &[u8], signature: &[u8]) -> bool {
        let by = |algorithm: &'static dyn VerificationAlgorithm| {
            UnparsedPublicKey::new(algorithm, key).verify(content, signature).is_ok()
        };
        match self {
            Kind::Ed25519 => by(&ED25519),
            Kind::EcdsaP256 => by(&ECDSA_P256_SHA256_ASN1),
            Kind::EcdsaP256Fixed => by(&ECDSA_P256_SHA256_FIXED),
            Kind::EcdsaP256Sha1 => is_signed_with_sha1(key, content, signature),
            Kind::RsaSha1 => by(&RSA_PKCS1_2048_8192_SHA1_FOR_LEGACY_USE_ONLY),
            Kind::RsaSha256 => by(&RSA_PKCS1_2048_8192_SHA256),
        }
    }

    /// The algorithm that a key says it is for, where it says so (RFC 8410, 5480 and 8017).
    fn object_identifier(self) -> ObjectIdentifier {
        match self {
            Kind::Ed25519 => ObjectIdentifier::new_unwrap("1.3.101.112"),
            Kind::EcdsaP256 | Kind::EcdsaP256Fixed | Kind::EcdsaP256Sha1 => {
                ObjectIdentifier::new_unwrap("1.2.840.10045.2.1")
            }
            Kind::RsaSha1 | Kind::RsaSha256 => ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1"),
        }
    }
}

impl PublicKey {
    /// Whether `material` claims to be the public key of a sender of Standard Webhooks.
    pub fn is_meant(material: &[u8]) -> bool {
        material.starts_with(WHPK.as_bytes())
    }

    /// Reads one as its sender shows it: `whpk_…`, PEM, a certificate in PEM, of which only the key
    /// counts, for whoever configured it vouches for it, its DER in base64, or its 32 bytes in
    /// `encoding`.
    pub fn read(kind: Kind, encoding: Encoding, material: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(material).ok()?.trim();
        let bytes = match text.strip_prefix(WHPK) {
            Some(raw) => Encoding::Base64.decode(raw),
            None if text.starts_with("-----BEGIN CERTIFICATE-----") => {
                let certificate = first_certificate(text.as_bytes())?;
                let info = certificate.tbs_certificate().subject_public_key_info().to_der().ok()?;
                inner(kind, &info)
            }
            None if text.starts_with("-----") => {
                // eBay gives its keys out on one line.
                let lines = text
                    .replace(PEM_BEGINS, &format!("{PEM_BEGINS}\n"))
                    .replace(PEM_ENDS, &format!("\n{PEM_ENDS}"));
                let der = SubjectPublicKeyInfoDer::from_pem_slice(lines.as_bytes()).ok()?;
                inner(kind, der.as_ref())
            }
            None if text.starts_with('{') => return Self::of_json(kind, text),
            None => {
                let raw = encoding.decode(text).filter(|bytes| bytes.len() == ED25519_PUBLIC_KEY_LEN);
                raw.or_else(|| inner(kind, &Encoding::Base64.decode(text)?))
            }
        }?;
        Self::of_bytes(kind, bytes)
    }

    /// A key in JSON, as RFC 7517 has it.
    fn of_json(kind: Kind, text: &str) -> Option<Self> {
        let key: serde_json::Value = serde_json::from_str(text).ok()?;
        let member = |name: &str| key.get(name)?.as_str();
        match member("kty")? {
            "RSA" => Self::of_numbers(kind, member("n")?, member("e")?),
            "EC" if member("crv")? == "P-256" => Self::of_point(kind, member("x")?, member("y")?),
            _ => None,
        }
    }

    /// The key of a certificate in PEM, and when that holds.
    pub fn of_certificate(kind: Kind, pem: &[u8]) -> Option<(Self, Validity)> {
        let certificate = first_certificate(pem)?;
        let certificate = certificate.tbs_certificate();
        let info = certificate.subject_public_key_info().to_der().ok()?;
        let moment = |time: &Time| Timestamp::from_seconds(time.to_unix_duration().as_secs());
        let validity = certificate.validity();
        let validity = Validity { from: moment(&validity.not_before), until: moment(&validity.not_after) };
        Some((Self::of_bytes(kind, inner(kind, &info)?)?, validity))
    }

    /// The key of RSA with the modulus `n` and the exponent `e`, as RFC 7518 writes them.
    pub fn of_numbers(kind: Kind, n: &str, e: &str) -> Option<Self> {
        if kind.object_identifier() != Kind::RsaSha256.object_identifier() {
            return None;
        }
        let number = |text| UintRef::new(&Encoding::Base64Url.decode(text)?).ok()?.to_der().ok();
        let both = [number(n)?, number(e)?].concat();
        Self::of_bytes(kind, AnyRef::new(Tag::Sequence, &both).ok()?.to_der().ok()?)
    }

    /// The key on P-256 with these coordinates, as RFC 7518 writes them.
    pub fn of_point(kind: Kind, x: &str, y: &str) -> Option<Self> {
        if kind.object_identifier() != Kind::EcdsaP256.object_identifier() {
            return None;
        }
        let number = |text| Encoding::Base64Url.decode(text).filter(|bytes| bytes.len() == 32);
        Self::of_bytes(kind, [vec![4], number(x)?, number(y)?].concat())
    }

    fn of_bytes(kind: Kind, bytes: Vec<u8>) -> Option<Self> {
        let fits = match kind {
            Kind::Ed25519 => bytes.len() == ED25519_PUBLIC_KEY_LEN,
            Kind::EcdsaP256 | Kind::EcdsaP256Fixed | Kind::EcdsaP256Sha1 => bytes.len() == 65,
            Kind::RsaSha1 | Kind::RsaSha256 => bytes.len() > 256,
        };
        fits.then_some(Self { kind, bytes })
    }

    /// Whether one of `signatures` is its owner's over `content`.
    pub fn signed(&self, content: &[u8], signatures: &[Vec<u8>]) -> bool {
        self.signed_as(self.kind, content, signatures)
    }

    /// The same, where the owner signs in more ways than one with this key.
    pub fn signed_as(&self, kind: Kind, content: &[u8], signatures: &[Vec<u8>]) -> bool {
        signatures.iter().take(MAX_SIGNATURES).any(|signature| kind.verify(&self.bytes, content, signature))
    }
}

/// The first certificate in PEM, which is the sender's own: those of whoever vouches for it may follow.
fn first_certificate(pem: &[u8]) -> Option<Certificate> {
    Certificate::from_der(&CertificateDer::from_pem_slice(pem).ok()?).ok()
}

/// Which ring does not have.
fn is_signed_with_sha1(key: &[u8], content: &[u8], signature: &[u8]) -> bool {
    let hash = digest(&SHA1_FOR_LEGACY_USE_ONLY, content);
    let (key, signature) = (VerifyingKey::from_sec1_bytes(key), Signature::from_der(signature));
    matches!((key, signature), (Ok(key), Ok(signature)) if key.verify_prehash(hash.as_ref(), &signature).is_ok())
}

/// What ring wants of a subject's public key.
fn inner(kind: Kind, der: &[u8]) -> Option<Vec<u8>> {
    let info = SubjectPublicKeyInfoRef::try_from(der).ok()?;
    let is_of_kind = info.algorithm.oid == kind.object_identifier();
    is_of_kind.then(|| info.subject_public_key.as_bytes().map(<[u8]>::to_vec)).flatten()
}
