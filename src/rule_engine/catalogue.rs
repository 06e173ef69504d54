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
    /// Its title.
    pub title: Words,
    /// Its description.
    pub description: Words,
}

impl Param {
    const fn text(name: &'static str, title: Words) -> Self {
        Self {
            name,
            kind: "string",
            required: false,
            default: None,
            choices: &[],
            long: false,
            title,
            description: title,
        }
    }

    const fn required(mut self) -> Self {
        self.required = true;
        self
    }

    const fn or(mut self, default: &'static str) -> Self {
        self.default = Some(default);
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
    /// Its parameters.
    pub params: &'static [Param],
    /// Its title.
    pub title: Words,
    /// Its description.
    pub description: Words,
}

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
        name: "close_connections",
        app: "headgate",
        category: "router",
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
        name: "do_nothing",
        app: "emqx_rule_engine",
        category: "debug",
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
        name: "select_proxy",
        app: "headgate",
        category: "router",
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
];

/// The type of a name.
#[must_use]
pub fn action_type(name: &str) -> Option<&'static ActionType> {
    ACTION_TYPES.iter().find(|one| one.name == name)
}
