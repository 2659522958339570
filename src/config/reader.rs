//! Reads variables of every kind, and remembers what was wrong with them.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

use url::Url;

/// Reads variables and remembers what was wrong.
pub(super) struct Reader<'a> {
    pub(super) lookup: &'a dyn Fn(&str) -> Option<String>,
    pub(super) wrong: Vec<String>,
}

impl Reader<'_> {
    /// The variable under its name or, as the operator's guide writes some, in lower case. Empty counts as unset.
    pub(super) fn text(&self, name: &str) -> Option<String> {
        (self.lookup)(name)
            .or_else(|| (self.lookup)(&name.to_lowercase()))
            .filter(|text| !text.trim().is_empty())
    }

    pub(super) fn parsed<T>(
        &mut self,
        name: &str,
        default: T,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> T {
        let Some(text) = self.text(name) else { return default };
        parse(text.trim()).unwrap_or_else(|why| {
            self.wrong.push(format!("{name}=`{text}`: {why}."));
            default
        })
    }

    pub(super) fn number<T: FromStr + PartialOrd + fmt::Display>(
        &mut self,
        name: &str,
        default: T,
        least: T,
        most: T,
    ) -> T {
        self.parsed(name, default, |text| {
            text.parse()
                .ok()
                .filter(|n| (&least..=&most).contains(&n))
                .ok_or(format!("must be a whole number from {least} to {most}"))
        })
    }

    pub(super) fn seconds(&mut self, name: &str, default: u64, least: u64, most: u64) -> Duration {
        Duration::from_secs(self.number(name, default, least, most))
    }

    pub(super) fn address(&mut self, name: &str, default: SocketAddr) -> SocketAddr {
        self.parsed(name, default, |text| {
            text.parse().map_err(|_| "must be an address and a port, as in 0.0.0.0:8000".to_owned())
        })
    }

    pub(super) fn url(&mut self, name: &str) -> Option<Url> {
        self.parsed(name, None, |text| match Url::parse(text) {
            Ok(url) if matches!(url.scheme(), "http" | "https") && url.host().is_some() => Ok(Some(url)),
            _ => Err("must be an http:// or https:// URL".to_owned()),
        })
    }
}
