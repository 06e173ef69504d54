//! Connections that carry many streams each, and which of them takes the next stream.
//!
//! What a session is (HTTP/2, smux, yamux) is behind one `dyn`; here they are only counted. A session
//! ends itself when nobody uses it: this keeps none alive that is not open any more.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Mutex;

use super::dial::present_row;
use super::{BoxFuture, ByteStream};

/// Sessions to one server at most, whatever is configured; then the one with the fewest streams takes more.
pub const SESSIONS_MAX: u32 = 32;

/// One connection that carries many streams.
pub trait Session: Send + Sync {
    /// Its streams, and whether it is over.
    fn usage(&self) -> &Usage;

    /// How many streams the peer takes at a time.
    fn streams_max(&self) -> usize {
        usize::MAX
    }

    /// Begins a stream.
    fn open(&self) -> BoxFuture<'_, io::Result<Box<dyn ByteStream>>>;
}

/// The bit of [`Usage`] that says that no further stream can begin.
const OVER: usize = 1 << (usize::BITS - 1);

/// What a session, its driver and its streams know of each other: how many streams are under way, and
/// whether another can begin. One word, so that a session does not end as unused while one begins.
#[derive(Default)]
pub struct Usage(AtomicUsize);

impl Usage {
    /// Streams under way.
    pub fn streams(&self) -> usize {
        self.0.load(Ordering::Relaxed) & !OVER
    }

    /// Whether no further stream can begin.
    pub fn is_over(&self) -> bool {
        self.0.load(Ordering::Relaxed) & OVER != 0
    }

    /// No further stream can begin.
    pub fn end(&self) {
        self.0.fetch_or(OVER, Ordering::Relaxed);
    }

    /// No further stream can begin, if none is under way; whether that is so now.
    pub fn end_unused(&self) -> bool {
        let word = &self.0;
        let ended = word.compare_exchange(0, OVER, Ordering::Relaxed, Ordering::Relaxed);
        matches!(ended, Ok(_) | Err(OVER))
    }

    /// Counts a stream until the answer is dropped; `None`: it is over.
    #[must_use]
    pub fn count(self: &Arc<Self>) -> Option<Counted> {
        let more = |word| (word & OVER == 0).then_some(word + 1);
        let counted = self
            .0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        counted.ok().map(|_| Counted(Arc::clone(self)))
    }
}

/// A stream that is under way.
pub struct Counted(Arc<Usage>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// When a further session is begun (sing-mux's keys of the same names).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Sessions at most; 0: as many as `streams_max` asks for.
    pub sessions_max: u32,
    /// As long as every session has so many streams, a further one is begun.
    pub streams_min: u32,
    /// Streams of one session, where `sessions_max` is 0; 0: one.
    pub streams_max: u32,
}

/// The sessions to one server.
pub struct Sessions {
    limits: Limits,
    /// Table. Held while a session is begun: those that come meanwhile will want it too.
    open: Mutex<Vec<Arc<dyn Session>>>,
}

