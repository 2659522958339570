//! What the provider's word about somebody is worth here: claims in, a role and a scope out.

use serde_json::{Map, Value};

use crate::auth::role::Role;
use crate::auth::scope::Scope;
use crate::auth::session::Person;
use crate::config;

/// Longest `sub`, in bytes (OpenID Connect Core, section 2), and longest mail address.
const LONGEST: usize = 255;

/// Why somebody who is known does not get in.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The token tells no name.
    #[error("the token names nobody: its claim `sub` must be a text of 1 to 255 characters")]
    Nameless,
    /// No value has a role.
    #[error("no value of the claim `{0}` has a role here; ask whoever keeps OIDC_ROLES for one")]
    NoRole(String),
    /// Nobody's printers.
    #[error(
        "the claim `{0}` must name the users whose printers you may see, or `*`; ask whoever keeps the provider"
    )]
    NoUsers(String),
}

/// The texts at a claim: one, a list, or none. A claim whose own name has dots goes first.
fn texts<'a>(claims: &'a Map<String, Value>, path: &str) -> Vec<&'a str> {
    let inside = || {
        let mut parts = path.split('.');
        let first = claims.get(parts.next()?)?;
        parts.try_fold(first, |value, part| value.get(part))
    };
    match claims.get(path).or_else(inside) {
        Some(Value::String(text)) => vec![text],
        Some(Value::Array(list)) => list.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    }
}

/// Something to call people by: printable, and no longer than this.
fn name(text: &str) -> Option<&str> {
    ((1..=LONGEST).contains(&text.len()) && !text.chars().any(char::is_control)).then_some(text)
}

/// Who this is, and what they may do and see.
pub fn person(settings: &config::Oidc, claims: &Map<String, Value>) -> Result<Person, Refused> {
    let sub = claims.get("sub").and_then(Value::as_str).and_then(name).ok_or(Refused::Nameless)?;
    // An address that nobody verified may be somebody else's.
    let verified = claims.get("email_verified") == Some(&Value::Bool(true));
    let email = claims.get("email").and_then(Value::as_str).filter(|_| verified).and_then(name);
    let values = texts(claims, &settings.role_claim);
    let has = |role: &Role| {
        let role = role.to_string();
        settings.roles.iter().any(|(value, given)| {
            *given == role && (value == "*" || values.iter().any(|claimed| claimed == value))
        })
    };
    let role = Role::ALL.into_iter().find(has);
    Ok(Person {
        id: format!("oidc {} {sub}", settings.issuer),
        name: email.map_or_else(|| format!("subject {sub}"), |email| format!("person {email}")),
        role: role.ok_or_else(|| Refused::NoRole(settings.role_claim.clone()))?,
        scope: settings.users_claim.as_deref().map_or(Ok(Scope::default()), |claim| scope(claims, claim))?,
    })
}

