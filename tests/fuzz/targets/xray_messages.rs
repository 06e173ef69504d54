//! What clients of the Xray API send: gRPC's framing, and protocol buffers inside.
//! Input: sizes of the pieces, the body.
#![no_main]

use headgate::controllers::xray::framing::{MESSAGE_BYTES_MAX, Unframed};
use headgate::controllers::xray::protobuf::{Fields, Message, Value};
use headgate::controllers::xray::{inbound, outbound, rule};
use headgate_fuzz::Input;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut input = Input::new(data);
    let size = usize::from(input.byte()).max(1);
    let body = input.long_chunk().to_vec();
    let mut whole = Unframed::default();
    whole.push(&body);
    let mut messages = Vec::new();
    let end = loop {
        match whole.take() {
            Ok(Some(message)) => messages.push(message),
            end => break end,
        }
    };
    // Cut anywhere, the same messages come, and the same end.
    let (mut cut, mut again) = (Unframed::default(), Vec::new());
    let mut cut_end = Ok(None);
    'body: for piece in body.chunks(size) {
        cut.push(piece);
        loop {
            match cut.take() {
                Ok(Some(message)) => again.push(message),
                Ok(None) => break,
                failed => {
                    cut_end = failed;
                    break 'body;
                }
            }
        }
    }
    assert_eq!((&messages, end), (&again, cut_end));
    for message in &messages {
        assert!(message.len() <= MESSAGE_BYTES_MAX);
        read(message);
    }
    read(&body);
    // What handlers and rules are made of.
    let _listener = inbound::listener(Fields::new(&body));
    let _proxy = outbound::proxy(Fields::new(&body));
    for field in Fields::new(&body).flatten() {
        let _rule = rule::rule(&field);
        let _balancer = rule::balancer(&field);
    }
});

/// Fields that are read are written so that they read back.
fn read(bytes: &[u8]) {
    let mut written = Message::default();
    let mut fields = Vec::new();
    for field in Fields::new(bytes) {
        let Ok(field) = field else { return };
        match field.value {
            Value::Varint(value) => written.present(field.number, value),
            Value::Bytes(value) => written.item(field.number, value),
            _ => continue,
        };
        fields.push(Ok(field));
        let _not_text = field.text();
        let _not_numbers = field.push_shorts(&mut Vec::new());
    }
    assert_eq!(Fields::new(written.as_bytes()).collect::<Vec<_>>(), fields);
}
