//! What an event is, where it stands, and who wants it. No I/O.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use bytes::Bytes;
use uuid::Uuid;

use crate::auth::Scope;
use crate::clock::Time;
use crate::ids::Handle;
use crate::words::{UnknownWord, vocabulary};

vocabulary!(
    /// What happened.
    #[schema(as = EventKind)]
    Kind {
        /// A rollout was made.
        #[default]
        RolloutCreated = "rollout.created",
        /// Its state, its percentage or anything else that an operator or the plan decides.
        RolloutChanged = "rollout.changed",
        /// It was deleted.
        RolloutDeleted = "rollout.deleted",
        /// A printer is being offered a release.
        UpdateOffered = "update.offered",
        /// The printer took it, or says that it is done.
        UpdateChanged = "update.changed",
        /// The outcome is settled, or was corrected by a late proof.
        UpdateEnded = "update.ended",
        /// The offer never left, and does not count.
        UpdateWithdrawn = "update.withdrawn",
        /// A release was uploaded or promoted.
        FirmwareCreated = "firmware.created",
        /// A release was amended, deprecated or restored.
        FirmwareChanged = "firmware.changed",
        /// A release was deleted.
        FirmwareDeleted = "firmware.deleted",
    }
);

/// A place in the order of all events. As text it is the `id` of an event on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    pub(super) xid: u64,
    pub(super) id: i64,
    /// Of a row that tells of many attempts, how many of them; [`WHOLE`](Self::WHOLE) behind the row.
    pub(super) part: i64,
}

impl Place {
    pub(super) const WHOLE: i64 = i64::MAX;

    /// Behind a row.
    pub(super) const fn behind(xid: u64, id: i64) -> Self {
        Self { xid, id, part: Self::WHOLE }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.xid, self.id)?;
        if self.part == Self::WHOLE { Ok(()) } else { write!(f, "-{}", self.part) }
    }
}

/// A string that is no [`Place`].
#[derive(Debug, PartialEq, Eq)]
pub struct NoPlace;

impl FromStr for Place {
    type Err = NoPlace;
    fn from_str(text: &str) -> Result<Self, NoPlace> {
        let mut words = text.trim().splitn(3, '-');
        let (Some(xid), Some(id)) = (words.next(), words.next()) else { return Err(NoPlace) };
        let part = words.next().map_or(Ok(Self::WHOLE), str::parse);
        Ok(Self {
            xid: xid.parse().map_err(|_| NoPlace)?,
            id: id.parse().map_err(|_| NoPlace)?,
            part: part.ok().filter(|part| *part > 0).ok_or(NoPlace)?,
        })
    }
}

/// One event, rendered once for everybody.
#[derive(Debug)]
pub(super) struct Event {
    pub place: Place,
    kind: Kind,
    rollout_id: Option<Uuid>,
    rollout_number: Option<i64>,
    /// As `text/event-stream`.
    pub frame: Bytes,
}

impl Event {
    /// `data` is a JSON object on one line.
    pub fn new(place: Place, kind: Kind, at: Time, rollout: (Option<Uuid>, Option<i64>), data: &str) -> Self {
        let at = at.to_rfc3339_opts(chrono::SecondsFormat::Micros, true);
        let rest = data.trim_start_matches('{');
        let frame =
            format!("id: {place}\nevent: {kind}\ndata: {{\"kind\":\"{kind}\",\"at\":\"{at}\",{rest}\n\n");
        Self { place, kind, rollout_id: rollout.0, rollout_number: rollout.1, frame: frame.into() }
    }
}

/// Kinds as a parameter lists them: `update.ended,rollout`, where a noun alone means all of its kinds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Kinds(pub Vec<Kind>);

impl FromStr for Kinds {
    type Err = UnknownWord;
    fn from_str(text: &str) -> Result<Self, UnknownWord> {
        let mut kinds = Vec::new();
        for word in text.split(',').map(str::trim) {
            let of_noun = Kind::ALL
                .iter()
                .filter(|kind| kind.as_str().split_once('.').is_some_and(|(noun, _)| noun == word));
            let before = kinds.len();
            kinds.extend(of_noun);
            if kinds.len() == before {
                kinds.push(word.parse()?);
            }
        }
        Ok(Self(kinds))
    }
}

/// Which events somebody wants; all unless it says otherwise.
#[derive(Clone, Debug, Default)]
pub(super) struct Filter {
    /// What is read at all.
    pub scope: Arc<Scope>,
    pub rollout: Option<Handle>,
    pub kinds: Kinds,
}

impl Filter {
    pub fn passes(&self, event: &Event) -> bool {
        let rollout = match self.rollout {
            None => true,
            Some(Handle::Id(id)) => event.rollout_id == Some(id),
            Some(Handle::Number(number)) => event.rollout_number == Some(number),
        };
        rollout && (self.kinds.0.is_empty() || self.kinds.0.contains(&event.kind))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_survives_the_wire_and_orders_by_transaction_first() {
        let place = Place::behind(734_012, 9);
        assert_eq!(place.to_string().parse(), Ok(place));
        assert!(place < Place::behind(734_013, 1) && place < Place::behind(734_012, 10));
        let third = Place { part: 3, ..place };
        assert_eq!(third.to_string(), "734012-9-3");
        assert_eq!(third.to_string().parse(), Ok(third));
        assert!(third < Place { part: 4, ..place } && third < place && third > Place::behind(734_012, 8));
        for text in ["", "7", "7-", "-7", "a-b", "7-8-", "7-8-0", "7-8-9-1", "18446744073709551616-1"] {
            assert_eq!(text.parse::<Place>(), Err(NoPlace), "{text}");
        }
    }

    #[test]
    fn a_noun_means_all_of_its_kinds() {
        let kinds: Kinds = "firmware, update.ended".parse().unwrap();
        assert_eq!(
            kinds.0,
            [Kind::FirmwareCreated, Kind::FirmwareChanged, Kind::FirmwareDeleted, Kind::UpdateEnded]
        );
        assert!("updates".parse::<Kinds>().is_err());
    }

    #[test]
    fn an_event_is_one_frame() {
        let event = Event::new(
            Place::behind(7, 8),
            Kind::UpdateEnded,
            Time::default(),
            (None, Some(3)),
            "{\"n\": 1}",
        );
        let frame = "id: 7-8\nevent: update.ended\ndata: {\"kind\":\"update.ended\",\"at\":\"1970-01-01T00:00:00.000000Z\",\"n\": 1}\n\n";
        assert_eq!(event.frame, frame);
        let of = |rollout| Filter { rollout: Some(rollout), ..Filter::default() };
        assert!(of(Handle::Number(3)).passes(&event) && !of(Handle::Number(4)).passes(&event));
    }
}
