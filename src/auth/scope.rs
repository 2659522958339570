//! How much of the fleet a caller sees and touches: the printers of some users, some channels, some platforms.
//!
//! A scope stands in the query: every function that reads for a caller takes one, so what lies outside of it is not read
//! at all, and looks like what is not there.

use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sqlx::{Postgres, QueryBuilder};
use utoipa::ToSchema;

use crate::http::problem::FieldError;
use crate::ids::UserId;
use crate::words::{Channel, Platform};

/// Most names in each of the three lists.
const MOST: usize = 1000;

/// What a caller sees. None in a list means everything of its kind.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema, sqlx::FromRow)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"user_ids": ["user-123"], "channels": ["canary", "beta"], "platforms": null}))]
pub struct Scope {
    /// Only the printers of these users, and what is about them.
    #[serde(default)]
    pub user_ids: Option<Vec<String>>,
    /// Only printers that follow these channels, and releases on them.
    #[serde(default)]
    pub channels: Option<Vec<String>>,
    /// Only printers and releases of these platforms.
    #[serde(default)]
    pub platforms: Option<Vec<String>>,
}

impl Scope {
    /// Everything.
    pub const ALL: &'static Self = &Self { user_ids: None, channels: None, platforms: None };

    /// Whether nothing lies outside.
    pub fn is_all(&self) -> bool {
        self == Self::ALL
    }

    /// Whether it sees all printers, as far as it is about whose they are.
    pub fn has_everybody(&self) -> bool {
        self.user_ids.is_none()
    }

    /// Whether a user's printers may be in it.
    pub fn has_user(&self, user: &UserId) -> bool {
        self.user_ids.as_ref().is_none_or(|users| users.iter().any(|one| *one == user.to_string()))
    }

    /// Whether releases and printers on this channel may be in it.
    pub fn has_channel(&self, channel: Channel) -> bool {
        self.channels.as_ref().is_none_or(|channels| channels.iter().any(|one| one == channel.as_str()))
    }

    /// Whether releases and printers of this platform may be in it.
    pub fn has_platform(&self, platform: Platform) -> bool {
        self.platforms.as_ref().is_none_or(|platforms| platforms.iter().any(|one| one == platform.as_str()))
    }

    /// Whether a release is in it.
    pub fn has_release(&self, channel: Channel, platform: Platform) -> bool {
        self.has_channel(channel) && self.has_platform(platform)
    }

    /// Whether everything in `other` is in this one as well.
    pub fn contains(&self, other: &Self) -> bool {
        let within = |ours: &Option<Vec<String>>, theirs: &Option<Vec<String>>| match (ours, theirs) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(ours), Some(theirs)) => theirs.iter().all(|one| ours.contains(one)),
        };
        within(&self.user_ids, &other.user_ids)
            && within(&self.channels, &other.channels)
            && within(&self.platforms, &other.platforms)
    }

    /// The channels, parsed.
    pub fn channels(&self) -> Option<Vec<Channel>> {
        self.channels.as_ref().map(|list| parsed(list))
    }

    /// The platforms, parsed.
    pub fn platforms(&self) -> Option<Vec<Platform>> {
        self.platforms.as_ref().map(|list| parsed(list))
    }

    /// The users, parsed.
    pub fn user_ids(&self) -> Option<Vec<UserId>> {
        self.user_ids.as_ref().map(|list| parsed(list))
    }

    /// Sorted, without doubles, or every entry that is wrong with its place.
    pub fn checked(self) -> Result<Self, Vec<FieldError>> {
        let mut errors = Vec::new();
        let scope = Self {
            user_ids: list::<UserId>("user_ids", self.user_ids, &mut errors),
            channels: list::<Channel>("channels", self.channels, &mut errors),
            platforms: list::<Platform>("platforms", self.platforms, &mut errors),
        };
        if errors.is_empty() { Ok(scope) } else { Err(errors) }
    }

    /// Narrows a query to the printers (`p`) of this scope.
    pub fn push_printers(&self, query: &mut QueryBuilder<Postgres>, p: &str) {
        self.push(query, [&format!("{p}.user_id"), &format!("{p}.update_channel"), &format!("{p}.platform")]);
    }

    /// Narrows a query to the releases (`f`) of this scope.
    pub fn push_releases(&self, query: &mut QueryBuilder<Postgres>, f: &str) {
        let channel_and_platform = Self { user_ids: None, ..self.clone() };
        channel_and_platform.push(query, ["", &format!("{f}.channel"), &format!("{f}.platform")]);
    }

    fn push(&self, query: &mut QueryBuilder<Postgres>, columns: [&str; 3]) {
        for (column, list) in columns.into_iter().zip([&self.user_ids, &self.channels, &self.platforms]) {
            if let Some(list) = list {
                query.push(format!(" and {column} = any(")).push_bind(list.clone()).push(")");
            }
        }
    }

    /// Narrows a query to what (`r`, a rollout by its reach or a key by its scope) reaches no further than this scope.
    pub fn push_within(&self, query: &mut QueryBuilder<Postgres>, columns: [&str; 3]) {
        for (column, list) in columns.into_iter().zip([&self.user_ids, &self.channels, &self.platforms]) {
            if let Some(list) = list {
                query.push(format!(" and {column} <@ ")).push_bind(list.clone());
            }
        }
    }
}

