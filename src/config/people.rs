//! Settings of people: sessions, and the OpenID Connect issuer that says who they are.

use std::time::Duration;

use secrecy::SecretString;
use url::Url;

use super::reader::Reader;

/// The names of roles, the strongest first.
pub const ROLES: [&str; 4] = ["admin", "release", "operator", "viewer"];

/// Issuers that anybody in the world has a token of.
const FOR_ALL_THE_WORLD: [&str; 4] =
    ["token.actions.githubusercontent.com", "accounts.google.com", "gitlab.com", "app.terraform.io"];

/// How people are known.
#[derive(Clone, Debug)]
pub struct People {
    /// Longest life of a session.
    pub session: Duration,
    /// Longest silence in it.
    pub idle: Duration,
    /// Who says who they are, besides keys.
    pub oidc: Option<Oidc>,
}

/// An OpenID Connect issuer, and what its word is worth.
#[derive(Clone, Debug)]
pub struct Oidc {
    /// As in the tokens' `iss`, to the letter.
    pub issuer: String,
    /// What this server is to the issuer; without it nobody logs in, and tokens open REST only.
    pub client: Option<Client>,
    /// What is asked for at a login, separated by spaces.
    pub scopes: String,
    /// For whom tokens must be made that open REST.
    pub audience: String,
    /// Where a token tells what somebody is.
    pub role_claim: String,
    /// Which value of it makes which of [`ROLES`]; `*` stands for everybody.
    pub roles: Vec<(String, String)>,
    /// Where it tells whose printers somebody sees; all when absent.
    pub users_claim: Option<String>,
}

/// This server as the issuer's client.
#[derive(Clone, Debug)]
pub struct Client {
    /// Its public name.
    pub id: String,
    /// Absent for a public client.
    pub secret: Option<SecretString>,
}

pub(super) fn read_people(read: &mut Reader<'_>, base_url: &str, auth_is_on: bool) -> People {
    People {
        session: read.seconds("SESSION_SECONDS", 12 * 3600, 300, 30 * 86_400),
        idle: read.seconds("SESSION_IDLE_SECONDS", 3600, 120, 30 * 86_400),
        oidc: read_oidc(read, base_url, auth_is_on),
    }
}

/// Whether nobody but this machine can listen in.
fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(url::Host::Domain(name)) => name == "localhost",
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

/// Whether what goes there is encrypted, or does not leave this machine.
pub fn is_private(url: &Url) -> bool {
    url.scheme() == "https" || (url.scheme() == "http" && is_loopback(url))
}

