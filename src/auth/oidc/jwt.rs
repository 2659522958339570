//! Tokens: who signed one, for whom, until when. No I/O and no clock.

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey, Header, Validation, decode, decode_header};
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256, Sha384, Sha512};

use crate::clock::Time;

/// What a token may be signed with. Never `none`, and nothing with a shared secret: whoever can check such a token can
/// make one.
const ALGORITHMS: [Algorithm; 9] = [
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
    Algorithm::ES256,
    Algorithm::ES384,
    Algorithm::EdDSA,
];
/// Longest token, in bytes.
const LONGEST: usize = 16 << 10;
/// How far clocks may be apart, in seconds.
const LEEWAY: f64 = 30.0;

/// What a token says.
pub type Claims = Map<String, Value>;

/// Why a token is worth nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Bad {
    /// Not one that we read.
    #[error("it is no JWT that is signed with RSA, ECDSA or EdDSA")]
    Format,
    /// Nobody knows the key.
    #[error("it is signed with a key that the issuer does not publish")]
    UnknownKey,
    /// Somebody else's, or changed.
    #[error("its signature is wrong")]
    Signature,
    /// A claim is not what it must be.
    #[error("its claim `{0}` is missing, or not what it must be")]
    Claim(&'static str),
    /// Somebody else's.
    #[error("its issuer is not {0}")]
    Issuer(String),
    /// For somebody else.
    #[error("it is not made for the audience `{0}`")]
    Audience(String),
    /// Over.
    #[error("it has expired")]
    Expired,
    /// Not yet.
    #[error("it is not valid yet; clocks may be apart")]
    Early,
}

/// The head of a token, if it is one that may be valid.
pub fn header(token: &str) -> Result<Header, Bad> {
    let header = (token.len() <= LONGEST).then(|| decode_header(token).ok()).flatten().ok_or(Bad::Format)?;
    // An extension that must be understood (RFC 7515, section 4.1.11) is one that we do not know.
    let read = ALGORITHMS.contains(&header.alg) && header.crit.is_none();
    read.then_some(header).ok_or(Bad::Format)
}

/// Whether a key may have signed it.
fn fits(jwk: &Jwk, header: &Header) -> bool {
    use Algorithm::{ES256, ES384, EdDSA, PS256, PS384, PS512, RS256, RS384, RS512};
    let common = &jwk.common;
    let kind = match (&jwk.algorithm, header.alg) {
        (AlgorithmParameters::RSA(_), RS256 | RS384 | RS512 | PS256 | PS384 | PS512) => true,
        (AlgorithmParameters::EllipticCurve(key), ES256) => key.curve == EllipticCurve::P256,
        (AlgorithmParameters::EllipticCurve(key), ES384) => key.curve == EllipticCurve::P384,
        (AlgorithmParameters::OctetKeyPair(key), EdDSA) => key.curve == EllipticCurve::Ed25519,
        _ => false,
    };
    kind && common.public_key_use.as_ref().is_none_or(|purpose| *purpose == PublicKeyUse::Signature)
        && common.key_algorithm.is_none_or(|only| only == KeyAlgorithm::from(header.alg))
        && header.kid.as_ref().is_none_or(|kid| common.key_id.as_ref() == Some(kid))
}

/// What a token says, if one of these keys signed it. What it says is not looked at.
pub fn signed(token: &str, header: &Header, keys: &[Jwk]) -> Result<Claims, Bad> {
    let mut validation = Validation::new(header.alg);
    // Claims are looked at below, by the clock that everybody here uses.
    validation.required_spec_claims.clear();
    (validation.validate_exp, validation.validate_aud) = (false, false);
    let mut bad = Bad::UnknownKey;
    for jwk in keys.iter().filter(|jwk| fits(jwk, header)) {
        bad = Bad::Signature;
        let decoded = DecodingKey::from_jwk(jwk).and_then(|key| decode::<Claims>(token, &key, &validation));
        if let Ok(decoded) = decoded {
            return Ok(decoded.claims);
        }
    }
    Err(bad)
}

/// Who must have made a token, and for whom.
#[derive(Clone, Copy)]
pub struct Expected<'a> {
    /// `iss`, to the letter.
    pub issuer: &'a str,
    /// One of `aud`.
    pub audience: &'a str,
    /// Now.
    pub now: Time,
}

/// Checks what every token must say.
pub fn check(claims: &Claims, expected: Expected<'_>) -> Result<(), Bad> {
    if claims.get("iss").and_then(Value::as_str) != Some(expected.issuer) {
        return Err(Bad::Issuer(expected.issuer.to_owned()));
    }
    if !audiences(claims).contains(&expected.audience) {
        return Err(Bad::Audience(expected.audience.to_owned()));
    }
    let now = expected.now.timestamp_millis() as f64 / 1e3;
    let moment = |claim: &'static str| match claims.get(claim) {
        None => Ok(None),
        Some(value) => value.as_f64().map(Some).ok_or(Bad::Claim(claim)),
    };
    if now >= moment("exp")?.ok_or(Bad::Claim("exp"))? + LEEWAY {
        return Err(Bad::Expired);
    }
    let begins = [moment("nbf")?, moment("iat")?];
    if begins.into_iter().flatten().any(|at| now < at - LEEWAY) { Err(Bad::Early) } else { Ok(()) }
}

fn audiences(claims: &Claims) -> Vec<&str> {
    match claims.get("aud") {
        Some(Value::String(one)) => vec![one],
        Some(Value::Array(list)) => list.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    }
}

