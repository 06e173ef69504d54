//! What the tests of inbounds share: a port, and a dispatch that goes straight to the target.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream, UdpSocket};

use super::Port;
use super::access::Access;
use super::listen::{Listener, Sharing};
use super::mixed::Proxy;
use super::options::ListenerKind;
use crate::metadata::{Endpoint, Metadata};
use crate::outbound::options::Credentials;
use crate::outbound::{BoxFuture, Stream};
use crate::tunnel::admission::Admission;
use crate::tunnel::flow::{Dispatch, ReplySink};

/// Connects every flow to its destination, and notes what it was told.
#[derive(Default)]
pub(super) struct Direct {
    pub(super) flows: Mutex<Vec<(Metadata, &'static str)>>,
}

impl Dispatch for Direct {
    fn stream(&self, metadata: Metadata, client: Stream) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let to = metadata.destination().to_string();
            let kind = if matches!(client, Stream::Tcp(_)) {
                "tcp"
            } else {
                "boxed"
            };
            self.flows.lock().unwrap().push((metadata, kind));
            let Ok(mut server) = TcpStream::connect(to).await else {
                return;
            };
            let _end = match client {
                Stream::Tcp(mut client) => copy_bidirectional(&mut client, &mut server).await,
                Stream::Boxed(mut client) => copy_bidirectional(&mut client, &mut server).await,
                Stream::Shedding(mut client) => copy_bidirectional(&mut client, &mut server).await,
                Stream::Closed | Stream::Silent => return,
            };
        })
    }

    fn datagram(
        &self,
        source: SocketAddr,
        to: Endpoint,
        payload: &[u8],
        reply: &Arc<dyn ReplySink>,
        describe: &dyn Fn() -> Metadata,
    ) {
        self.flows.lock().unwrap().push((describe(), "datagram"));
        let (payload, reply) = (payload.to_vec(), Arc::clone(reply));
        tokio::spawn(async move {
            let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
            socket.send_to(&payload, to.to_string()).await.unwrap();
            let mut buffer = [0; 2048];
            let (length, from) = socket.recv_from(&mut buffer).await.unwrap();
            reply.reply(source, &from.into(), &buffer[..length]);
        });
    }
}

/// A port of this kind that everybody may use.
pub(super) fn port(kind: ListenerKind) -> Port {
    Port {
        name: "test".into(),
        kind,
        address: (Ipv4Addr::LOCALHOST, 0).into(),
        udp: true,
        access: Arc::new(Access::default()),
        proxy: Some("via".into()),
        target: None,
        server: None,
    }
}

/// A port for user `u` with password `p`, and user `alone` without one.
pub(super) fn closed_port(kind: ListenerKind) -> Port {
    let user = |username: &str, password: &str| Credentials {
        username: username.into(),
        password: password.into(),
        ..Credentials::default()
    };
    Port {
        access: Arc::new(Access::new(&[user("u", "p"), user("alone", "")], &[])),
        ..port(kind)
    }
}

/// Runs `test` against a proxy on `port`; gives the flows that the proxy dispatched.
pub(super) async fn with_proxy(
    port: Port,
    test: impl AsyncFnOnce(SocketAddr),
) -> Vec<(Metadata, &'static str)> {
    let direct = Arc::new(Direct::default());
    let listener = Listener::bind(port.address, Sharing::Exclusive).unwrap();
    let address = listener.address();
    let dispatch: Arc<dyn Dispatch> = Arc::<Direct>::clone(&direct);
    let proxy = Arc::new(Proxy::new(&port, address, dispatch));
    tokio::select! {
        () = listener.serve(proxy, Admission::new(Arc::default())) => {}
        () = test(address) => {}
    }
    std::mem::take(&mut direct.flows.lock().unwrap())
}

/// A server that answers the nth connection with the nth script: for each request that ends
/// with `end`, the next answer; then it closes. Gives its address and what it received.
pub(super) async fn server(
    scripts: Vec<Vec<(&'static str, &'static str)>>,
) -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let received = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&received);
    tokio::spawn(async move {
        for script in scripts {
            let (mut socket, _) = listener.accept().await.unwrap();
            for (end, answer) in script {
                let request = read_until(&mut socket, end).await;
                log.lock().unwrap().push(request);
                socket.write_all(answer.as_bytes()).await.unwrap();
            }
        }
    });
    (address, received)
}

/// Reads until what was read ends with `end`, or the connection does.
pub(super) async fn read_until(socket: &mut TcpStream, end: &str) -> String {
    let mut bytes = Vec::new();
    while !bytes.ends_with(end.as_bytes()) {
        match socket.read_u8().await {
            Ok(byte) => bytes.push(byte),
            Err(_) => break,
        }
    }
    String::from_utf8(bytes).unwrap()
}

/// Sends `bytes` and reads until what came ends with `end`, or the connection does.
pub(super) async fn ask(socket: &mut TcpStream, bytes: &[u8], end: &str) -> String {
    socket.write_all(bytes).await.unwrap();
    read_until(socket, end).await
}
