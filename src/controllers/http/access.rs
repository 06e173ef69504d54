//! Who may ask: the secret, the `Host` and `Origin` checks, CORS. Pure.
//!
//! - A request must name this machine as its host (an address literal, `localhost`, a name that
//!   no public DNS can hold, or a configured one): a web page that had its own name resolved to
//!   the router (DNS rebinding) names itself and gets 403.
//! - CORS is closed unless origins are configured; `null` is never one.
//! - A WebSocket handshake carries no pre-flight, so its `Origin` must be our own or a configured
//!   one. The same goes for requests that change something while no secret protects the API.
//! - Secrets are compared in constant time; the one in a query counts for WebSocket alone. Each
//!   opens as much as its scope says (users.md S7).

use std::fmt::Write as _;
use std::net::IpAddr;

use subtle::{Choice, ConstantTimeEq};

use super::head::Head;
use super::route::Access;
use super::{Method, Query};
use crate::controllers::options::{Application, Options, Scope, Secret};
use crate::metadata::Host;
use crate::mqtt::password;

/// Names under these never come from public DNS (RFC 6762, 8375, ICANN's `internal`; `lan` is
/// OpenWrt's and delegated to nobody).
const LOCAL_SUFFIXES: [&str; 4] = [".lan", ".local", ".home.arpa", ".internal"];

/// What the configuration allows.
pub struct Policy {
    /// Empty: whoever may connect may do everything.
    secrets: Vec<Secret>,
    origins: Vec<Box<str>>,
    private_network: bool,
    hosts: Vec<Box<str>>,
    applications: Vec<Application>,
}

/// By which kind of socket a request came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// TCP, from there: everything is checked.
    Network(IpAddr),
    /// The Unix socket: who can open it may; no browser can.
    Unix,
}

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// 403: `Host` or `Origin` is foreign.
    Foreign,
    /// 401: no secret.
    Unproven,
    /// 401: a wrong secret.
    Wrong,
    /// 403: the secret is not good for this.
    Narrow,
}

/// What the log calls a caller when no secret protects the API, and one on the Unix socket.
const ANYBODY: &str = "anybody";
const LOCAL: &str = "unix socket";

/// What the log calls the bearer of `secret`.
const OWNER: &str = "owner";

impl Policy {
    /// The policy that the configuration states.
    #[must_use]
    pub fn new(options: &Options) -> Self {
        let owner = Secret {
            name: OWNER.into(),
            secret: options.secret.clone(),
            scope: Scope::Admin,
        };
        let owner = Some(owner).filter(|owner| !owner.secret.is_empty());
        Self {
            secrets: owner
                .into_iter()
                .chain(options.secrets.iter().cloned())
                .collect(),
            origins: options.allow_origins.clone(),
            private_network: options.allow_private_network,
            hosts: options.hosts.clone(),
            applications: options.management.applications.clone(),
        }
    }

    /// Whether the request names this machine.
    ///
    /// # Errors
    /// [`Refusal::Foreign`].
    pub fn check_host(&self, head: &Head<'_>, door: Door) -> Result<(), Refusal> {
        // HTTP/1.0 without a Host can come from no browser, so from no web page either.
        let ours = head.host.is_none_or(|authority| self.is_own(authority));
        if door == Door::Unix || ours {
            Ok(())
        } else {
            Err(Refusal::Foreign)
        }
    }

    /// Whether the caller may have what it asks for, and what the log calls it.
    ///
    /// # Errors
    /// [`Refusal`]; the request must have no effect then.
    pub fn check_caller(
        &self,
        head: &Head<'_>,
        door: Door,
        access: Access,
    ) -> Result<&str, Refusal> {
        if door == Door::Unix {
            return Ok(LOCAL);
        }
        if access == Access::Application {
            return self.find_application(head);
        }
        let caller = self.find_caller(head, access)?;
        let changes = head.method != Method::Get;
        if (head.websocket || (changes && self.secrets.is_empty())) && self.is_cross_site(head) {
            return Err(Refusal::Foreign);
        }
        Ok(caller)
    }