/// Nobody's printers are never everybody's: the claim must be there, and say something.
fn scope(claims: &Map<String, Value>, claim: &str) -> Result<Scope, Refused> {
    let users = texts(claims, claim);
    if users.contains(&"*") {
        return Ok(Scope::default());
    }
    let users = users.into_iter().map(str::to_owned).collect();
    let scope = Scope { user_ids: Some(users), ..Scope::default() };
    scope.checked().map_err(|_| Refused::NoUsers(claim.to_owned()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn settings(role_claim: &str, roles: &[(&str, &str)], users_claim: Option<&str>) -> config::Oidc {
        config::Oidc {
            issuer: "https://idp".into(),
            client: None,
            scopes: "openid".into(),
            audience: "ota".into(),
            role_claim: role_claim.into(),
            roles: roles.iter().map(|(value, role)| ((*value).into(), (*role).into())).collect(),
            users_claim: users_claim.map(Into::into),
        }
    }

    fn ask(settings: &config::Oidc, claims: Value) -> Result<Person, Refused> {
        person(settings, claims.as_object().unwrap())
    }

    #[test]
    fn the_names_of_roles_are_those_of_the_settings() {
        assert_eq!(Role::ALL.map(|role| role.to_string()), config::ROLES);
    }

    #[test]
    fn the_strongest_role_wins_and_nobody_gets_in_without_one() {
        let groups = settings("groups", &[("ops", "operator"), ("boss", "admin"), ("look", "viewer")], None);
        let role = |claims: Value| ask(&groups, claims).map(|person| person.role);
        assert_eq!(role(json!({"sub": "a", "groups": ["look", "ops"]})), Ok(Role::Operator));
        assert_eq!(role(json!({"sub": "a", "groups": ["look", "boss", "ops"]})), Ok(Role::Admin));
        assert_eq!(role(json!({"sub": "a", "groups": "look"})), Ok(Role::Viewer));
        let none = Err(Refused::NoRole("groups".into()));
        for groups in
            [json!(["Boss", "bossy", "*"]), json!([]), json!({"boss": true}), json!(null), json!([["boss"]])]
        {
            assert_eq!(role(json!({"sub": "a", "groups": groups})), none, "{groups}");
        }
        assert_eq!(role(json!({"sub": "a"})), none);
        let all = settings("groups", &[("*", "viewer"), ("boss", "admin")], None);
        assert_eq!(ask(&all, json!({"sub": "a"})).unwrap().role, Role::Viewer);
        assert_eq!(ask(&all, json!({"sub": "a", "groups": ["boss"]})).unwrap().role, Role::Admin);
    }

    #[test]
    fn claims_are_found_inside_others_and_by_names_with_dots() {
        let claims = json!({"sub": "a", "realm_access": {"roles": ["x"]}, "https://a.example/roles": ["x"], "repository": "acme/printer"});
        for path in ["realm_access.roles", "https://a.example/roles"] {
            assert!(ask(&settings(path, &[("x", "viewer")], None), claims.clone()).is_ok(), "{path}");
        }
        let pipeline = settings("repository", &[("acme/printer", "release")], None);
        assert_eq!(ask(&pipeline, claims).unwrap().role, Role::Release);
    }

    #[test]
    fn a_name_is_what_nobody_else_can_have() {
        let all = settings("groups", &[("*", "viewer")], None);
        let name = |claims: Value| ask(&all, claims).map(|person| person.name);
        assert_eq!(
            name(json!({"sub": "7", "email": "ada@a.example", "email_verified": true})).unwrap(),
            "person ada@a.example"
        );
        for verified in [json!(false), json!("true"), json!(null)] {
            let claims = json!({"sub": "7", "email": "ada@a.example", "email_verified": verified});
            assert_eq!(name(claims).unwrap(), "subject 7");
        }
        for sub in [json!(""), json!(7), json!("a\nb"), json!("x".repeat(256)), json!(null)] {
            assert_eq!(name(json!({"sub": sub})), Err(Refused::Nameless));
        }
    }

    #[test]
    fn tenants_see_their_printers_and_who_is_nobodys_tenant_sees_none() {
        let tenants = settings("groups", &[("*", "viewer")], Some("tenants"));
        let users = |claims: Value| ask(&tenants, claims).map(|person| person.scope.user_ids);
        assert_eq!(users(json!({"sub": "a", "tenants": ["b", "a"]})), Ok(Some(vec!["a".into(), "b".into()])));
        assert_eq!(users(json!({"sub": "a", "tenants": "a"})), Ok(Some(vec!["a".into()])));
        assert_eq!(users(json!({"sub": "a", "tenants": ["*"]})), Ok(None));
        for tenants in [json!([]), json!(null), json!(""), json!(["x".repeat(65)]), json!({"a": 1})] {
            let claims = json!({"sub": "a", "tenants": tenants});
            assert_eq!(users(claims), Err(Refused::NoUsers("tenants".into())), "{tenants}");
        }
    }
}
