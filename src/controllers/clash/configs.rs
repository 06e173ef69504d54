//! `/configs`: the general settings, their change, and the reload.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::controllers::http::json::Json;
use crate::controllers::http::{Object, Request, Response, WrongType};
use crate::controllers::{BindAddress, Context, General, Patch, ReloadSource};
use crate::platform::beneath::{self, Refused};
use crate::platform::logger::Level;
use crate::prefix::Prefix;

/// Bytes of a configuration that comes with the request.
pub(super) const PAYLOAD_BYTES_MAX: usize = 1 << 20;

/// Bytes of a configuration file.
const FILE_BYTES_MAX: u64 = 2 << 20;

/// `GET`: clash-api.md 1.7. What headgate does not have is shown as mihomo shows it switched off.
pub(super) fn show(context: &Context, _: &Request<'_>) -> Response {
    let general = context.control.general();
    let level = context.control.logger().level();
    let mut json = Json::new();
    json.open_object();
    write_inbounds(&mut json, &general);
    json.key("mode").string(general.mode.as_str());
    json.key("log-level").string(level.as_str());
    json.key("unified-delay").plain(general.unified_delay);
    json.key("ipv6").plain(general.ipv6);
    json.key("interface-name").string(&general.interface_name);
    json.key("routing-mark").plain(general.routing_mark);
    json.key("geox-url").open_object();
    for name in ["geo-ip", "mmdb", "asn", "geo-site"] {
        json.key(name).string("");
    }
    json.close_object();
    json.key("geo-auto-update").plain(false);
    json.key("geo-update-interval").plain(24);
    json.key("geodata-mode").plain(false);
    json.key("geodata-loader").string("memconservative");
    json.key("geosite-matcher").string("succinct");
    json.key("tcp-concurrent").plain(general.tcp_concurrent);
    json.key("find-process-mode").string(general.find_process);
    json.key("sniffing").plain(general.sniffing);
    json.key("global-client-fingerprint").string("");
    json.key("global-ua")
        .string(concat!("headgate/", env!("CARGO_PKG_VERSION")));
    json.key("etag-support").plain(true);
    json.key("keep-alive-idle").plain(general.keep_alive_idle);
    json.key("keep-alive-interval")
        .plain(general.keep_alive_interval);
    json.key("disable-keep-alive")
        .plain(general.disable_keep_alive);
    json.close_object();
    Response::json(json)
}

fn write_inbounds(json: &mut Json, general: &General) {
    for (name, port) in [
        ("port", general.port),
        ("socks-port", general.socks_port),
        ("redir-port", general.redir_port),
        ("tproxy-port", general.tproxy_port),
        ("mixed-port", general.mixed_port),
    ] {
        json.key(name).plain(port);
    }
    json.key("tun").open_object();
    json.key("enable").plain(false).key("device").string("");
    json.key("stack")
        .string("gVisor")
        .key("dns-hijack")
        .plain("null");
    json.key("auto-route")
        .plain(false)
        .key("auto-detect-interface")
        .plain(false);
    json.key("file-descriptor").plain(0).close_object();
    json.key("tuic-server")
        .open_object()
        .key("enable")
        .plain(false);
    json.key("listen").string("").key("certificate").string("");
    json.key("private-key").string("").close_object();
    json.key("ss-config")
        .string("")
        .key("vmess-config")
        .string("");
    json.key("authentication").strings(&general.users);
    for (name, prefixes) in [
        ("skip-auth-prefixes", &general.skip_auth_prefixes),
        ("lan-allowed-ips", &general.lan_allowed_ips),
        ("lan-disallowed-ips", &general.lan_disallowed_ips),
    ] {
        json.key(name).open_array();
        for prefix in prefixes {
            json.quoted(prefix);
        }
        json.close_array();
    }
    json.key("allow-lan").plain(general.allow_lan);
    json.key("bind-address").string(&general.bind_address);
    json.key("inbound-tfo")
        .plain(false)
        .key("inbound-mptcp")
        .plain(false);
}

/// `PATCH`: the members that are there; those that headgate does not know are passed over.
pub(super) fn patch(context: &Context, request: &Request<'_>) -> Response {
    let Some(object) = request.object() else {
        return Response::body_invalid();
    };
    let patch = match parse_patch(&object) {
        Ok(patch) => patch,
        Err(wrong) => return wrong.into(),
    };
    match context.control.patch(patch) {
        Ok(()) => Response::no_content(),
        Err(cause) => Response::error(400, &cause.to_string()),
    }
}

