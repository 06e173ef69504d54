//! `type: fallback`: the first member that is alive (clash-api.md 4.5).

use std::sync::{Mutex, PoisonError};

use super::{Choose, Field};
use crate::metadata::Metadata;
use crate::outbound::Kind;

/// The first alive, or a person's choice until that is found dead.
#[derive(Default)]
pub struct Fallback(Mutex<Option<Pin>>);

/// A person's choice.
#[derive(Clone, Copy)]
struct Pin {
    index: usize,
    /// How often it had been tested when it was chosen: a death before that is forgiven.
    tests: u32,
}

impl Choose for Fallback {
    fn kind(&self) -> Kind {
        Kind::Fallback
    }

    fn choose(&self, field: &Field<'_>, _metadata: Option<&Metadata>) -> usize {
        let mut pin = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(Pin { index, tests }) = *pin {
            if field.is_alive(index) || field.tests(index) == tests {
                return index;
            }
            *pin = None;
        }
        field.first_alive().unwrap_or(0)
    }

    fn pin(&self, field: &Field<'_>, index: usize) -> bool {
        let tests = field.tests(index);
        let mut pin = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *pin = Some(Pin { index, tests });
        true
    }

    fn unpin(&self) -> bool {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
        true
    }

    fn pinned(&self) -> Option<usize> {
        let pin = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        pin.map(|pin| pin.index)
    }
}
