//! Windows as JSON has them, in requests and in columns.

use std::fmt;

use serde::Deserialize;

use super::{Day, TimeZoneName, Window, Windows};

/// Most windows of one list.
pub const MAX_WINDOWS: usize = 50;

/// [`Windows`] before they are looked at: `{"weekly": [{"days": ["mon"], "from": "02:00", "to": "05:00"}], "time_zone":
/// "Europe/Rome", "mandatory_ignores": true}`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WindowsBody {
    weekly: Vec<WindowBody>,
    time_zone: Option<String>,
    mandatory_ignores: Option<bool>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WindowBody {
    days: Option<Vec<String>>,
    from: String,
    to: String,
}

/// What is wrong with windows: fields, such as `weekly[0].from`, each with a sentence that lacks only its subject.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BadWindows(Vec<(String, String)>);

impl BadWindows {
    /// The fields as they are called where the windows are one of the fields.
    pub fn within(self, field: &str) -> Vec<(String, String)> {
        self.0.into_iter().map(|(name, detail)| (format!("{field}.{name}"), detail)).collect()
    }

    fn parse<T: std::str::FromStr<Err: fmt::Display>>(&mut self, field: String, text: &str) -> Option<T> {
        text.parse().map_err(|error: T::Err| self.0.push((field, format!("is not valid: {error}")))).ok()
    }
}

impl fmt::Display for BadWindows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sentences: Vec<_> = self.0.iter().map(|(field, detail)| format!("{field} {detail}")).collect();
        f.write_str(&sentences.join(". "))
    }
}

impl std::error::Error for BadWindows {}

impl WindowBody {
    fn parse(self, index: usize, errors: &mut BadWindows) -> Option<Window> {
        let field = |name: &str| format!("weekly[{index}].{name}");
        let days = self.days.map_or_else(
            || Day::ALL.to_vec(),
            |days| {
                if days.is_empty() {
                    let detail = "is an empty list; leave it out for every day, or name at least one";
                    errors.0.push((field("days"), detail.to_owned()));
                }
                let mut parsed: Vec<Day> = days
                    .iter()
                    .enumerate()
                    .filter_map(|(at, day)| errors.parse(field(&format!("days[{at}]")), day))
                    .collect();
                parsed.sort_unstable();
                parsed.dedup();
                parsed
            },
        );
        let from = errors.parse(field("from"), &self.from);
        let to = errors.parse(field("to"), &self.to);
        Some(Window { days, from: from?, to: to? })
    }
}

impl TryFrom<WindowsBody> for Windows {
    type Error = BadWindows;

    fn try_from(body: WindowsBody) -> Result<Self, BadWindows> {
        let mut errors = BadWindows::default();
        let count = body.weekly.len();
        if count > MAX_WINDOWS {
            let detail = format!("has {count} windows; {MAX_WINDOWS} are the most, name several days in one");
            return Err(BadWindows(vec![("weekly".to_owned(), detail)]));
        }
        let weekly = body.weekly.into_iter().enumerate();
        let weekly = weekly.filter_map(|(index, window)| window.parse(index, &mut errors)).collect();
        let time_zone: Option<TimeZoneName> =
            body.time_zone.and_then(|text| errors.parse("time_zone".to_owned(), &text));
        if !errors.0.is_empty() {
            return Err(errors);
        }
        Ok(Self { weekly, time_zone, mandatory_ignores: body.mandatory_ignores.unwrap_or(false) })
    }
}
