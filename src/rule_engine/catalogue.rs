//! The types of actions, with the parameters that they take (emqx-api.md 2.9, 4.9).

/// A title or a description, in English and Chinese.
pub type Words = (&'static str, &'static str);

/// One parameter.
pub struct Param {
    /// Its key.
    pub name: &'static str,
    /// `string`, `number` …, as the API names types.
    pub kind: &'static str,
    /// Whether it must be given.
    pub required: bool,
    /// What it is when it is not given, as JSON.
    pub default: Option<&'static str>,
    /// All that it may be; empty: anything.
    pub choices: &'static [&'static str],
    /// Whether it has lines.
    pub long: bool,
    /// `url` where it is one.
    pub format: Option<&'static str>,
    /// Its title.
    pub title: Words,
    /// Its description.
    pub description: Words,
}

impl Param {
    pub(super) const fn text(name: &'static str, title: Words) -> Self {
        Self::of(name, "string", title)
    }

    pub(super) const fn of(name: &'static str, kind: &'static str, title: Words) -> Self {
        Self {
            name,
            kind,
            format: None,
            required: false,
            default: None,
            choices: &[],
            long: false,
            title,
            description: title,
        }
    }

    pub(super) const fn required(mut self) -> Self {
        self.required = true;
        self
    }

    pub(super) const fn or(mut self, default: &'static str) -> Self {
        self.default = Some(default);
        self
    }

    pub(super) const fn one_of(mut self, choices: &'static [&'static str]) -> Self {
        self.choices = choices;
        self
    }
}

/// A type of action.
pub struct ActionType {
    /// As rules name it.
    pub name: &'static str,
    /// Which part of EMQX has it; the router's own are headgate's.
    pub app: &'static str,
    /// `debug`, `data_forward` or `router`.
    pub category: &'static str,
    /// The types of resources that it may use; empty: it uses none.
    pub types: &'static [&'static str],
    /// Its parameters.
    pub params: &'static [Param],
    /// Its title.
    pub title: Words,
    /// Its description.
    pub description: Words,
}

const RESOURCE: Param = Param::text("$resource", ("Resource ID", "资源 ID")).required();

const QOS: Param = Param {
    kind: "number",
    default: Some("0"),
    required: true,
    description: (
        "0, 1, 2, or a template of one place; -1 keeps the QoS of the event",
        "0、1、2，或单个占位符模板；-1 表示沿用原消息的 QoS",
    ),
    ..Param::text("target_qos", ("Target QoS", "目标 QoS"))
};

const PAYLOAD: Param = Param {
    long: true,
    default: Some("\"${payload}\""),
    description: (
        "The payload template; an empty one is the whole output as JSON",
        "消息内容模板；留空则为全部输出的 JSON",
    ),
    ..Param::text("payload_tmpl", ("Payload Template", "消息内容模板"))
};

const RETAIN: Param = Param {
    kind: "boolean",
    default: Some("false"),
    ..Param::text("target_retain", ("Target Retain", "目标保留标志"))
};

