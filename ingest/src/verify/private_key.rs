//! The private half of a key pair that was made to try a source: no sender gives its own away.

use p256::ecdsa::signature::hazmat::PrehashSigner as _;
use p256::ecdsa::{Signature, SigningKey};
use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use ring::rand::SystemRandom;
use ring::rsa::KeyPair as RsaKeyPair;
use ring::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair,
    RSA_PKCS1_SHA256,
};
use rsa::pkcs8::DecodePrivateKey as _;
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::pki_types::pem::PemObject;
use sha1::Sha1;

use super::public_key::Kind;

/// A private key.
#[derive(Debug)]
pub struct PrivateKey(Pair);

#[derive(Debug)]
enum Pair {
    Ed25519(Ed25519KeyPair),
    Ecdsa(EcdsaKeyPair),
    EcdsaSha1(SigningKey),
    Rsa(RsaKeyPair),
    /// ring signs nothing with SHA-1.
    RsaSha1(Box<rsa::PrivateKey>),
}

impl PrivateKey {
    /// Reads one of PKCS #8 in PEM; `None` where it is none, or of another kind.
    pub fn read(kind: Kind, pem: &[u8]) -> Option<Self> {
        let der = PrivatePkcs8KeyDer::from_pem_slice(pem).ok()?;
        let der = der.secret_pkcs8_der();
        let ecdsa = |algorithm| EcdsaKeyPair::from_pkcs8(algorithm, der, &SystemRandom::new()).ok();
        let pair = match kind {
            // OpenSSL writes it without the public half.
            Kind::Ed25519 => Ed25519KeyPair::from_pkcs8_maybe_unchecked(der).ok().map(Pair::Ed25519),
            Kind::EcdsaP256 => ecdsa(&ECDSA_P256_SHA256_ASN1_SIGNING).map(Pair::Ecdsa),
            Kind::EcdsaP256Fixed => ecdsa(&ECDSA_P256_SHA256_FIXED_SIGNING).map(Pair::Ecdsa),
            Kind::EcdsaP256Sha1 => SigningKey::from_pkcs8_der(der).ok().map(Pair::EcdsaSha1),
            Kind::RsaSha256 => RsaKeyPair::from_pkcs8(der).ok().map(Pair::Rsa),
            Kind::RsaSha1 => {
                rsa::PrivateKey::from_pkcs8_der(der).ok().map(|key| Pair::RsaSha1(Box::new(key)))
            }
        };
        pair.map(Self)
    }

    /// Signs `content`; `None` where the system gives no randomness.
    pub fn sign(&self, content: &[u8]) -> Option<Vec<u8>> {
        let random = SystemRandom::new();
        match &self.0 {
            Pair::Ed25519(pair) => Some(pair.sign(content).as_ref().to_vec()),
            Pair::Ecdsa(pair) => Some(pair.sign(&random, content).ok()?.as_ref().to_vec()),
            Pair::EcdsaSha1(pair) => {
                let hash = digest(&SHA1_FOR_LEGACY_USE_ONLY, content);
                let signature: Signature = pair.sign_prehash(hash.as_ref()).ok()?;
                Some(signature.to_der().as_bytes().to_vec())
            }
            Pair::Rsa(pair) => {
                let mut signature = vec![0; pair.public().modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &random, content, &mut signature).ok()?;
                Some(signature)
            }
            Pair::RsaSha1(key) => key.pkcs1v15_sign::<Sha1>(content).ok(),
        }
    }
}
