//! `POST /query`: SQL over what the router has (`rule_engine::tables`); reads only. Not EMQX's.

use serde_json::{Value, json};

use super::reply::{Failure, answer, body, data};
use super::rules::{BAD, shown};
use crate::controllers::Context;
use crate::controllers::http::{Request, Response};
use crate::rule_engine::tables::{TABLES, run_query};

/// `POST /query` with `{"sql": …}`: the rows.
pub(super) fn query(context: &Context, request: &Request<'_>) -> Response {
    let ask = || {
        let asked = body(request)?;
        let sql = asked.get("sql").and_then(Value::as_str);
        let sql = sql.ok_or_else(|| Failure::new(Failure::MISSING, "sql is missing"))?;
        let none = || Failure::new(Failure::UNKNOWN, "there are no tables");
        let tables = context.control.tables().ok_or_else(none)?;
        let rows =
            run_query(sql, tables).map_err(|why| Failure::new(BAD, format!("sql: {why}")))?;
        Ok(data(|json| {
            json.plain(rows);
        }))
    };
    answer(context, ask())
}

/// `GET /query`: the tables and their columns.
pub(super) fn tables(context: &Context, _: &Request<'_>) -> Response {
    let all = TABLES
        .iter()
        .map(|table| json!({"table": table.name, "columns": table.columns}));
    answer(context, shown(&all.collect()))
}
