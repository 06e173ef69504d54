//! Messages with their length before them, on TCP (RFC 7766) or TLS (RFC 7858): questions are sent
//! without waiting for the answers before, which may come in any order.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until, timeout};

use super::line::{IDLE_TIME, Request, UNANSWERED_MAX, Work};
use super::{EXCHANGE_TIME, Failure};
use crate::outbound::carrier::Carrier;

/// A stream on which nothing came for so long while somebody waited is dead.
const DEAD_TIME: Duration = EXCHANGE_TIME.saturating_mul(2);
/// Read at once.
const CHUNK_BYTES: usize = 2048;

/// Who waits for the answer of an id of ours.
struct Waiting {
    /// The id in the query as it was handed in.
    id: [u8; 2],
    reply: oneshot::Sender<Result<Vec<u8>, Failure>>,
}

/// Serves until the stream ends or nobody uses it; gives what the rest is told.
pub(super) async fn serve(mut carrier: Carrier, work: &mut Work) -> Failure {
    let mut waiting: HashMap<u16, Waiting> = HashMap::new();
    let mut unread = Vec::new();
    let mut next_id = 0;
    let mut heard = Instant::now();
    let failure = loop {
        let patience = if waiting.is_empty() {
            IDLE_TIME
        } else {
            DEAD_TIME
        };
        unread.reserve(CHUNK_BYTES);
        tokio::select! {
            request = work.requests.recv(), if waiting.len() < UNANSWERED_MAX => {
                let Some(request) = request else {
                    break Failure::Io(io::ErrorKind::ConnectionAborted);
                };
                if waiting.is_empty() {
                    heard = Instant::now();
                }
                let frame = enter(request, &mut next_id, &mut waiting);
                let sent = timeout(EXCHANGE_TIME, send(&mut carrier, &frame)).await;
                if let Err(error) = sent.unwrap_or(Err(io::ErrorKind::TimedOut.into())) {
                    break error.into();
                }
            }
            read = carrier.read_buf(&mut unread) => {
                match read {
                    Ok(0) => break Failure::Io(io::ErrorKind::UnexpectedEof),
                    Ok(_) => {}
                    Err(error) => break error.into(),
                }
                while let Some(answer) = take_frame(&mut unread) {
                    // What nobody asked for keeps no stream open.
                    if deliver(answer, &mut waiting) {
                        heard = Instant::now();
                        work.answers.fetch_add(1, Ordering::Relaxed);
                    }
                }
            }
            () = sleep_until(heard + patience) => break Failure::Io(io::ErrorKind::ConnectionAborted),
        }
    };
    for (_, waiting) in waiting {
        let _ = waiting.reply.send(Err(failure));
    }
    failure
}

/// Gives the query an id that is free on this stream; the frame to send.
fn enter(request: Request, next_id: &mut u16, waiting: &mut HashMap<u16, Waiting>) -> Vec<u8> {
    while waiting.contains_key(next_id) {
        *next_id = next_id.wrapping_add(1);
    }
    let mut frame = Vec::with_capacity(2 + request.query.len());
    let length = u16::try_from(request.query.len()).unwrap_or_default();
    frame.extend_from_slice(&length.to_be_bytes());
    frame.extend_from_slice(&request.query);
    let id = request.query.first_chunk().copied().unwrap_or_default();
    if let Some(place) = frame.get_mut(2..4) {
        place.copy_from_slice(&next_id.to_be_bytes());
    }
    waiting.insert(
        *next_id,
        Waiting {
            id,
            reply: request.reply,
        },
    );
    *next_id = next_id.wrapping_add(1);
    frame
}

/// One write: some servers read only the first segment.
async fn send(carrier: &mut Carrier, frame: &[u8]) -> io::Result<()> {
    carrier.write_all(frame).await?;
    carrier.flush().await
}

/// Hands an answer to whom it belongs; `false`: nobody waits for it, it is dropped.
fn deliver(mut answer: Vec<u8>, waiting: &mut HashMap<u16, Waiting>) -> bool {
    let id = answer.first_chunk().map(|id| u16::from_be_bytes(*id));
    let Some(found) = id.and_then(|id| waiting.remove(&id)) else {
        return false;
    };
    if let Some(place) = answer.first_chunk_mut() {
        *place = found.id;
    }
    let _ = found.reply.send(Ok(answer));
    true
}

/// Takes the first whole message off the bytes read so far.
fn take_frame(unread: &mut Vec<u8>) -> Option<Vec<u8>> {
    let (length, rest) = unread.split_first_chunk()?;
    let length = usize::from(u16::from_be_bytes(*length));
    let message = rest.get(..length)?.to_vec();
    unread.drain(..2 + length);
    if unread.is_empty() {
        // Room for one long answer is not kept for the stream's life.
        *unread = Vec::new();
    }
    Some(message)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::io::DuplexStream;
    use tokio::sync::mpsc;

    use super::*;

    type Reply = oneshot::Receiver<Result<Vec<u8>, Failure>>;

    /// A stream that is served, its questions' end, and the server's end of it.
    fn served() -> (mpsc::Sender<Request>, DuplexStream) {
        let (near, far) = tokio::io::duplex(4096);
        let (requests, queue) = mpsc::channel(8);
        tokio::spawn(async move {
            let mut work = Work {
                requests: queue,
                answers: Arc::default(),
            };
            serve(Carrier::Boxed(Box::new(near)), &mut work).await
        });
        (requests, far)
    }

    async fn ask(requests: &mpsc::Sender<Request>, query: &[u8]) -> Reply {
        let (reply, answer) = oneshot::channel();
        let query = query.to_vec();
        assert!(requests.send(Request { query, reply }).await.is_ok());
        answer
    }

    async fn read(far: &mut DuplexStream) -> Vec<u8> {
        let mut frame = vec![0; far.read_u16().await.unwrap().into()];
        far.read_exact(&mut frame).await.unwrap();
        frame
    }

    #[tokio::test]
    async fn answers_in_any_order_find_their_questions_under_their_ids() {
        let (requests, mut far) = served();
        // Two questions of the same id are told apart on the stream.
        let first = ask(&requests, b"\xaa\xaaone").await;
        let second = ask(&requests, b"\xaa\xaatwo").await;
        let (one, two) = (read(&mut far).await, read(&mut far).await);
        assert_ne!(one[..2], two[..2]);
        let stranger = b"\x00\x04\xff\xffhm";
        let mut back = stranger.to_vec();
        for frame in [&two, &one] {
            back.extend([0, 5]);
            back.extend(frame);
        }
        for byte in back {
            far.write_all(&[byte]).await.unwrap();
        }
        assert_eq!(second.await.unwrap().unwrap(), b"\xaa\xaatwo");
        assert_eq!(first.await.unwrap().unwrap(), b"\xaa\xaaone");
    }

    #[tokio::test]
    async fn the_end_of_the_stream_is_told_to_all_who_wait() {
        let (requests, mut far) = served();
        let waiting = [
            ask(&requests, b"\0\0a").await,
            ask(&requests, b"\0\0b").await,
        ];
        read(&mut far).await;
        read(&mut far).await;
        drop(far);
        for reply in waiting {
            let told = reply.await.unwrap();
            assert_eq!(told, Err(Failure::Io(io::ErrorKind::UnexpectedEof)));
        }
        requests.closed().await;
    }
}
