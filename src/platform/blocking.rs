//! Work that may block, on one of the runtime's threads for it.
//!
//! The runtime's own function for that is compiled anew for each kind of work, more than a kilobyte each
//! time on mips; here it sees one kind.

use std::error::Error;
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::task::spawn_blocking;

/// The work was not done: the runtime is stopping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stopping;

impl fmt::Display for Stopping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the program is stopping")
    }
}

impl Error for Stopping {}

impl From<Stopping> for io::Error {
    fn from(stopping: Stopping) -> Self {
        Self::other(stopping)
    }
}

/// Begins `work` at once, and goes on with it where what is given is dropped. Must be called inside a
/// tokio runtime.
///
/// # Errors
/// [`Stopping`].
pub fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> impl Future<Output = Result<T, Stopping>> + Send {
    let done = Arc::new(Mutex::new(None));
    let place = Arc::clone(&done);
    let work: Box<dyn FnOnce() + Send> = Box::new(move || {
        let made = work();
        *place.lock().unwrap_or_else(PoisonError::into_inner) = Some(made);
    });
    let working = spawn_blocking(work);
    async move {
        let _ended = working.await;
        let mut done = done.lock().unwrap_or_else(PoisonError::into_inner);
        done.take().ok_or(Stopping)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    #[tokio::test]
    async fn work_is_done_elsewhere_and_its_result_comes_back() {
        let here = std::thread::current().id();
        let there = blocking(|| std::thread::current().id()).await.unwrap();
        assert_ne!(here, there);
        // Begun at once, waited for or not.
        let (sender, receiver) = channel();
        drop(blocking(move || sender.send(7)));
        assert_eq!(receiver.recv(), Ok(7));
    }
}
