//! The types of resources, with the parameters that they take (emqx-api.md 4.10). The seed's three
//! parameters of a web hook come first; those that later versions moved to the action serve as its
//! defaults.

use super::catalogue::{Param, Words};

/// A type of resource.
pub struct ResourceType {
    /// As resources name it.
    pub name: &'static str,
    /// Which part of EMQX has it.
    pub provider: &'static str,
    /// Its parameters.
    pub params: &'static [Param],
    /// Its title.
    pub title: Words,
    /// Its description.
    pub description: Words,
}

const SWITCH: &[&str] = &["on", "off"];

const fn duration(name: &'static str, title: Words, default: &'static str) -> Param {
    Param::text(name, title).or(default)
}

const VERIFY: Param = Param::of(
    "verify",
    "boolean",
    ("Verify Server Certificate", "校验服务器证书"),
)
.or("true");

const CA: Param = Param::of("cacertfile", "file", ("CA Certificates", "CA 证书")).or("\"\"");

const CERTIFICATE: Param =
    Param::of("certfile", "file", ("Client Certificate", "客户端证书")).or("\"\"");

const KEY: Param = Param::of("keyfile", "file", ("Client Key", "客户端私钥")).or("\"\"");

const SERVER_NAME: Param = Param::text(
    "server_name_indication",
    ("Server Name Indication", "服务器名称指示"),
)
.or("\"\"");

/// Every type, sorted by name.
pub const RESOURCE_TYPES: &[ResourceType] = &[
    ResourceType {
        name: "bridge_mqtt",
        provider: "emqx_bridge_mqtt",
        params: &[
            Param::text("address", ("Broker Address", "远程 broker 地址"))
                .required()
                .or("\"127.0.0.1:1883\""),
            Param::of("pool_size", "number", ("Pool Size", "连接池大小")).or("8"),
            Param::text("clientid", ("Client Id", "客户端 Id")).or("\"client\""),
            Param::of("append", "boolean", ("Append GUID", "附加 GUID")).or("true"),
            Param::text("username", ("Username", "用户名")).or("\"\""),
            Param::of("password", "password", ("Password", "密码")).or("\"\""),
            Param::text("mountpoint", ("Bridge MountPoint", "桥接挂载点"))
                .or("\"bridge/aws/${node}/\""),
            Param::text("disk_cache", ("Disk Cache", "磁盘缓存"))
                .one_of(SWITCH)
                .or("\"off\""),
            Param::text("proto_ver", ("Protocol Version", "协议版本"))
                .one_of(&["mqttv3", "mqttv4", "mqttv5"])
                .or("\"mqttv4\""),
            duration("keepalive", ("Keepalive", "心跳间隔"), "\"60s\""),
            duration(
                "reconnect_interval",
                ("Reconnect Interval", "重连间隔"),
                "\"30s\"",
            ),
            duration("retry_interval", ("Retry Interval", "重传间隔"), "\"20s\""),
            Param::of("bridge_mode", "boolean", ("Bridge Mode", "桥接模式")).or("false"),
            Param::of("ssl", "boolean", ("Enable SSL", "开启 SSL")).or("false"),
            CA,
            CERTIFICATE,
            KEY,
            Param {
                description: (
                    "OpenSSL's names with commas between them; those that are not AEAD over ECDHE are passed over; empty: all",
                    "以逗号分隔的 OpenSSL 名称；非 ECDHE AEAD 套件会被忽略；留空则使用全部套件",
                ),
                ..Param::text("ciphers", ("SSL Ciphers", "SSL 加密算法")).or("\"\"")
            },
            VERIFY,
            SERVER_NAME,
        ],
        title: ("MQTT Bridge", "MQTT Bridge"),
        description: ("MQTT Message Bridge", "MQTT 消息桥接"),
    },
    ResourceType {
        name: "web_hook",
        provider: "emqx_web_hook",
        params: &[
            Param {
                format: Some("url"),
                ..Param::text("url", ("Request URL", "请求 URL")).required()
            },
            Param::text("method", ("Request Method", "请求方法"))
                .one_of(&["POST", "PUT", "GET", "DELETE"])
                .or("\"POST\""),
            Param::of("headers", "object", ("Request Header", "请求头")).or("{}"),
            duration("connect_timeout", ("Connect Timeout", "连接超时"), "\"5s\""),
            duration("request_timeout", ("Request Timeout", "请求超时"), "\"5s\""),
            Param::of("pool_size", "number", ("Pool Size", "连接池大小")).or("8"),
            CA,
            CERTIFICATE,
            KEY,
            VERIFY,
            SERVER_NAME,
        ],
        title: ("WebHook", "WebHook"),
        description: ("WebHook", "WebHook"),
    },
];

/// The type of a name.
#[must_use]
pub fn resource_type(name: &str) -> Option<&'static ResourceType> {
    RESOURCE_TYPES.iter().find(|one| one.name == name)
}