/// Checks what the ID token of a login must say besides (OpenID Connect Core, sections 3.1.3.7 and 3.1.3.8).
pub fn check_login(
    claims: &Claims,
    algorithm: Algorithm,
    client: &str,
    nonce: &str,
    access_token: Option<&str>,
) -> Result<(), Bad> {
    let text = |claim| claims.get(claim).and_then(Value::as_str);
    if text("nonce") != Some(nonce) {
        return Err(Bad::Claim("nonce"));
    }
    if !claims.get("iat").is_some_and(Value::is_number) {
        return Err(Bad::Claim("iat"));
    }
    let party = claims.contains_key("azp") || audiences(claims).len() > 1;
    if party && text("azp") != Some(client) {
        return Err(Bad::Claim("azp"));
    }
    let token = access_token.filter(|_| claims.contains_key("at_hash"));
    if token.is_some_and(|token| text("at_hash") != Some(&half_hash(algorithm, token))) {
        return Err(Bad::Claim("at_hash"));
    }
    Ok(())
}

/// The left half of a text's hash, by the hash of the signature.
fn half_hash(algorithm: Algorithm, text: &str) -> String {
    use Algorithm::{ES384, EdDSA, PS384, PS512, RS384, RS512};
    let hash = match algorithm {
        RS384 | PS384 | ES384 => Sha384::digest(text).to_vec(),
        RS512 | PS512 | EdDSA => Sha512::digest(text).to_vec(),
        _ => Sha256::digest(text).to_vec(),
    };
    BASE64_URL_SAFE_NO_PAD.encode(&hash[..hash.len() / 2])
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;
    use serde_json::json;

    use super::*;

    fn checked(changes: Value) -> Result<(), Bad> {
        let mut claims = json!({"iss": "https://idp", "aud": "ota", "exp": 1000, "iat": 900, "sub": "a"});
        let now = DateTime::from_timestamp(950, 0).unwrap();
        for (name, value) in changes.as_object().unwrap() {
            claims[name] = value.clone();
        }
        check(claims.as_object().unwrap(), Expected { issuer: "https://idp", audience: "ota", now })
    }

    #[test]
    fn a_token_is_for_us_and_for_now() {
        let (issuer, audience) = (Err(Bad::Issuer("https://idp".into())), Err(Bad::Audience("ota".into())));
        for (changes, result) in [
            (json!({}), Ok(())),
            (json!({"aud": ["x", "ota"]}), Ok(())),
            (json!({"aud": ["x"]}), audience.clone()),
            (json!({"aud": {"ota": 1}}), audience.clone()),
            (json!({"aud": null}), audience),
            (json!({"iss": "https://idp/"}), issuer.clone()),
            (json!({"iss": ["https://idp"]}), issuer),
            (json!({"exp": 920.5}), Ok(())),
            (json!({"exp": 920}), Err(Bad::Expired)),
            (json!({"exp": -1}), Err(Bad::Expired)),
            (json!({"exp": "1000"}), Err(Bad::Claim("exp"))),
            (json!({"exp": null}), Err(Bad::Claim("exp"))),
            (json!({"nbf": 980}), Ok(())),
            (json!({"nbf": 981}), Err(Bad::Early)),
            (json!({"nbf": "soon"}), Err(Bad::Claim("nbf"))),
            (json!({"iat": 1000}), Err(Bad::Early)),
        ] {
            assert_eq!(checked(changes.clone()), result, "{changes}");
        }
    }

    #[test]
    fn an_id_token_belongs_to_one_login_and_one_client() {
        // OpenID Connect Core, appendix A.3, has this access token and its hash.
        let (token, hash) = ("jHkWEdUXMU1BwAsC4vtUsZwnNvTIxEl0z9K3vx5KF0Y", "77QmUPtjPfzWtF2AnpK9RQ");
        let checked = |claims: Value| {
            check_login(claims.as_object().unwrap(), Algorithm::RS256, "ota", "n", Some(token))
        };
        assert_eq!(checked(json!({"nonce": "n", "iat": 1, "aud": "ota", "at_hash": hash})), Ok(()));
        assert_eq!(checked(json!({"nonce": "n", "iat": 1, "aud": ["ota", "x"], "azp": "ota"})), Ok(()));
        for (claims, bad) in [
            (json!({"iat": 1, "aud": "ota"}), "nonce"),
            (json!({"nonce": "m", "iat": 1, "aud": "ota"}), "nonce"),
            (json!({"nonce": "n", "aud": "ota"}), "iat"),
            (json!({"nonce": "n", "iat": 1, "aud": ["ota", "x"]}), "azp"),
            (json!({"nonce": "n", "iat": 1, "aud": "ota", "azp": "x"}), "azp"),
            (json!({"nonce": "n", "iat": 1, "aud": "ota", "at_hash": "77QmUPtjPfzWtF2AnpK9Rq"}), "at_hash"),
        ] {
            assert_eq!(checked(claims.clone()), Err(Bad::Claim(bad)), "{claims}");
        }
    }

    #[test]
    fn only_signatures_that_we_can_check_and_not_make_are_read() {
        let token = |header: Value| {
            let part = |value: Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
            format!("{}.{}.c2ln", part(header), part(json!({})))
        };
        assert!(header(&token(json!({"alg": "ES256"}))).is_ok());
        for head in [
            json!({"alg": "none"}),
            json!({"alg": "None"}),
            json!({"alg": "HS256"}),
            json!({"alg": "HS512"}),
            json!({"alg": "RS256", "crit": ["exp"]}),
            json!({"alg": "ES512"}),
            json!({}),
        ] {
            assert_eq!(header(&token(head.clone())).map(|_| ()), Err(Bad::Format), "{head}");
        }
        for text in [
            "",
            ".",
            "..",
            "a.b.c",
            &format!("{}x", token(json!({"alg": "ES256", "typ": "x".repeat(20_000)}))),
        ] {
            assert_eq!(header(text).map(|_| ()), Err(Bad::Format));
        }
    }
}
