//! Messages that nobody meant to be read: every parser of this API, deep inside too, ends with an answer.

#![cfg(test)]

use proptest::prelude::*;

use super::protobuf::{Fields, Message};
use super::typed::typed;
use super::{inbound, outbound, rule};
use crate::config::Config;
use crate::rules::RuleLine;

/// The types that stand in a `TypedMessage`.
const KINDS: &[&str] = &[
    "app.proxyman.ReceiverConfig",
    "app.proxyman.SenderConfig",
    "proxy.blackhole.Config",
    "proxy.dokodemo.Config",
    "proxy.freedom.Config",
    "proxy.http.ClientConfig",
    "proxy.http.ServerConfig",
    "proxy.shadowsocks.Account",
    "proxy.shadowsocks.ClientConfig",
    "proxy.shadowsocks.ServerConfig",
    "proxy.shadowsocks_2022.ClientConfig",
    "proxy.shadowsocks_2022.MultiUserServerConfig",
    "proxy.shadowsocks_2022.ServerConfig",
    "proxy.socks.ClientConfig",
    "proxy.socks.ServerConfig",
    "proxy.trojan.ClientConfig",
    "proxy.trojan.ServerConfig",
    "proxy.vless.Account",
    "proxy.vless.inbound.Config",
    "proxy.vless.outbound.Config",
    "proxy.vmess.Account",
    "proxy.vmess.inbound.Config",
    "proxy.vmess.outbound.Config",
    "transport.internet.tls.Config",
    "transport.internet.websocket.Config",
];

/// Texts that parsers look for, and one that none expects.
const TEXTS: &[&str] = &[
    "",
    "127.0.0.1:80",
    "66ad4540-b58c-4ad2-9926-ea63445a9b57",
    "a),(MATCH,b",
    "aes-128-gcm",
    "2022-blake3-aes-128-gcm",
    "geo/x,\n",
    "none",
    "websocket",
    "xray.transport.internet.tls.Config",
];

/// One field's value; `None` in place of a number: a message.
#[derive(Clone, Debug)]
enum Part {
    Number(u32, u64),
    Bytes(u32, Vec<u8>),
    Nested(u32, Message),
    Typed(u32, usize, Message),
}

fn built(parts: Vec<Part>) -> Message {
    let mut message = Message::default();
    for part in parts {
        match part {
            Part::Number(number, value) => message.present(number, value),
            Part::Bytes(number, value) => message.item(number, &value),
            Part::Nested(number, inner) => message.message(number, &inner),
            Part::Typed(number, kind, inner) => {
                let kind = KINDS.get(kind).copied().unwrap_or_default();
                message.message(number, &typed(kind, &inner))
            }
        };
    }
    message
}

/// Messages of fields with low numbers, some within others.
fn message() -> impl Strategy<Value = Message> {
    let number = 1..24_u32;
    let text = prop::sample::select(TEXTS).prop_map(|text| text.as_bytes().to_vec());
    let bytes = prop_oneof![text, prop::collection::vec(any::<u8>(), 0..18)];
    let values = prop_oneof![0..8_u64, any::<u64>()];
    let leaf = prop_oneof![
        (number.clone(), values).prop_map(|(number, value)| Part::Number(number, value)),
        (number.clone(), bytes).prop_map(|(number, value)| Part::Bytes(number, value)),
    ];
    let flat = prop::collection::vec(leaf.clone(), 0..5).prop_map(built);
    flat.prop_recursive(4, 40, 6, move |inner| {
        let nested = (number.clone(), inner.clone());
        let typed = (number.clone(), 0..KINDS.len(), inner);
        let part = prop_oneof![
            leaf.clone(),
            nested.prop_map(|(number, inner)| Part::Nested(number, inner)),
            typed.prop_map(|(number, kind, inner)| Part::Typed(number, kind, inner)),
        ];
        prop::collection::vec(part, 0..6).prop_map(built)
    })
}

/// An inbound or an outbound of some kind, as far as its settings.
fn handler() -> impl Strategy<Value = Message> {
    let parts = (0..KINDS.len(), message(), message(), any::<bool>());
    parts.prop_map(|(kind, first, second, receives)| {
        let place = if receives { "Receiver" } else { "Sender" };
        let mut receiver = first;
        let (mut range, mut list) = (Message::default(), Message::default());
        range.integer(1, 80).integer(2, 80);
        receiver.message(1, list.message(1, &range));
        let mut handler = Message::default();
        handler.text(1, "tag");
        handler.message(2, &typed(&format!("app.proxyman.{place}Config"), &receiver));
        let kind = KINDS.get(kind).copied().unwrap_or_default();
        handler.message(3, &typed(kind, &second));
        handler
    })
}

proptest! {
    #[test]
    fn any_handler_is_refused_or_is_for_the_configuration_to_judge(handler in handler()) {
        if let Ok(entry) = inbound::listener(Fields::new(handler.as_bytes())) {
            let _judged = Config::listener(&entry);
        }
        if let Ok(entry) = outbound::proxy(Fields::new(handler.as_bytes())) {
            let _judged = Config::proxy(&entry);
        }
    }

    #[test]
    fn any_rule_is_refused_or_is_lines_that_lead_where_it_says(message in message()) {
        let mut outer = Message::default();
        outer.message(1, &message);
        let field = Fields::new(outer.as_bytes()).next().unwrap().unwrap();
        if let Ok(read) = rule::rule(&field) {
            for line in &read.lines {
                if let Ok(line) = RuleLine::parse(line) {
                    prop_assert_eq!(&*line.target, &*read.target);
                }
            }
        }
        let _balancer = rule::balancer(&field);
    }
}
