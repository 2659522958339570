//! A login by browser: authorization code with PKCE (RFC 7636), state and nonce (OpenID Connect Core, section 3.1).

use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use url::Url;
use url::form_urlencoded::{Serializer, byte_serialize};

use super::{Away, Error, Oidc, db, grants, jwt};
use crate::auth::key::{Fingerprint, random};
use crate::auth::session::Person;
use crate::config::Client;

/// How long somebody may take at the provider.
pub(super) const LIFE: Duration = Duration::from_secs(600);
/// Longest path to return to.
const LONGEST: usize = 2000;

/// A login that the browser is about to take to the provider.
pub struct Begun {
    /// Where it goes.
    pub location: Url,
    /// For its cookie, and nowhere else.
    pub browser: SecretString,
}

/// What the provider sends back with the browser.
#[derive(Default)]
pub struct Answer {
    pub code: Option<String>,
    pub state: Option<String>,
    pub error: Option<String>,
    pub iss: Option<String>,
}

impl Answer {
    /// Reads a query. What else is in it is the provider's business; what is in it twice is in it not at all.
    pub fn read(query: &str) -> Self {
        let pairs: Vec<_> = url::form_urlencoded::parse(query.as_bytes()).collect();
        let one = |name: &str| {
            let mut values = pairs.iter().filter(|(key, _)| key == name).map(|(_, value)| value.to_string());
            values.next().filter(|_| values.next().is_none())
        };
        Self { code: one("code"), state: one("state"), error: one("error"), iss: one("iss") }
    }
}

/// What the provider gives for a code.
#[derive(Deserialize)]
struct Tokens {
    id_token: Option<SecretString>,
    access_token: Option<SecretString>,
}

/// A path of this server. What a browser would take for another host is none: it drops tabs and line ends, and takes a
/// backslash for a slash.
pub fn is_local(path: &str) -> bool {
    let plain = path.len() <= LONGEST && path.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\');
    plain && path.starts_with('/') && !path.starts_with("//")
}

impl Oidc {
    fn client(&self) -> Result<&Client, Error> {
        self.settings.client.as_ref().ok_or(Error::NoLogin)
    }

    /// Writes a login down, and says where the browser goes with it.
    pub async fn begin(&self, return_to: &str) -> Result<Begun, Error> {
        let client = self.client()?;
        if !is_local(return_to) {
            return Err(Error::ReturnTo);
        }
        let known = self.issuer.known().await?;
        let Some(mut location) = known.metadata.authorization_endpoint.clone() else {
            return Err(Error::Lacks("authorization_endpoint"));
        };
        let (state, browser) = (random::<32>()?, random::<32>()?);
        let (nonce, verifier) = (random::<32>()?, random::<32>()?);
        location
            .query_pairs_mut()
            .append_pair("response_type", "code")
            .append_pair("client_id", &client.id)
            .append_pair("redirect_uri", &self.callback)
            .append_pair("scope", &self.settings.scopes)
            .append_pair("state", &state)
            .append_pair("nonce", &nonce)
            .append_pair("code_challenge", &BASE64_URL_SAFE_NO_PAD.encode(Sha256::digest(&verifier)))
            .append_pair("code_challenge_method", "S256");
        let login = db::Login { nonce, verifier, return_to: return_to.to_owned() };
        let (now, ids) = (self.clock.now(), [Fingerprint::of(&state), Fingerprint::of(&browser)]);
        db::begin(&mut *self.pool.acquire().await?, &ids, &login, now, now + LIFE).await?;
        Ok(Begun { location, browser: browser.into() })
    }

    /// Ends a login: who it is, and where the browser goes now. Whatever comes of it, it cannot be ended twice.
    pub async fn finish(&self, answer: Answer, browser: Option<&str>) -> Result<(Person, String), Error> {
        let client = self.client()?;
        let (Some(state), Some(browser)) = (&answer.state, browser) else { return Err(Error::Unknown) };
        let ids = [Fingerprint::of(state), Fingerprint::of(browser)];
        let login = db::take(&mut *self.pool.acquire().await?, &ids, self.clock.now()).await?;
        let login = login.ok_or(Error::Unknown)?;
        let known = self.issuer.known().await?;
        let must_name = known.metadata.authorization_response_iss_parameter_supported;
        if answer.iss.as_ref().map_or(must_name, |iss| *iss != self.settings.issuer) {
            return Err(jwt::Bad::Issuer(self.settings.issuer.clone()).into());
        }
        if let Some(error) = answer.error {
            let code = error.chars().filter(|c| c.is_ascii_lowercase() || *c == '_').take(40).collect();
            return Err(Error::Denied(code));
        }
        let code = answer.code.ok_or(Error::Lacks("code"))?;
        let tokens = self.exchange(client, &code, &login.verifier).await?;
        let token = tokens.id_token.ok_or(Error::Lacks("id_token"))?;
        let (claims, algorithm) = self.read(token.expose_secret(), &client.id).await?;
        let access = tokens.access_token.as_ref().map(|token| token.expose_secret());
        jwt::check_login(&claims, algorithm, &client.id, &login.nonce, access)?;
        Ok((grants::person(&self.settings, &claims)?, login.return_to))
    }

    async fn exchange(&self, client: &Client, code: &str, verifier: &str) -> Result<Tokens, Error> {
        let known = self.issuer.known().await?;
        let endpoint = known.metadata.token_endpoint.clone().ok_or(Error::Lacks("token_endpoint"))?;
        let mut fields = vec![
            ("grant_type", "authorization_code"),
            ("code", code),
            ("redirect_uri", &self.callback),
            ("code_verifier", verifier),
        ];
        let mut request = self.issuer.client().post(endpoint);
        match &client.secret {
            None => fields.push(("client_id", &client.id)),
            Some(secret) if known.metadata.secret_in_form() => {
                fields.extend([("client_id", client.id.as_str()), ("client_secret", secret.expose_secret())]);
            }
            Some(secret) => {
                // Both are encoded as in a form first (RFC 6749, section 2.3.1).
                let encoded = |text: &str| byte_serialize(text.as_bytes()).collect::<String>();
                request = request.basic_auth(encoded(&client.id), Some(encoded(secret.expose_secret())));
            }
        }
        let request = request
            .header("content-type", "application/x-www-form-urlencoded")
            .header("accept", "application/json")
            .body(Serializer::new(String::new()).extend_pairs(fields).finish());
        self.issuer.ask(request, "the tokens for the code").await.map_err(|away| match away {
            // It is there, and does not want this code, or us.
            Away::Says { status: status @ 400..500, .. } => Error::Exchange(status),
            away => away.into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_paths_of_this_server_are_gone_to() {
        for path in ["/", "/console", "/console?tab=a&x=%2F%2Fevil#b", "/a//b"] {
            assert!(is_local(path), "{path}");
        }
        for path in [
            "",
            "console",
            "//evil.example",
            "/\\evil.example",
            "\\\\evil",
            "https://evil.example",
            "/\t/evil.example",
            "/\n/evil",
            "/a\\b",
            "javascript:alert(1)",
            " /a",
            "/ä",
            &format!("/{}", "a".repeat(2000)),
        ] {
            assert!(!is_local(path), "{path}");
        }
    }

    #[test]
    fn what_is_said_twice_is_not_said() {
        let answer = Answer::read("code=a&state=b&session_state=c&iss=https%3A%2F%2Fidp&state=d");
        assert_eq!((answer.code.as_deref(), answer.iss.as_deref()), (Some("a"), Some("https://idp")));
        assert_eq!(answer.state, None);
    }
}
