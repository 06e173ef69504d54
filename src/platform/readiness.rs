//! Which of many sockets have something, told by one descriptor (epoll(7), edge-triggered).
//!
//! For sockets that are still most of the time: a task and a registration with the runtime are some
//! 900 bytes each, an entry here is the kernel's alone. Whoever is told must read until a read comes
//! back short, and write until the socket says no; nothing is told twice.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Sockets told of at a time; the others are next.
const EVENTS_MAX: usize = 256;

/// The sockets.
pub struct Readiness(Epoll);

/// A socket that can be read, or written again, or is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ready {
    /// As which it was added.
    pub number: u32,
    /// No more will come: a short read is not the last one.
    pub ended: bool,
}

impl Readiness {
    /// No sockets yet.
    ///
    /// # Errors
    /// The process has no descriptor left.
    pub fn new() -> io::Result<Self> {
        Ok(Self(Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?))
    }

    /// Watches a socket until it is closed. What it has already is told too.
    ///
    /// # Errors
    /// The kernel's bound on watches.
    pub fn add(&self, socket: &impl AsFd, number: u32) -> io::Result<()> {
        let flags = EpollFlags::EPOLLIN
            | EpollFlags::EPOLLOUT
            | EpollFlags::EPOLLRDHUP
            | EpollFlags::EPOLLET;
        Ok(self.0.add(socket, EpollEvent::new(flags, number.into()))?)
    }

    /// Looks on, on the runtime of the caller.
    ///
    /// # Errors
    /// What the runtime says.
    pub fn watch(&self) -> io::Result<Watch<'_>> {
        let descriptor = self.0.0.as_fd();
        // SAFETY: a borrowed descriptor is open, and the same, for as long as it is borrowed.
        let descriptor = unsafe { AsyncFd::register_with_interest(descriptor, Interest::READABLE) };
        Ok(Watch {
            epoll: &self.0,
            descriptor: descriptor?,
            events: vec![EpollEvent::empty(); EVENTS_MAX],
        })
    }
}

/// Waits for sockets.
pub struct Watch<'a> {
    epoll: &'a Epoll,
    descriptor: AsyncFd<BorrowedFd<'a>>,
    events: Vec<EpollEvent>,
}

impl Watch<'_> {
    /// Waits until there is something, and tells of some [`EVENTS_MAX`] sockets.
    ///
    /// # Errors
    /// What the kernel says.
    pub async fn next(&mut self) -> io::Result<impl Iterator<Item = Ready>> {
        let mut guard = self.descriptor.readable().await?;
        let count = match self.epoll.wait(&mut self.events, EpollTimeout::ZERO) {
            Err(Errno::EINTR) => 0,
            waited => {
                let count = waited?;
                if count < self.events.len() {
                    guard.clear_ready();
                }
                count
            }
        };
        let over = EpollFlags::EPOLLRDHUP | EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR;
        Ok(self.events.iter().take(count).map(move |event| Ready {
            number: u32::try_from(event.data()).unwrap_or(u32::MAX),
            ended: event.events().intersects(over),
        }))
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{Shutdown, TcpListener, TcpStream};

    use super::*;

    #[tokio::test]
    async fn what_comes_is_told_once_and_the_end_is_told_as_such() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut far, _) = listener.accept().unwrap();
        far.set_nonblocking(true).unwrap();
        let readiness = Readiness::new().unwrap();
        readiness.add(&far, 7).unwrap();
        let mut watch = readiness.watch().unwrap();
        let told = |ended| Ready { number: 7, ended };
        // It can be written from the start.
        assert_eq!(
            watch.next().await.unwrap().collect::<Vec<_>>(),
            [told(false)]
        );
        for _ in 0..2 {
            near.write_all(b"x").unwrap();
            assert_eq!(
                watch.next().await.unwrap().collect::<Vec<_>>(),
                [told(false)]
            );
            assert_eq!(far.read(&mut [0; 8]).unwrap(), 1);
        }
        near.shutdown(Shutdown::Write).unwrap();
        assert_eq!(
            watch.next().await.unwrap().collect::<Vec<_>>(),
            [told(true)]
        );
    }
}
