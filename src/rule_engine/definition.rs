//! Rules as they are asked for and kept: JSON in EMQX's form, checked.
//!
//! What is kept is what was asked for, with ids, defaults and the time of creation filled in.

use std::fmt;

use serde_json::{Map, Value, json};

use super::action::{self, Action};
use super::catalogue::{self, Param};
use super::event::EventKind;
use super::{ACTIONS_MAX, RESOURCES_MAX, RULES_MAX};
use crate::sql::{Program, SyntaxError};

/// Why a rule is not made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BadRule {
    /// A member is missing.
    Missing(&'static str),
    /// A member has another type than its meaning has, or a value that it cannot have.
    Wrong(Box<str>),
    /// The SQL is none.
    Sql(SyntaxError),
    /// FROM names an event that there is not.
    Event(Box<str>),
    /// There is no such action.
    Action(Box<str>),
    /// There is no such resource, or it has another type than the action takes.
    Resource(Box<str>),
    /// There is no such type of resources.
    ResourceType(Box<str>),
    /// Rules that are enabled use the resource.
    InUse(Box<str>),
    /// The resource does not answer, and why.
    Dead(Box<str>),
    /// There is a rule of this id.
    Exists,
    /// There are as many rules or actions as there may be.
    TooMany,
}

impl fmt::Display for BadRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(name) => write!(f, "{name} is missing"),
            Self::Wrong(what) => write!(f, "{what} is not as it must be"),
            Self::Sql(error) => write!(f, "rawsql: {error}"),
            Self::Event(name) => write!(f, "there is no event {name}"),
            Self::Action(name) => write!(f, "Action {name} Not Found"),
            Self::Resource(id) => write!(f, "Resource {id} Not Found"),
            Self::ResourceType(name) => write!(f, "Resource Type {name} Not Found"),
            Self::InUse(rules) => write!(f, "disable the rules that depend on it: {rules}"),
            Self::Dead(why) => write!(f, "Test Creating Resource Failed: {why}"),
            Self::Exists => f.write_str("Already Exists"),
            Self::TooMany => write!(
                f,
                "more than {RULES_MAX} rules, {ACTIONS_MAX} actions or {RESOURCES_MAX} resources"
            ),
        }
    }
}

impl std::error::Error for BadRule {}

/// What a rule does when an action and its fallbacks failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnFailure {
    /// The next action.
    Continue,
    /// No further action.
    Stop,
}

impl OnFailure {
    /// As JSON names it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Continue => "continue",
            Self::Stop => "stop",
        }
    }
}

/// A rule as it was asked for.
#[derive(Clone, Debug)]
pub struct Definition {
    /// `rule:` and eight digits, or the creator's choice.
    pub id: Box<str>,
    /// The SQL as written.
    pub sql: Box<str>,
    /// Any text.
    pub description: Box<str>,
    /// Whether it runs.
    pub enabled: bool,
    /// What follows a failure.
    pub on_failure: OnFailure,
    /// Milliseconds since 1970.
    pub created_ms: u64,
    /// What is done, in order.
    pub actions: Vec<ActionDefinition>,
}

/// An action as it was asked for.
#[derive(Clone, Debug)]
pub struct ActionDefinition {
    /// Its name and a number that is its own.
    pub id: Box<str>,
    /// Its type.
    pub name: &'static str,
    /// Its parameters, defaults filled in.
    pub params: Map<String, Value>,
    /// What is done when it fails.
    pub fallbacks: Vec<Self>,
}

/// Gives new things their ids, and knows those that there are.
pub trait Ids {
    /// The type of a resource that there is.
    fn resource_kind(&self, id: &str) -> Option<&'static str>;
    /// Eight hexadecimal digits.
    fn digits(&mut self) -> u32;
    /// A time in nanoseconds since 1970, never the same twice.
    fn stamp(&mut self) -> u64;
}

impl Definition {
    /// Reads what a client asks for, or what was kept. `before`: the rule that it changes, whose members
    /// stay where none are named.
    ///
    /// # Errors
    /// [`BadRule`].
    pub fn read(
        asked: &Map<String, Value>,
        before: Option<&Self>,
        ids: &mut dyn Ids,
    ) -> Result<Self, BadRule> {
        let wrong = |name: &str| BadRule::Wrong(name.into());
        let text = |name: &str| {
            let value = asked.get(name).filter(|value| !value.is_null());
            value
                .map(|value| value.as_str().ok_or(wrong(name)))
                .transpose()
        };
        let sql = text("rawsql")?.or(before.map(|one| &*one.sql));
        let sql = sql.ok_or(BadRule::Missing("rawsql"))?;
        check_sql(sql)?;
        let mut count = 0;
        let actions = match (asked.get("actions"), before) {
            (Some(list), _) => read_actions(list, &mut count, ids)?,
            (None, Some(before)) => before.actions.clone(),
            (None, None) => return Err(BadRule::Missing("actions")),
        };
        let on_failure = match text("on_action_failed")? {
            None => before.map_or(OnFailure::Continue, |one| one.on_failure),
            Some("continue") => OnFailure::Continue,
            Some("stop") => OnFailure::Stop,
            Some(_) => return Err(wrong("on_action_failed")),
        };
        let enabled = match asked.get("enabled") {
            None => before.is_none_or(|one| one.enabled),
            Some(value) => value.as_bool().ok_or(wrong("enabled"))?,
        };
        let description = text("description")?.or(before.map(|one| &*one.description));
        let id = match (before, text("id")?) {
            (Some(before), _) => before.id.clone(),
            (None, Some(id)) if !id.is_empty() && id.len() <= 256 => id.into(),
            (None, Some(_)) => return Err(wrong("id")),
            (None, None) => format!("rule:{:08x}", ids.digits()).into(),
        };
        let kept = asked.get("created_at").and_then(Value::as_u64);
        let created_ms = before.map(|one| one.created_ms).or(kept);
        Ok(Self {
            id,
            sql: sql.into(),
            description: description.unwrap_or_default().into(),
            enabled,
            on_failure,
            created_ms: created_ms.unwrap_or_else(|| ids.stamp() / 1_000_000),
            actions,
        })
    }

