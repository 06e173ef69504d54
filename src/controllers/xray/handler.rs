//! HandlerService: listeners, proxies and the users of listeners, listed and changed while running
//! (xray-api.md 2.4 and 2.11).
//!
//! What is added is read by the configuration's own parser and lives in the daemon beside what the
//! file says; it outlives a reload. Unlike Xray, a tag is required, a listener that cannot be bound is
//! not kept, removed users are cut off, and nobody's secret is given out. SOCKS and HTTP listeners
//! that ask for a login take users here too.

use std::time::Duration;

use super::protobuf::{Field, Fields, Malformed, Message};
use super::status::{Code, Status};
use super::typed::{Typed, User};
use super::{Answer, Context, account, inbound, outbound};
use crate::controllers::change::{Change, ChangeError};
use crate::inbound::options::{ListenerOptions, Options};
use crate::outbound::Kind;
use crate::outbound::options::Credentials;
use crate::platform::reply::reply;

/// `xray.app.proxyman.command.HandlerService`.
pub(super) const METHODS: &[(&str, Answer)] = &[
    ("AddInbound", Answer::Unary(add_inbound)),
    ("AddOutbound", Answer::Unary(add_outbound)),
    ("AlterInbound", Answer::Unary(alter_inbound)),
    ("AlterOutbound", Answer::Unary(alter_outbound)),
    ("GetInboundUsers", Answer::Unary(users)),
    ("GetInboundUsersCount", Answer::Unary(users_count)),
    ("ListInbounds", Answer::Unary(list_inbounds)),
    ("ListOutbounds", Answer::Unary(list_outbounds)),
    ("RemoveInbound", Answer::Unary(remove_inbound)),
    ("RemoveOutbound", Answer::Unary(remove_outbound)),
];

/// Makes a change; failures in Xray's words.
fn change(context: &Context, change: Change) -> Result<Message, Status> {
    let done = context.control.change(change);
    done.map_err(|error| {
        Status::unknown(match error {
            ChangeError::NameTaken(name) => {
                format!("app/proxyman/command: existing tag found: {name}")
            }
            ChangeError::NoInbound(name) => no_handler(&name),
            ChangeError::NoUsers => NO_USER_MANAGER.to_owned(),
            ChangeError::UserTaken(name) => {
                format!("app/proxyman/command: User {name} already exists.")
            }
            ChangeError::NoUser(name) => format!("app/proxyman/command: User {name} not found."),
            other => format!("app/proxyman/command: {other}"),
        })
    })?;
    Ok(Message::default())
}

const NO_USER_MANAGER: &str = "app/proxyman/command: proxy is not a UserManager";

fn no_handler(tag: &str) -> String {
    format!(
        "app/proxyman/command: failed to get handler: {tag} > \
         app/proxyman/inbound: handler not found: {tag}"
    )
}

/// The request's field 1, a message.
fn first<'a>(request: &'a [u8]) -> Result<Option<Fields<'a>>, Malformed> {
    let mut found = None;
    for field in Fields::new(request) {
        let field: Field<'a> = field?;
        if field.number == 1 {
            found = Some(field.message()?);
        }
    }
    Ok(found)
}

fn add_inbound(context: &Context, request: &[u8]) -> Result<Message, Status> {
    let config = first(request)?.ok_or_else(|| missing("inbound"))?;
    let entry = inbound::listener(config)?;
    change(context, Change::AddInbound(entry.into()))
}

fn add_outbound(context: &Context, request: &[u8]) -> Result<Message, Status> {
    let config = first(request)?.ok_or_else(|| missing("outbound"))?;
    let entry = outbound::proxy(config)?;
    change(context, Change::AddOutbound(entry.into()))
}

fn missing(what: &str) -> Status {
    Status::new(Code::InvalidArgument, format!("{what} is missing"))
}

/// Two strings, fields 1 and 2: a tag, and an email perhaps.
fn tag_and_email(request: &[u8]) -> Result<(&str, &str), Malformed> {
    let (mut tag, mut email) = ("", "");
    for field in Fields::new(request) {
        let field = field?;
        match field.number {
            1 => tag = field.text()?,
            2 => email = field.text()?,
            _ => {}
        }
    }
    Ok((tag, email))
}

const NOT_ENOUGH: &str = "not enough information for making a decision";

fn remove_inbound(context: &Context, request: &[u8]) -> Result<Message, Status> {
    let (tag, _) = tag_and_email(request)?;
    let removed = context.control.change(Change::RemoveInbound(tag.into()));
    match removed {
        Ok(()) => Ok(Message::default()),
        Err(ChangeError::NoInbound(_)) => Err(Status::unknown(format!("common: {NOT_ENOUGH}"))),
        Err(other) => Err(Status::unknown(other.to_string())),
    }
}

fn remove_outbound(context: &Context, request: &[u8]) -> Result<Message, Status> {
    let (tag, _) = tag_and_email(request)?;
    if tag.is_empty() {
        return Err(Status::unknown(format!("common: {NOT_ENOUGH}")));
    }
    change(context, Change::RemoveOutbound(tag.into()))
}

/// A tag and what is to be done: `AlterInboundRequest`.
fn operation(request: &[u8]) -> Result<(&str, Typed<'_>), Status> {
    let (mut tag, mut operation) = ("", None);
    for field in Fields::new(request) {
        let field = field?;
        match field.number {
            1 => tag = field.text()?,
            2 => operation = Some(Typed::read(&field)?),
            _ => {}
        }
    }
    let operation = operation.ok_or_else(|| missing("operation"))?;
    Ok((tag, operation))
}

const ADD_USER: &str = "app.proxyman.command.AddUserOperation";
const REMOVE_USER: &str = "app.proxyman.command.RemoveUserOperation";

