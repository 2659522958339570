//! The documented messages, as a printer writes and reads them.
//!
//! Written from the protocol's document and not from the server's types: a shared definition would let both sides
//! be wrong together.

use std::sync::Arc;

use secrecy::ExposeSecret;
use serde_json::{Map, Value, json};

use super::options::PrinterOptions;

/// A `firmware_update`.
#[derive(Clone, PartialEq, Eq)]
pub struct Offer {
    /// Version offered.
    pub version: Arc<str>,
    /// Where its image is.
    pub url: String,
    /// MD5 of the image in hex, when the server sent one.
    pub md5: Option<String>,
}

impl std::fmt::Debug for Offer {
    /// Without the URL, whose signature is a secret for as long as it is valid.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Offer")
            .field("version", &self.version)
            .field("md5", &self.md5)
            .finish_non_exhaustive()
    }
}

impl Offer {
    /// Whether both mean the same image. The URL may differ: it is signed anew for every offer.
    #[must_use]
    pub fn same_image(&self, other: &Self) -> bool {
        self.version == other.version && self.md5 == other.md5
    }
}

/// What a server can say.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Incoming {
    Offer(Offer),
    Status {
        code: String,
        detail: String,
    },
    /// Longer than the sketch's JSON document.
    Unparsable,
    /// No JSON object, or an offer without version or URL.
    Malformed,
    /// A kind that this firmware does not know.
    Other,
}

pub(super) fn parse(text: &str, json_limit: Option<usize>) -> Incoming {
    let Ok(Value::Object(fields)) = serde_json::from_str::<Value>(text) else { return Incoming::Malformed };
    match fields.get("kind").and_then(Value::as_str) {
        Some("firmware_update") if json_limit.is_some_and(|limit| text.len() > limit) => Incoming::Unparsable,
        Some("firmware_update") => offer(&fields).map_or(Incoming::Malformed, Incoming::Offer),
        Some("status") => Incoming::Status { code: plain(&fields, "code"), detail: plain(&fields, "detail") },
        _ => Incoming::Other,
    }
}

/// Reads a `firmware_update` from its JSON, as a test that drives a printer by hand needs to.
#[must_use]
pub fn offer_of(message: &Value) -> Option<Offer> {
    let fields = message.as_object()?;
    (fields.get("kind")? == "firmware_update").then(|| offer(fields)).flatten()
}

fn offer(fields: &Map<String, Value>) -> Option<Offer> {
    let text = |key: &str| fields.get(key).and_then(Value::as_str).filter(|text| !text.is_empty());
    Some(Offer {
        version: Arc::from(text("version")?),
        url: text("url")?.to_owned(),
        md5: text("md5").map(str::to_ascii_lowercase),
    })
}

fn plain(fields: &Map<String, Value>, key: &str) -> String {
    match fields.get(key) {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}

/// The first message on every connection.
pub(super) fn subscribe(options: &PrinterOptions, version: &str) -> Value {
    let identity = &options.identity;
    let mut fields = Map::new();
    let mut set = |key: &str, value: Value| fields.insert(key.to_owned(), value);
    set("printer_name", json!(identity.name));
    set("user_id", json!(&*identity.user_id));
    set("firmware_version", json!(version));
    set("auto_update", json!(options.auto_update));
    set("update_channel", json!(&*identity.channel));
    if let Some(id) = &identity.printer_id {
        set("printer_id", json!(id));
    }
    if let Some(key) = &identity.api_key {
        set("api_key", json!(key.expose_secret()));
    }
    if let Some(platform) = &identity.platform {
        set("platform", json!(&**platform));
    }
    fields.extend(identity.extra.clone());
    Value::Object(fields)
}

pub(super) fn declined(version: &str) -> Value {
    json!({"kind": "firmware_declined", "version": version, "auto_update": false})
}

pub(super) fn progress(percent: u8) -> Value {
    json!({"kind": "firmware_progress", "percent": percent, "status": format!("Downloading {percent}%")})
}

/// The document's "-1 for errors".
pub(super) fn progress_error(reason: &str) -> Value {
    json!({"kind": "firmware_progress", "percent": -1, "status": reason})
}

pub(super) fn complete(version: &str) -> Value {
    json!({"kind": "firmware_complete", "version": version})
}

pub(super) fn failed(reason: &str) -> Value {
    json!({"kind": "firmware_failed", "error": format!("Update failed: {reason}")})
}

#[cfg(test)]
mod tests {
    use super::*;

    const OFFER: &str = r#"{"kind":"firmware_update","version":"1.1.0","url":"http://a/b","md5":"5D41402ABC4B2A76B9719D911017C592"}"#;

    #[test]
    fn an_offer_is_read_and_its_md5_lowered() {
        let expected = Offer {
            version: Arc::from("1.1.0"),
            url: "http://a/b".to_owned(),
            md5: Some("5d41402abc4b2a76b9719d911017c592".to_owned()),
        };
        assert_eq!(parse(OFFER, Some(OFFER.len())), Incoming::Offer(expected));
    }

    #[test]
    fn one_byte_too_long_is_not_understood() {
        assert_eq!(parse(OFFER, Some(OFFER.len() - 1)), Incoming::Unparsable);
    }

    #[test]
    fn the_rest() {
        assert_eq!(parse("[]", None), Incoming::Malformed);
        assert_eq!(parse(r#"{"kind":"firmware_update","version":"1.1.0"}"#, None), Incoming::Malformed);
        assert_eq!(parse(r#"{"kind":"print"}"#, None), Incoming::Other);
        let status = Incoming::Status { code: "4001".to_owned(), detail: "no".to_owned() };
        assert_eq!(parse(r#"{"kind":"status","code":4001,"detail":"no"}"#, None), status);
    }

    #[test]
    fn subscribe_sends_what_the_document_lists_and_extras_win() {
        let mut options = PrinterOptions::new("ws://a", 1);
        options.identity.printer_id = None;
        options.identity.api_key = Some("k".into());
        options.identity.extra.insert("max_url_length".to_owned(), json!(256));
        options.identity.extra.insert("update_channel".to_owned(), json!("beta"));
        let expected = json!({
            "printer_name": "Printer 00001", "api_key": "k", "user_id": "demo", "firmware_version": "2.0.0",
            "auto_update": true, "update_channel": "beta", "max_url_length": 256,
        });
        assert_eq!(subscribe(&options, "2.0.0"), expected);
    }
}
