//! The printers' messages, as documented: unknown fields are ignored, everything else is named back to the sender.

use serde::Serialize;
use serde_json::{Map, Value};

use crate::ids::{PrinterId, UserId};
use crate::printers::{Credential, Downloads, Subscription};
use crate::updates::{Outcome, Progress, Report};
use crate::version::Version;

/// Longest name and longest text of a report that is kept, in characters; the rest is cut off.
const MAX_NAME: usize = 64;
const MAX_TEXT: usize = 256;

/// A message that was understood.
#[derive(Debug, PartialEq, Eq)]
pub enum Message {
    /// Who it is and what it runs, and what of it was ignored.
    Subscribe(Box<Subscription>, Option<StatusMessage>),
    /// About its open update, with the version that it names, if it names one.
    Report(Report, Option<Version>),
}

impl Message {
    /// For the metrics.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Subscribe(..) => "subscribe",
            Self::Report(Report::Progress(_), _) => "firmware_progress",
            Self::Report(Report::Outcome(Outcome::Complete), _) => "firmware_complete",
            Self::Report(Report::Outcome(Outcome::Failed { .. }), _) => "firmware_failed",
            Self::Report(Report::Outcome(Outcome::Declined), _) => "firmware_declined",
        }
    }
}

/// What a printer is told about a message that was not understood, or cannot be acted upon.
#[derive(Debug, Serialize, PartialEq, Eq)]
pub struct StatusMessage {
    kind: &'static str,
    /// Stable, for programs.
    pub code: &'static str,
    /// For people.
    pub detail: String,
}

impl StatusMessage {
    /// A status.
    pub fn new(code: &'static str, detail: impl Into<String>) -> Self {
        Self { kind: "status", code, detail: detail.into() }
    }

