//! `vmess://` with JSON in base64: v2rayN's format, version 2, numbers written either way.

use serde_json::Value;

use super::query::base64;
use super::{LinkError, address, grpc, http_2, security_named, web_socket};
use crate::outbound::options::{NetworkOptions, PacketEncoding, TlsOptions, VmessOptions};
use crate::outbound::vmess::keys::parse_id;

/// The proxy and its name.
///
/// # Errors
/// [`LinkError`].
pub(super) fn parse(rest: &str) -> Result<(VmessOptions, String), LinkError> {
    let text = base64(rest)?;
    let object: Value = serde_json::from_str(&text).map_err(|_| LinkError::Encoding)?;
    let field = |key: &str| match object.get(key) {
        Some(Value::String(text)) => text.trim().to_owned(),
        Some(Value::Number(number)) => number.to_string(),
        Some(Value::Bool(yes)) => yes.to_string(),
        _ => String::new(),
    };
    if !matches!(&*field("aid"), "" | "0") {
        return Err(LinkError::NotImplemented("alterId"));
    }
    let id = field("id");
    parse_id(&id).ok_or(LinkError::Part("user id"))?;
    let (host, path) = (field("host"), field("path"));
    let network = match &*field("net") {
        "" | "tcp" => match &*field("type") {
            "" | "none" => NetworkOptions::Tcp,
            _ => return Err(LinkError::NotImplemented("a header type")),
        },
        "ws" => web_socket(Some(&path), Some(&host), false)?,
        "httpupgrade" => web_socket(Some(&path), Some(&host), true)?,
        "grpc" => grpc(Some(&path))?,
        "h2" | "http" => http_2(Some(&path), Some(&host))?,
        _ => return Err(LinkError::NotImplemented("its network")),
    };
    let text = |value: String| (!value.is_empty()).then(|| value.into());
    let tls = match &*field("tls") {
        "" | "none" | "false" => None,
        "tls" | "true" => Some(TlsOptions {
            server_name: text(field("sni")).or_else(|| text(host)),
            skip_verify: matches!(&*field("allowInsecure"), "1" | "true"),
            fingerprint: None,
            alpn: field("alpn")
                .split(',')
                .filter(|p| !p.is_empty())
                .map(Into::into)
                .collect(),
            reality: None,
            suites: Vec::new(),
        }),
        _ => return Err(LinkError::NotImplemented("its security")),
    };
    let options = VmessOptions {
        server: address::server(&field("add"), field("port").parse().ok())?,
        id: id.into(),
        security: security_named(&field("scy"))?,
        global_padding: false,
        authenticated_length: false,
        packets: PacketEncoding::Xudp,
        tls,
        network,
    };
    Ok((options, field("ps")))
}
