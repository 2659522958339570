//! A small OpenID provider: discovery, keys, authorize, token. It signs with aws-lc-rs itself, not with the library that
//! the server checks with, and it checks what a provider must check. A test tells it who logs in, and how it misbehaves.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use aws_lc_rs::encoding::AsDer as _;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256, RsaKeyPair,
};
use axum::Router;
use axum::body::Bytes;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD as BASE64};
use paperminder_ota::clock::Clock;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256, Sha512};
use tokio::net::TcpListener;

pub const CLIENT: &str = "ota console";
pub const SECRET: &str = "s3cret:/+%";

enum Pair {
    Rsa(RsaKeyPair),
    Ec(EcdsaKeyPair),
    Ed(Ed25519KeyPair),
}

/// A key of the provider.
pub struct Key {
    pub kid: String,
    pair: Pair,
}

/// What the provider does to the claims of an ID token before it signs it.
pub type Twist = Box<dyn Fn(&mut Value) + Send>;

struct World {
    keys: Vec<Key>,
    /// Who logs in next, besides what every token says.
    person: Value,
    twist: Option<Twist>,
    /// By code: what the authorization request said.
    codes: BTreeMap<String, BTreeMap<String, String>>,
    /// What the discovery document says instead.
    lies: Value,
    away: bool,
    has_secret: bool,
    /// Requests for the keys.
    read: u32,
    serial: u32,
}

#[derive(Clone)]
pub struct Provider {
    pub issuer: String,
    clock: Clock,
    world: Arc<Mutex<World>>,
}

impl Key {
    pub fn rsa(kid: &str) -> Self {
        Self { kid: kid.into(), pair: Pair::Rsa(RsaKeyPair::generate(KeySize::Rsa2048).unwrap()) }
    }

    pub fn ec(kid: &str) -> Self {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        Self { kid: kid.into(), pair: Pair::Ec(pair) }
    }

    pub fn ed(kid: &str) -> Self {
        Self { kid: kid.into(), pair: Pair::Ed(Ed25519KeyPair::generate().unwrap()) }
    }

    fn algorithm(&self) -> &'static str {
        match &self.pair {
            Pair::Rsa(_) => "RS256",
            Pair::Ec(_) => "ES256",
            Pair::Ed(_) => "EdDSA",
        }
    }

    fn jwk(&self) -> Value {
        let mut jwk = match &self.pair {
            Pair::Rsa(pair) => {
                let key = pair.public_key();
                let number = |number: &[u8]| BASE64.encode(number);
                json!({"kty": "RSA", "n": number(key.modulus().big_endian_without_leading_zero()),
                    "e": number(key.exponent().big_endian_without_leading_zero())})
            }
            Pair::Ec(pair) => {
                let point = pair.public_key().as_ref();
                json!({"kty": "EC", "crv": "P-256", "x": BASE64.encode(&point[1..33]), "y": BASE64.encode(&point[33..])})
            }
            Pair::Ed(pair) => {
                json!({"kty": "OKP", "crv": "Ed25519", "x": BASE64.encode(pair.public_key().as_ref())})
            }
        };
        jwk["kid"] = json!(self.kid);
        jwk["use"] = json!("sig");
        jwk["alg"] = json!(self.algorithm());
        jwk
    }

    /// What everybody knows of it, as somebody would feed it to an HMAC who hopes that the server mixes them up.
    pub fn public_der(&self) -> Vec<u8> {
        match &self.pair {
            Pair::Rsa(pair) => pair.public_key().as_der().unwrap().as_ref().to_vec(),
            Pair::Ec(pair) => pair.public_key().as_ref().to_vec(),
            Pair::Ed(pair) => pair.public_key().as_ref().to_vec(),
        }
    }

    pub fn header(&self) -> Value {
        json!({"alg": self.algorithm(), "kid": self.kid, "typ": "JWT"})
    }

    /// The left half of a hash, as `at_hash` has it: Ed25519 hashes with SHA-512.
    fn half_hash(&self, text: &str) -> String {
        match &self.pair {
            Pair::Ed(_) => BASE64.encode(&Sha512::digest(text)[..32]),
            Pair::Rsa(_) | Pair::Ec(_) => BASE64.encode(&Sha256::digest(text)[..16]),
        }
    }

    /// A token with this head, signed with this key whatever the head says.
    pub fn sign_as(&self, header: &Value, claims: &Value) -> String {
        let message = message(header, claims);
        let random = SystemRandom::new();
        let signature = match &self.pair {
            Pair::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &random, message.as_bytes(), &mut signature).unwrap();
                signature
            }
            Pair::Ec(pair) => pair.sign(&random, message.as_bytes()).unwrap().as_ref().to_vec(),
            Pair::Ed(pair) => pair.sign(message.as_bytes()).as_ref().to_vec(),
        };
        format!("{message}.{}", BASE64.encode(signature))
    }

    pub fn sign(&self, claims: &Value) -> String {
        self.sign_as(&self.header(), claims)
    }
}

