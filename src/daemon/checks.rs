//! The periodic tests of groups: one task that sleeps until some group's check is due, over one
//! configuration. Without a group that must test it sleeps until it is woken, and a lazy group
//! that nobody uses has no timer.

use std::sync::Arc;
use std::time::Instant;

use futures_util::FutureExt;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::task::JoinHandle;
use tokio::time::sleep_until;

use crate::outbound::group::check::Due;
use crate::outbound::registry::Registry;
use crate::platform::clock;

/// The running tests. Dropping it ends them.
#[derive(Default)]
pub struct Checks(Option<JoinHandle<()>>);

impl Checks {
    /// Tests the groups of `registry` from now on, and no others.
    pub fn follow(&mut self, registry: Arc<Registry>, unified: bool) {
        self.stop();
        self.0 = Some(tokio::spawn(run(registry, unified).boxed()));
    }

    /// Ends the tests.
    pub fn stop(&mut self) {
        if let Some(task) = self.0.take() {
            task.abort();
        }
    }
}

impl Drop for Checks {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Tests each group when it is due. Rounds of several groups may overlap; an outbound that they
/// share is tested once, and `outbound::probe` bounds the tests that run at a time.
async fn run(registry: Arc<Registry>, unified: bool) {
    let groups: Vec<_> = registry.tested().collect();
    let mut running = FuturesUnordered::new();
    let mut busy = vec![false; groups.len()];
    loop {
        let now = clock::now();
        let mut next: Option<Instant> = None;
        for (index, (group, busy)) in groups.iter().zip(&mut busy).enumerate() {
            if *busy {
                continue;
            }
            match group.check().due() {
                Due::At(time) if time > now => {
                    next = Some(next.map_or(time, |earlier| earlier.min(time)));
                }
                Due::Now | Due::At(_) => {
                    *busy = true;
                    running.push(async move {
                        group.test(unified).await;
                        index
                    });
                }
                Due::Used | Due::Never => {}
            }
        }
        tokio::select! {
            Some(index) = running.next() => {
                if let Some(busy) = busy.get_mut(index) {
                    *busy = false;
                }
            }
            () = registry.wake().notified() => {}
            () = sleep_until(next.unwrap_or(now).into()), if next.is_some() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::io;
    use std::net::{IpAddr, SocketAddr};
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;
    use crate::metadata::{Endpoint, InboundType, Metadata, Network};
    use crate::outbound::dial::Environment;
    use crate::outbound::options::{
        DialOptions, GroupKind, GroupOptions, Protocol, ProxyOptions, ServerAddress, Socks5Options,
        TestOptions,
    };
    use crate::outbound::{BoxFuture, IpVersion, Outbound, Purpose, Resolve};

    struct NoNames;

    impl Resolve for NoNames {
        fn resolve<'a>(
            &'a self,
            _: &'a str,
            _: IpVersion,
            _: Purpose,
        ) -> BoxFuture<'a, io::Result<Vec<IpAddr>>> {
            Box::pin(std::future::ready(Err(io::ErrorKind::NotFound.into())))
        }
    }

    /// A SOCKS5 server that plays the web server behind it.
    struct Node {
        port: u16,
        task: tokio::task::JoinSet<()>,
    }

    impl Node {
        async fn start() -> Self {
            let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
            let port = listener.local_addr().unwrap().port();
            let mut task = tokio::task::JoinSet::new();
            task.spawn(async move {
                while let Ok((stream, _)) = listener.accept().await {
                    // A client that is gone is no concern of the test.
                    let _ = answer(stream).await;
                }
            });
            Self { port, task }
        }

        /// Ends it: its port refuses connections then.
        async fn stop(mut self) {
            self.task.shutdown().await;
        }
    }

    async fn answer(mut stream: TcpStream) -> io::Result<()> {
        let mut greeting = [0; 3];
        stream.read_exact(&mut greeting).await?;
        stream.write_all(&[5, 0]).await?;
        let mut request = [0; 10];
        stream.read_exact(&mut request).await?;
        stream.write_all(&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0]).await?;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await?);
        }
        assert!(head.starts_with(b"HEAD /check HTTP/1.1\r\nHost: 192.0.2.1\r\n"));
        stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await
    }

    fn proxy(name: &str, port: u16) -> ProxyOptions {
        ProxyOptions {
            mux: None,
            name: name.into(),
            protocol: Protocol::Socks5(Socks5Options {
                server: ServerAddress {
                    host: "127.0.0.1".into(),
                    port,
                },
                credentials: None,
                tls: None,
            }),
            udp: false,
            dial: DialOptions::default(),
        }
    }

    fn registry(ports: [u16; 2]) -> Arc<Registry> {
        let environment = Environment {
            resolver: Arc::new(NoNames),
            own_mark: 0,
            routing_mark: 0,
            interface: None,
            ipv6: true,
            reach: Arc::default(),
        };
        let group = GroupOptions {
            proxies: vec!["a".into(), "b".into()],
            test: TestOptions {
                url: "http://192.0.2.1/check".into(),
                interval: Duration::from_secs(300),
                ..TestOptions::default()
            },
            ..GroupOptions::new("g", GroupKind::Fallback)
        };
        let proxies = [proxy("a", ports[0]), proxy("b", ports[1])];
        let none = HashMap::new();
        Arc::new(Registry::build(&proxies, &[], &[group], &environment, &none, None).unwrap())
    }

    fn flow() -> Metadata {
        Metadata::new(
            Network::Tcp,
            InboundType::Socks5,
            &Arc::from("x"),
            SocketAddr::from(([127, 0, 0, 1], 1)),
            Endpoint::parse("192.0.2.1:80").unwrap(),
        )
    }

    async fn until(mut done: impl FnMut() -> bool) {
        let waiting = async {
            while !done() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), waiting)
            .await
            .expect("done in time");
    }

    #[test]
    fn a_refused_dial_brings_a_round_that_moves_the_group_on() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let (first, second) = (Node::start().await, Node::start().await);
            let registry = registry([first.port, second.port]);
            let group: &dyn Outbound = &*registry.groups()[0];
            let health = |name: &str| Arc::clone(registry.health(name).unwrap());
            let mut checks = Checks::default();
            checks.follow(Arc::clone(&registry), false);
            until(|| health("a").tests("http://192.0.2.1/check") == 1).await;
            until(|| health("b").tests("http://192.0.2.1/check") == 1).await;
            assert!(health("a").delay("http://192.0.2.1/check") >= 1);
            assert_eq!(&**group.selected(None).unwrap().name(), "a");

            first.stop().await;
            let node = group.selected(Some(&flow())).unwrap();
            let refused = node.connect(&flow()).await.err().unwrap();
            group.dialled(node.kind(), Some(&refused));
            until(|| &**group.selected(None).unwrap().name() == "b").await;
            checks.stop();
        });
    }
}
