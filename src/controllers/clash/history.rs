//! `GET /history` (headgate's own): what devices, rules, nodes or domains have moved in the last 30 days.
//!
//! `by` (`device` when absent), `from` and `to` (dates, both included), `name`: that one alone. Whatever has no
//! row of its own is in `other`, so that every sum is exact.

use std::collections::BTreeMap;

use crate::calendar::{date, parse_date};
use crate::controllers::Context;
use crate::controllers::http::json::Json;
use crate::controllers::http::{Request, Response};
use crate::tunnel::history::day::{Day, Dimension, Moved, OTHER, WHOLE_DAY, plus};
use crate::tunnel::history::{History, Moment};

/// Days that may be asked for at a time.
const DAYS_MAX: u32 = 30;

/// Sums by name, and day by day.
pub(super) fn show(context: &Context, request: &Request<'_>) -> Response {
    let Some(history) = context.control.tunnel().connections().settle() else {
        return Response::error(404, "profile.store-history is off");
    };
    let at = Moment::now();
    let text = |name: &str| request.query.get(name).filter(|text| !text.is_empty());
    let day = |name: &str, absent: u32| match text(name) {
        Some(text) => parse_date(&text),
        None => Some(absent),
    };
    let by = match text("by") {
        Some(text) => Dimension::parse(&text),
        None => Some(Dimension::Device),
    };
    let to = day("to", at.date);
    let first = to.map(|to| to.saturating_sub(DAYS_MAX - 1));
    let from = first.and_then(|first| day("from", first));
    let (Some(by), Some(from), Some(to)) = (by, from, to) else {
        return Response::body_invalid();
    };
    let from = from.max(to.saturating_sub(DAYS_MAX - 1));
    let days = days(context, &history, &at, from, to);
    let name = text("name");
    let name = name.as_deref();
    let mut json = Json::new();
    json.open_object().key("by").string(by.as_str());
    json.key("from").quoted(date(from));
    json.key("to").quoted(date(to));
    write_sums(&mut json, by, &days, name);
    json.key("days").open_array();
    days.iter()
        .for_each(|day| write_day(&mut json, by, day, name));
    json.close_array().close_object();
    Response::json(json)
}

/// The days `from` to `to` of which something is known, newest first.
pub(super) fn days(
    context: &Context,
    history: &History,
    at: &Moment,
    from: u32,
    to: u32,
) -> Vec<Day> {
    let [yesterday, today] = history.recent(at);
    let kept = yesterday.date.saturating_sub(1).min(to);
    let recent = [today, yesterday].into_iter();
    let mut days: Vec<Day> = recent
        .filter(|day| (from..=to).contains(&day.date) && !day.is_empty())
        .collect();
    days.extend(context.control.past_days(from, kept));
    days
}

/// What each name of a dimension has moved in all of `days`.
pub(super) fn sums(by: Dimension, days: &[Day]) -> BTreeMap<&str, Moved> {
    let mut sums = BTreeMap::new();
    for (name, row) in days.iter().flat_map(|day| day.rows(by)) {
        let sum: &mut Moved = sums.entry(name).or_default();
        *sum = plus(*sum, row.total());
    }
    sums
}

/// The two members of what has moved.
pub(super) fn write_moved(json: &mut Json, [up, down]: Moved) {
    json.key("upload").plain(up).key("download").plain(down);
}

fn write_sums(json: &mut Json, by: Dimension, days: &[Day], wanted: Option<&str>) {
    let mut sums = sums(by, days);
    if let Some(wanted) = wanted {
        sums.retain(|name, _| *name == wanted);
    }
    write_moved(json, sums.values().copied().fold([0; 2], plus));
    let other = sums.remove(OTHER).unwrap_or_default();
    let mut sums: Vec<_> = sums.into_iter().collect();
    sums.sort_by_key(|(_, [up, down])| std::cmp::Reverse(up.saturating_add(*down)));
    json.key("items").open_array();
    for (name, moved) in sums {
        json.open_object().key("name").string(name);
        write_moved(json, moved);
        json.close_object();
    }
    json.close_array();
    json.key("other").open_object();
    write_moved(json, other);
    json.close_object();
}

/// A day, and its hours while they are known.
fn write_day(json: &mut Json, by: Dimension, day: &Day, wanted: Option<&str>) {
    let mut hours: BTreeMap<u8, Moved> = BTreeMap::new();
    let rows = day.rows(by);
    let rows = rows.filter(|(name, _)| wanted.is_none_or(|wanted| wanted == *name));
    for (hour, moved) in rows.flat_map(|(_, row)| row.points()) {
        let sum = hours.entry(*hour).or_default();
        *sum = plus(*sum, *moved);
    }
    json.open_object().key("date").quoted(date(day.date));
    write_moved(json, hours.values().copied().fold([0; 2], plus));
    hours.remove(&WHOLE_DAY);
    if !hours.is_empty() {
        json.key("hours").open_array();
        for (hour, moved) in hours {
            json.open_object().key("hour").plain(hour);
            write_moved(json, moved);
            json.close_object();
        }
        json.close_array();
    }
    json.close_object();
}
