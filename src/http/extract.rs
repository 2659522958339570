//! Extractors whose refusals are problems: JSON bodies, path segments, query parameters.

use std::fmt::{self, Display};
use std::marker::PhantomData;
use std::str::FromStr;
use std::time::Duration;

use axum::extract::{FromRequest, FromRequestParts, RawPathParams, Request};
use axum::http::{header, request::Parts};
use bytes::Bytes;
use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeOwned, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use tokio::time::timeout;

use super::problem::{self, FieldError, Problem};

/// Largest JSON body, in bytes.
pub const MAX_BODY: usize = 1 << 20;
/// How deep its objects and arrays may nest; what we read nests four deep.
const MAX_DEPTH: u32 = 32;
/// How long it may take to come.
const BODY_WITHIN: Duration = Duration::from_secs(20);

/// A JSON body. Unknown fields are refused where the type says `deny_unknown_fields`.
pub struct Body<T>(pub T);

impl<T: DeserializeOwned, S: Sync> FromRequest<S> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        let kind = request
            .headers()
            .get(header::CONTENT_TYPE)
            .and_then(|kind| kind.to_str().ok())
            .unwrap_or_default();
        if !kind.starts_with("application/json") && !kind.starts_with("application/merge-patch+json") {
            let detail = format!("The Content-Type is `{kind}`; send `Content-Type: application/json`.");
            return Err(Problem::new(&problem::MEDIA_TYPE, detail));
        }
        let bytes = whole(request.into_body()).await?;
        if depth(&bytes) > MAX_DEPTH {
            let detail = format!("nests deeper than {MAX_DEPTH} objects and arrays; nothing here does");
            return Err(Problem::field("body", detail));
        }
        if bytes.iter().find(|byte| !byte.is_ascii_whitespace()).is_some_and(|byte| *byte == b'[') {
            return Err(Problem::field("body", "must be a JSON object"));
        }
        let mut json = serde_json::Deserializer::from_slice(&bytes);
        let value = serde_path_to_error::deserialize(&mut json).map_err(|error| {
            let path = error.path().to_string();
            let field = if path == "." { "body".to_owned() } else { path };
            Problem::field(field, format!("is not valid: {}", error.inner()))
        })?;
        json.end().map_err(|error| Problem::field("body", format!("is not valid: {error}")))?;
        Ok(Self(value))
    }
}

/// All bytes of a body, within the limits of a JSON body.
pub async fn whole(body: axum::body::Body) -> Result<Bytes, Problem> {
    let bytes = timeout(BODY_WITHIN, axum::body::to_bytes(body, MAX_BODY)).await;
    let bytes = bytes.map_err(|_| Problem::new(&problem::TOO_SLOW, problem::TOO_SLOW.cause))?;
    bytes.map_err(|_| {
        let detail = format!("The body has more than {MAX_BODY} bytes, or broke off; send less at once.");
        Problem::new(&problem::BODY_TOO_LARGE, detail)
    })
}

/// A JSON object within a body. A struct alone would take an array of its fields' values as well.
pub struct Object<T>(pub T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Fields<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Fields<T> {
            type Value = T;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, fields: A) -> Result<T, A::Error> {
                T::deserialize(MapAccessDeserializer::new(fields))
            }
        }
        from.deserialize_map(Fields(PhantomData)).map(Self)
    }
}

/// For `deserialize_with`: an object.
pub fn object<'de, D: Deserializer<'de>, T: Deserialize<'de>>(from: D) -> Result<T, D::Error> {
    Object::deserialize(from).map(|object| object.0)
}

/// For `deserialize_with`: an object, or null.
pub fn maybe_object<'de, D: Deserializer<'de>, T: Deserialize<'de>>(from: D) -> Result<Option<T>, D::Error> {
    Option::<Object<T>>::deserialize(from).map(|object| object.map(|object| object.0))
}

/// For `deserialize_with`: objects in an array, or null.
pub fn maybe_objects<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    from: D,
) -> Result<Option<Vec<T>>, D::Error> {
    let objects = Option::<Vec<Object<T>>>::deserialize(from)?;
    Ok(objects.map(|objects| objects.into_iter().map(|object| object.0).collect()))
}

