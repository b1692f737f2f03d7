//! The second scheme of Standard Webhooks, `v1a`: the same content, signed with Ed25519. The source
//! holds the sender's public key, written `whpk_…`, in place of a secret, and cannot sign itself.

use ring::signature::{ED25519, ED25519_PUBLIC_KEY_LEN, UnparsedPublicKey};

use super::signature::{Encoding, ParseRule};

/// What a public key begins with.
const PREFIX: &str = "whpk_";

/// The most signatures of one request that are looked at: each costs more than an HMAC.
const MAX_SIGNATURES: usize = 4;

/// A sender's public key.
#[derive(Clone, Debug)]
pub struct PublicKey(UnparsedPublicKey<Vec<u8>>);

impl PublicKey {
    /// Whether `material` claims to be one.
    pub fn is_meant(material: &[u8]) -> bool {
        material.starts_with(PREFIX.as_bytes())
    }

    /// Reads one as its sender shows it.
    pub fn read(material: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(material).ok()?.trim();
        let bytes = Encoding::Base64.decode(text.strip_prefix(PREFIX)?)?;
        (bytes.len() == ED25519_PUBLIC_KEY_LEN).then(|| Self(UnparsedPublicKey::new(&ED25519, bytes)))
    }

    /// Whether one of `signatures` is its owner's over `content`.
    pub fn signed(&self, content: &[u8], signatures: &[Vec<u8>]) -> bool {
        signatures.iter().any(|signature| self.0.verify(content, signature).is_ok())
    }
}

/// The signatures in `header`, which `parse` takes out of it.
pub fn signatures(parse: &ParseRule, header: &str) -> Vec<Vec<u8>> {
    let decode = |text| Encoding::Base64.decode(text);
    parse.candidates(header).into_iter().take(MAX_SIGNATURES).filter_map(decode).collect()
}