/// What is signed of a token.
pub fn message(header: &Value, claims: &Value) -> String {
    format!("{}.{}", BASE64.encode(header.to_string()), BASE64.encode(claims.to_string()))
}

impl Provider {
    /// On a free port, with these keys, of which the first signs.
    pub async fn start(clock: &Clock, keys: Vec<Key>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let world = World {
            keys,
            person: json!({"sub": "ada"}),
            twist: None,
            codes: BTreeMap::new(),
            lies: json!({}),
            away: false,
            has_secret: false,
            read: 0,
            serial: 0,
        };
        // Another name than the server's, so that the two are different sites for a browser.
        let issuer = format!("http://localhost:{}/realms/print", listener.local_addr().unwrap().port());
        let provider = Self { issuer, clock: clock.clone(), world: Arc::new(Mutex::new(world)) };
        let routes = Router::new()
            .route("/realms/print/.well-known/openid-configuration", get(discovery))
            .route("/realms/print/keys", get(keys_of))
            .route("/realms/print/authorize", get(authorize))
            .route("/realms/print/token", post(token))
            .with_state(provider.clone());
        tokio::spawn(async { axum::serve(listener, routes).await });
        provider
    }

    fn with<T>(&self, change: impl FnOnce(&mut World) -> T) -> T {
        change(&mut self.world.lock().unwrap())
    }

    /// Who logs in from now on.
    pub fn person(&self, claims: Value) {
        self.with(|world| world.person = claims);
    }

    /// How ID tokens differ from what they should be.
    pub fn twist(&self, twist: impl Fn(&mut Value) + Send + 'static) {
        self.with(|world| world.twist = Some(Box::new(twist)));
    }

    pub fn honest(&self) {
        self.with(|world| world.twist = None);
    }

    /// What it says of itself that is not so.
    pub fn lie(&self, lies: Value) {
        self.with(|world| world.lies = lies);
    }

    pub fn away(&self, away: bool) {
        self.with(|world| world.away = away);
    }

    /// Whether it wants the client's secret.
    pub fn wants_secret(&self, wants: bool) {
        self.with(|world| world.has_secret = wants);
    }

    /// Signs with this key from now on, and publishes no other.
    pub fn rotate(&self, key: Key) {
        self.with(|world| world.keys = vec![key]);
    }

    /// How often its keys were read.
    pub fn read(&self) -> u32 {
        self.with(|world| world.read)
    }

    /// What a token of this provider says, valid for five minutes.
    pub fn claims(&self, audience: &str, more: &Value) -> Value {
        let now = self.clock.now().timestamp();
        let mut claims = json!({"iss": self.issuer, "aud": audience, "iat": now, "exp": now + 300});
        for (name, value) in more.as_object().unwrap() {
            claims[name] = value.clone();
        }
        claims
    }

    /// A token of its key with this number.
    pub fn token(&self, key: usize, claims: &Value) -> String {
        self.with(|world| world.keys[key].sign(claims))
    }

    /// Something made with one of its keys.
    pub fn using<T>(&self, make: impl FnOnce(&Key) -> T) -> T {
        self.with(|world| make(&world.keys[0]))
    }
}

async fn discovery(State(provider): State<Provider>) -> Response {
    if provider.with(|world| world.away) {
        return StatusCode::BAD_GATEWAY.into_response();
    }
    let issuer = &provider.issuer;
    let mut document = json!({"issuer": issuer, "jwks_uri": format!("{issuer}/keys"),
        "authorization_endpoint": format!("{issuer}/authorize"), "token_endpoint": format!("{issuer}/token"),
        "authorization_response_iss_parameter_supported": true});
    let lies = provider.with(|world| world.lies.clone());
    for (name, value) in lies.as_object().unwrap() {
        document[name] = value.clone();
    }
    document.to_string().into_response()
}

