//! Pages of lists: keyset cursors that are stable under inserts and bound to the filter and the order.

use axum::http::{HeaderMap, HeaderValue, header};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use sqlx::{Postgres, QueryBuilder};

use super::extract::Params;

/// Rows of a page unless `limit` says otherwise.
pub const DEFAULT_LIMIT: u16 = 100;
/// Most rows of a page.
pub const MAX_LIMIT: u16 = 500;

/// One order that a list offers. The row's number decides between equals.
#[derive(Debug)]
pub struct Sort {
    /// Its name in `?sort=`; `-name` turns it round.
    pub name: &'static str,
    /// SQL that is never null.
    pub sql: &'static str,
    /// SQL type of that.
    pub cast: &'static str,
}

/// Which page is wanted.
#[derive(Debug)]
pub struct Page {
    limit: u16,
    sort: &'static Sort,
    descending: bool,
    after: Option<After>,
    fingerprint: String,
    params: String,
}

/// What a cursor holds: the last row's place, and what the list was.
#[derive(Debug, Serialize, Deserialize)]
struct After {
    k: String,
    n: i64,
    f: String,
}

impl Page {
    /// Reads `limit`, `cursor` and `sort`. The first of `sorts` is the default, `default_descending` its direction.
    /// `list` names the list, so that its cursors are refused by every other.
    pub fn read(params: &mut Params, list: &str, sorts: &'static [Sort], default_descending: bool) -> Self {
        let fingerprint = short_hash(&format!("{list}?{}", params.fingerprint()));
        let limit = params.get("limit").unwrap_or(DEFAULT_LIMIT);
        if !(1..=MAX_LIMIT).contains(&limit) {
            params.error("limit", format!("must be a whole number from 1 to {MAX_LIMIT}, this is {limit}"));
        }
        let asked: Option<String> = params.get("sort");
        let (sort, descending) = match &asked {
            None => (&sorts[0], default_descending),
            Some(text) => {
                let (name, descending) =
                    text.strip_prefix('-').map_or((text.as_str(), false), |name| (name, true));
                let found = sorts.iter().find(|sort| sort.name == name);
                if found.is_none() {
                    let names = sorts.iter().map(|sort| sort.name).collect::<Vec<_>>().join(", ");
                    params.error(
                        "sort",
                        format!(
                            "is not known: `{name}`; use one of {names}, with - in front to turn it round"
                        ),
                    );
                }
                (found.unwrap_or(&sorts[0]), descending)
            }
        };
        let cursor: Option<String> = params.get("cursor");
        let after = cursor.and_then(|token| {
            let after = URL_SAFE_NO_PAD
                .decode(token)
                .ok()
                .and_then(|json| serde_json::from_slice::<After>(&json).ok());
            match after {
                Some(after) if after.f == fingerprint => Some(after),
                Some(_) => {
                    params.error(
                        "cursor",
                        "belongs to another filter or order; repeat those, or start without a cursor",
                    );
                    None
                }
                None => {
                    params.error(
                        "cursor",
                        "is not one of ours; take it from next_cursor, or start without one",
                    );
                    None
                }
            }
        });
        Self { limit, sort, descending, after, fingerprint, params: params.with_cursor("") }
    }

    /// Whether it is the first one.
    pub fn is_first(&self) -> bool {
        self.after.is_none()
    }

    /// SQL of the column that [`cut`](Self::cut) reads as `sort_key`.
    pub fn sort_key(&self) -> String {
        format!("({})::text as sort_key", self.sort.sql)
    }

    /// Appends the place after the last page, the order and the limit. `number` is the tie-breaking column.
    pub fn push(&self, query: &mut QueryBuilder<Postgres>, number: &str) {
        self.push_within(query, None, number);
    }

