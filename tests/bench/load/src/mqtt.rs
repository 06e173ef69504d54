//! The load of the MQTT cases: one thread that is every publisher and every subscriber.
//!
//! `load mqtt ADDRESS PORT PATTERN QOS RATE SECONDS`: PATTERN is `p2p` (1→1), `ten` (ten pairs), `fanout`
//! (1→500) or `fanin` (500→1); RATE messages a second, 0: as many as go. Nobody is more than a window
//! ahead of the slowest subscriber, so a broker with bounded queues drops nothing for want of patience.
//! `load mqtt-connect ADDRESS PORT PARALLEL SECONDS`: clients that connect, are let in and say good-bye.
//! `load mqtt-idle ADDRESS PORT COUNT SUBSCRIBE SECONDS`: connections that are still.
//! `load mqtt-subscribe ADDRESS PORT COUNT SECONDS`: distinct subscriptions of a hundred clients.
//! `load mqtt-retain ADDRESS PORT COUNT SECONDS`: retained messages of 64 bytes, confirmed.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

const PAYLOAD: usize = 64;

/// Messages that a subscriber may be behind.
const WINDOW: u64 = 500;

/// Messages of QoS 1 and 2 that a publisher has unconfirmed.
const INFLIGHT: u64 = 20;

struct Client {
    stream: TcpStream,
    input: Vec<u8>,
    output: Vec<u8>,
    received: u64,
    sent: u64,
    confirmed: u64,
}

impl Client {
    fn connect(at: SocketAddr, name: &str) -> Self {
        let mut stream = TcpStream::connect(at).expect("connect");
        let _ = stream.set_nodelay(true);
        let mut packet = b"\x00\x04MQTT\x04\x02\x00\x00".to_vec();
        text(&mut packet, name);
        stream.write_all(&framed(0x10, &packet)).expect("CONNECT");
        let mut answer = [0; 4];
        stream.read_exact(&mut answer).expect("CONNACK");
        assert_eq!(answer, [0x20, 2, 0, 0]);
        Self { stream, input: Vec::new(), output: Vec::new(), received: 0, sent: 0, confirmed: 0 }
    }

    fn subscribe(&mut self, filter: &str, qos: u8) {
        let mut packet = vec![0, 1];
        text(&mut packet, filter);
        packet.push(qos);
        self.stream.write_all(&framed(0x82, &packet)).expect("SUBSCRIBE");
        let mut answer = [0; 5];
        self.stream.read_exact(&mut answer).expect("SUBACK");
        assert_eq!(answer, [0x90, 3, 0, 1, qos]);
    }

    fn flush(&mut self) {
        while !self.output.is_empty() {
            match self.stream.write(&self.output) {
                Ok(n) => drop(self.output.drain(..n)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) => panic!("write: {error}"),
            }
        }
    }

    /// Reads what is there; calls back for each message.
    fn read(&mut self, chunk: &mut [u8], mut message: impl FnMut(&[u8])) {
        let n = match self.stream.read(chunk) {
            Ok(0) => panic!("the broker closed a connection"),
            Ok(n) => n,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return,
            Err(error) => panic!("read: {error}"),
        };
        let mut held = std::mem::take(&mut self.input);
        held.extend_from_slice(&chunk[..n]);
        let mut at = 0;
        while let Some(length) = whole(&held[at..]) {
            let packet = &held[at..at + length];
            at += length;
            match packet[0] >> 4 {
                3 => {
                    self.received += 1;
                    let body = &packet[2..];
                    let topic = 2 + usize::from(u16::from_be_bytes([body[0], body[1]]));
                    let qos = packet[0] >> 1 & 3;
                    if qos > 0 {
                        let answer = if qos == 1 { 0x40 } else { 0x50 };
                        self.output.extend([answer, 2, body[topic], body[topic + 1]]);
                        message(&body[topic + 2..]);
                    } else {
                        message(&body[topic..]);
                    }
                }
                4 | 7 => self.confirmed += 1,
                5 => self.output.extend([0x62, 2, packet[2], packet[3]]),
                6 => self.output.extend([0x70, 2, packet[2], packet[3]]),
                other => panic!("packet type {other}"),
            }
        }
        held.drain(..at);
        self.input = held;
    }
}

