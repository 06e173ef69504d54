//! `/configs`: the general settings, their change, and the reload.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _};
use std::net::IpAddr;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;
use serde_json::Value;

use crate::controllers::http::json::Json;
use crate::controllers::http::{Object, Request, Response, WrongType};
use crate::controllers::{BindAddress, Context, General, Patch, ReloadSource};
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
        match read_beneath(&places, Path::new(path)) {
            Ok((path, text)) => ReloadSource::File { path, text },
            Err(response) => return response,
        }
    };
    let force = request.query.get("force").as_deref() == Some("true");
    match control.reload(source, force) {
        Ok(()) => Response::no_content(),
        Err(cause) => Response::error(400, &cause.to_string()),
    }
}

/// The real path and the text of a file that lies in one of `directories`, wherever links lead.
///
/// The path is resolved before anything is opened, since opening some devices has effects; the
/// opened file is asked for its path again, so that a link swapped in between leads nowhere.
fn read_beneath(directories: &[&Path], path: &Path) -> Result<(PathBuf, String), Response> {
    if !path.is_absolute() {
        return Err(Response::error(400, "path is not a absolute path"));
    }
    // The same words whether a file outside exists or not: the API does not tell.
    let outside = || {
        let text = "path is not subpath of home directory or SAFE_PATHS: ";
        Response::error(400, &format!("{text}{}", path.display()))
    };
    let unreadable = |error: io::Error| Response::error(400, &error.to_string());
    let directories = directories.iter().map(|known| known.canonicalize());
    let directories: Vec<PathBuf> = directories.filter_map(Result::ok).collect();
    let is_inside = |path: &Path| directories.iter().any(|known| path.starts_with(known));
    let real = path.canonicalize().map_err(|_| outside())?;
    if !is_inside(&real) {
        return Err(outside());
    }
    let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits())
        .open(&real);
    let file = file.map_err(unreadable)?;
    let opened = std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd()));
    if !is_inside(&opened.map_err(unreadable)?) {
        return Err(outside());
    }
    let text = read_text(file).map_err(unreadable)?;
    Ok((real, text))
}

fn read_text(file: File) -> io::Result<String> {
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "not a regular file",
        ));
    }
    let mut text = String::new();
    file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text)?;
    if u64::try_from(text.len()).unwrap_or(u64::MAX) > FILE_BYTES_MAX {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "larger than 2 MiB",
        ));
    }
    Ok(text)
}
