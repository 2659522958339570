//! Where a request comes from, as browsers tell.

use axum::http::{HeaderMap, Method, header};
use url::Url;

use crate::config::Cors;
use crate::http::problem::{self, Problem};

/// Whose pages may change something in a session: our own, and those of CORS_ALLOWED_ORIGINS that are named. `*` names
/// nobody.
pub struct Origins(Vec<String>);

impl Origins {
    /// As configured.
    pub fn new(base_url: &str, cors: &Cors) -> Self {
        let own = Url::parse(base_url).map(|url| url.origin().ascii_serialization());
        let named = if let Cors::Only(origins) = cors { origins.as_slice() } else { &[] };
        Self(own.into_iter().chain(named.iter().cloned()).collect())
    }

    /// Refuses what a browser sends on behalf of a page that is none of these. A program that is no browser says nothing.
    pub fn check(&self, method: &Method, headers: &HeaderMap) -> Result<(), Problem> {
        let refuse = |detail: String| Err(Problem::new(&problem::CSRF, detail));
        if method.is_safe() {
            return Ok(());
        }
        if headers.get_all("sec-fetch-site").iter().any(|site| site == "cross-site") {
            return refuse("Another site sent this; open this server's own page and do it there.".into());
        }
        let stranger = headers
            .get_all(header::ORIGIN)
            .iter()
            .find(|origin| !self.0.iter().any(|known| known.as_bytes() == origin.as_bytes()));
        if stranger.is_some() {
            let own = self.0.first().map_or("BASE_URL", String::as_str);
            return refuse(format!(
                "A page of another origin sent this; use {own}, or name the page's origin in CORS_ALLOWED_ORIGINS."
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_pages_of_ours_and_named_ones_change_something() {
        let origins =
            Origins::new("https://ota.example.com/ota", &Cors::Only(vec!["https://c.example".into()]));
        let check = |method: Method, pairs: &[(&'static str, &'static str)]| {
            let pairs = pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
            origins.check(&method, &pairs.collect()).is_ok()
        };
        for (pairs, passes) in [
            (&[][..], true),
            (&[("origin", "https://ota.example.com"), ("sec-fetch-site", "same-origin")], true),
            (&[("origin", "https://c.example"), ("sec-fetch-site", "same-site")], true),
            (&[("origin", "https://c.example"), ("sec-fetch-site", "cross-site")], false),
            (&[("sec-fetch-site", "cross-site")], false),
            (&[("origin", "null")], false),
            (&[("origin", "http://ota.example.com")], false),
            (&[("origin", "https://ota.example.com.evil.example")], false),
        ] {
            assert_eq!(check(Method::POST, pairs), passes, "{pairs:?}");
            assert!(check(Method::GET, pairs));
        }
        assert_eq!(Origins::new("https://a.example", &Cors::Any).0, ["https://a.example"]);
    }
}
