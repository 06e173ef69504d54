//! The route table: which handler a method and a path lead to, and who may take it.
//!
//! A dialect is a `const` slice of [`Route`]s. A pattern is literal segments and `{}` for one
//! whole segment; the path is split before it is decoded, so that `%2F` stays inside a segment.
//! A pattern that ends in a slash answers without it too; any other path must match exactly.

use std::sync::Arc;

use bytes::Bytes;

use super::{Method, Request, Response, percent_decode};
use crate::controllers::Context;
use crate::controllers::options::Scope;
use crate::outbound::BoxFuture;

/// What a caller must be allowed to. Every route names one; there is no default.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// A secret of at least this scope, as a Bearer token.
    Secret(Scope),
    /// The same, as the password of Basic authentication too: tools that know nothing else ask here.
    SecretOrPassword(Scope),
    /// An application's name and secret by Basic authentication (EMQX).
    Application,
    /// Nothing.
    Open,
}

impl Access {
    /// To look.
    pub const READ: Self = Self::Secret(Scope::Read);
    /// To operate what is configured.
    pub const OPERATE: Self = Self::Secret(Scope::Operate);
    /// To change the configuration.
    pub const CONFIGURE: Self = Self::Secret(Scope::Configure);
    /// Everything.
    pub const ADMIN: Self = Self::Secret(Scope::Admin);
}

