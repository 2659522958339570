//! URLs of a CDN in front of the bucket, signed for CloudFront with a canned policy when there is a key.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, RSA_PKCS1_SHA256, RsaKeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject as _;
use secrecy::{ExposeSecret as _, SecretString};

use super::{Error, ObjectKey};
use crate::clock::Time;

/// A CDN whose origin is the bucket.
pub struct Cdn {
    base: String,
    signer: Option<Signer>,
}

struct Signer {
    key_pair_id: String,
    key: Key,
}

enum Key {
    Ecdsa(EcdsaKeyPair),
    Rsa(RsaKeyPair),
}

impl std::fmt::Debug for Cdn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cdn").field("base", &self.base).field("signed", &self.signer.is_some()).finish()
    }
}

/// Why a key cannot sign.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "must hold a PEM private key, ECDSA P-256 or RSA-2048 (`openssl ecparam -name prime256v1 -genkey -noout` makes one)"
)]
pub struct BadKey;

impl Cdn {
    /// A CDN at `base`, unsigned or with the id and the PEM private key of a CloudFront key group.
    pub fn new(base: &str, key: Option<(&str, &SecretString)>) -> Result<Self, BadKey> {
        let signer = key
            .map(|(id, pem)| Key::read(pem).map(|key| Signer { key_pair_id: id.to_owned(), key }))
            .transpose()?;
        Ok(Self { base: base.trim_end_matches('/').to_owned(), signer })
    }

    /// Where the object is, until `expires` when it is signed.
    pub(super) fn url(&self, key: &ObjectKey, expires: Time) -> Result<String, Error> {
        let url = format!("{}/{}", self.base, key.as_str().replace('+', "%2B"));
        let Some(signer) = &self.signer else { return Ok(url) };
        let expires = expires.timestamp();
        // CloudFront compares the policy to the letter: no spaces, this order.
        let policy = format!(
            r#"{{"Statement":[{{"Resource":"{url}","Condition":{{"DateLessThan":{{"AWS:EpochTime":{expires}}}}}}}]}}"#
        );
        let signature = signer.key.sign(policy.as_bytes())?;
        // base64 with the three characters replaced that mean something in a query (CloudFront's developer guide).
        let signature: String = STANDARD
            .encode(signature)
            .chars()
            .map(|c| match c {
                '+' => '-',
                '=' => '_',
                '/' => '~',
                c => c,
            })
            .collect();
        Ok(format!(
            "{url}?Expires={expires}&Signature={signature}&Key-Pair-Id={}&Hash-Algorithm=SHA256",
            signer.key_pair_id
        ))
    }
}

impl Key {
    fn read(pem: &SecretString) -> Result<Self, BadKey> {
        match PrivateKeyDer::from_pem_slice(pem.expose_secret().as_bytes()).map_err(|_| BadKey)? {
            PrivateKeyDer::Sec1(der) => {
                EcdsaKeyPair::from_private_key_der(&ECDSA_P256_SHA256_ASN1_SIGNING, der.secret_sec1_der())
                    .map(Self::Ecdsa)
                    .map_err(|_| BadKey)
            }
            PrivateKeyDer::Pkcs1(der) => {
                RsaKeyPair::from_der(der.secret_pkcs1_der()).map(Self::Rsa).map_err(|_| BadKey)
            }
            PrivateKeyDer::Pkcs8(der) => {
                let der = der.secret_pkcs8_der();
                let ecdsa = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, der).map(Self::Ecdsa);
                ecdsa.or_else(|_| RsaKeyPair::from_pkcs8(der).map(Self::Rsa)).map_err(|_| BadKey)
            }
            _ => Err(BadKey),
        }
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
        let failed = |_| Error::Other("the CDN key cannot sign".into());
        match self {
            Self::Ecdsa(key) => {
                Ok(key.sign(&SystemRandom::new(), message).map_err(failed)?.as_ref().to_vec())
            }
            Self::Rsa(key) => {
                let mut signature = vec![0; key.public_modulus_len()];
                key.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), message, &mut signature).map_err(failed)?;
                Ok(signature)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::encoding::{AsDer as _, EcPrivateKeyRfc5915Der};
    use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, KeyPair as _, UnparsedPublicKey};

    use super::*;
    use crate::ids::FirmwareId;
    use crate::words::Channel;

    fn key() -> ObjectKey {
        ObjectKey::firmware(FirmwareId(uuid::Uuid::nil()), &"1.5.0".to_owned().into(), Channel::Stable)
    }

    fn pem(label: &str, der: &[u8]) -> SecretString {
        format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", STANDARD.encode(der)).into()
    }

    #[test]
    fn without_a_key_the_url_is_the_objects() {
        let cdn = Cdn::new("https://cdn.example.com/", None).unwrap();
        let url = cdn.url(&key(), chrono::DateTime::UNIX_EPOCH).unwrap();
        assert_eq!(url, format!("https://cdn.example.com/{}", key()));
    }

    #[test]
    fn an_ecdsa_signature_holds_over_the_canned_policy_and_the_url_fits_a_printer() {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap();
        let der: EcPrivateKeyRfc5915Der<'_> = pair.private_key().as_der().unwrap();
        let secret = pem("EC PRIVATE KEY", der.as_ref());
        let cdn =
            Cdn::new("https://d111111abcdef8.cloudfront.net", Some(("K2JCJMDEHXQW5F", &secret))).unwrap();
        let expires = chrono::DateTime::from_timestamp(1_767_290_400, 0).unwrap();
        let url = cdn.url(&key(), expires).unwrap();
        assert!(url.len() < 310, "{} characters", url.len());
        assert!(url.ends_with("&Key-Pair-Id=K2JCJMDEHXQW5F&Hash-Algorithm=SHA256"), "{url}");
        let signature = url.split("Signature=").nth(1).unwrap().split('&').next().unwrap();
        let signature: String = signature
            .chars()
            .map(|c| match c {
                '-' => '+',
                '_' => '=',
                '~' => '/',
                c => c,
            })
            .collect();
        let policy = format!(
            "{{\"Statement\":[{{\"Resource\":\"https://d111111abcdef8.cloudfront.net/{}\",\"Condition\":{{\"DateLessThan\":{{\"AWS:EpochTime\":1767290400}}}}}}]}}",
            key()
        );
        let public = UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, pair.public_key().as_ref());
        public.verify(policy.as_bytes(), &STANDARD.decode(signature).unwrap()).unwrap();
        assert!(!format!("{cdn:?}").contains("PRIVATE"), "{cdn:?}");
    }

    #[test]
    fn what_is_no_key_is_refused() {
        for text in ["", "not a key", "-----BEGIN EC PRIVATE KEY-----\nAAAA\n-----END EC PRIVATE KEY-----\n"]
        {
            assert_eq!(
                Cdn::new("https://c", Some(("K", &text.to_owned().into()))).map(|_| ()),
                Err(BadKey),
                "{text}"
            );
        }
    }
}
