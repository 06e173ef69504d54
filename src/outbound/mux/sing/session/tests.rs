//! A session against a peer that is written out byte for byte.

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

use super::*;

fn pair(dialect: Dialect) -> (Frames, DuplexStream) {
    let (near, far) = duplex(4 * 1024 * 1024);
    (Frames::begin(Carrier::Boxed(Box::new(near)), dialect), far)
}

#[track_caller]
fn want(got: &[u8], want: &[u8]) {
    assert_eq!(got, want);
}

async fn read<const N: usize>(far: &mut DuplexStream) -> [u8; N] {
    let mut bytes = [0; N];
    far.read_exact(&mut bytes).await.unwrap();
    bytes
}

/// As smux's own client and server wrote it.
#[tokio::test]
async fn two_streams_of_smux_share_a_connection() {
    let (session, mut far) = pair(Dialect::Smux);
    let mut first = session.open().await.unwrap();
    let mut second = session.open().await.unwrap();
    want(
        &read::<16>(&mut far).await,
        b"\x01\0\0\0\x03\0\0\0\x01\0\0\0\x05\0\0\0",
    );
    first.write_all(b"hi").await.unwrap();
    want(&read::<10>(&mut far).await, b"\x01\x02\x02\0\x03\0\0\0hi");
    far.write_all(b"\x01\x03\0\0\0\0\0\0\x01\x02\x02\0\x05\0\0\0yo\x01\x01\0\0\x05\0\0\0")
        .await
        .unwrap();
    let mut text = String::new();
    second.read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "yo");
    assert_eq!(session.usage().streams(), 2);
    first.shutdown().await.unwrap();
    want(&read::<8>(&mut far).await, b"\x01\x01\0\0\x03\0\0\0");
    drop((first, second));
    want(&read::<8>(&mut far).await, b"\x01\x01\0\0\x05\0\0\0");
    assert_eq!(session.usage().streams(), 0);
    drop(far);
    while !session.usage().is_over() {
        tokio::task::yield_now().await;
    }
    assert!(session.open().await.is_err());
}

#[tokio::test]
async fn a_stream_of_yamux_keeps_to_its_windows() {
    let (session, mut far) = pair(Dialect::Yamux);
    let stream = session.open().await.unwrap();
    want(
        &read::<12>(&mut far).await,
        b"\0\x01\0\x01\0\0\0\x01\0\0\0\0",
    );
    let (mut reader, mut writer) = tokio::io::split(stream);
    let window = WINDOW as usize;
    let text = vec![7; window + 5];
    let client = async {
        writer.write_all(&text).await.unwrap();
        let mut got = vec![0; window];
        reader.read_exact(&mut got).await.unwrap();
        reader.read_to_end(&mut Vec::new()).await.unwrap()
    };
    let server = async {
        let mut sent = 0;
        while sent < window {
            let [.., b, c, d] = read::<12>(&mut far).await;
            let mut payload = vec![0; u32::from_be_bytes([0, b, c, d]) as usize];
            far.read_exact(&mut payload).await.unwrap();
            sent += payload.len();
        }
        assert_eq!(sent, window);
        // A ping is answered, and nothing else comes before there is credit.
        far.write_all(b"\0\x02\0\x01\0\0\0\0\0\0\0\x07")
            .await
            .unwrap();
        want(
            &read::<12>(&mut far).await,
            b"\0\x02\0\x02\0\0\0\0\0\0\0\x07",
        );
        far.write_all(b"\0\x01\0\0\0\0\0\x01\0\0\0\x05")
            .await
            .unwrap();
        let last = read::<17>(&mut far).await;
        want(&last, b"\0\0\0\0\0\0\0\x01\0\0\0\x05\x07\x07\x07\x07\x07");
        far.write_all(b"\0\0\0\0\0\0\0\x01\0\x04\0\0")
            .await
            .unwrap();
        far.write_all(&text[5..]).await.unwrap();
        let mut credit = 0;
        while credit < WINDOW / 2 {
            let [0, 1, 0, 0, 0, 0, 0, 1, a, b, c, d] = read::<12>(&mut far).await else {
                panic!("no credit");
            };
            credit += u32::from_be_bytes([a, b, c, d]);
        }
        // Its last bytes, with the end.
        far.write_all(b"\0\0\0\x04\0\0\0\x01\0\0\0\x02ok")
            .await
            .unwrap();
    };
    let (rest, ()) = tokio::join!(client, server);
    assert_eq!(rest, 2);
}

#[tokio::test]
async fn a_peer_that_sends_beyond_the_window_loses_the_session() {
    let (session, mut far) = pair(Dialect::Yamux);
    let mut stream = session.open().await.unwrap();
    far.write_all(b"\0\0\0\0\0\0\0\x01\0\x04\0\x01")
        .await
        .unwrap();
    assert!(stream.read_u8().await.is_err());
    assert!(session.usage().is_over());
}

#[tokio::test]
async fn a_stream_that_is_dropped_is_reset_and_what_still_comes_is_passed_over() {
    let (session, mut far) = pair(Dialect::Yamux);
    drop(session.open().await.unwrap());
    let mut other = session.open().await.unwrap();
    read::<12>(&mut far).await;
    want(
        &read::<12>(&mut far).await,
        b"\0\x01\0\x08\0\0\0\x01\0\0\0\0",
    );
    far.write_all(b"\0\0\0\0\0\0\0\x01\0\0\0\x03old\0\0\0\0\0\0\0\x03\0\0\0\x03new")
        .await
        .unwrap();
    want(
        &{
            let mut text = [0; 3];
            other.read_exact(&mut text).await.unwrap();
            text
        },
        b"new",
    );
    // The peer leaves: this stream lives on, another cannot begin.
    far.write_all(b"\0\x03\0\0\0\0\0\0\0\0\0\0").await.unwrap();
    far.write_all(b"\0\x01\0\x08\0\0\0\x03\0\0\0\0")
        .await
        .unwrap();
    assert!(other.read_u8().await.is_err());
    assert!(session.open().await.is_err());
}

#[tokio::test]
async fn a_session_that_nobody_holds_ends_with_its_last_stream() {
    let (session, mut far) = pair(Dialect::Smux);
    let mut stream = session.open().await.unwrap();
    drop(session);
    stream.write_all(b"hi").await.unwrap();
    want(
        &read::<18>(&mut far).await[8..],
        b"\x01\x02\x02\0\x03\0\0\0hi",
    );
    drop(stream);
    let mut rest = Vec::new();
    let reading = far.read_to_end(&mut rest);
    tokio::time::timeout(LOOK_TIME / 2, reading)
        .await
        .unwrap()
        .unwrap();
    want(&rest, b"\x01\x01\0\0\x03\0\0\0");
}