/// What was checked when it was stored.
fn parsed<T: FromStr>(list: &[String]) -> Vec<T> {
    list.iter().filter_map(|text| text.parse().ok()).collect()
}

fn list<T: FromStr<Err: std::fmt::Display>>(
    field: &str,
    list: Option<Vec<String>>,
    errors: &mut Vec<FieldError>,
) -> Option<Vec<String>> {
    let mut list = list?;
    let mut wrong = |field: String, detail: String| errors.push(FieldError { field, detail });
    if list.is_empty() || list.len() > MOST {
        let detail = format!("must name 1 to {MOST}, this names {}; leave it out for all", list.len());
        wrong(field.to_owned(), detail);
    }
    for (index, text) in list.iter().enumerate() {
        if let Err(error) = text.parse::<T>() {
            wrong(format!("{field}[{index}]"), format!("is not valid: {error}"));
        }
    }
    list.sort();
    list.dedup();
    Some(list)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(users: &[&str], channels: &[&str]) -> Scope {
        let list = |names: &[&str]| {
            let names: Vec<_> = names.iter().map(ToString::to_string).collect();
            (!names.is_empty()).then_some(names)
        };
        Scope { user_ids: list(users), channels: list(channels), platforms: None }
    }

    #[test]
    fn a_scope_contains_what_is_no_wider() {
        let (all, a, ab, a_beta) =
            (of(&[], &[]), of(&["a"], &[]), of(&["a", "b"], &[]), of(&["a"], &["beta"]));
        assert!(all.contains(&a) && ab.contains(&a) && a.contains(&a_beta) && a.contains(&a));
        assert!(!a.contains(&all) && !a.contains(&ab) && !a_beta.contains(&a));
        assert!(all.is_all() && !a_beta.is_all());
    }

    #[test]
    fn what_is_wrong_is_named_and_what_is_right_is_put_in_order() {
        let checked = of(&["b", "a", "b"], &["canary"]).checked().unwrap();
        assert_eq!(checked.user_ids, Some(vec!["a".into(), "b".into()]));
        let errors = of(&[""], &["beta", "nightly"]).checked().unwrap_err();
        let fields: Vec<_> = errors.iter().map(|error| error.field.as_str()).collect();
        assert_eq!(fields, ["user_ids[0]", "channels[1]"]);
        let none = Scope { user_ids: Some(Vec::new()), ..Scope::default() };
        assert!(none.checked().unwrap_err()[0].detail.contains("leave it out for all"));
    }
}
