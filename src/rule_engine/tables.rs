//! The tables that queries read: columns and rows. Who has the rows implements [`Tables`].

use std::fmt;

use super::event::Datum;
use super::world::World;
use crate::sql::{Columns, Fault, Input, Query, SyntaxError, Value, write_json};

/// A table's name and columns.
pub struct TableType {
    /// As FROM names it.
    pub name: &'static str,
    /// All columns.
    pub columns: &'static [&'static str],
}

/// Every table.
pub const TABLES: &[TableType] = &[
    TableType {
        name: "flows",
        columns: &[
            "id",
            "live",
            "device",
            "device_mac",
            "device_port",
            "network",
            "host",
            "destination",
            "port",
            "inbound",
            "rule",
            "rule_type",
            "rule_payload",
            "outbound",
            "chain",
            "up",
            "down",
            "start",
            "duration",
        ],
    },
    TableType {
        name: "devices",
        columns: &["device", "device_mac", "device_name", "flows", "up", "down"],
    },
    TableType {
        name: "dns",
        columns: &["device", "name", "type", "rcode", "answers", "time"],
    },
    TableType {
        name: "rules",
        columns: &[
            "index", "type", "payload", "proxy", "hits", "misses", "last_hit", "disabled",
        ],
    },
    TableType {
        name: "mqtt_clients",
        columns: &[
            "clientid",
            "username",
            "address",
            "connected",
            "proto_ver",
            "keepalive",
            "received",
            "sent",
            "bytes_received",
            "bytes_sent",
            "dropped",
        ],
    },
];

/// A row of a table.
pub struct TableRow<'a> {
    /// All columns.
    pub names: &'static [&'static str],
    /// Those that are there.
    pub data: &'a [(&'static str, Datum)],
}

impl Columns for TableRow<'_> {
    fn column<'e>(&'e self, name: &str) -> Option<Value<'e>> {
        let found = self.data.iter().find(|(column, _)| *column == name);
        found.map(|(_, datum)| datum.value())
    }

    fn names(&self) -> &[&'static str] {
        self.names
    }
}

/// What takes the cells of a row.
pub type Show<'a> = dyn FnMut(&[(&'static str, Datum)]) + 'a;

/// Who has the rows.
pub trait Tables: Send + Sync {
    /// Shows every row of a table, which is one of [`TABLES`].
    fn visit(&self, table: &'static str, show: &mut Show<'_>);
}

/// Why a query has no result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoResult {
    /// It is no query.
    Syntax(SyntaxError),
    /// There is no such table.
    Table(Box<str>),
    /// A row does not fit it.
    Fault(Fault),
}

impl fmt::Display for NoResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Syntax(error) => error.fmt(f),
            Self::Table(name) => {
                write!(f, "there is no table {name:?}, but")?;
                for (i, table) in TABLES.iter().enumerate() {
                    write!(f, "{} {}", if i > 0 { "," } else { "" }, table.name)?;
                }
                Ok(())
            }
            Self::Fault(fault) => fault.fmt(f),
        }
    }
}

impl std::error::Error for NoResult {}

/// The rows that a query gives, as a JSON array of objects.
///
/// # Errors
/// [`NoResult`].
pub fn run_query(text: &str, tables: &dyn Tables) -> Result<String, NoResult> {
    let query = Query::parse(text).map_err(NoResult::Syntax)?;
    let mut known = TABLES.iter();
    let table = known
        .find(|table| *table.name == *query.table())
        .ok_or_else(|| NoResult::Table(query.table().into()))?;
    let world = World::new();
    let mut results = query.begin();
    let mut failed = None;
    tables.visit(table.name, &mut |data| {
        let row = TableRow {
            names: table.columns,
            data,
        };
        let input = Input {
            event: &row,
            surroundings: &world,
            rule: "query",
        };
        if failed.is_none()
            && let Err(fault) = results.add(input)
        {
            failed = Some(fault);
        }
    });
    if let Some(fault) = failed {
        return Err(NoResult::Fault(fault));
    }
    let mut json = b"[".to_vec();
    let shown = results.finish(&mut |row| {
        if json.len() > 1 {
            json.push(b',');
        }
        write_json(row, &mut json);
    });
    shown.map_err(NoResult::Fault)?;
    json.push(b']');
    // Texts were made UTF-8 when they were written.
    Ok(String::from_utf8(json).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Few;

    impl Tables for Few {
        fn visit(&self, table: &'static str, show: &mut Show<'_>) {
            assert_eq!(table, "flows");
            for (device, down) in [("tv", 5), ("tv", 6), ("phone", 1)] {
                show(&[
                    ("device", Datum::Text(device.into())),
                    ("down", Datum::Int(down)),
                ]);
            }
        }
    }

    #[test]
    fn queries_run_over_tables_that_there_are() {
        let sql =
            "SELECT device, sum(down) AS d FROM flows GROUP BY device ORDER BY d DESC LIMIT 1";
        assert_eq!(
            run_query(sql, &Few).as_deref(),
            Ok(r#"[{"device":"tv","d":11}]"#)
        );
        assert_eq!(
            run_query("SELECT down FROM flows WHERE down > 5", &Few).as_deref(),
            Ok(r#"[{"down":6}]"#)
        );
        assert_eq!(
            run_query("SELECT down FROM flows LIMIT 2", &Few).as_deref(),
            Ok(r#"[{"down":5},{"down":6}]"#)
        );
        let none = run_query("SELECT * FROM users", &Few).unwrap_err();
        assert_eq!(
            none.to_string(),
            "there is no table \"users\", but flows, devices, dns, rules, mqtt_clients"
        );
        assert!(run_query("SELECT down + device FROM flows", &Few).is_err());
    }
}