fn read_oidc(read: &mut Reader<'_>, base_url: &str, auth_is_on: bool) -> Option<Oidc> {
    let (id, audience) = (read.text("OIDC_CLIENT_ID"), read.text("OIDC_AUDIENCE"));
    let secret_file = read.text("OIDC_CLIENT_SECRET_FILE");
    let (roles, users_claim) = (read.text("OIDC_ROLES"), read.text("OIDC_USERS_CLAIM"));
    let Some(issuer) = read.text("OIDC_ISSUER").map(|text| text.trim().to_owned()) else {
        let all = [&id, &audience, &secret_file, &roles, &users_claim];
        if all.into_iter().any(Option::is_some) {
            read.wrong.push(
                "OIDC_ISSUER must be set when another OIDC_ setting is, as in https://idp.example.com/realms/print."
                    .into(),
            );
        }
        return None;
    };
    let mut wrong = |text: String| read.wrong.push(text);
    let url = Url::parse(&issuer).ok().filter(is_private);
    if url.as_ref().is_none_or(|url| url.query().is_some() || url.fragment().is_some()) {
        wrong(format!(
            "OIDC_ISSUER=`{issuer}`: must be an https:// URL without a query; http:// goes on a loopback address only."
        ));
    }
    if !auth_is_on {
        wrong("OIDC_ISSUER goes with AUTH=on: with AUTH=off everybody is an administrator.".into());
    }
    if id.is_none() && audience.is_none() {
        wrong("OIDC_CLIENT_ID must be set for people to log in, or OIDC_AUDIENCE for tokens alone.".into());
    }
    if id.is_some() && !Url::parse(base_url).is_ok_and(|url| is_private(&url)) {
        wrong(format!(
            "BASE_URL=`{base_url}`: must be an https:// URL for OIDC_CLIENT_ID, because browsers keep a login's cookie over https only."
        ));
    }
    if id.is_none() && secret_file.is_some() {
        wrong("OIDC_CLIENT_SECRET_FILE goes with OIDC_CLIENT_ID: set both, or none.".into());
    }
    let secret = secret_file.and_then(|path| match std::fs::read_to_string(&path) {
        Ok(text) if !text.trim().is_empty() => Some(SecretString::from(text.trim().to_owned())),
        Ok(_) => {
            wrong(format!("OIDC_CLIENT_SECRET_FILE: {path} is empty."));
            None
        }
        Err(error) => {
            wrong(format!("OIDC_CLIENT_SECRET_FILE: {path} cannot be read: {error}."));
            None
        }
    });
    let roles = read_roles(roles.as_deref(), url.as_ref(), &mut wrong);
    let audience = audience.or_else(|| id.clone()).unwrap_or_default();
    let (scopes, role_claim) = (read.text("OIDC_SCOPES"), read.text("OIDC_ROLE_CLAIM"));
    let scopes = scopes.unwrap_or_else(|| "openid profile email".into());
    if !scopes.split_whitespace().any(|scope| scope == "openid") {
        read.wrong.push(format!("OIDC_SCOPES=`{scopes}`: must name `openid` among others."));
    }
    Some(Oidc {
        issuer,
        client: id.map(|id| Client { id, secret }),
        scopes,
        audience,
        role_claim: role_claim.unwrap_or_else(|| "groups".into()),
        roles,
        users_claim,
    })
}

fn read_roles(
    text: Option<&str>,
    issuer: Option<&Url>,
    wrong: &mut impl FnMut(String),
) -> Vec<(String, String)> {
    let Some(text) = text else {
        wrong("OIDC_ROLES must be set with OIDC_ISSUER, as in ota-admins=admin,ota-ci=release: nobody gets in whom it does not name.".into());
        return Vec::new();
    };
    let mut roles = Vec::new();
    for part in text.split(',').map(str::trim) {
        match part.rsplit_once('=').map(|(value, role)| (value.trim(), role.trim())) {
            Some((value, role)) if !value.is_empty() && ROLES.contains(&role) => {
                roles.push((value.to_owned(), role.to_owned()));
            }
            _ => wrong(format!(
                "OIDC_ROLES: `{part}` must be a value and a role, as in ota-admins=admin; roles are {}.",
                ROLES.join(", ")
            )),
        }
    }
    let host = issuer.and_then(Url::host_str).unwrap_or_default();
    if FOR_ALL_THE_WORLD.contains(&host) && roles.iter().any(|(value, _)| value == "*") {
        wrong(format!(
            "OIDC_ROLES: `*` is everybody whom OIDC_ISSUER knows, and {host} knows the whole world; name values."
        ));
    }
    roles
}

#[cfg(test)]
mod tests {
    use super::super::{Config, Error};

    const ISSUER: (&str, &str) = ("OIDC_ISSUER", "https://idp.example.com/realms/print");
    const ROLES: (&str, &str) = ("OIDC_ROLES", "ota-admins=admin");
    const CLIENT: (&str, &str) = ("OIDC_CLIENT_ID", "ota");