    /// The same for a list in which `group` is the same in all rows, said as a range: PostgreSQL then reads the page from
    /// the index that begins with it. Told of an equality it takes the group for evenly spread, walks down the numbers,
    /// and passes a million younger rows before it meets the first one. Other orders than by number do without.
    pub fn push_within(&self, query: &mut QueryBuilder<Postgres>, group: Option<&str>, number: &str) {
        let (sql, cast) = (self.sort.sql, self.sort.cast);
        let (compare, direction) = if self.descending { ("<", "desc") } else { (">", "asc") };
        if let Some(after) = &self.after {
            query.push(format!(" and ({sql}, {number}) {compare} (("));
            query.push_bind(after.k.clone());
            query.push(format!(")::{cast}, "));
            query.push_bind(after.n);
            query.push(")");
        }
        // One more than asked for tells whether there is a next page.
        let limit = u32::from(self.limit) + 1;
        let group = group
            .filter(|_| sql == number)
            .map_or_else(String::new, |group| format!("{group} {direction}, "));
        query.push(format!(" order by {group}{sql} {direction}, {number} {direction} limit {limit}"));
    }

    /// Cuts the extra row off and makes the cursor of the next page, if there is one.
    pub fn cut<T>(&self, rows: &mut Vec<T>, place: impl Fn(&T) -> (String, i64)) -> Option<String> {
        if rows.len() <= usize::from(self.limit) {
            return None;
        }
        rows.truncate(usize::from(self.limit));
        let (k, n) = place(rows.last()?);
        let json = serde_json::to_vec(&After { k, n, f: self.fingerprint.clone() }).ok()?;
        Some(URL_SAFE_NO_PAD.encode(json))
    }

    /// `Link: <…>; rel="next"` (RFC 8288), relative to the request's own URL.
    pub fn link(&self, next: Option<&str>) -> HeaderMap {
        let mut headers = HeaderMap::new();
        if let Some(cursor) = next {
            let value = HeaderValue::from_str(&format!("<?{}{cursor}>; rel=\"next\"", self.params));
            headers.extend(value.ok().map(|value| (header::LINK, value)));
        }
        headers
    }
}

fn short_hash(text: &str) -> String {
    use sha2::{Digest, Sha256};
    URL_SAFE_NO_PAD.encode(&Sha256::digest(text.as_bytes())[..9])
}

#[cfg(test)]
mod tests {
    use super::*;

    const SORTS: &[Sort] = &[Sort { name: "number", sql: "number", cast: "bigint" }];

    fn read(query: &str) -> Result<Page, super::super::Problem> {
        read_of("firmware", query)
    }

    fn read_of(list: &str, query: &str) -> Result<Page, super::super::Problem> {
        let mut params = Params::new(query);
        let _: Option<String> = params.get("channel");
        let page = Page::read(&mut params, list, SORTS, false);
        params.finish().map(|()| page)
    }

    #[test]
    fn a_cursor_goes_with_its_filter_only() {
        let page = read("channel=beta&limit=1").unwrap();
        let cursor = page.cut(&mut vec![1, 2], |row| (row.to_string(), *row)).unwrap();
        assert!(read(&format!("channel=beta&limit=9&cursor={cursor}")).is_ok());
        assert!(
            read(&format!("channel=stable&cursor={cursor}")).unwrap_err().detail.contains("another filter")
        );
        let plain =
            read("").unwrap().cut(&mut (0..200).collect(), |row: &i64| (row.to_string(), *row)).unwrap();
        assert!(read(&format!("cursor={plain}")).is_ok());
        assert!(read_of("printers", &format!("cursor={plain}")).is_err(), "another list's cursor");
        assert!(read("cursor=garbage").unwrap_err().detail.contains("not one of ours"));
    }

    #[test]
    fn the_limit_is_bounded() {
        assert!(read("limit=500").is_ok());
        for bad in ["limit=0", "limit=501", "limit=-1", "limit=99999999"] {
            assert_eq!(read(bad).unwrap_err().status, 422, "{bad}");
        }
    }
}
