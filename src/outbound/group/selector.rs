//! `type: select`: a person chooses the member (clash-api.md 3.9 and 4.5).

use std::sync::atomic::{AtomicUsize, Ordering};

use super::{Choose, Field};
use crate::metadata::Metadata;
use crate::outbound::Kind;

/// The choice, the first member until there is one. Counter-like state.
#[derive(Default)]
pub struct Selector(AtomicUsize);

impl Choose for Selector {
    fn kind(&self) -> Kind {
        Kind::Selector
    }

    fn choose(&self, _field: &Field<'_>, _metadata: Option<&Metadata>) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    fn pin(&self, _field: &Field<'_>, index: usize) -> bool {
        self.0.store(index, Ordering::Relaxed);
        true
    }
}