fn unknown_operation(known: bool, way: &str) -> Status {
    Status::unknown(if known {
        format!("app/proxyman/command: not an {way} operation")
    } else {
        "app/proxyman/command: unknown operation > proto: not found".to_owned()
    })
}

fn alter_inbound(context: &Context, request: &[u8]) -> Result<Message, Status> {
    let (tag, operation) = operation(request)?;
    match operation.kind() {
        ADD_USER => {
            let mut user = User::default();
            for field in operation.fields() {
                let field = field?;
                if field.number == 1 {
                    user = User::read(&field)?;
                }
            }
            let options = context.control.inbounds();
            let listener = manager(&options, tag)?;
            let user = account::credentials(listener, &user)?;
            change(context, Change::AddUser(tag.into(), user))
        }
        REMOVE_USER => {
            let (email, _) = tag_and_email(operation.value)?;
            manager(&context.control.inbounds(), tag)?;
            if email.is_empty() {
                let text = "app/proxyman/command: Email must not be empty.";
                return Err(Status::unknown(text));
            }
            change(context, Change::RemoveUser(tag.into(), email.into()))
        }
        other => Err(unknown_operation(is_known(other), "inbound")),
    }
}

fn alter_outbound(_: &Context, request: &[u8]) -> Result<Message, Status> {
    let (_, operation) = operation(request)?;
    Err(unknown_operation(is_known(operation.kind()), "outbound"))
}

/// Whether a message of that type is declared.
fn is_known(kind: &str) -> bool {
    super::schema::declaring(&format!("xray.{kind}")).is_some()
}

/// What a listener speaks, when users log in there.
fn manager<'o>(options: &'o Options, tag: &str) -> Result<&'o ListenerOptions, Status> {
    if !options.ports().iter().any(|port| *port.name == *tag) {
        return Err(Status::unknown(no_handler(tag)));
    }
    let mut own = options.listeners.iter();
    let own = own.find(|listener| *listener.name == *tag);
    let own = own.ok_or_else(|| Status::unknown(NO_USER_MANAGER))?;
    let users = match &own.server {
        Some(server) => server.protocol.users().is_some(),
        None => own.users.as_ref().is_some_and(|users| !users.is_empty()),
    };
    match users {
        true => Ok(own),
        false => Err(Status::unknown(NO_USER_MANAGER)),
    }
}

/// Those who log in at a listener of `listeners:`, or by `authentication`.
fn users_of<'o>(options: &'o Options, tag: &str) -> &'o [Credentials] {
    let mut own = options.listeners.iter();
    let own = own.find(|listener| *listener.name == *tag);
    let users = own.and_then(|listener| match &listener.server {
        Some(server) => Some(server.protocol.users().unwrap_or_default()),
        None => listener.users.as_deref(),
    });
    users.unwrap_or(&options.authentication)
}

fn list_inbounds(context: &Context, request: &[u8]) -> Result<Message, Status> {
    let mut only_tags = false;
    for field in Fields::new(request) {
        let field = field?;
        if field.number == 1 {
            only_tags = field.boolean()?;
        }
    }
    let options = context.control.inbounds();
    let mut response = Message::default();
    for port in options.ports() {
        if only_tags {
            let mut inbound = Message::default();
            inbound.text(1, &port.name);
            response.message(1, &inbound);
        } else {
            response.message(
                1,
                &inbound::described(&port, users_of(&options, &port.name)),
            );
        }
    }
    Ok(response)
}

fn list_outbounds(context: &Context, _: &[u8]) -> Result<Message, Status> {
    let mut response = Message::default();
    let routing = context.control.tunnel().routing();
    for built_in in ["DIRECT", "REJECT", "REJECT-DROP"] {
        let kind = routing
            .outbounds
            .get(built_in)
            .map(|outbound| outbound.kind());
        if let Some(outbound) =
            kind.and_then(|kind: Kind| outbound::described(built_in, kind, None))
        {
            response.message(1, &outbound);
        }
    }
    // The proxies are the supervisor's; it fills the list in.
    let (sender, answer) = reply();
    let look = move |proxies: &[crate::outbound::options::ProxyOptions]| {
        for proxy in proxies {
            let kind = proxy.protocol.kind();
            if let Some(outbound) = outbound::described(&proxy.name, kind, Some(proxy)) {
                response.message(1, &outbound);
            }
        }
        // Whoever asked may have given up.
        let _gone = sender.send(response);
    };
    let shown = context.control.look_at_proxies(Box::new(look));
    shown.map_err(|error| Status::new(Code::Unavailable, error.to_string()))?;
    answer
        .wait(Duration::ZERO)
        .map_err(|_| Status::new(Code::Unavailable, "the daemon is stopping"))
}

fn users(context: &Context, request: &[u8]) -> Result<Message, Status> {
    let (tag, email) = tag_and_email(request)?;
    let options = context.control.inbounds();
    let listener = manager(&options, tag)?;
    let mut response = Message::default();
    let wanted =
        |user: &&Credentials| email.is_empty() || user.username.eq_ignore_ascii_case(email);
    for user in users_of(&options, tag).iter().filter(wanted) {
        response.message(1, &account::described(listener, user));
    }
    if !email.is_empty() && response == Message::default() {
        // Xray answers with a user of nothing.
        response.message(1, &Message::default());
    }
    Ok(response)
}

fn users_count(context: &Context, request: &[u8]) -> Result<Message, Status> {
    let (tag, _) = tag_and_email(request)?;
    let options = context.control.inbounds();
    manager(&options, tag)?;
    let mut response = Message::default();
    response.integer(1, users_of(&options, tag).len() as u64);
    Ok(response)
}