    /// As it goes over the wire.
    pub fn text(&self) -> String {
        // A struct of strings always serialises.
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// Reads a message. `user` is the socket's owner, from its path.
pub fn parse(text: &str, user: &UserId) -> Result<Message, StatusMessage> {
    let value = serde_json::from_str(text)
        .map_err(|error| StatusMessage::new("malformed_json", format!("This is not JSON: {error}.")))?;
    let Value::Object(fields) = value else {
        return Err(StatusMessage::new("malformed_json", "A message must be a JSON object."));
    };
    let fields = Fields(&fields);
    match fields.text("kind")? {
        // The documented subscribe message has no kind.
        None | Some("subscribe") => fields.subscription(user),
        Some("firmware_progress") => {
            let percent = fields
                .0
                .get("percent")
                .and_then(Value::as_f64)
                .filter(|percent| (-1.0..=100.0).contains(percent));
            let percent = percent
                .ok_or_else(|| bad("percent", "must be a number from 0 to 100, or -1 for an error"))?;
            let status = fields.text("status")?.map(|text| cut(text, MAX_TEXT));
            Ok(Message::Report(Report::Progress(Progress { percent: percent as i32, status }), None))
        }
        Some("firmware_complete") => {
            Ok(Message::Report(Report::Outcome(Outcome::Complete), fields.version("version")?))
        }
        Some("firmware_failed") => {
            let error = fields.text("error")?.map(|text| cut(text, MAX_TEXT));
            Ok(Message::Report(Report::Outcome(Outcome::Failed { error }), fields.version("version")?))
        }
        Some("firmware_declined") => {
            Ok(Message::Report(Report::Outcome(Outcome::Declined), fields.version("version")?))
        }
        Some(other) => Err(StatusMessage::new(
            "unknown_kind",
            format!("Nothing is known of kind `{}`.", cut(other, MAX_NAME)),
        )),
    }
}

fn bad(field: &str, detail: &str) -> StatusMessage {
    StatusMessage::new("bad_field", format!("{field} {detail}."))
}

fn cut(text: &str, most: usize) -> String {
    text.chars().filter(|c| *c != '\0').take(most).collect()
}

struct Fields<'a>(&'a Map<String, Value>);

impl<'a> Fields<'a> {
    fn text(&self, name: &str) -> Result<Option<&'a str>, StatusMessage> {
        match self.0.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(bad(name, "must be a string")),
        }
    }

    fn parsed<T: std::str::FromStr<Err: std::fmt::Display>>(
        &self,
        name: &str,
    ) -> Result<Option<T>, StatusMessage> {
        let parse =
            |text: &str| text.parse().map_err(|error: T::Err| bad(name, &format!("is not valid: {error}")));
        self.text(name)?.filter(|text| !text.is_empty()).map(parse).transpose()
    }

    fn flag(&self, name: &str) -> Result<Option<bool>, StatusMessage> {
        match self.0.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(*flag)),
            Some(_) => Err(bad(name, "must be true or false")),
        }
    }

    fn url_length(&self) -> Result<Option<u32>, StatusMessage> {
        match self.0.get("max_url_length") {
            None | Some(Value::Null) => Ok(None),
            Some(value) => {
                let length = value
                    .as_u64()
                    .and_then(|length| u32::try_from(length).ok())
                    .filter(|length| (1..=100_000).contains(length));
                length
                    .map(Some)
                    .ok_or_else(|| bad("max_url_length", "must be a whole number from 1 to 100000"))
            }
        }
    }

    fn version(&self, name: &str) -> Result<Option<Version>, StatusMessage> {
        self.parsed(name)
    }

    fn subscription(&self, user: &UserId) -> Result<Message, StatusMessage> {
        if self.parsed::<UserId>("user_id")?.is_some_and(|said| said != *user) {
            return Err(bad("user_id", &format!("is not the one of this socket, which is /ws/{user}")));
        }
        let name = self
            .text("printer_name")?
            .map(|name| cut(name.trim(), MAX_NAME).replace(char::is_control, ""))
            .filter(|name| !name.is_empty());
        let printer_id = match (self.parsed("printer_id")?, &name) {
            (Some(id), _) => id,
            (None, Some(name)) => PrinterId::derived(user, name),
            (None, None) => {
                return Err(bad(
                    "printer_name",
                    "is missing; a printer needs a printer_name or a printer_id",
                ));
            }
        };
        // Windows have a clock to fall back on, and nobody stands by a printer to mend a setting.
        let (time_zone, ignored) = self.parsed("time_zone").map_or_else(
            |status| {
                (None, Some(StatusMessage { detail: format!("{} It is ignored.", status.detail), ..status }))
            },
            |zone| (zone, None),
        );
        let said = Subscription {
            printer_id,
            user_id: user.clone(),
            name,
            platform: self.parsed("platform")?.unwrap_or_default(),
            version: self.version("firmware_version")?.unwrap_or_else(Version::zero),
            auto_update: self.flag("auto_update")?.unwrap_or(true),
            channel: self.parsed("update_channel")?.unwrap_or_default(),
            downloads: Downloads {
                max_url_length: self.url_length()?,
                follows_redirects: self.flag("follows_redirects")?.unwrap_or(false),
            },
            time_zone,
            // What is no string is no key; whoever shows it is told no more than whoever shows a wrong one.
            credential: self
                .0
                .get("api_key")
                .and_then(Value::as_str)
                .filter(|key| !key.is_empty())
                .map(|key| Credential::of(user, key)),
        };
        Ok(Message::Subscribe(Box::new(said), ignored))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::words::{Channel, Platform};
    use proptest::prelude::*;

    fn user() -> UserId {
        "user-123".parse().unwrap()
    }

    fn code(text: &str) -> &'static str {
        parse(text, &user()).unwrap_err().code
    }

    #[test]
    fn the_documented_subscribe_message_is_understood_to_the_letter() {
        let text = r#"{"printer_name": "Front Desk", "api_key": "user-api-key", "user_id": "user-123",
            "firmware_version": "1.0.0", "auto_update": true, "update_channel": "beta", "paper": {"width": 80}}"#;
        let Ok(Message::Subscribe(said, None)) = parse(text, &user()) else { panic!("not understood") };
        assert_eq!(said.printer_id, PrinterId::derived(&user(), "Front Desk"));
        assert_eq!(
            (said.version.to_string().as_str(), said.channel, said.platform),
            ("1.0.0", Channel::Beta, Platform::Esp8266)
        );
    }

    #[test]
    fn what_is_left_out_has_the_documented_default() {
        let Ok(Message::Subscribe(said, None)) = parse(r#"{"printer_id": "p-1"}"#, &user()) else {
            panic!("not understood")
        };
        assert_eq!(
            (said.version.to_string().as_str(), said.auto_update, said.channel),
            ("0.0.0", true, Channel::Stable)
        );
    }

    #[test]
    fn a_time_zone_is_understood_and_a_wrong_one_ignored_with_a_word() {
        let zone =
            |text: &str| match parse(&format!(r#"{{"printer_id": "p-1", "time_zone": {text}}}"#), &user()) {
                Ok(Message::Subscribe(said, ignored)) => (
                    said.time_zone.map(|zone| zone.to_string()),
                    ignored.map(|status| (status.code, status.detail)),
                ),
                other => panic!("{other:?}"),
            };
        assert_eq!(zone(r#""Europe/Rome""#), (Some("Europe/Rome".into()), None));
        assert_eq!(zone("null"), (None, None));
        let detail = "time_zone is not valid: `Europe/Rom` is not the IANA name of a time zone; the nearest is `Europe/Rome`. It is ignored.";
        assert_eq!(zone(r#""Europe/Rom""#), (None, Some(("bad_field", detail.into()))));
        assert_eq!(
            zone("7"),
            (None, Some(("bad_field", "time_zone must be a string. It is ignored.".into())))
        );
    }

    #[test]
    fn the_documented_reports_are_understood() {
        let read = |text: &str| parse(text, &user()).unwrap();
        let version = Some(Version::from("1.1.0".to_owned()));
        let progress = Report::Progress(Progress { percent: 45, status: Some("Downloading 45%".into()) });
        assert_eq!(
            read(r#"{"kind":"firmware_progress","percent":45,"status":"Downloading 45%"}"#),
            Message::Report(progress, None)
        );
        assert_eq!(
            read(r#"{"kind":"firmware_complete","version":"1.1.0"}"#),
            Message::Report(Report::Outcome(Outcome::Complete), version.clone())
        );
        let failed = Report::Outcome(Outcome::Failed { error: Some("Update failed: HTTP error 404".into()) });
        assert_eq!(
            read(r#"{"kind":"firmware_failed","error":"Update failed: HTTP error 404"}"#),
            Message::Report(failed, None)
        );
        assert_eq!(
            read(r#"{"kind":"firmware_declined","version":"1.1.0","auto_update":false}"#),
            Message::Report(Report::Outcome(Outcome::Declined), version)
        );
    }

    #[test]
    fn what_cannot_be_understood_is_named() {
        assert_eq!(code("{"), "malformed_json");
        assert_eq!(code("[]"), "malformed_json");
        assert_eq!(code(r#"{"kind":"print"}"#), "unknown_kind");
        assert_eq!(code(r#"{"kind":7}"#), "bad_field");
        assert_eq!(code(r#"{"kind":"firmware_progress","percent":101}"#), "bad_field");
        assert_eq!(code(r#"{"printer_name":"x","user_id":"somebody-else"}"#), "bad_field");
        assert_eq!(code(r#"{"printer_name":"x","firmware_version":"1.0"}"#), "bad_field");
        assert_eq!(code(r#"{"printer_name":"x","update_channel":"nightly"}"#), "bad_field");
        assert_eq!(code("{}"), "bad_field");
    }

    /// Any JSON, with what breaks parsers and databases among it.
    fn json() -> impl Strategy<Value = Value> {
        let text = prop_oneof![
            ".{0,80}",
            Just("\0".to_owned()),
            Just("\u{202e}\u{feff}\u{1f5a8}".to_owned()),
            Just("9".repeat(3000)),
            Just("1.5.0".to_owned()),
        ];
        let number = prop_oneof![
            any::<f64>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            Just(Value::from(-1)),
        ];
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            number,
            text.prop_map(Value::from)
        ];
        leaf.prop_recursive(6, 40, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                prop::collection::hash_map(".{0,10}", inner, 0..6)
                    .prop_map(|fields| Value::Object(fields.into_iter().collect())),
            ]
        })
    }

    /// A message whose fields are those that we know, with anything in them.
    fn message() -> impl Strategy<Value = Value> {
        let kinds = [
            "subscribe",
            "firmware_progress",
            "firmware_complete",
            "firmware_failed",
            "firmware_declined",
            "x",
        ];
        let names = [
            "printer_id",
            "printer_name",
            "user_id",
            "platform",
            "firmware_version",
            "auto_update",
            "update_channel",
            "max_url_length",
            "follows_redirects",
            "time_zone",
            "percent",
            "status",
            "error",
            "version",
            "api_key",
            "kind",
        ];
        let fields = prop::collection::hash_map(prop::sample::select(names.to_vec()), json(), 0..8);
        (prop::option::of(prop::sample::select(kinds.to_vec())), fields).prop_map(|(kind, fields)| {
            let mut fields: Map<String, Value> =
                fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
            fields.extend(kind.map(|kind| ("kind".to_owned(), kind.into())));
            Value::Object(fields)
        })
    }

    /// What is kept has its bounds and no NUL, what is answered fits into a printer's memory.
    fn is_tame(text: &str) -> Result<(), TestCaseError> {
        let kept = |text: &str, most: usize| !text.contains('\0') && text.chars().count() <= most;
        match parse(text, &user()) {
            Ok(Message::Subscribe(said, ignored)) => {
                let id = said.printer_id.as_str();
                prop_assert!(kept(id, 64) && !id.is_empty() && !id.chars().any(char::is_control), "{id:?}");
                prop_assert!(said.name.as_deref().is_none_or(|name| kept(name, MAX_NAME)), "{:?}", said.name);
                prop_assert!(said.version.to_string().len() <= 64);
                prop_assert!(ignored.is_none_or(|status| status.text().len() < 1024));
            }
            Ok(Message::Report(Report::Progress(progress), _)) => {
                prop_assert!((-1..=100).contains(&progress.percent));
                prop_assert!(progress.status.as_deref().is_none_or(|text| kept(text, MAX_TEXT)));
            }
            Ok(Message::Report(Report::Outcome(Outcome::Failed { error }), _)) => {
                prop_assert!(error.as_deref().is_none_or(|text| kept(text, MAX_TEXT)));
            }
            Ok(Message::Report(..)) => {}
            Err(status) => prop_assert!(status.text().len() < 1024, "{}", status.text()),
        }
        Ok(())
    }

    #[test]
    fn what_nests_too_deep_or_counts_too_far_is_no_message() {
        for text in ["[".repeat(4000), "{\"a\":".repeat(700), format!("{{\"kind\":{}", "[".repeat(4000))] {
            assert_eq!(code(&text), "malformed_json");
        }
        for percent in ["1e308", "-1e308", "18446744073709551616", "-1.0000001", "100.1", "1e400"] {
            let wrong = code(&format!(r#"{{"kind":"firmware_progress","percent":{percent}}}"#));
            assert!(["bad_field", "malformed_json"].contains(&wrong), "{percent}");
        }
    }

    proptest! {
        #[test]
        fn nothing_that_a_printer_sends_panics_or_is_kept_without_bounds(
            text in ".{0,200}", value in json(), message in message(), percent in any::<f64>(), cut in any::<prop::sample::Index>(),
        ) {
            is_tame(&text)?;
            is_tame(&value.to_string())?;
            let message = message.to_string();
            is_tame(&message)?;
            let at = cut.index(message.len());
            is_tame(&message[..(0..=at).rev().find(|at| message.is_char_boundary(*at)).unwrap_or(0)])?;
            is_tame(&serde_json::json!({"kind": "firmware_progress", "percent": percent, "status": text}).to_string())?;
            is_tame(&serde_json::json!({"printer_name": text, "firmware_version": text}).to_string())?;
        }
    }
}