    fn find_caller(&self, head: &Head<'_>, access: Access) -> Result<&str, Refusal> {
        let (Access::Secret(scope) | Access::SecretOrPassword(scope)) = access else {
            return Ok(ANYBODY);
        };
        if self.secrets.is_empty() {
            return Ok(ANYBODY);
        }
        let given = given(head, access).ok_or(Refusal::Unproven)?;
        let fits = |known: &Secret| given.as_bytes().ct_eq(known.secret.as_bytes());
        match among(&self.secrets, fits) {
            None => Err(Refusal::Wrong),
            Some(known) if known.scope < scope => Err(Refusal::Narrow),
            Some(known) => Ok(&known.name),
        }
    }

    /// The application that names itself, and knows its secret. There is no open door without one.
    fn find_application(&self, head: &Head<'_>) -> Result<&str, Refusal> {
        let (id, secret) = credentials(head).ok_or(Refusal::Unproven)?;
        let fits = |known: &Application| {
            let right = match known.hashed {
                true => {
                    let hash = password::Secret::parse(&known.secret);
                    Choice::from(u8::from(
                        hash.is_some_and(|hash| hash.admits(secret.as_bytes())),
                    ))
                }
                false => secret.as_bytes().ct_eq(known.secret.as_bytes()),
            };
            id.as_bytes().ct_eq(known.id.as_bytes()) & right
        };
        let found = among(&self.applications, fits);
        found.map(|known| &*known.id).ok_or(Refusal::Wrong)
    }

    fn is_own(&self, authority: &str) -> bool {
        let Some(host) = host_of(authority) else {
            return false;
        };
        match host {
            Host::Ip(_) => true,
            Host::Name(name) => {
                !name.contains('.')
                    || LOCAL_SUFFIXES.iter().any(|suffix| name.ends_with(suffix))
                    || self
                        .hosts
                        .iter()
                        .any(|known| known.eq_ignore_ascii_case(&name))
            }
        }
    }

    /// Whether a page of another site sent this. A reverse proxy tells by `X-Forwarded-Host` what it
    /// was asked for; no page can add that field to a handshake or to a request without pre-flight.
    fn is_cross_site(&self, head: &Head<'_>) -> bool {
        let Some(origin) = head.origin else {
            return false;
        };
        let own = origin.split_once("://").is_some_and(|(_, authority)| {
            [head.host, head.forwarded_host]
                .into_iter()
                .flatten()
                .any(|host| host.eq_ignore_ascii_case(authority))
        });
        !own && self.allowed_origin(origin).is_none()
    }

    /// The value of `Access-Control-Allow-Origin` for this origin, `None` when it is not allowed.
    fn allowed_origin<'o>(&self, origin: &'o str) -> Option<&'o str> {
        if self.origins.iter().any(|allowed| &**allowed == "*") {
            return Some("*");
        }
        let matches = |allowed: &str| match allowed.split_once('*') {
            None => allowed.eq_ignore_ascii_case(origin),
            Some((before, after)) => {
                origin.len() >= allowed.len()
                    && origin.starts_with(before)
                    && origin.ends_with(after)
            }
        };
        let known = origin != "null" && self.origins.iter().any(|allowed| matches(allowed));
        known.then_some(origin)
    }

    /// The CORS fields of an answer, each with its line end.
    #[must_use]
    pub fn cors_fields(&self, head: &Head<'_>) -> String {
        let mut fields = "Vary: Origin\r\n".to_owned();
        let Some(allowed) = head.origin.and_then(|origin| self.allowed_origin(origin)) else {
            return fields;
        };
        // Writing to a String cannot fail.
        let _ = write!(fields, "Access-Control-Allow-Origin: {allowed}\r\n");
        if head.preflight {
            fields.push_str(
                "Access-Control-Allow-Methods: GET, POST, PUT, PATCH, DELETE\r\n\
                 Access-Control-Allow-Headers: Content-Type, Authorization\r\n\
                 Access-Control-Max-Age: 300\r\n",
            );
            if head.private_network && self.private_network {
                fields.push_str("Access-Control-Allow-Private-Network: true\r\n");
            }
        }
        fields
    }
}

