//! How other threads ask the broker: a call is carried to its thread, runs there between two packets,
//! and its answer is waited for.
//!
//! A call must be short, since no message moves meanwhile. Whoever asks must not be on the broker's own
//! thread. Lives as long as the daemon, also while no broker runs.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;

use super::Time;
use super::bridge::Leg;
use super::broker::Broker;
use super::handle::Command;
use crate::platform::reply::reply;

/// How long an answer is waited for.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(5);

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unavailable {
    /// No broker runs.
    Off,
    /// Too many ask.
    Busy,
    /// It did not answer in time.
    Late,
}

impl fmt::Display for Unavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Off => "the broker does not run",
            Self::Busy => "the broker has too many requests",
            Self::Late => "the broker did not answer in time",
        })
    }
}

impl std::error::Error for Unavailable {}

/// The broker from afar.
#[derive(Clone, Default)]
pub struct Remote(Arc<Mutex<Option<mpsc::Sender<Command>>>>);

impl Remote {
    /// Runs `call` on the broker's thread. Blocks.
    ///
    /// # Errors
    /// [`Unavailable`]; when [`Unavailable::Late`], `call` may still run.
    pub fn ask<T: Send + 'static>(
        &self,
        call: impl FnOnce(&mut Broker, Time) -> T + Send + 'static,
    ) -> Result<T, Unavailable> {
        let commands = self
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let (sender, answer) = reply();
        let call = move |broker: &mut Broker, now| {
            // Nobody waits for it when it comes late.
            let _late = sender.send(call(broker, now));
        };
        commands
            .ok_or(Unavailable::Off)?
            .try_send(Command::Call(Box::new(call)))
            .map_err(|error| match error {
                mpsc::error::TrySendError::Full(_) => Unavailable::Busy,
                mpsc::error::TrySendError::Closed(_) => Unavailable::Off,
            })?;
        answer.wait(ANSWER_TIME_MAX).map_err(|_| Unavailable::Late)
    }

    /// Has `call` run on the broker's thread, without waiting for it. `false`: it will not.
    #[must_use]
    pub fn tell(&self, call: impl FnOnce(&mut Broker, Time) + Send + 'static) -> bool {
        let commands = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(commands) = &*commands else {
            return false;
        };
        commands.try_send(Command::Call(Box::new(call))).is_ok()
    }

    /// Has the broker serve a bridge's end. `false`: it will not.
    #[must_use]
    pub(super) fn attach(&self, leg: Leg) -> bool {
        let commands = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(commands) = &*commands else {
            return false;
        };
        commands.try_send(Command::Attach(Box::new(leg))).is_ok()
    }

    pub(super) fn set(&self, commands: Option<mpsc::Sender<Command>>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = commands;
    }
}
