//! Documents without end, over HTTP and WebSocket.

use super::*;

#[test]
fn http_streams_are_lines_of_a_chunked_body() {
    run(async {
        let rig = Rig::new(Options::default());
        let mut stream = rig.connect().await;
        let flow = open_flow(&rig);
        let request = b"GET /traffic HTTP/1.1\r\nHost: x\r\n\r\n";
        stream.write_all(request).await.unwrap();
        let mut text = String::new();
        while !text.contains("\r\n\r\n") {
            let mut bytes = [0; 512];
            let read = stream.read(&mut bytes).await.unwrap();
            text.push_str(std::str::from_utf8(&bytes[..read]).unwrap());
        }
        assert!(
            text.contains("\r\nTransfer-Encoding: chunked\r\n\r\n"),
            "{text}"
        );
        rig.control.tunnel.connections().count_download(&flow, 5);
        let mut bytes = [0; 512];
        let read = stream.read(&mut bytes).await.unwrap();
        let document = "{\"up\":0,\"down\":5,\"upTotal\":0,\"downTotal\":5}\n";
        let chunk = format!("{:x}\r\n{document}\r\n", document.len());
        assert_eq!(std::str::from_utf8(&bytes[..read]).unwrap(), chunk);
    });
}

async fn websocket(rig: &Rig, target: &str) -> tokio_tungstenite::WebSocketStream<TcpStream> {
    let url = format!("ws://{}{target}", rig.address());
    let stream = rig.connect().await;
    let (socket, response) = tokio_tungstenite::client_async(url, stream).await.unwrap();
    assert_eq!(response.status(), 101);
    socket
}

async fn document(socket: &mut tokio_tungstenite::WebSocketStream<TcpStream>) -> Value {
    loop {
        if let Message::Text(text) = socket.next().await.unwrap().unwrap() {
            assert!(text.ends_with('\n'));
            return serde_json::from_str(&text).unwrap();
        }
    }
}

#[test]
fn websockets_carry_the_feeds() {
    run(async {
        let rig = Rig::new(with_secret());
        for _ in 0..100 {
            open_flow(&rig);
        }
        let mut connections = websocket(&rig, "/connections?token=s3cret&interval=100").await;
        for _ in 0..2 {
            let list = document(&mut connections).await;
            assert_eq!(list["connections"].as_array().unwrap().len(), 100);
        }
        connections.send(Message::Ping("hi".into())).await.unwrap();
        loop {
            if let Message::Pong(payload) = connections.next().await.unwrap().unwrap() {
                assert_eq!(&*payload, b"hi");
                break;
            }
        }
        connections.close(None).await.unwrap();
        while let Some(message) = connections.next().await {
            message.unwrap();
        }
        let mut memory = websocket(&rig, "/memory?token=s3cret").await;
        assert_eq!(document(&mut memory).await["inuse"], 0);
        assert_eq!(document(&mut memory).await["inuse"], 4_000_000);
    });
}

#[test]
fn logs_are_told_at_the_level_asked_for() {
    run(async {
        let rig = Rig::new(with_secret());
        let mut plain = websocket(&rig, "/logs?token=s3cret&level=debug").await;
        let mut long = websocket(&rig, "/logs?token=s3cret&format=structured&level=warning").await;
        log::debug!(target: "headgate::test", "one <tag>");
        log::warn!(target: "headgate::test", "two");
        // Other tests log as well.
        let mine =
            |line: &Value, member: &str| matches!(line[member].as_str(), Some("one <tag>" | "two"));
        let mut line = document(&mut plain).await;
        while !mine(&line, "payload") {
            line = document(&mut plain).await;
        }
        assert_eq!(
            line,
            serde_json::json!({"type": "debug", "payload": "one <tag>"})
        );
        let mut line = document(&mut long).await;
        while !mine(&line, "message") {
            line = document(&mut long).await;
        }
        assert_eq!(
            (&line["level"], &line["message"]),
            (&"warn".into(), &"two".into())
        );
    });
}
