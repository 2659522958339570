//! Hints to all replicas: PostgreSQL's NOTIFY, with ids only.

use sqlx::PgConnection;
use uuid::Uuid;

pub(super) const CHANNEL: &str = "paperminder";

/// Hints that are told one by one; beyond it every replica looks at everything once.
const SINGLE: usize = 16;

/// What may have changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hint {
    /// This rollout.
    Rollout(Uuid),
    /// This printer: its open update ended without a word from it, or an operator wants something.
    Printer(Uuid),
    /// This printer's socket is to be closed: an operator blocked it, or took its key away.
    Part(Uuid),
    /// Failures of this rollout were forgiven.
    Forgiven(Uuid),
    /// Releases: one was amended, withdrawn or restored.
    Releases,
    /// Anything: notifications may have been lost.
    Everything,
}

impl Hint {
    fn payload(self) -> String {
        match self {
            Self::Rollout(id) => format!("r{id}"),
            Self::Printer(id) => format!("p{id}"),
            Self::Part(id) => format!("x{id}"),
            Self::Forgiven(id) => format!("g{id}"),
            Self::Releases => "f".into(),
            Self::Everything => "*".into(),
        }
    }

    pub(super) fn parse(payload: &str) -> Option<Self> {
        match payload.split_at_checked(1)? {
            ("r", id) => id.parse().ok().map(Self::Rollout),
            ("p", id) => id.parse().ok().map(Self::Printer),
            ("x", id) => id.parse().ok().map(Self::Part),
            ("g", id) => id.parse().ok().map(Self::Forgiven),
            ("f", "") => Some(Self::Releases),
            ("*", "") => Some(Self::Everything),
            _ => None,
        }
    }
}

/// Tells all replicas, when the transaction commits.
pub async fn notify(conn: &mut PgConnection, hint: Hint) -> Result<(), sqlx::Error> {
    sqlx::query!("select pg_notify($1, $2)", CHANNEL, hint.payload()).execute(conn).await?;
    Ok(())
}

/// Tells all replicas of several things; of many, that there were many.
pub async fn notify_all(
    conn: &mut PgConnection,
    hints: impl Iterator<Item = Hint>,
) -> Result<(), sqlx::Error> {
    let mut payloads: Vec<_> = hints.take(SINGLE + 1).map(Hint::payload).collect();
    if payloads.len() > SINGLE {
        payloads = vec![Hint::Everything.payload()];
    }
    if !payloads.is_empty() {
        let told = sqlx::query!(
            "select pg_notify($1, payload) from unnest($2::text[]) as payload",
            CHANNEL,
            &payloads
        );
        told.execute(conn).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hints_survive_the_wire() {
        for hint in [
            Hint::Rollout(Uuid::from_u128(1)),
            Hint::Printer(Uuid::from_u128(2)),
            Hint::Forgiven(Uuid::from_u128(3)),
            Hint::Part(Uuid::from_u128(4)),
            Hint::Releases,
            Hint::Everything,
        ] {
            assert_eq!(Hint::parse(&hint.payload()), Some(hint));
        }
        assert_eq!(Hint::parse(""), None);
        assert_eq!(Hint::parse("rnonsense"), None);
        assert_eq!(Hint::parse("ü"), None);
    }
}
