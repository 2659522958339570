//! Which printers are let in: keys of their own, and keys that speak for all printers of a user.
//!
//! A printer that has a key must show it, whatever else it could show. One that has none may show a key of its user's;
//! where there is neither, and the policy says so, what it shows first becomes its key.

use std::collections::{HashMap, HashSet};
use std::fmt;

use aws_lc_rs::error::Unspecified;
use aws_lc_rs::rand;
use sha2::{Digest as _, Sha256};
use sqlx::{FromRow, PgConnection, QueryBuilder};
use uuid::Uuid;

use super::Error;
use super::types::Arrival;
use crate::auth::Scope;
use crate::clock::Time;
use crate::config::PrinterAuth;
use crate::http::page::{Page, Sort};
use crate::ids::{PrinterId, UserId};

pub(super) static SORTS: &[Sort] = &[Sort { name: "number", sql: "k.number", cast: "bigint" }];
const COLUMNS: &str =
    "k.id, k.number, k.user_id, k.printer_id, k.enrolled, k.created_at, k.created_by, k.previous_until";

/// A key as it is kept: SHA-256 of a fixed word, the user and the key, each behind its length, so that no two of them
/// can be taken for a third, and one key under two users is two.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Credential([u8; 32]);

impl Credential {
    /// Of a key that a printer of this user shows.
    pub fn of(user: &UserId, key: &str) -> Self {
        let mut hash = Sha256::new();
        for part in ["paperminder printer key", user.as_str(), key] {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        Self(hash.finalize().into())
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credential(…)")
    }
}

/// A key for a printer that is given none: 128 random bits as hex, which fits the memory of a small sketch.
pub(super) fn made_up() -> Result<String, Unspecified> {
    let mut bytes = [0; 16];
    rand::fill(&mut bytes)?;
    Ok(hex::encode(bytes))
}

/// Judges printers that arrive, whose rows are held from here on: whether the key that each showed speaks for others as well; none for one that stays
/// outside. Those that arrive for the first time may be bound to what they show.
pub async fn admit(
    conn: &mut PgConnection,
    policy: PrinterAuth,
    arrivals: &[Arrival],
    now: Time,
) -> Result<Vec<Option<bool>>, sqlx::Error> {
    let said = || arrivals.iter().map(|arrival| &arrival.said);
    let printers: Vec<_> = said().map(|said| said.printer_id.to_string()).collect();
    // Held from here on, in the order in which everybody holds them: who is blocked now stays outside.
    sqlx::query!(
        "select id from printers where printer_id = any($1) order by id for no key update",
        &printers
    )
    .fetch_all(&mut *conn)
    .await?;
    let rows = sqlx::query!(
        r#"select case
               when p.blocked_at is not null then 'refused'
               when $5 = 'open' then 'shared'
               when o.id is null and p.user_id <> s.user_id then 'refused'
               when o.id is not null then case
                   when o.user_id <> s.user_id or not coalesce(o.secret_sha256 = s.secret or (o.previous_sha256 = s.secret and $4 < o.previous_until), false)
                       then 'refused'
                   when exists (select 1 from printer_keys x where x.user_id = s.user_id and x.secret_sha256 = s.secret and x.id <> o.id)
                       then 'shared'
                   else 'own' end
               when exists (select 1 from printer_keys k where k.user_id = s.user_id and k.secret_sha256 = s.secret and k.printer_id is null)
                   or exists (select 1 from printer_keys k where k.user_id = s.user_id and k.previous_sha256 = s.secret
                       and k.printer_id is null and $4 < k.previous_until)
                   then 'shared'
               when $5 = 'enroll' and s.secret is not null
                   and not exists (select 1 from printer_keys k where k.user_id = s.user_id and k.printer_id is null)
                   and not exists (select 1 from dead_printer_keys d where d.user_id = s.user_id and d.secret_sha256 = s.secret)
                   then 'new'
               else 'refused' end as "verdict!"
           from unnest($1::text[], $2::text[], $3::bytea[]) with ordinality as s (printer_id, user_id, secret, place)
           left join printers p on p.printer_id = s.printer_id left join printer_keys o on o.printer_id = s.printer_id
           order by s.place"#,
        &printers,
        &said().map(|said| said.user_id.to_string()).collect::<Vec<_>>(),
        &said().map(|said| said.credential.as_ref().map(|one| one.bytes().to_vec())).collect::<Vec<_>>()
            as &[Option<Vec<u8>>],
        now,
        policy.as_str()
    );
    let rows = rows.fetch_all(&mut *conn).await?;
    let new: Vec<_> = arrivals.iter().zip(&rows).filter(|(_, row)| row.verdict == "new").collect();
    let new: Vec<_> = new.into_iter().map(|(arrival, _)| arrival).collect();
    let bound = if new.is_empty() { HashMap::new() } else { enroll(conn, &new, now).await? };
    let verdict = |(arrival, verdict): (&Arrival, &str)| match verdict {
        "own" => Some(false),
        "shared" => Some(true),
        "new" => bound.get(&(&arrival.said.printer_id, arrival.said.credential.as_ref()?)).copied(),
        _ => None,
    };
    Ok(arrivals.iter().zip(rows.iter().map(|row| row.verdict.as_str())).map(verdict).collect())
}

/// Binds printers to what they show, each to the first that it showed. Whoever was bound meanwhile is not.
async fn enroll<'a>(
    conn: &mut PgConnection,
    new: &[&'a Arrival],
    now: Time,
) -> Result<HashMap<(&'a PrinterId, &'a Credential), bool>, sqlx::Error> {
    let (mut seen, mut of_key) = (HashSet::new(), HashMap::<_, usize>::new());
    let mut first = Vec::new();
    for arrival in new {
        let said = &arrival.said;
        if let Some(credential) = said.credential.as_ref().filter(|_| seen.insert(&said.printer_id)) {
            *of_key.entry(credential).or_default() += 1;
            first.push((said, credential));
        }
    }
    first.sort_by_key(|(said, _)| &said.printer_id);
    let bound = sqlx::query!(
        r#"insert into printer_keys as n (id, user_id, printer_id, secret_sha256, enrolled, created_at, created_by)
           select s.id, s.user_id, s.printer_id, s.secret, true, $5, 'printer'
           from unnest($1::uuid[], $2::text[], $3::text[], $4::bytea[]) as s (id, user_id, printer_id, secret)
           order by s.printer_id
           on conflict (printer_id) where printer_id is not null do nothing
           returning n.printer_id as "printer_id!", exists (select 1 from printer_keys x
               where x.user_id = n.user_id and x.secret_sha256 = n.secret_sha256) as "shared!""#,
        &first.iter().map(|_| Uuid::now_v7()).collect::<Vec<_>>(),
        &first.iter().map(|(said, _)| said.user_id.to_string()).collect::<Vec<_>>(),
        &first.iter().map(|(said, _)| said.printer_id.to_string()).collect::<Vec<_>>(),
        &first.iter().map(|(_, credential)| credential.bytes().to_vec()).collect::<Vec<_>>(),
        now
    );
    let bound: HashMap<_, _> =
        bound.fetch_all(conn).await?.into_iter().map(|row| (row.printer_id, row.shared)).collect();
    let shown = |(said, credential): &(&'a super::Subscription, &'a Credential)| {
        let shared = *bound.get(said.printer_id.as_str())? || of_key[credential] > 1;
        Some(((&said.printer_id, *credential), shared))
    };
    Ok(first.iter().filter_map(shown).collect())
}

/// A key of printers, without its secret.
#[derive(Debug, FromRow)]
pub struct PrinterKey {
    /// Row.
    pub id: Uuid,
    /// For lists.
    pub number: i64,
    /// Whose printers.
    pub user_id: String,
    /// The one printer; none: every one of the user that has no key of its own.
    pub printer_id: Option<String>,
    /// Whether the printer brought it.
    pub enrolled: bool,
    /// When it was made or brought.
    pub created_at: Time,
    /// Who made it.
    pub created_by: String,
    /// Until then the key before the last rotation opens as well.
    pub previous_until: Option<Time>,
}

/// A key that is to be made.
#[derive(Clone, Debug)]
pub(super) struct NewPrinterKey {
    pub id: Uuid,
    pub user_id: UserId,
    pub printer_id: Option<PrinterId>,
    pub credential: Credential,
}

/// Makes keys. Returns the places of those whose printer has one already; then none is to be kept.
pub(super) async fn create(
    conn: &mut PgConnection,
    keys: &[NewPrinterKey],
    by: &str,
    now: Time,
) -> Result<Vec<usize>, sqlx::Error> {
    let made = sqlx::query_scalar!(
        "insert into printer_keys (id, user_id, printer_id, secret_sha256, enrolled, created_at, created_by)
         select s.id, s.user_id, s.printer_id, s.secret, false, $5, $6
         from unnest($1::uuid[], $2::text[], $3::text[], $4::bytea[]) as s (id, user_id, printer_id, secret)
         order by s.printer_id
         on conflict (printer_id) where printer_id is not null do nothing returning id",
        &keys.iter().map(|key| key.id).collect::<Vec<_>>(),
        &keys.iter().map(|key| key.user_id.to_string()).collect::<Vec<_>>(),
        &keys.iter().map(|key| key.printer_id.as_ref().map(ToString::to_string)).collect::<Vec<_>>()
            as &[Option<String>],
        &keys.iter().map(|key| key.credential.bytes().to_vec()).collect::<Vec<_>>(),
        now,
        by
    );
    let made: HashSet<_> = made.fetch_all(conn).await?.into_iter().collect();
    Ok(keys.iter().enumerate().filter(|(_, key)| !made.contains(&key.id)).map(|(place, _)| place).collect())
}

/// The printers that new keys are for. Their rows are held from here on.
pub(super) async fn named(conn: &mut PgConnection, keys: &[NewPrinterKey]) -> Result<Vec<Uuid>, sqlx::Error> {
    let printers: Vec<_> = keys.iter().filter_map(|key| Some(key.printer_id.as_ref()?.to_string())).collect();
    sqlx::query_scalar!(
        "select id from printers where printer_id = any($1) order by id for no key update",
        &printers
    )
    .fetch_all(conn)
    .await
}

/// A printer that keys are to be made for and that is not in this scope, if there is one.
pub(super) async fn out_of_scope(
    conn: &mut PgConnection,
    scope: &Scope,
    keys: &[NewPrinterKey],
) -> Result<Option<String>, sqlx::Error> {
    let wanted: Vec<_> = keys.iter().filter_map(|key| Some(key.printer_id.as_ref()?.to_string())).collect();
    let mut query = QueryBuilder::new("select p.printer_id from printers p where p.printer_id = any(");
    query.push_bind(wanted.clone()).push(")");
    scope.push_printers(&mut query, "p");
    let ours: HashSet<String> = query.build_query_scalar().fetch_all(conn).await?.into_iter().collect();
    Ok(wanted.into_iter().find(|printer| !ours.contains(printer)))
}

/// One key of this scope.
pub(super) async fn get(conn: &mut PgConnection, scope: &Scope, id: Uuid) -> Result<PrinterKey, Error> {
    let mut query = QueryBuilder::new(format!("select {COLUMNS} from printer_keys k where k.id = "));
    query.push_bind(id);
    push_scope(&mut query, scope);
    query.build_query_as().fetch_optional(conn).await?.ok_or(Error::NoKey(id))
}

fn push_scope(query: &mut QueryBuilder<sqlx::Postgres>, scope: &Scope) {
    if let Some(users) = &scope.user_ids {
        query.push(" and k.user_id = any(").push_bind(users.clone()).push(")");
    }
}

/// A page, the cursor of the next one, and how many there are.
pub(super) async fn list(
    conn: &mut PgConnection,
    scope: &Scope,
    user: Option<&UserId>,
    printer: Option<&PrinterId>,
    page: &Page,
) -> Result<(Vec<PrinterKey>, Option<String>, i64), sqlx::Error> {
    let filter = |query: &mut QueryBuilder<sqlx::Postgres>| {
        push_scope(query, scope);
        if let Some(user) = user {
            query.push(" and k.user_id = ").push_bind(user.to_string());
        }
        if let Some(printer) = printer {
            query.push(" and k.printer_id = ").push_bind(printer.to_string());
        }
    };
    let mut count = QueryBuilder::new("select count(*) from printer_keys k where true");
    filter(&mut count);
    let total = count.build_query_scalar().fetch_one(&mut *conn).await?;
    let mut query = QueryBuilder::new(format!("select {COLUMNS} from printer_keys k where true"));
    filter(&mut query);
    page.push(&mut query, "k.number");
    let mut keys = query.build_query_as::<PrinterKey>().fetch_all(conn).await?;
    let next = page.cut(&mut keys, |key| (key.number.to_string(), key.number));
    Ok((keys, next, total))
}

/// Gives a key another secret; the old one opens until `previous_until`.
pub(super) async fn rotate(
    conn: &mut PgConnection,
    id: Uuid,
    credential: &Credential,
    previous_until: Time,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "update printer_keys set previous_sha256 = secret_sha256, previous_until = $3, secret_sha256 = $2 where id = $1",
        id,
        credential.bytes(),
        previous_until
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Forgets a key. Returns the printers that may have come in with it.
pub(super) async fn forget(conn: &mut PgConnection, key: &PrinterKey) -> Result<Vec<Uuid>, sqlx::Error> {
    // What spoke for many was in many hands, and must not become the own key of whoever shows it first.
    sqlx::query!(
        "insert into dead_printer_keys (user_id, secret_sha256) select user_id, secret_sha256 from printer_keys \
         where id = $1 and printer_id is null on conflict do nothing",
        key.id
    )
    .execute(&mut *conn)
    .await?;
    sqlx::query!("delete from printer_keys where id = $1", key.id).execute(&mut *conn).await?;
    held_by(conn, key).await
}

/// The printers that may have come in with a key, or that it is for. Their rows are held from here on.
pub(super) async fn held_by(conn: &mut PgConnection, key: &PrinterKey) -> Result<Vec<Uuid>, sqlx::Error> {
    sqlx::query_scalar!(
        "select id from printers where case when $2::text is null then user_id = $1 else printer_id = $2 end order by id for no key update",
        key.user_id,
        key.printer_id
    )
    .fetch_all(conn)
    .await
}

/// The key of a printer itself.
pub(super) async fn of_printer(
    conn: &mut PgConnection,
    printer: Uuid,
) -> Result<Option<PrinterKey>, sqlx::Error> {
    let mut query = QueryBuilder::new(format!(
        "select {COLUMNS} from printer_keys k join printers p on p.printer_id = k.printer_id and p.user_id = k.user_id where p.id = "
    ));
    query.push_bind(printer).build_query_as().fetch_optional(conn).await
}

/// Keeps a printer out from now on, or lets it in again.
pub(super) async fn block(
    conn: &mut PgConnection,
    printer: Uuid,
    since: Option<Time>,
) -> Result<(), sqlx::Error> {
    sqlx::query!("update printers set blocked_at = case when $2::timestamptz is not null then coalesce(blocked_at, $2) end where id = $1", printer, since)
        .execute(conn)
        .await?;
    Ok(())
}

/// Makes every socket that these printers have an old one, which its replica parts with. They may come again.
pub(super) async fn part(conn: &mut PgConnection, printers: &[Uuid], now: Time) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "update presence set connection = nextval('printer_connections'), replica = null,
             last_disconnected = case when replica is null then last_disconnected else $2 end,
             online_seconds = online_seconds + case when replica is null then 0
                 else greatest(extract(epoch from $2 - last_connected), 0) end
         where printer = any($1)",
        printers,
        now
    )
    .execute(conn)
    .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_under_another_user_is_another_and_shows_nothing() {
        let (a, b): (UserId, UserId) = ("a".parse().unwrap(), "b".parse().unwrap());
        assert_eq!(Credential::of(&a, "key"), Credential::of(&a, "key"));
        assert_ne!(Credential::of(&a, "key"), Credential::of(&b, "key"));
        let (ab, c): (UserId, UserId) = ("ab".parse().unwrap(), "c".parse().unwrap());
        assert_ne!(Credential::of(&ab, "c"), Credential::of(&a, "bc"), "lengths tell the parts apart");
        assert_ne!(Credential::of(&c, ""), Credential::of(&c, " "));
        assert_eq!(format!("{:?}", Credential::of(&a, "key")), "Credential(…)");
        assert_ne!(made_up().unwrap(), made_up().unwrap());
    }
}