async fn keys_of(State(provider): State<Provider>) -> Response {
    provider.with(|world| {
        world.read += 1;
        if world.away {
            return StatusCode::BAD_GATEWAY.into_response();
        }
        // A kind of key that nobody has heard of spoils nothing.
        let strange = json!({"kty": "AKP", "alg": "ML-DSA-44", "kid": "tomorrow", "pub": "AA"});
        let keys: Vec<_> = std::iter::once(strange).chain(world.keys.iter().map(Key::jwk)).collect();
        json!({"keys": keys}).to_string().into_response()
    })
}

fn form(text: &str) -> BTreeMap<String, String> {
    url::form_urlencoded::parse(text.as_bytes()).into_owned().collect()
}

async fn authorize(State(provider): State<Provider>, RawQuery(query): RawQuery) -> Response {
    let asked = form(&query.unwrap_or_default());
    for (name, value) in [("response_type", "code"), ("client_id", CLIENT), ("code_challenge_method", "S256")]
    {
        assert_eq!(asked[name], value, "{name}");
    }
    assert!(asked["scope"].contains("openid") && asked["code_challenge"].len() == 43, "{asked:?}");
    assert!(asked["nonce"].len() >= 32 && asked["state"].len() >= 32, "{asked:?}");
    let (state, back) = (asked["state"].clone(), asked["redirect_uri"].clone());
    let code = provider.with(|world| {
        world.serial += 1;
        let code = format!("c0de-{}-of-the-provider", world.serial);
        world.codes.insert(code.clone(), asked);
        code
    });
    let mut location = url::Url::parse(&back).unwrap();
    location
        .query_pairs_mut()
        .append_pair("code", &code)
        .append_pair("state", &state)
        .append_pair("session_state", "of the provider")
        .append_pair("iss", &provider.issuer);
    Redirect::to(location.as_str()).into_response()
}

async fn token(State(provider): State<Provider>, headers: HeaderMap, body: Bytes) -> Response {
    let refused = |why: &str| (StatusCode::BAD_REQUEST, json!({"error": why}).to_string()).into_response();
    let given = form(std::str::from_utf8(&body).unwrap());
    let get = |name: &str| given.get(name).map(String::as_str).unwrap_or_default();
    let basic = headers.get(header::AUTHORIZATION).map(|value| {
        let value = value.to_str().unwrap().strip_prefix("Basic ").unwrap().to_owned();
        let text = String::from_utf8(BASE64_STANDARD.decode(value).unwrap()).unwrap();
        let (id, secret) = text.split_once(':').unwrap();
        [id, secret].map(|part| form(&format!("x={part}")).remove("x").unwrap())
    });
    let client = provider.with(|world| match (world.has_secret, basic) {
        (true, Some([id, secret])) => id == CLIENT && secret == SECRET,
        (false, None) => get("client_id") == CLIENT,
        _ => false,
    });
    if !client {
        return (StatusCode::UNAUTHORIZED, json!({"error": "invalid_client"}).to_string()).into_response();
    }
    // A code is worth something once.
    let Some(asked) = provider.with(|world| world.codes.remove(get("code"))) else {
        return refused("invalid_grant");
    };
    let challenge = BASE64.encode(Sha256::digest(get("code_verifier")));
    if get("grant_type") != "authorization_code"
        || challenge != asked["code_challenge"]
        || get("redirect_uri") != asked["redirect_uri"]
    {
        return refused("invalid_grant");
    }
    let access = "an access token that nobody looks into";
    let person = provider.with(|world| world.person.clone());
    let mut claims = provider.claims(CLIENT, &person);
    claims["nonce"] = json!(asked["nonce"]);
    let id_token = provider.with(|world| {
        claims["at_hash"] = json!(world.keys[0].half_hash(access));
        if let Some(twist) = &world.twist {
            twist(&mut claims);
        }
        world.keys[0].sign(&claims)
    });
    json!({"token_type": "Bearer", "access_token": access, "id_token": id_token}).to_string().into_response()
}
