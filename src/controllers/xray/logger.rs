//! LoggerService (xray-api.md 2.6).

use super::protobuf::{Fields, Message};
use super::status::Status;
use super::{Answer, Context};

/// `xray.app.log.command.LoggerService`.
pub(super) const METHODS: &[(&str, Answer)] = &[("RestartLogger", Answer::Unary(restart))];

/// Has the log's outputs opened anew. Ours is standard error, which the init system takes to the
/// system log: there is no file that logrotate could have moved, so nothing is left to do but to say
/// that the log goes on.
fn restart(_: &Context, request: &[u8]) -> Result<Message, Status> {
    for field in Fields::new(request) {
        field?;
    }
    log::info!("logger restarted by the Xray API");
    Ok(Message::default())
}