/// How a session is begun.
pub type Begin<'a> = &'a (dyn Fn() -> BoxFuture<'a, io::Result<Arc<dyn Session>>> + Send + Sync);

impl Sessions {
    /// None yet.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            open: Mutex::new(Vec::new()),
        }
    }

    /// A stream of a session that has room, or of one that `begin` gives. What is dialled as a part of a
    /// relay has a session of its own: the way there is that relay's alone.
    ///
    /// # Errors
    /// What `begin` or the session says.
    pub async fn stream(&self, begin: Begin<'_>) -> io::Result<Box<dyn ByteStream>> {
        if present_row().is_some() {
            return begin().await?.open().await;
        }
        loop {
            let (session, fresh) = {
                let mut open = self.open.lock().await;
                open.retain(|session| !session.usage().is_over());
                match self.choose(&open) {
                    Some(session) => (session, false),
                    None => {
                        let session = begin().await?;
                        open.push(Arc::clone(&session));
                        (session, true)
                    }
                }
            };
            match session.open().await {
                // It ended since it was last used. The next is another, at last a fresh one.
                Err(_) if !fresh => session.usage().end(),
                opened => return opened,
            }
        }
    }

    /// The session that takes the next stream; `None`: a new one does.
    fn choose(&self, open: &[Arc<dyn Session>]) -> Option<Arc<dyn Session>> {
        let Limits {
            sessions_max,
            streams_min,
            streams_max,
        } = self.limits;
        let sessions = u32::try_from(open.len()).unwrap_or(u32::MAX);
        // What waits at a peer that takes no more waits there when there is no further session to be had.
        let room = |session: &&Arc<dyn Session>| {
            sessions >= SESSIONS_MAX || session.usage().streams() < session.streams_max()
        };
        let least = open
            .iter()
            .filter(room)
            .min_by_key(|session| session.usage().streams())?;
        let streams = u32::try_from(least.usage().streams()).unwrap_or(u32::MAX);
        let most = match sessions_max {
            0 => SESSIONS_MAX,
            most => most.min(SESSIONS_MAX),
        };
        let enough = match sessions_max {
            0 => streams < streams_max.max(1),
            _ => streams < streams_min,
        };
        (enough || streams == 0 || sessions >= most).then(|| Arc::clone(least))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Pipe {
        usage: Arc<Usage>,
        most: Option<usize>,
    }

    impl Session for Pipe {
        fn usage(&self) -> &Usage {
            &self.usage
        }

        fn streams_max(&self) -> usize {
            self.most.unwrap_or(usize::MAX)
        }

        fn open(&self) -> BoxFuture<'_, io::Result<Box<dyn ByteStream>>> {
            Box::pin(std::future::ready(match self.usage.is_over() {
                true => Err(io::ErrorKind::BrokenPipe.into()),
                false => Ok(Box::new(tokio::io::duplex(1).0) as Box<dyn ByteStream>),
            }))
        }
    }

    fn limits(sessions_max: u32, streams_min: u32, streams_max: u32) -> Sessions {
        Sessions::new(Limits {
            sessions_max,
            streams_min,
            streams_max,
        })
    }

    /// Which of sessions with so many streams takes the next.
    #[track_caller]
    fn check(sessions: &Sessions, streams: &[usize], want: Option<usize>) {
        let open: Vec<_> = streams
            .iter()
            .map(|&streams| {
                let pipe = Pipe::default();
                pipe.usage.0.store(streams, Ordering::Relaxed);
                Arc::new(pipe) as Arc<dyn Session>
            })
            .collect();
        let chosen = sessions.choose(&open);
        let place = chosen.map(|one| open.iter().position(|other| Arc::ptr_eq(&one, other)));
        assert_eq!(place.flatten(), want);
    }

    #[test]
    fn the_session_with_the_fewest_streams_is_taken_until_it_has_enough() {
        let by_sessions = limits(2, 3, 0);
        check(&by_sessions, &[], None);
        check(&by_sessions, &[2], Some(0));
        check(&by_sessions, &[3], None);
        check(&by_sessions, &[4, 3], Some(1));
        let by_streams = limits(0, 0, 8);
        check(&by_streams, &[8, 7], Some(1));
        check(&by_streams, &[8, 8], None);
        check(&limits(0, 0, 0), &[1], None);
        check(&limits(0, 0, 0), &[1, 0], Some(1));
    }

    #[test]
    fn there_are_no_more_sessions_than_the_limit() {
        let full = || {
            let pipe = Pipe {
                most: Some(1),
                ..Pipe::default()
            };
            pipe.usage.0.store(1, Ordering::Relaxed);
            Arc::new(pipe) as Arc<dyn Session>
        };
        let sessions = limits(0, 0, 1);
        let mut open: Vec<_> = (1..SESSIONS_MAX).map(|_| full()).collect();
        assert!(sessions.choose(&open).is_none());
        open.push(full());
        assert!(sessions.choose(&open).is_some());
    }

    #[test]
    fn a_session_ends_as_unused_or_is_used_but_never_both() {
        let usage = Arc::<Usage>::default();
        let stream = usage.count().unwrap();
        assert!(!usage.end_unused() && !usage.is_over());
        drop(stream);
        assert!(usage.end_unused() && usage.count().is_none());
        assert_eq!((usage.streams(), usage.is_over()), (0, true));
    }

    #[tokio::test]
    async fn a_session_that_ended_or_is_full_is_followed_by_another() {
        let sessions = limits(1, 100, 0);
        let begun = AtomicUsize::new(0);
        let begin = || -> BoxFuture<'_, io::Result<Arc<dyn Session>>> {
            begun.fetch_add(1, Ordering::Relaxed);
            Box::pin(std::future::ready(Ok(Arc::new(Pipe {
                most: Some(1),
                ..Pipe::default()
            }) as Arc<dyn Session>)))
        };
        sessions.stream(&begin).await.unwrap();
        sessions.stream(&begin).await.unwrap();
        assert_eq!(begun.load(Ordering::Relaxed), 1);
        let first = Arc::clone(&sessions.open.lock().await[0]);
        first.usage().end();
        sessions.stream(&begin).await.unwrap();
        assert_eq!(begun.load(Ordering::Relaxed), 2);
        let second = Arc::clone(&sessions.open.lock().await[0]);
        second.usage().0.store(1, Ordering::Relaxed);
        sessions.stream(&begin).await.unwrap();
        assert_eq!(begun.load(Ordering::Relaxed), 3);
    }
}