/// The one that fits. All are asked, whichever it is: the time tells nothing of where it stands.
fn among<T>(known: &[T], fits: impl Fn(&T) -> Choice) -> Option<&T> {
    known
        .iter()
        .fold(None, |found, one| match bool::from(fits(one)) {
            true => Some(one),
            false => found,
        })
}

/// The secret that a request brings: in the query of a WebSocket handshake, else as a Bearer token,
/// else, where that is taken, as the password of Basic authentication (RFC 7617).
fn given(head: &Head<'_>, access: Access) -> Option<String> {
    let token = Query(head.query).get("token").filter(|_| head.websocket);
    let bearer = || {
        let field = head.authorization?;
        if let Some(secret) = field.strip_prefix("Bearer ") {
            return Some(secret.to_owned());
        }
        let taken = matches!(access, Access::SecretOrPassword(_));
        taken.then(|| credentials(head))?.map(|(_, secret)| secret)
    };
    let token = token.map(String::from).filter(|token| !token.is_empty());
    token.or_else(bearer).filter(|secret| !secret.is_empty())
}

/// User name and password of Basic authentication (RFC 7617).
fn credentials(head: &Head<'_>) -> Option<(String, String)> {
    let encoded = head.authorization?.strip_prefix("Basic ")?;
    let pair = crate::encoding::BASE64.decode(encoded.as_bytes()).ok()?;
    let pair = String::from_utf8(pair).ok()?;
    let (user, password) = pair.split_once(':')?;
    Some((user.to_owned(), password.to_owned()))
}

