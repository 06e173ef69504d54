//! What outlives a run: a table that all rules share, and one for each client.

use super::{Arguments, Function};
use crate::sql::error::Fault;
use crate::sql::run::Run;
use crate::sql::state::Owner;
use crate::sql::value::Value;

pub(super) const FUNCTIONS: &[Function] = &[
    Function::new("kv_store_del", 1, 1, |run, a| {
        remove(run, a, None)?;
        Ok(Value::Bool(true))
    }),
    Function::new("kv_store_get", 1, 2, |run, a| {
        Ok(match get(run, a, None)? {
            Value::Undefined => a.get(1).clone(),
            found => found,
        })
    }),
    Function::new("kv_store_put", 2, 2, |run, a| {
        put(run, a, None)?;
        Ok(Value::Bool(true))
    }),
    Function::new("proc_dict_del", 1, 1, |run, a| {
        remove(run, a, Some(&run.column("clientid")))
    }),
    Function::new("proc_dict_get", 1, 1, |run, a| {
        get(run, a, Some(&run.column("clientid")))
    }),
    Function::new("proc_dict_put", 2, 2, |run, a| {
        put(run, a, Some(&run.column("clientid")))
    }),
];

/// Whose table: everybody's, or that of the event's client; events without one share one.
fn owner<'v>(client: Option<&'v Value<'_>>) -> Owner<'v> {
    match client {
        None => Owner::All,
        Some(Value::Text(id)) => Owner::Client(id.bytes()),
        Some(_) => Owner::Client(b""),
    }
}

/// The key as text: any value may be one.
fn key(run: &mut Run<'_>, a: &Arguments<'_, '_>) -> Result<Vec<u8>, Fault> {
    run.make(a.get(0).weight())?;
    let mut key = Vec::new();
    crate::sql::json::write(a.get(0), &mut key);
    Ok(key)
}

fn get<'e>(
    run: &mut Run<'e>,
    a: &Arguments<'_, 'e>,
    client: Option<&Value<'e>>,
) -> Result<Value<'e>, Fault> {
    let key = key(run, a)?;
    let store = run.input.surroundings.store();
    Ok(store.get(owner(client), &key).unwrap_or_default())
}

fn put<'e>(
    run: &mut Run<'e>,
    a: &Arguments<'_, 'e>,
    client: Option<&Value<'e>>,
) -> Result<Value<'e>, Fault> {
    let key = key(run, a)?;
    let bytes = a.get(1).weight();
    run.make(bytes)?;
    let value = a.get(1).clone().into_owned();
    let store = run.input.surroundings.store();
    let before = store.put(owner(client), &key, value, bytes);
    Ok(before.unwrap_or_default())
}

fn remove<'e>(
    run: &mut Run<'e>,
    a: &Arguments<'_, 'e>,
    client: Option<&Value<'e>>,
) -> Result<Value<'e>, Fault> {
    let key = key(run, a)?;
    let store = run.input.surroundings.store();
    Ok(store.remove(owner(client), &key).unwrap_or_default())
}