/// Members of mihomo's that have no effect here; a wrong type is refused all the same.
const OBJECTS_IGNORED: [&str; 2] = ["tun", "tuic-server"];
const STRINGS_IGNORED: [&str; 4] = [
    "ss-config",
    "vmess-config",
    "tcptun-config",
    "udptun-config",
];

fn parse_patch(object: &Object) -> Result<Patch, WrongType> {
    for name in OBJECTS_IGNORED {
        if object.member(name).is_some_and(|value| !value.is_object()) {
            return Err(WrongType);
        }
    }
    for name in STRINGS_IGNORED {
        object.string(name)?;
    }
    let log_level = object.string("log-level")?.map(str::parse::<Level>);
    let mode = object.string("mode")?.map(str::parse);
    Ok(Patch {
        port: object.port("port")?,
        socks_port: object.port("socks-port")?,
        redir_port: object.port("redir-port")?,
        tproxy_port: object.port("tproxy-port")?,
        mixed_port: object.port("mixed-port")?,
        allow_lan: object.boolean("allow-lan")?,
        bind_address: object
            .string("bind-address")?
            .map(bind_address)
            .transpose()?,
        skip_auth_prefixes: prefixes(object, "skip-auth-prefixes")?,
        lan_allowed_ips: prefixes(object, "lan-allowed-ips")?,
        lan_disallowed_ips: prefixes(object, "lan-disallowed-ips")?,
        mode: mode.transpose().map_err(|_| WrongType)?,
        log_level: log_level.transpose().map_err(|_| WrongType)?,
        ipv6: object.boolean("ipv6")?,
        sniffing: object.boolean("sniffing")?,
        tcp_concurrent: object.boolean("tcp-concurrent")?,
        interface_name: object.string("interface-name")?.map(Into::into),
    })
}

fn bind_address(text: &str) -> Result<BindAddress, WrongType> {
    if text == "*" {
        return Ok(BindAddress::All);
    }
    let bare = text.strip_prefix('[').and_then(|t| t.strip_suffix(']'));
    let address = bare.unwrap_or(text).parse::<IpAddr>();
    address.map(BindAddress::One).map_err(|_| WrongType)
}

fn prefixes(object: &Object, name: &str) -> Result<Option<Vec<Prefix>>, WrongType> {
    let Some(texts) = object.strings(name)? else {
        return Ok(None);
    };
    let parsed: Result<_, _> = texts.into_iter().map(str::parse).collect();
    parsed.map(Some).map_err(|_| WrongType)
}

/// `PUT`: loads a configuration: the `payload`, the file at `path`, or the running one's file anew.
pub(super) fn reload(context: &Context, request: &Request<'_>) -> Response {
    let Some(object) = request.object() else {
        return Response::body_invalid();
    };
    let member = |name| object.member(name).map_or(Some(""), Value::as_str);
    let (Some(path), Some(payload)) = (member("path"), member("payload")) else {
        return Response::body_invalid();
    };
    let control = &context.control;
    let source = if !payload.is_empty() {
        ReloadSource::Payload(payload.to_owned())
    } else if path.is_empty() || Path::new(path) == control.config_file() {
        ReloadSource::Running
    } else {
        let safe = control.safe_paths().iter().map(PathBuf::as_path);
        let places: Vec<&Path> = std::iter::once(control.directory()).chain(safe).collect();
        let refused = |why: Refused| match why {
            // The same words whether a file outside exists or not: the API does not tell.
            Refused::Outside => Response::error(400, &format!("{why}: {path}")),
            _ => Response::error(400, &why.to_string()),
        };
        match beneath::read(&places, Path::new(path), FILE_BYTES_MAX) {
            Ok((path, content)) => match String::from_utf8(content) {
                Ok(text) => ReloadSource::File { path, text },
                Err(error) => return Response::error(400, &error.utf8_error().to_string()),
            },
            Err(why) => return refused(why),
        }
    };
    let force = request.query.get("force").as_deref() == Some("true");
    match control.reload(source, force) {
        Ok(()) => Response::no_content(),
        Err(cause) => Response::error(400, &cause.to_string()),
    }
}