/// The host of `host[:port]`.
fn host_of(authority: &str) -> Option<Host> {
    let after_host = authority.rsplit_once(':');
    let host = match after_host {
        Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) => host,
        _ => authority,
    };
    // An IPv6 literal stands in brackets here, and nothing else may.
    if host.contains(':') != host.starts_with('[') {
        return None;
    }
    Host::parse(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAN: Door = Door::Network(IpAddr::V4(std::net::Ipv4Addr::new(192, 168, 1, 5)));

    fn policy(secret: &str, origins: &[&str]) -> Policy {
        Policy::new(&Options {
            secret: secret.into(),
            allow_origins: origins.iter().map(|&o| o.into()).collect(),
            allow_private_network: true,
            hosts: vec!["gate.example.org".into()],
            ..Options::default()
        })
    }

    fn with_head<T>(text: &str, use_it: impl FnOnce(&Head<'_>) -> T) -> T {
        let text = format!("{text}\r\n\r\n");
        use_it(&Head::parse(text.as_bytes()).unwrap())
    }

    #[test]
    fn only_names_of_this_machine_pass_the_host_check() {
        let policy = policy("", &[]);
        let check = |host: &str| {
            let text = format!("GET / HTTP/1.1\r\nHost: {host}");
            with_head(&text, |head| policy.check_host(head, LAN).is_ok())
        };
        for ours in [
            "127.0.0.1:9090",
            "192.168.1.1",
            "[::1]:9090",
            "[fd00::1]",
            "localhost:9090",
            "router",
            "OpenWrt.lan:9090",
            "a.b.home.arpa",
            "x.local",
            "gate.internal",
            "GATE.example.org:80",
        ] {
            assert!(check(ours), "{ours}");
        }
        for foreign in [
            "evil.example",
            "evil.example:9090",
            "127.0.0.1.nip.io",
            "evil.example.org",
            "xlan.com",
            "a@127.0.0.1",
            "::1",
            "",
            "127.0.0.1:90:90",
            "localhost.evil.example",
            "evil.example.",
        ] {
            assert!(!check(foreign), "{foreign}");
        }
    }

    #[test]
    fn the_secret_decides() {
        let policy = policy("s3cret", &[]);
        let check = |text: &str| {
            let text = text.replace(" HTTP/1.1", " HTTP/1.1\r\nHost: x");
            with_head(&text, |head| {
                policy.check_caller(head, LAN, Access::ADMIN).is_ok()
            })
        };
        let upgrade = "\r\nUpgrade: websocket";
        assert!(check("GET / HTTP/1.1\r\nAuthorization: Bearer s3cret"));
        assert!(!check("GET / HTTP/1.1"));
        for bad in [
            "Bearer s3cre",
            "Bearer s3cret1",
            "bearer s3cret",
            "Bearer",
            "Basic s3cret",
        ] {
            assert!(
                !check(&format!("GET / HTTP/1.1\r\nAuthorization: {bad}")),
                "{bad}"
            );
        }
        assert!(!check("GET /?token=s3cret HTTP/1.1"));
        assert!(check(&format!("GET /?token=s3cret HTTP/1.1{upgrade}")));
        let bearer = "\r\nAuthorization: Bearer s3cret";
        assert!(!check(&format!("GET /?token=no HTTP/1.1{upgrade}{bearer}")));
        assert!(check(&format!("GET /?token= HTTP/1.1{upgrade}{bearer}")));
        let open = Policy::new(&Options::default());
        assert!(with_head(
            "GET /?token= HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ",
            |head| open.check_caller(head, LAN, Access::ADMIN).is_ok()
        ));
        assert!(with_head("GET / HTTP/1.1\r\nHost: x", |head| {
            policy.check_caller(head, Door::Unix, Access::ADMIN).is_ok()
        }));
    }

    #[test]
    fn each_secret_is_compared_wherever_the_right_one_stands() {
        // The work is counted, not timed: a clock would tell of the machine (users.md S6). That one comparison
        // takes the same time for all bytes is what `subtle` is for; tests/tidy.rs sees that nobody does without.
        for right in 0..5 {
            let asked = std::cell::Cell::new(0);
            let found = among(&[0, 1, 2, 3], |one| {
                asked.set(asked.get() + 1);
                Choice::from(u8::from(*one == right))
            });
            assert_eq!(found.copied(), (right < 4).then_some(right));
            assert_eq!(asked.get(), 4);
        }
    }

    #[test]
    fn other_sites_can_neither_upgrade_nor_change_an_open_api() {
        let check = |policy: &Policy, line: &str, fields: &str| {
            let text = format!("{line} HTTP/1.1\r\nHost: 10.0.0.1:9090{fields}");
            with_head(&text, |head| {
                policy.check_caller(head, LAN, Access::ADMIN).map(drop)
            })
        };
        let open = policy("", &["https://board.example"]);
        let (evil, own) = (
            "\r\nOrigin: http://evil.example",
            "\r\nOrigin: http://10.0.0.1:9090",
        );
        let upgrade = "\r\nUpgrade: websocket";
        let foreign = Err(Refusal::Foreign);
        assert_eq!(check(&open, "GET /", evil), Ok(()));
        assert_eq!(check(&open, "POST /", evil), foreign);
        assert_eq!(check(&open, "POST /", own), Ok(()));
        assert_eq!(
            check(&open, "POST /", "\r\nOrigin: https://board.example"),
            Ok(())
        );
        assert_eq!(check(&open, "GET /", &format!("{evil}{upgrade}")), foreign);
        assert_eq!(check(&open, "GET /", &format!("{own}{upgrade}")), Ok(()));
        let null = format!("\r\nOrigin: null{upgrade}");
        assert_eq!(check(&open, "GET /", &null), foreign);
        let proxied = "\r\nOrigin: https://home.example\r\nX-Forwarded-Host: home.example";
        assert_eq!(
            check(&open, "GET /", &format!("{proxied}{upgrade}")),
            Ok(())
        );
        let closed = policy("s", &[]);
        let line = "GET /?token=s";
        assert_eq!(check(&closed, line, &format!("{evil}{upgrade}")), foreign);
        let bearer = "\r\nAuthorization: Bearer s";
        assert_eq!(check(&closed, "POST /", &format!("{evil}{bearer}")), Ok(()));
    }

    #[test]
    fn cors_answers_configured_origins_only() {
        let check = |origins: &[&str], origin: &str| {
            let text = format!("GET / HTTP/1.1\r\nHost: x\r\nOrigin: {origin}");
            let fields = with_head(&text, |head| policy("", origins).cors_fields(head));
            assert!(fields.starts_with("Vary: Origin\r\n"));
            let value = fields.split_once("Allow-Origin: ");
            value.map(|(_, rest)| rest.trim_end().to_owned())
        };
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(check(&[], "http://a.example"), None);
        assert_eq!(check(&["*"], "http://a.example"), some("*"));
        assert_eq!(
            check(&["http://a.example"], "http://a.example"),
            some("http://a.example")
        );
        let pattern = &["https://*.a.example"][..];
        assert_eq!(
            check(pattern, "https://x.a.example"),
            some("https://x.a.example")
        );
        for foreign in [
            "null",
            "http://x.a.example",
            "https://a.example",
            "https://x.a.example.evil",
            "https://xa.example",
            "http://evil.example#https://x.a.example",
        ] {
            assert_eq!(check(pattern, foreign), None, "{foreign}");
        }
        assert_eq!(check(&["http://a.example"], "http://a.example.evil"), None);
        assert_eq!(check(&["http://a.example"], "http://a.example:81"), None);
    }

    #[test]
    fn preflights_tell_methods_and_the_private_network() {
        let text = "OPTIONS / HTTP/1.1\r\nHost: x\r\nOrigin: http://a.example\r\n\
            Access-Control-Request-Method: PUT\r\nAccess-Control-Request-Private-Network: true";
        let fields = with_head(text, |head| {
            policy("s", &["http://a.example"]).cors_fields(head)
        });
        assert!(fields.contains("Access-Control-Allow-Private-Network: true\r\n"));
        assert!(fields.contains("Allow-Headers: Content-Type, Authorization\r\n"));
    }

    #[test]
    fn of_thirty_origins_only_those_listed_may_read_or_reach_in() {
        let listed = [
            "http://a.example",
            "https://*.b.example",
            "http://192.168.1.5:9090",
        ];
        let granted = [
            "http://a.example",
            "HTTP://A.EXAMPLE",
            "https://x.b.example",
            "https://y.x.b.example",
            "http://192.168.1.5:9090",
        ];
        let foreign = [
            "null",
            "NULL",
            "",
            "*",
            "http://",
            "https://a.example",
            "http://a.example.",
            "http://a.example:80",
            "http://a.example:9090",
            "http://a.example/",
            "http://a.example.evil.example",
            "http://evil-a.example",
            "http://evil.example/http://a.example",
            "http://a.example@evil.example",
            "http://a.example evil.example",
            "https://b.example",
            "https://xb.example",
            "http://x.b.example",
            "https://x.b.example:8443",
            "https://x.b.example.evil.example",
            "http://192.168.1.5",
            "http://192.168.1.50:9090",
            "http://192.168.1.5:90",
            "http://[::ffff:192.168.1.5]:9090",
            "file://",
            "chrome-extension://a.example",
        ];
        assert!(granted.len() + foreign.len() > 30);
        let ask = |origins: &[&str], origin: &str| {
            let text = format!(
                "OPTIONS / HTTP/1.1\r\nHost: x\r\nOrigin: {origin}\r\n\
                Access-Control-Request-Method: PUT\r\nAccess-Control-Request-Private-Network: true"
            );
            with_head(&text, |head| policy("s", origins).cors_fields(head))
        };
        for origin in granted {
            let fields = ask(&listed, origin);
            let named = format!("Access-Control-Allow-Origin: {origin}\r\n");
            assert!(fields.contains(&named), "{origin}");
            assert!(fields.contains("Allow-Private-Network: true"), "{origin}");
            assert_eq!(ask(&[], origin), "Vary: Origin\r\n", "{origin}");
        }
        for origin in foreign {
            assert_eq!(ask(&listed, origin), "Vary: Origin\r\n", "{origin}");
        }
    }

    #[test]
    fn an_application_names_itself_and_the_controllers_secret_opens_nothing_of_its() {
        let policy = Policy::new(&Options {
            secret: "all".into(),
            management: crate::controllers::options::Management {
                applications: vec![Application {
                    id: "admin".into(),
                    secret: "public".into(),
                    hashed: false,
                }],
                ..Default::default()
            },
            ..Options::default()
        });
        let check = |field: &str| {
            let text = format!("GET / HTTP/1.1\r\nHost: x{field}");
            with_head(&text, |head| {
                let access = Access::Application;
                policy.check_caller(head, LAN, access).map(str::to_owned)
            })
        };
        let basic = |pair: &str| {
            let encoded = crate::encoding::BASE64.encode(pair.as_bytes());
            check(&format!("\r\nAuthorization: Basic {encoded}"))
        };
        assert_eq!(basic("admin:public"), Ok("admin".into()));
        for wrong in [
            "admin:all",
            "x:public",
            "admin:",
            ":public",
            "admin:public2",
        ] {
            assert_eq!(basic(wrong), Err(Refusal::Wrong), "{wrong}");
        }
        assert_eq!(check(""), Err(Refusal::Unproven));
        assert_eq!(
            check("\r\nAuthorization: Bearer all"),
            Err(Refusal::Unproven)
        );
        let nobody = Policy::new(&Options::default());
        let text = "GET / HTTP/1.1\r\nHost: x\r\nAuthorization: Basic Og==";
        let refused = with_head(text, |head| {
            let access = Access::Application;
            nobody.check_caller(head, LAN, access).map(drop)
        });
        assert_eq!(refused, Err(Refusal::Wrong));
    }

    #[test]
    fn each_secret_is_good_for_its_scope() {
        let of = |name: &str, scope| Secret {
            name: name.into(),
            secret: name.into(),
            scope,
        };
        let policy = Policy::new(&Options {
            secret: "all".into(),
            secrets: vec![of("look", Scope::Read), of("set", Scope::Configure)],
            ..Options::default()
        });
        let check = |secret: &str, access| {
            let text = format!("GET / HTTP/1.1\r\nHost: x\r\nAuthorization: {secret}");
            with_head(&text, |head| {
                policy.check_caller(head, LAN, access).map(str::to_owned)
            })
        };
        let (look, set) = ("Bearer look", "Bearer set");
        assert_eq!(check(look, Access::READ), Ok("look".into()));
        assert_eq!(check(look, Access::OPERATE), Err(Refusal::Narrow));
        assert_eq!(check(set, Access::OPERATE), Ok("set".into()));
        assert_eq!(check(set, Access::CONFIGURE), Ok("set".into()));
        assert_eq!(check(set, Access::ADMIN), Err(Refusal::Narrow));
        assert_eq!(check("Bearer all", Access::ADMIN), Ok(OWNER.into()));
        assert_eq!(check("Bearer none", Access::READ), Err(Refusal::Wrong));
        assert_eq!(check("Bearer ", Access::READ), Err(Refusal::Unproven));
        // "x:all" in base64, for tools without Bearer tokens, and only where they are expected.
        let basic = "Basic eDphbGw=";
        assert_eq!(check(basic, Access::ADMIN), Err(Refusal::Unproven));
        let either = Access::SecretOrPassword(Scope::Admin);
        assert_eq!(check(basic, either), Ok(OWNER.into()));
        assert_eq!(check("Basic eDpubw==", either), Err(Refusal::Wrong));
    }
}