/// How deep a JSON text nests, by its brackets outside of strings.
fn depth(json: &[u8]) -> u32 {
    let (mut depth, mut deepest, mut quoted, mut escaped) = (0u32, 0, false, false);
    for byte in json {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'[' | b'{' if !quoted => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' if !quoted => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

/// The path's last parameter, parsed.
pub struct Segment<T>(pub T);

impl<T, S> FromRequestParts<S> for Segment<T>
where
    T: FromStr<Err: Display>,
    S: Send + Sync,
{
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let params = RawPathParams::from_request_parts(parts, state)
            .await
            .map_err(|error| Problem::field("path", format!("is not valid UTF-8: {error}")))?;
        let Some((name, text)) = params.iter().last() else {
            return Err(Problem::internal("a route without a parameter uses Segment"));
        };
        text.parse().map(Self).map_err(|error| Problem::field(name, format!("{error} (this is `{text}`)")))
    }
}

/// Query parameters. Ask for each by name, then [`finish`](Self::finish): what nobody asked for is refused.
#[derive(Debug, Default)]
pub struct Params {
    pairs: Vec<(String, String)>,
    asked: Vec<&'static str>,
    errors: Vec<FieldError>,
}

impl Params {
    /// Reads a raw query.
    pub fn new(query: &str) -> Self {
        let pairs = url::form_urlencoded::parse(query.as_bytes()).into_owned().collect();
        Self { pairs, ..Self::default() }
    }

    /// A parameter that may be absent.
    pub fn get<T: FromStr<Err: Display>>(&mut self, name: &'static str) -> Option<T> {
        self.asked.push(name);
        let mut values = self.pairs.iter().filter(|(key, _)| key == name).map(|(_, value)| value);
        let value = values.next()?;
        if values.next().is_some() {
            self.error(name, "is given more than once; give it once");
            return None;
        }
        match value.parse() {
            Ok(parsed) => Some(parsed),
            Err(error) => {
                let detail = format!(
                    "is not valid: {error} (this is `{}`)",
                    value.chars().take(80).collect::<String>()
                );
                self.error(name, detail);
                None
            }
        }
    }

    /// Notes an error of a parameter.
    pub fn error(&mut self, field: &str, detail: impl Into<String>) {
        self.errors.push(FieldError { field: field.into(), detail: detail.into() });
    }

    /// What decides which rows a list has, in what order: all parameters but the page's own.
    pub(super) fn fingerprint(&self) -> String {
        let mut pairs: Vec<_> =
            self.pairs.iter().filter(|(key, _)| key != "cursor" && key != "limit").collect();
        pairs.sort();
        pairs.iter().map(|(key, value)| format!("{key}={value}&")).collect()
    }

    /// The query again, with another cursor.
    pub(super) fn with_cursor(&self, cursor: &str) -> String {
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        query.extend_pairs(self.pairs.iter().filter(|(key, _)| key != "cursor"));
        query.append_pair("cursor", cursor).finish()
    }

    /// Refuses what was wrong, and every parameter that nobody asked for with the name that is nearest.
    pub fn finish(mut self) -> Result<(), Problem> {
        for (name, _) in std::mem::take(&mut self.pairs) {
            if self.asked.iter().any(|asked| *asked == name) {
                continue;
            }
            let near = self
                .asked
                .iter()
                .max_by(|a, b| strsim::jaro_winkler(a, &name).total_cmp(&strsim::jaro_winkler(b, &name)));
            let detail = match near {
                None => "is not known; this endpoint takes no parameters".to_owned(),
                Some(near) => {
                    format!("is not known; did you mean `{near}`? Known: {}", self.asked.join(", "))
                }
            };
            self.error(&name.chars().take(80).collect::<String>(), detail);
        }
        if self.errors.is_empty() { Ok(()) } else { Err(Problem::invalid(self.errors)) }
    }
}

impl<S: Sync> FromRequestParts<S> for Params {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        Ok(Self::new(parts.uri.query().unwrap_or_default()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_parameter_is_refused_and_the_nearest_named() {
        let mut params = Params::new("chanel=beta&limit=5");
        let _: Option<String> = params.get("channel");
        let _: Option<u32> = params.get("limit");
        let problem = params.finish().unwrap_err();
        assert_eq!(problem.status, 422);
        assert_eq!(problem.detail, "chanel is not known; did you mean `channel`? Known: channel, limit.");
    }

    #[test]
    fn a_parameter_given_twice_is_refused() {
        let mut params = Params::new("limit=1&limit=2");
        assert_eq!(params.get::<u32>("limit"), None);
        assert!(params.finish().unwrap_err().detail.contains("more than once"));
    }

    #[test]
    fn depth_is_that_of_brackets_outside_of_strings() {
        for (text, deep) in [
            ("", 0),
            ("7", 0),
            ("{}", 1),
            (r#"{"a":[{"b":[]}],"c":{}}"#, 4),
            (r#"{"a":"[[[["}"#, 1),
            (r#"{"a":"\"[[[[\\"}"#, 1),
            (r#"{"a":"\\","b":[]}"#, 2),
            ("]]][", 1),
        ] {
            assert_eq!(depth(text.as_bytes()), deep, "{text}");
        }
    }

    #[test]
    fn every_error_is_named_at_once() {
        let mut params = Params::new("limit=x&online=maybe");
        let (_, _): (Option<u32>, Option<bool>) = (params.get("limit"), params.get("online"));
        assert_eq!(params.finish().unwrap_err().errors.len(), 2);
    }
}
