//! The two cookies: one for a login, one for the way to it. `__Host-` makes browsers insist on what we say anyway (https,
//! this host alone, every path), so that no neighbouring host can plant one.

use std::time::Duration;

use axum::http::{HeaderMap, HeaderValue, header};

/// Holds a session's id. Strict: no page needs it to be opened, only what the page then asks for, so it does not go along
/// with anything that another site started.
pub const SESSION: &str = "__Host-paperminder";
/// Holds a secret of the browser that began a login. Lax: it goes along when the provider sends the browser back.
pub const LOGIN: &str = "__Host-paperminder-login";

/// When a cookie goes along with what another site started.
#[derive(Clone, Copy, Debug)]
pub enum SameSite {
    /// Never.
    Strict,
    /// When the user goes to a page of ours.
    Lax,
}

/// Every value that the request's cookies of this name have; text that is none as well.
pub fn values<'a>(headers: &'a HeaderMap, name: &str) -> Vec<&'a str> {
    let pairs =
        headers.get_all(header::COOKIE).iter().flat_map(|line| line.as_bytes().split(|byte| *byte == b';'));
    let value = |pair: &'a [u8]| {
        let pair = pair.trim_ascii();
        let at = pair.iter().position(|byte| *byte == b'=')?;
        (pair.get(..at)? == name.as_bytes()).then(|| std::str::from_utf8(&pair[at + 1..]).unwrap_or_default())
    };
    pairs.filter_map(value).collect()
}

/// A cookie for as long as this. The value must be of letters and digits.
pub fn set(name: &str, value: &str, same_site: SameSite, life: Duration) -> HeaderValue {
    let text = format!(
        "{name}={value}; Path=/; Max-Age={}; Secure; HttpOnly; SameSite={same_site:?}",
        life.as_secs()
    );
    let mut header = HeaderValue::from_str(&text).unwrap_or_else(|_| HeaderValue::from_static(""));
    header.set_sensitive(true);
    header
}

/// Takes a cookie away.
pub fn clear(name: &str) -> HeaderValue {
    set(name, "", SameSite::Strict, Duration::ZERO)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cookie_is_found_among_others_and_twice_is_twice() {
        let read = |lines: &[&'static [u8]]| {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(header::COOKIE, HeaderValue::from_bytes(line).unwrap());
            }
            values(&headers, SESSION).into_iter().map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(read(&[b"a=b; __Host-paperminder=x;c=d"]), ["x"]);
        assert_eq!(read(&[b"__Host-paperminder=x", b"__Host-paperminder=y"]), ["x", "y"]);
        assert_eq!(read(&[b"name=\xfc; __Host-paperminder=x"]), ["x"], "what else is there does not hide it");
        assert_eq!(
            read(&[b"__Host-paperminder-login=x; __host-paperminder=y; x__Host-paperminder=z"]),
            [""; 0]
        );
        assert_eq!(read(&[b"__Host-paperminder=\xfc"]), [""], "something is there");
    }

    #[test]
    fn a_cookie_has_what_its_name_promises() {
        let text = set(SESSION, "ab", SameSite::Strict, Duration::from_secs(9));
        assert_eq!(text, "__Host-paperminder=ab; Path=/; Max-Age=9; Secure; HttpOnly; SameSite=Strict");
        assert!(text.is_sensitive());
    }
}
