//! ObservatoryService: what delay tests have found of each outbound (xray-api.md 2.9).
//!
//! Groups and the Clash API test; this shows it. An outbound that was never tested is not listed.

use super::protobuf::Message;
use super::status::Status;
use super::{Answer, Context};
use crate::outbound::health::View;

/// `xray.core.app.observatory.command.ObservatoryService`.
pub(super) const METHODS: &[(&str, Answer)] = &[("GetOutboundStatus", Answer::Unary(statuses))];

/// What Xray says of an outbound that does not answer, milliseconds.
const DEAD: u64 = 99_999_999;

fn statuses(context: &Context, _: &[u8]) -> Result<Message, Status> {
    let routing = context.control.tunnel().routing();
    let (mut result, mut response) = (Message::default(), Message::default());
    for member in routing.outbounds.members() {
        if !member.outbound.kind().is_group()
            && let Some(status) = status(member.outbound.name(), &member.health.view())
        {
            result.message(1, &status);
        }
    }
    response.message(1, &result);
    Ok(response)
}

/// `OutboundStatus` of an outbound that was tested.
fn status(name: &str, view: &View) -> Option<Message> {
    let last = view.history.last()?;
    let answered = view.history.iter().rev().find(|tested| tested.delay > 0);
    let mut status = Message::default();
    status.integer(1, u64::from(last.delay > 0));
    let delay = if last.delay > 0 {
        last.delay.into()
    } else {
        DEAD
    };
    status.integer(2, delay);
    if last.delay == 0 {
        status.text(3, "no answer");
    }
    status.text(4, name);
    status.integer(5, answered.map_or(0, |tested| tested.time.as_secs()));
    status.integer(6, last.time.as_secs());
    Some(status)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::protobuf::{Fields, Value};
    use super::*;
    use crate::outbound::health::Tested;

    fn numbers(delays: &[u16]) -> Option<Vec<(u32, u64)>> {
        let tested = |(time, delay): (usize, &u16)| Tested {
            time: Duration::from_secs(time as u64 + 1),
            delay: *delay,
        };
        let view = View {
            alive: true,
            history: delays.iter().enumerate().map(tested).collect(),
            urls: Vec::new(),
        };
        let status = status("node", &view)?;
        let fields = Fields::new(status.as_bytes()).map(Result::unwrap);
        let number = |field: super::super::protobuf::Field<'_>| match field.value {
            Value::Varint(value) => Some((field.number, value)),
            _ => None,
        };
        Some(fields.filter_map(number).collect())
    }

    #[test]
    fn the_last_test_tells_and_the_last_answer_was_when_it_was_seen() {
        assert_eq!(numbers(&[]), None);
        assert_eq!(numbers(&[7, 9]).unwrap(), [(1, 1), (2, 9), (5, 2), (6, 2)]);
        assert_eq!(numbers(&[7, 0]).unwrap(), [(2, DEAD), (5, 1), (6, 2)]);
        assert_eq!(numbers(&[0]).unwrap(), [(2, DEAD), (6, 1)]);
    }
}
