//! The Xray gRPC API (shared reference xray-api.md): Xray's own services over headgate's state.
//!
//! [`server`] speaks gRPC, [`SERVICES`] says which methods there are, each service is a file. No
//! service owns state: counters are the tunnel's ledger, everything that changes goes through
//! [`Control`], so that the Clash API shows what this one does and the other way
//! round.
//!
//! Every service answers to its `xray.…` name, and where Xray has one to its `v2ray.core.…` alias;
//! messages inside a `TypedMessage` are taken by either prefix and given by `xray.…`.
//!
//! | Xray | headgate |
//! |---|---|
//! | inbound, its tag | listener, its name (`DEFAULT-MIXED` and the like for the port keys) |
//! | outbound, its tag | proxy, its name; `DIRECT` is freedom, `REJECT` blackhole; groups are none |
//! | inbound routed to the outbound of the API's tag | the same: `xray-api.tag` names such an outbound |
//! | `dokodemo-door` | `tunnel`; with followRedirect `tproxy` or `redir` |
//! | user, its email | who logs in at a listener, the user name |
//! | rule | rule line; added ones stand before the final MATCH, in one block |
//! | balancer | group, its name; override: the choice in it |
//! | policy level | [`policy`](crate::tunnel::policy): `level` of a listener's user, by what `xray-api.policy` says |
//! | counter | bytes that flows moved, payload without the proxy protocol's own |

mod account;
mod encrypting;
pub mod framing;
mod handler;
mod hostile;
pub mod inbound;
mod logger;
mod observatory;
pub mod options;
pub mod outbound;
pub mod protobuf;
mod reality;
mod reflection;
mod routing;
pub mod rule;
mod schema;
pub mod server;
mod stats;
pub mod status;
mod stream;
#[cfg(test)]
mod tests;
mod typed;

use std::sync::Arc;
use std::time::Instant;

use super::Control;
use protobuf::Message;
use status::{Code, Status};

/// One of the services that `xray-api.services` may name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// `HandlerService`.
    Handler,
    /// `LoggerService`.
    Logger,
    /// `ObservatoryService`.
    Observatory,
    /// `RoutingService`.
    Routing,
    /// `StatsService`.
    Stats,
    /// `ReflectionService`.
    Reflection,
}

impl Service {
    /// All of them, with the names that the configuration gives them.
    pub const ALL: &'static [(&'static str, Self)] = &[
        ("HandlerService", Self::Handler),
        ("LoggerService", Self::Logger),
        ("ObservatoryService", Self::Observatory),
        ("RoutingService", Self::Routing),
        ("StatsService", Self::Stats),
        ("ReflectionService", Self::Reflection),
    ];
}

/// What methods get.
pub struct Context {
    /// The program.
    pub control: Arc<dyn Control>,
    /// When the API began to serve.
    pub began: Instant,
    /// The services that are served.
    pub services: Vec<Service>,
}

/// What a method does with a request's bytes. Runs on a thread that may block.
pub type Method = fn(&Context, &[u8]) -> Result<Message, Status>;

/// How a method is called.
#[derive(Clone, Copy)]
pub enum Answer {
    /// One request, one response.
    Unary(Method),
    /// A stream of requests, each with its response in turn.
    Each(Method),
}

/// A service under one full name.
pub struct Served {
    /// Which service it belongs to.
    pub service: Service,
    /// Package and name, as the path has it.
    pub name: &'static str,
    methods: &'static [(&'static str, Answer)],
}

/// Every full name, sorted, with its methods: a new method is its function and a row in its service.
pub const SERVICES: &[Served] = &[
    Served {
        service: Service::Reflection,
        name: "grpc.reflection.v1.ServerReflection",
        methods: reflection::METHODS,
    },
    Served {
        service: Service::Reflection,
        name: "grpc.reflection.v1alpha.ServerReflection",
        methods: reflection::METHODS,
    },
    Served {
        service: Service::Logger,
        name: "v2ray.core.app.log.command.LoggerService",
        methods: logger::METHODS,
    },
    Served {
        service: Service::Handler,
        name: "v2ray.core.app.proxyman.command.HandlerService",
        methods: handler::METHODS,
    },
    Served {
        service: Service::Routing,
        name: "v2ray.core.app.router.command.RoutingService",
        methods: routing::METHODS,
    },
    Served {
        service: Service::Stats,
        name: "v2ray.core.app.stats.command.StatsService",
        methods: stats::METHODS,
    },
    Served {
        service: Service::Logger,
        name: "xray.app.log.command.LoggerService",
        methods: logger::METHODS,
    },
    Served {
        service: Service::Handler,
        name: "xray.app.proxyman.command.HandlerService",
        methods: handler::METHODS,
    },
    Served {
        service: Service::Routing,
        name: "xray.app.router.command.RoutingService",
        methods: routing::METHODS,
    },
    Served {
        service: Service::Stats,
        name: "xray.app.stats.command.StatsService",
        methods: stats::METHODS,
    },
    Served {
        service: Service::Observatory,
        name: "xray.core.app.observatory.command.ObservatoryService",
        methods: observatory::METHODS,
    },
];

/// The method of a path among the services that are on; otherwise what grpc-go says.
fn find(path: &str, services: &[Service]) -> Result<Answer, Status> {
    let unimplemented = |message| Err(Status::new(Code::Unimplemented, message));
    let named = path
        .strip_prefix('/')
        .and_then(|path| path.rsplit_once('/'));
    let Some((name, method)) = named else {
        return unimplemented(format!("malformed method name: {path:?}"));
    };
    let served = SERVICES
        .iter()
        .find(|served| served.name == name && services.contains(&served.service));
    let Some(served) = served else {
        return unimplemented(format!("unknown service {name}"));
    };
    match served.methods.iter().find(|(known, _)| *known == method) {
        Some(&(_, answer)) => Ok(answer),
        None => unimplemented(format!("unknown method {method} for service {name}")),
    }
}