fn text(out: &mut Vec<u8>, text: &str) {
    out.extend(u16::try_from(text.len()).expect("short").to_be_bytes());
    out.extend(text.as_bytes());
}

/// Packets of the load are short: the length is one byte.
fn framed(first: u8, body: &[u8]) -> Vec<u8> {
    let mut packet = vec![first, u8::try_from(body.len()).expect("short")];
    assert!(body.len() < 128);
    packet.extend(body);
    packet
}

fn whole(bytes: &[u8]) -> Option<usize> {
    let length = 2 + usize::from(*bytes.get(1)?);
    (bytes.len() >= length).then_some(length)
}

/// Who publishes where, and which clients subscribe to it.
struct Source {
    client: usize,
    topic: String,
    subscribers: std::ops::Range<usize>,
}

pub fn load(at: SocketAddr, pattern: &str, qos: u8, rate: u64, seconds: u64) {
    let (publishers, subscribers) = match pattern {
        "p2p" => (1, 1),
        "ten" => (10, 10),
        "fanout" => (1, 500),
        "fanin" => (500, 1),
        other => panic!("no such pattern: {other}"),
    };
    let mut clients: Vec<Client> = (0..subscribers).map(|n| Client::connect(at, &format!("sub{n}"))).collect();
    for (n, client) in clients.iter_mut().enumerate() {
        let filter = match pattern {
            "ten" => format!("b/{n}/x"),
            "fanin" => "b/+/x".to_owned(),
            _ => "b/0/x".to_owned(),
        };
        client.subscribe(&filter, qos);
    }
    clients.extend((0..publishers).map(|n| Client::connect(at, &format!("pub{n}"))));
    let sources: Vec<Source> = (0..publishers)
        .map(|n| Source {
            client: subscribers + n,
            topic: format!("b/{n}/x"),
            subscribers: if pattern == "ten" { n..n + 1 } else { 0..subscribers },
        })
        .collect();
    let epoll = Epoll::new(EpollCreateFlags::empty()).expect("epoll");
    for (n, client) in clients.iter().enumerate() {
        client.stream.set_nonblocking(true).expect("nonblocking");
        epoll.add(&client.stream, EpollEvent::new(EpollFlags::EPOLLIN, n as u64)).expect("epoll");
    }
    let began = Instant::now();
    let end = began + Duration::from_secs(seconds);
    let (mut chunk, mut latencies, mut grace) = (vec![0; 65536], Vec::new(), None);
    let mut events = vec![EpollEvent::empty(); 1024];
    let fan = if pattern == "fanin" { publishers as u64 } else { 1 };
    loop {
        let now = Instant::now();
        if now < end {
            let due = began.elapsed().as_micros() as u64 * rate / 1_000_000 / publishers as u64;
            for source in &sources {
                let slowest = source.subscribers.clone().map(|n| clients[n].received).min().unwrap_or(0);
                let client = &mut clients[source.client];
                let unconfirmed = if qos == 0 { 0 } else { client.sent - client.confirmed };
                // All of a fan-in's publishers share the one subscriber's window.
                let behind = (client.sent * fan).saturating_sub(slowest);
                let ahead = (WINDOW.max(fan).saturating_sub(behind) / fan).min(INFLIGHT.max(if qos == 0 { WINDOW } else { 0 }) - unconfirmed.min(INFLIGHT));
                let wanted = if rate == 0 { ahead } else { due.saturating_sub(client.sent).min(ahead) };
                for _ in 0..wanted {
                    publish(client, &source.topic, qos, began);
                }
                client.flush();
            }
        } else {
            // What is on its way may arrive.
            let grace = *grace.get_or_insert(now + Duration::from_secs(2));
            let expected: u64 = sources.iter().map(|s| clients[s.client].sent * s.subscribers.len() as u64).sum();
            let got: u64 = clients[..subscribers].iter().map(|c| c.received).sum();
            if got >= expected || now > grace {
                report(&mut latencies, got, expected.saturating_sub(got), seconds);
                return;
            }
        }
        let wait = if rate == 0 { 20_u8 } else { 1 };
        let ready = epoll.wait(&mut events, EpollTimeout::from(wait)).expect("epoll");
        for event in &events[..ready] {
            let client = &mut clients[usize::try_from(event.data()).expect("an index")];
            client.read(&mut chunk, |payload| {
                if rate > 0 && let Some(sent) = payload.first_chunk() {
                    let micros = began.elapsed().as_micros() as u64;
                    latencies.push(micros.saturating_sub(u64::from_be_bytes(*sent)));
                }
            });
            client.flush();
        }
    }
}