/// Every type, sorted by English title.
pub const ACTION_TYPES: &[ActionType] = &[
    ActionType {
        name: "block_device",
        app: "headgate",
        category: "router",
        types: &[],
        params: &[
            Param::text("device", ("Address or MAC of the device", "设备地址或 MAC")).required(),
            Param::text("duration", ("For how long", "时长"))
                .required()
                .or("\"30m\""),
        ],
        title: ("Block Device", "封禁设备"),
        description: (
            "Let a device reach nothing for a while (30m, 2h); 0s frees it",
            "在一段时间内禁止设备联网 (30m、2h)；0s 表示解除",
        ),
    },
    ActionType {
        name: "close_connections",
        app: "headgate",
        category: "router",
        types: &[],
        params: &[
            Param::text("device", ("Address of the device", "设备地址")).or("\"\""),
            Param::text("host", ("Destination name or address", "目标域名或地址")).or("\"\""),
        ],
        title: ("Close Connections", "关闭连接"),
        description: (
            "Close the live connections of a device, to a destination, or both",
            "关闭某设备或到某目标的现有连接",
        ),
    },
    ActionType {
        name: "data_to_mqtt_broker",
        app: "emqx_bridge_mqtt",
        category: "data_forward",
        types: &["bridge_mqtt"],
        params: &[
            RESOURCE,
            Param::text("forward_topic", ("Forward Topic", "转发消息主题")).or("\"\""),
            Param {
                default: Some("\"\""),
                ..PAYLOAD
            },
        ],
        title: ("Data bridge to MQTT Broker", "桥接数据到 MQTT Broker"),
        description: ("Bridge Data to MQTT Broker", "桥接数据到 MQTT Broker"),
    },
    ActionType {
        name: "data_to_webserver",
        app: "emqx_web_hook",
        category: "data_forward",
        types: &["web_hook"],
        params: &[
            RESOURCE,
            Param {
                default: Some("\"\""),
                ..PAYLOAD
            },
            Param::text("method", ("Method", "请求方法")).one_of(&["POST", "PUT", "GET", "DELETE"]),
            Param::text("path", ("Path", "请求路径")).or("\"\""),
            Param::of("headers", "object", ("Headers", "请求头")).or("{}"),
            Param {
                long: true,
                ..Param::text("body", ("Body", "请求体")).or("\"\"")
            },
        ],
        title: ("Data to Web Server", "发送数据到 Web 服务"),
        description: ("Forward Messages to Web Server", "将数据转发给 Web 服务"),
    },
    ActionType {
        name: "do_nothing",
        app: "emqx_rule_engine",
        category: "debug",
        types: &[],
        params: &[],
        title: ("Do Nothing (debug)", "空动作 (调试)"),
        description: (
            "This action does nothing and never fails. It's for debug purpose",
            "此动作什么都不做，并且不会失败 (用以调试)",
        ),
    },
    ActionType {
        name: "inspect",
        app: "emqx_rule_engine",
        category: "debug",
        types: &[],
        params: &[],
        title: ("Inspect (debug)", "检查 (调试)"),
        description: (
            "Inspect the details of action params for debug purpose",
            "检查动作参数 (用以调试)",
        ),
    },
    ActionType {
        name: "republish",
        app: "emqx_rule_engine",
        category: "data_forward",
        types: &[],
        params: &[
            Param::text("target_topic", ("Target Topic", "目的主题"))
                .required()
                .or("\"repub/to/${clientid}\""),
            QOS,
            PAYLOAD,
            RETAIN,
        ],
        title: ("Republish", "消息重新发布"),
        description: (
            "Republish a MQTT message to a another topic",
            "重新发布消息到另一个主题",
        ),
    },
    ActionType {
        name: "run_healthcheck",
        app: "headgate",
        category: "router",
        types: &[],
        params: &[Param::text("group", ("Proxy group", "代理组")).required()],
        title: ("Run Health Check", "执行健康检查"),
        description: (
            "Test the members of a proxy group now",
            "立即测试代理组的成员",
        ),
    },
    ActionType {
        name: "select_proxy",
        app: "headgate",
        category: "router",
        types: &[],
        params: &[
            Param::text("group", ("Proxy group", "代理组")).required(),
            Param::text("proxy", ("Member to choose", "选择的成员")).required(),
        ],
        title: ("Select Proxy", "选择代理"),
        description: ("Choose a member of a proxy group", "选择代理组的成员"),
    },
    ActionType {
        name: "set_mode",
        app: "headgate",
        category: "router",
        types: &[],
        params: &[Param {
            choices: &["rule", "global", "direct"],
            ..Param::text("mode", ("Mode", "模式")).required()
        }],
        title: ("Set Mode", "设置模式"),
        description: (
            "Change the mode of the router: rule, global or direct",
            "切换路由模式",
        ),
    },
    ActionType {
        name: "wake_on_lan",
        app: "headgate",
        category: "router",
        types: &[],
        params: &[Param::text("mac", ("MAC of the device", "设备 MAC")).required()],
        title: ("Wake on LAN", "网络唤醒"),
        description: (
            "Send the magic packet that wakes a device",
            "发送唤醒设备的魔术包",
        ),
    },
];

/// The type of a name.
#[must_use]
pub fn action_type(name: &str) -> Option<&'static ActionType> {
    ACTION_TYPES.iter().find(|one| one.name == name)
}
