//! Pages of lists: `_page` and `_limit` in, `meta` out (emqx-api.md 1.7).

use super::reply::{DATA_BYTES_MAX, Failure, Outcome};
use crate::controllers::http::Query;
use crate::controllers::http::json::Json;

/// Rows of a page, unless the request says less.
const ROWS_MAX: u64 = 10_000;

/// What `meta.count` tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Count {
    /// All rows that there are; the kind of list that says no more.
    Plain(usize),
    /// All rows that there are, and whether others follow.
    All(usize),
    /// Not counted, since a filter looks for some; whether others follow is told.
    Filtered,
}

/// The part of a list that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Page {
    number: u64,
    limit: u64,
}

impl Page {
    /// As the query asks.
    ///
    /// # Errors
    /// 108: not a number.
    pub fn of(query: Query<'_>) -> Result<Self, Failure> {
        let number = |name, absent| match query.get(name) {
            None => Ok(absent),
            Some(text) => text.parse().map_err(|_| {
                let message = format!("Can't convert <<\"{text}\">> to integer type");
                Failure::new(Failure::BAD_PARAMETER, message)
            }),
        };
        Ok(Self {
            number: number("_page", 1)?,
            limit: number("_limit", ROWS_MAX)?.min(ROWS_MAX),
        })
    }

    /// Writes the rows of this page out of all `rows`, each by `write`.
    ///
    /// # Errors
    /// 108: they are more than an answer holds.
    pub fn write<T>(
        self,
        count: Count,
        rows: impl Iterator<Item = T>,
        mut write: impl FnMut(&mut Json, T),
    ) -> Outcome {
        let skip = self
            .number
            .max(1)
            .saturating_sub(1)
            .saturating_mul(self.limit);
        let skip = usize::try_from(skip).unwrap_or(usize::MAX);
        let mut rows = rows.skip(skip);
        let mut json = Json::new();
        json.open_object().key("code").plain(0);
        json.key("data").open_array();
        for _ in 0..self.limit {
            let Some(row) = rows.next() else { break };
            write(&mut json, row);
            if json.len() > DATA_BYTES_MAX {
                let message = "the page is too large: ask for a smaller _limit";
                return Err(Failure::new(Failure::BAD_PARAMETER, message));
            }
        }
        json.close_array().key("meta").open_object();
        json.key("page").plain(self.number);
        json.key("limit").plain(self.limit);
        match count {
            Count::Plain(count) => json.key("count").plain(count),
            Count::All(count) => json
                .key("count")
                .plain(count)
                .key("hasnext")
                .plain(rows.next().is_some()),
            Count::Filtered => json
                .key("count")
                .plain(-1)
                .key("hasnext")
                .plain(rows.next().is_some()),
        };
        json.close_object().close_object();
        Ok(json)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(query: &str, count: Count, want: &str) {
        let page = Page::of(Query(query)).unwrap();
        let json = page.write(count, 1..=5, |json, row| {
            json.plain(row);
        });
        let text = String::from_utf8(json.unwrap().finish()).unwrap();
        assert_eq!(text.trim(), want, "{query}");
    }

    #[test]
    fn pages_are_cut_and_tell_whether_others_follow() {
        check(
            "_page=2&_limit=2",
            Count::All(5),
            r#"{"code":0,"data":[3,4],"meta":{"page":2,"limit":2,"count":5,"hasnext":true}}"#,
        );
        check(
            "_page=3&_limit=2",
            Count::Filtered,
            r#"{"code":0,"data":[5],"meta":{"page":3,"limit":2,"count":-1,"hasnext":false}}"#,
        );
        check(
            "_page=0&_limit=1",
            Count::Plain(5),
            r#"{"code":0,"data":[1],"meta":{"page":0,"limit":1,"count":5}}"#,
        );
        check(
            "",
            Count::Plain(5),
            r#"{"code":0,"data":[1,2,3,4,5],"meta":{"page":1,"limit":10000,"count":5}}"#,
        );
        check(
            "_page=99999999999&_limit=99999999999",
            Count::All(5),
            r#"{"code":0,"data":[],"meta":{"page":99999999999,"limit":10000,"count":5,"hasnext":false}}"#,
        );
    }

    #[test]
    fn what_is_no_number_is_named() {
        for query in ["_page=x", "_limit=-1", "_limit="] {
            assert!(Page::of(Query(query)).is_err(), "{query}");
        }
    }

    #[test]
    fn a_page_has_an_end() {
        let page = Page::of(Query("")).unwrap();
        let long = "x".repeat(1 << 20);
        let written = page.write(Count::Filtered, std::iter::repeat(()), |json, ()| {
            json.string(&long);
        });
        assert!(written.is_err());
    }
}