fn publish(client: &mut Client, topic: &str, qos: u8, began: Instant) {
    client.sent += 1;
    let mut body = Vec::with_capacity(PAYLOAD + 32);
    text(&mut body, topic);
    if qos > 0 {
        let id = u16::try_from(client.sent % 60_000 + 1).expect("small");
        body.extend(id.to_be_bytes());
    }
    body.extend((began.elapsed().as_micros() as u64).to_be_bytes());
    body.extend([b'x'; PAYLOAD - 8]);
    let packet = framed(0x30 | qos << 1, &body);
    client.output.extend(packet);
}

fn report(latencies: &mut [u64], got: u64, lost: u64, seconds: u64) {
    latencies.sort_unstable();
    let at = |part: usize| latencies.get(latencies.len() * part / 100).copied().unwrap_or(0);
    println!("deliveries {got} rate {} lost {lost} p50 {} p99 {}", got / seconds, at(50), at(99));
}

/// One client without a name, whose connection the broker closes.
pub fn connect(at: SocketAddr) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(at)?;
    stream.write_all(&framed(0x10, b"\x00\x04MQTT\x04\x02\x00\x00\x00\x00"))?;
    let mut answer = [0; 4];
    stream.read_exact(&mut answer)?;
    stream.write_all(&[0xe0, 0])?;
    let closed = stream.read(&mut answer)? == 0;
    closed.then_some(()).ok_or(ErrorKind::InvalidData.into())
}

pub fn idle(at: SocketAddr, count: u64, subscribe: bool, seconds: u64) {
    let held: Vec<Client> = (0..count)
        .map(|n| {
            let mut client = Client::connect(at, &format!("idle{n}"));
            if subscribe {
                client.subscribe(&format!("idle/{n}/state"), 1);
            }
            client
        })
        .collect();
    println!("held {}", held.len());
    std::thread::sleep(Duration::from_secs(seconds));
}

pub fn subscribe(at: SocketAddr, count: u64, seconds: u64) {
    let mut clients: Vec<Client> = (0..100).map(|n| Client::connect(at, &format!("many{n}"))).collect();
    for (n, client) in (0..count).zip((0..100).cycle()) {
        clients[client].subscribe(&format!("site/{}/device/{}/state", n / 100, n % 100), 1);
    }
    println!("held {count}");
    std::thread::sleep(Duration::from_secs(seconds));
}

pub fn retain(at: SocketAddr, count: u64, seconds: u64) {
    let mut client = Client::connect(at, "retain");
    let mut chunk = vec![0; 65536];
    while client.confirmed < count {
        while client.sent < count && client.sent - client.confirmed < INFLIGHT {
            client.sent += 1;
            let mut body = Vec::new();
            text(&mut body, &format!("ret/{}/{}", client.sent / 100, client.sent % 100));
            body.extend([0, u8::try_from(client.sent % 200 + 1).expect("small")]);
            body.extend([b'x'; PAYLOAD]);
            let packet = framed(0x33, &body);
            client.output.extend(packet);
        }
        client.flush();
        client.read(&mut chunk, |_| {});
    }
    println!("held {}", client.confirmed);
    std::thread::sleep(Duration::from_secs(seconds));
}