    /// Whether an action of it, or a fallback, has this resource.
    #[must_use]
    pub fn uses(&self, resource: &str) -> bool {
        fn any(actions: &[ActionDefinition], resource: &str) -> bool {
            let mut all = actions.iter();
            all.any(|one| {
                let own = one.params.get("$resource").and_then(Value::as_str);
                own == Some(resource) || any(&one.fallbacks, resource)
            })
        }
        any(&self.actions, resource)
    }

    /// As it is kept.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let actions: Vec<Value> = self.actions.iter().map(ActionDefinition::to_json).collect();
        json!({
            "id": *self.id,
            "rawsql": *self.sql,
            "description": *self.description,
            "enabled": self.enabled,
            "on_action_failed": self.on_failure.as_str(),
            "created_at": self.created_ms,
            "actions": actions,
        })
    }
}

impl ActionDefinition {
    fn to_json(&self) -> Value {
        let fallbacks: Vec<Value> = self.fallbacks.iter().map(Self::to_json).collect();
        json!({
            "id": *self.id,
            "name": self.name,
            "params": self.params,
            "fallbacks": fallbacks,
        })
    }
}

/// The program of a rule's text, whose events there are.
///
/// # Errors
/// [`BadRule`].
pub fn check_sql(sql: &str) -> Result<Program, BadRule> {
    let program = Program::parse(sql).map_err(BadRule::Sql)?;
    for name in program.from() {
        if EventKind::of(name).is_none() {
            return Err(BadRule::Event(name.clone()));
        }
    }
    Ok(program)
}

fn read_actions(
    list: &Value,
    count: &mut usize,
    ids: &mut dyn Ids,
) -> Result<Vec<ActionDefinition>, BadRule> {
    let list = list.as_array().ok_or(BadRule::Wrong("actions".into()))?;
    let mut actions = Vec::new();
    for item in list {
        *count += 1;
        if *count > ACTIONS_MAX {
            return Err(BadRule::TooMany);
        }
        let name = item.get("name").and_then(Value::as_str);
        let name = name.ok_or(BadRule::Missing("actions.name"))?;
        let found = catalogue::action_type(name);
        let found = found.ok_or_else(|| BadRule::Action(name.into()))?;
        let given = match item.get("params") {
            None => Map::new(),
            Some(Value::Object(given)) => given.clone(),
            Some(_) => return Err(BadRule::Wrong("actions.params".into())),
        };
        let params = fill_in(found.params, given, "params")?;
        if !found.types.is_empty() {
            let id = params.get("$resource").and_then(Value::as_str);
            let id = id.unwrap_or_default();
            let kind = ids.resource_kind(id);
            if !kind.is_some_and(|kind| found.types.contains(&kind)) {
                return Err(BadRule::Resource(id.into()));
            }
        }
        let fallbacks = match item.get("fallbacks") {
            None => Vec::new(),
            Some(list) => read_actions(list, count, ids)?,
        };
        let kept = item.get("id").and_then(Value::as_str);
        let definition = ActionDefinition {
            id: match kept {
                Some(id) => id.into(),
                None => format!("{name}_{}", ids.stamp()).into(),
            },
            name: found.name,
            params,
            fallbacks,
        };
        // What cannot be done is refused now, not when it is to be done.
        let _checked: Action = action::build(&definition)?;
        actions.push(definition);
    }
    Ok(actions)
}

/// Given parameters with what is missing; unknown ones stay.
pub(super) fn fill_in(
    wanted: &[Param],
    mut given: Map<String, Value>,
    member: &str,
) -> Result<Map<String, Value>, BadRule> {
    for param in wanted {
        let wrong = || BadRule::Wrong(format!("{member}.{}", param.name).into());
        match given.get(param.name).filter(|value| !value.is_null()) {
            Some(value) => {
                let choice = value.as_str().unwrap_or_default();
                let templated = choice.contains("${");
                let fits = match param.kind {
                    "string" | "password" => value.is_string(),
                    "file" => value.is_string() || value.is_object(),
                    "object" => value.is_object(),
                    "number" => value.is_number() || value.is_string(),
                    _ => value.is_boolean() || value.is_number() || value.is_string(),
                };
                if !fits
                    || !(param.choices.is_empty() || templated || param.choices.contains(&choice))
                {
                    return Err(wrong());
                }
            }
            None => match param.default {
                Some(default) => {
                    let value = serde_json::from_str(default).map_err(|_| wrong())?;
                    given.insert(param.name.to_owned(), value);
                }
                None if param.required => return Err(BadRule::Missing(param.name)),
                None => {}
            },
        }
    }
    Ok(given)
}
