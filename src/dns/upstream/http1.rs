//! DNS over HTTPS where the server speaks no HTTP/2, and `http://`: HTTP/1.1 (RFC 9112), one question
//! after the other on one connection.

use std::io;
use std::sync::atomic::Ordering;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::http2::{MEDIA_TYPE, authority, received, target};
use super::line::{ANSWER_BYTES_MAX, IDLE_TIME, Work};
use super::{EXCHANGE_TIME, Failure, Server};
use crate::outbound::carrier::Carrier;

/// Longest head of an answer.
const HEAD_BYTES_MAX: usize = 8 * 1024;
/// Fields of one head.
const FIELDS_MAX: usize = 64;

/// Serves until the connection ends or nobody uses it; gives what the rest is told.
pub(super) async fn serve(mut carrier: Carrier, server: &Server, work: &mut Work) -> Failure {
    loop {
        let Ok(request) = timeout(IDLE_TIME, work.requests.recv()).await else {
            return Failure::Io(io::ErrorKind::ConnectionAborted);
        };
        let Some(request) = request else {
            return Failure::Io(io::ErrorKind::ConnectionAborted);
        };
        let asking = Box::pin(exchange(&mut carrier, server, &request.query));
        let outcome = timeout(EXCHANGE_TIME, asking).await;
        let outcome = outcome.unwrap_or(Err(Failure::Timeout));
        work.answers.fetch_add(1, Ordering::Relaxed);
        let over = match &outcome {
            Ok((_, keep)) => !keep,
            Err(_) => true,
        };
        let failure = outcome.as_ref().err().copied();
        let _ = request.reply.send(outcome.map(|(answer, _)| answer));
        if over {
            return failure.unwrap_or(Failure::Io(io::ErrorKind::ConnectionReset));
        }
    }
}

/// What the head of a good answer says.
#[derive(Debug, PartialEq, Eq)]
pub struct Head {
    /// Its length.
    pub bytes: usize,
    /// How many bytes the answer has.
    pub length: usize,
    /// How long a cache on the way kept the answer, seconds.
    pub age: u32,
    /// The connection stays open.
    pub keep: bool,
}

async fn exchange(
    carrier: &mut Carrier,
    server: &Server,
    query: &[u8],
) -> Result<(Vec<u8>, bool), Failure> {
    let request = format!(
        "GET {} HTTP/1.1\r\nHost: {}\r\nAccept: {MEDIA_TYPE}\r\n\r\n",
        target(server, query),
        authority(server),
    );
    carrier.write_all(request.as_bytes()).await?;
    carrier.flush().await?;
    let mut unread = Vec::new();
    let head = loop {
        if let Some(head) = read_head(&unread)? {
            break head;
        }
        if unread.len() > HEAD_BYTES_MAX {
            return Err(Failure::Malformed);
        }
        read_more(carrier, &mut unread).await?;
    };
    let end = head.bytes + head.length;
    while unread.len() < end {
        read_more(carrier, &mut unread).await?;
    }
    // Bytes beyond the answer belong to no question.
    let keep = head.keep && unread.len() == end;
    let answer = unread.get(head.bytes..end).unwrap_or_default().to_vec();
    Ok((received(answer, query, head.age), keep))
}

async fn read_more(carrier: &mut Carrier, unread: &mut Vec<u8>) -> Result<(), Failure> {
    unread.reserve(1024);
    match carrier.read_buf(unread).await? {
        0 => Err(Failure::Io(io::ErrorKind::UnexpectedEof)),
        _ => Ok(()),
    }
}

/// Reads the head of an answer. `None`: it goes on past `bytes`.
///
/// # Errors
/// [`Failure::Malformed`], or [`Failure::Status`] of an answer that is not good.
pub fn read_head(bytes: &[u8]) -> Result<Option<Head>, Failure> {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let mut response = httparse::Response::new(&mut fields);
    let parsed = response.parse(bytes).map_err(|_| Failure::Malformed)?;
    let httparse::Status::Complete(end) = parsed else {
        return Ok(None);
    };
    let field = |name: &str| {
        let found = response
            .headers
            .iter()
            .find(|f| f.name.eq_ignore_ascii_case(name));
        found.and_then(|field| std::str::from_utf8(field.value).ok())
    };
    match response.code {
        Some(200) => {}
        Some(status) => return Err(Failure::Status(status)),
        None => return Err(Failure::Malformed),
    }
    if field("content-type") != Some(MEDIA_TYPE) || field("transfer-encoding").is_some() {
        return Err(Failure::Malformed);
    }
    let length = field("content-length").and_then(|length| length.parse().ok());
    let length = length.filter(|length| *length <= ANSWER_BYTES_MAX);
    let closes = field("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
    Ok(Some(Head {
        bytes: end,
        length: length.ok_or(Failure::Malformed)?,
        age: field("age").and_then(|age| age.parse().ok()).unwrap_or(0),
        keep: !closes && response.version == Some(1),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(fields: &str) -> Result<Option<Head>, Failure> {
        read_head(format!("HTTP/1.1 200 OK\r\n{fields}\r\n").as_bytes())
    }

    #[test]
    fn heads_say_how_long_the_answer_is() {
        let typed = "Content-Type: application/dns-message\r\n";
        let read = head(&format!("{typed}Content-Length: 12\r\nAge: 7\r\n"))
            .unwrap()
            .unwrap();
        assert_eq!((read.length, read.age, read.keep), (12, 7, true));
        let read = head(&format!(
            "{typed}content-length: 12\r\nConnection: Close\r\n"
        ));
        assert!(!read.unwrap().unwrap().keep);
        for fields in [
            typed.to_owned(),
            "Content-Length: 12\r\n".to_owned(),
            format!("{typed}Content-Length: 65536\r\n"),
            format!("{typed}Content-Length: -1\r\n"),
            format!("{typed}Content-Length: 1\r\nTransfer-Encoding: chunked\r\n"),
        ] {
            assert_eq!(head(&fields), Err(Failure::Malformed), "{fields}");
        }
        assert_eq!(
            read_head(b"HTTP/1.1 404 No\r\n\r\n"),
            Err(Failure::Status(404))
        );
        assert_eq!(read_head(b"HTTP/1.1 200 OK\r\n"), Ok(None));
    }
}