/// Answers one request; may block for some seconds, since it runs on a thread of its own kind.
pub type Handler = fn(&Context, &Request<'_>) -> Response;

/// Looks at a request before its handler does, which sees what it left; or answers in its place.
pub type Guard = fn(&Context, &mut Request<'_>) -> Result<(), Response>;

/// A source of documents without end, which [`crate::controllers::gate`] sends on.
pub trait Feed: Send {
    /// The next document (JSON with its line end), when there is one; `None` ends the feed. Dropping
    /// the future while it waits loses nothing.
    fn next(&mut self) -> BoxFuture<'_, Option<Bytes>>;
}

/// Opens a feed, or says why not.
pub type Opener = fn(&Arc<Context>, &Request<'_>) -> Result<Box<dyn Feed>, Response>;

/// Checks a request at once, and answers it when something has happened that takes its time: on the
/// runtime, without a thread.
pub type Waiter = fn(&Arc<Context>, &Request<'_>) -> Result<BoxFuture<'static, Response>, Response>;

/// How a route answers.
#[derive(Clone, Copy)]
pub enum Answer {
    /// One answer to one request.
    Once(Handler),
    /// One answer out of snapshots: it waits for nothing and is given at the gate, at once.
    Now(Handler),
    /// One answer that lets wait for itself.
    Later(Waiter),
    /// Documents without end: WebSocket when asked for, else lines of a chunked body.
    Feed(Opener),
    /// A feed over WebSocket, one answer otherwise.
    OnceOrFeed(Handler, Opener),
}

/// One row of the table.
pub struct Route {
    /// The method.
    pub method: Method,
    /// The pattern of the path.
    pub pattern: &'static str,
    /// Who may.
    pub access: Access,
    /// How it answers.
    pub answer: Answer,
    /// What comes before the answer of [`Answer::Once`].
    pub guard: Option<Guard>,
    /// Bytes of the largest body it takes.
    pub body_bytes_max: usize,
    /// Whether its answer waits for something that may take seconds.
    pub slow: bool,
}

/// Bytes of a body where a route says nothing else.
const BODY_BYTES_MAX: usize = 64 * 1024;

impl Route {
    /// A route that answers once.
    #[must_use]
    pub const fn once(
        method: Method,
        pattern: &'static str,
        access: Access,
        handler: Handler,
    ) -> Self {
        Self::new(method, pattern, access, Answer::Once(handler))
    }

    /// A route that looks at a snapshot.
    #[must_use]
    pub const fn look(pattern: &'static str, handler: Handler) -> Self {
        Self::new(Method::Get, pattern, Access::READ, Answer::Now(handler))
    }

    /// A row with the default limit of the body.
    #[must_use]
    pub const fn new(
        method: Method,
        pattern: &'static str,
        access: Access,
        answer: Answer,
    ) -> Self {
        Self {
            method,
            pattern,
            access,
            answer,
            guard: None,
            body_bytes_max: BODY_BYTES_MAX,
            slow: false,
        }
    }

    /// The same behind a guard.
    #[must_use]
    pub const fn behind(mut self, guard: Guard) -> Self {
        self.guard = Some(guard);
        self
    }

    /// The same with another limit of the body.
    #[must_use]
    pub const fn body_up_to(mut self, bytes: usize) -> Self {
        self.body_bytes_max = bytes;
        self
    }

    /// The same, known to be slow: few such are answered at a time, so that the others never wait.
    #[must_use]
    pub const fn slow(mut self) -> Self {
        self.slow = true;
        self
    }
}

/// The API of one family of tools.
pub struct Dialect {
    /// What its paths begin with, whole segments; empty: every path.
    pub prefixes: &'static [&'static str],
    /// Its routes, whose patterns follow a prefix.
    pub routes: &'static [Route],
    /// What it says when a request goes to no route: the status and, for some, why.
    pub refuse: fn(u16, &str) -> Response,
}

impl Dialect {
    /// The path behind this dialect's prefix; `None`: it has another one.
    fn path<'p>(&self, path: &'p str) -> Option<&'p str> {
        self.prefixes.iter().find_map(|prefix| {
            let rest = path.strip_prefix(prefix)?;
            match rest {
                "" => Some("/"),
                _ => rest.starts_with('/').then_some(rest),
            }
        })
    }
}

/// The dialect that a path belongs to, the first that fits, and the path within it.
#[must_use]
pub fn dialect<'p>(
    dialects: &[&'static Dialect],
    path: &'p str,
) -> Option<(&'static Dialect, &'p str)> {
    dialects
        .iter()
        .find_map(|dialect| Some((*dialect, dialect.path(path)?)))
}

/// Where a request leads.
pub enum Found {
    /// To this route, with its decoded parameters.
    Route(&'static Route, Vec<String>),
    /// The path is known, but not with this method: 405.
    WrongMethod,
    /// A parameter cannot be decoded: 400.
    Undecodable,
    /// Nowhere: 404.
    Nothing,
}

/// Looks a request up in `routes`.
#[must_use]
pub fn find(routes: &'static [Route], method: Method, path: &str) -> Found {
    let mut known = false;
    for route in routes {
        let Some(raw) = parameters(route.pattern, path) else {
            continue;
        };
        known = true;
        if route.method == method {
            let decoded = raw.into_iter().map(|p| percent_decode(p).map(String::from));
            return match decoded.collect() {
                Some(parameters) => Found::Route(route, parameters),
                None => Found::Undecodable,
            };
        }
    }
    if known {
        Found::WrongMethod
    } else {
        Found::Nothing
    }
}

/// The segments of `path` that stand for `{}`, or `None` when it does not match.
fn parameters<'p>(pattern: &str, path: &'p str) -> Option<Vec<&'p str>> {
    let (pattern, path) = match pattern.strip_suffix('/') {
        Some(root) if !root.is_empty() => (root, path.strip_suffix('/').unwrap_or(path)),
        _ => (pattern, path),
    };
    let mut segments = path.split('/');
    let mut found = Vec::new();
    for want in pattern.split('/') {
        let segment = segments.next()?;
        if want == "{}" && !segment.is_empty() {
            found.push(segment);
        } else if want != segment {
            return None;
        }
    }
    segments.next().is_none().then_some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refuse(_: &Context, _: &Request<'_>) -> Response {
        Response::empty(500)
    }

    static TABLE: &[Route] = &[
        Route::once(Method::Get, "/", Access::READ, refuse),
        Route::once(Method::Get, "/version", Access::READ, refuse),
        Route::once(Method::Get, "/proxies/", Access::READ, refuse),
        Route::once(Method::Put, "/proxies/{}", Access::READ, refuse),
        Route::once(Method::Get, "/providers/{}/{}/check", Access::READ, refuse),
    ];

    #[track_caller]
    fn check(method: Method, path: &str, want: &str) {
        let got = match find(TABLE, method, path) {
            Found::Route(route, parameters) => format!("{} {parameters:?}", route.pattern),
            Found::WrongMethod => "405".to_owned(),
            Found::Undecodable => "400".to_owned(),
            Found::Nothing => "404".to_owned(),
        };
        assert_eq!(got, want, "{path}");
    }

    #[test]
    fn a_prefix_chooses_the_dialect() {
        static BROKER: Dialect = Dialect {
            prefixes: &["/api/v4", "/api"],
            routes: TABLE,
            refuse: |status, _| Response::empty(status),
        };
        static OTHER: Dialect = Dialect {
            prefixes: &[""],
            routes: TABLE,
            refuse: |status, _| Response::empty(status),
        };
        let both = [&BROKER, &OTHER];
        let check = |path: &'static str| {
            let (found, rest) = dialect(&both, path).unwrap();
            (found.prefixes.len(), rest)
        };
        assert_eq!(check("/api/v4/nodes"), (2, "/nodes"));
        assert_eq!(check("/api/nodes"), (2, "/nodes"));
        assert_eq!(check("/api/v4"), (2, "/"));
        assert_eq!(check("/apis"), (1, "/apis"));
        assert_eq!(check("/proxies"), (1, "/proxies"));
        assert!(dialect(&[&BROKER], "/proxies").is_none());
    }

    #[test]
    fn paths_lead_where_the_table_says() {
        check(Method::Get, "/", "/ []");
        check(Method::Get, "/version", "/version []");
        check(Method::Get, "/version/", "404");
        check(Method::Get, "/versio%6e", "404");
        check(Method::Get, "/proxies", "/proxies/ []");
        check(Method::Get, "/proxies/", "/proxies/ []");
        check(Method::Get, "/proxies//", "404");
        check(Method::Post, "/proxies", "405");
        check(Method::Other, "/version", "405");
        check(
            Method::Put,
            "/proxies/a%2Fb%20c",
            r#"/proxies/{} ["a/b c"]"#,
        );
        check(Method::Put, "/proxies/a/b", "404");
        check(Method::Put, "/proxies/%ff", "400");
        check(
            Method::Get,
            "/providers/x/y/check",
            r#"/providers/{}/{}/check ["x", "y"]"#,
        );
        check(Method::Get, "/providers//y/check", "404");
        check(Method::Get, "*", "404");
        check(Method::Get, "", "404");
    }
}