    fn read(pairs: &[(&str, &str)]) -> Result<Config, Error> {
        let least = [("DATABASE_URL", "postgres://db/pm"), ("BASE_URL", "https://ota.example.com")];
        // What comes later wins.
        let all = [&least, pairs].concat();
        Config::from_lookup(&|name| {
            all.iter().rev().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn an_issuer_needs_no_more_than_roles_and_a_name_for_us() -> Result<(), Error> {
        assert!(read(&[])?.people.oidc.is_none());
        let oidc = read(&[ISSUER, ROLES, CLIENT])?.people.oidc.unwrap();
        let found = (oidc.issuer.as_str(), oidc.audience.as_str(), oidc.role_claim.as_str());
        assert_eq!(found, (ISSUER.1, "ota", "groups"));
        assert!(oidc.client.unwrap().secret.is_none() && oidc.users_claim.is_none());
        // GitHub Actions: nobody logs in, and the values have slashes, colons and an equals sign.
        let oidc = read(&[
            ("OIDC_ISSUER", "https://token.actions.githubusercontent.com"),
            ("OIDC_AUDIENCE", "https://ota.example.com"),
            ("OIDC_ROLE_CLAIM", "sub"),
            ("OIDC_ROLES", "repo:acme/printer:ref:refs/heads/main=release, a=b=viewer"),
            ("BASE_URL", "http://ota.internal"),
        ]);
        let oidc = oidc?.people.oidc.unwrap();
        let role = |value: &str, role: &str| (value.to_owned(), role.to_owned());
        assert_eq!(
            oidc.roles,
            [role("repo:acme/printer:ref:refs/heads/main", "release"), role("a=b", "viewer")]
        );
        assert!(oidc.client.is_none());
        Ok(())
    }

    #[test]
    fn half_a_configuration_stops_the_start_and_names_the_other_half() {
        let secret = ("OIDC_CLIENT_SECRET_FILE", "/nowhere/secret");
        let wrong = |pairs: &[(&str, &str)], part: &str| {
            let text = read(pairs).map(|_| ()).map_err(|error| error.to_string()).unwrap_err();
            assert!(text.contains(part), "{part} is missing in: {text}");
        };
        wrong(&[CLIENT], "OIDC_ISSUER must be set");
        wrong(&[("OIDC_USERS_CLAIM", "t")], "OIDC_ISSUER must be set");
        wrong(&[ISSUER, CLIENT], "OIDC_ROLES must be set");
        wrong(&[ISSUER, ROLES], "OIDC_CLIENT_ID must be set");
        wrong(&[ISSUER, ROLES, ("OIDC_AUDIENCE", "a"), secret], "SECRET_FILE goes with OIDC_CLIENT_ID");
        wrong(&[("SESSION_SECONDS", "60")], "SESSION_SECONDS=`60`: must be a whole number from 300");
        for (name, value, part) in [
            ("OIDC_ROLES", "ota-admins", "OIDC_ROLES: `ota-admins` must be"),
            ("OIDC_ROLES", "a=king", "roles are admin, release"),
            ("OIDC_ROLES", "=admin", "OIDC_ROLES: `=admin` must be"),
            ("OIDC_ROLES", "a=admin,", "OIDC_ROLES: `` must be"),
            ("OIDC_ISSUER", "http://idp.example.com", "OIDC_ISSUER=`http://idp.example.com`: must be"),
            ("OIDC_ISSUER", "https://idp.example.com?a=b", "without a query"),
            ("OIDC_ISSUER", "idp", "must be an https:// URL"),
            ("OIDC_SCOPES", "profile", "OIDC_SCOPES=`profile`: must name `openid`"),
            (secret.0, secret.1, "/nowhere/secret cannot be read"),
            ("BASE_URL", "http://ota.example.com", "BASE_URL=`http://ota.example.com`: must be"),
        ] {
            wrong(&[ISSUER, CLIENT, ROLES, (name, value)], part);
        }
        let off = [ISSUER, CLIENT, ROLES, ("AUTH", "off"), ("LISTEN_ADDR", "127.0.0.1:8000")];
        wrong(&off, "OIDC_ISSUER goes with AUTH=on");
        let world = ("OIDC_ISSUER", "https://token.actions.githubusercontent.com");
        wrong(&[CLIENT, world, ("OIDC_ROLES", "*=viewer")], "knows the whole world");
        let here = [("OIDC_ISSUER", "http://[::1]:8080/a"), ("BASE_URL", "http://localhost:8000")];
        assert!(read(&[&[CLIENT, ROLES], &here[..]].concat()).is_ok());
    }
}
