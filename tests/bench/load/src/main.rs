//! The load side of the relay benchmarks: cheap servers, and clients that print one figure a line.
//!
//! `load serve ADDRESS PORT`: PORT echoes 64 bytes and closes; PORT+1 sends or discards bulk;
//! PORT+2 echoes one byte and keeps the connection; PORT+3 (UDP) echoes datagrams.
//! `load CASE ADDRESS PORT …`: `bulk-down|bulk-up STREAMS SECONDS`, `short PARALLEL SECONDS`,
//! `rtt SECONDS`, `idle COUNT SECONDS`, `udp FLOWS WINDOW SIZE SECONDS`.
//! `mqtt …`, `mqtt-connect …`, `mqtt-idle …`, `mqtt-subscribe …`, `mqtt-retain …`: see `mqtt.rs`.
//! ADDRESS is an IPv4 or IPv6 literal. Every case ends by itself.

mod mqtt;

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::sendfile::sendfile;
use nix::sys::socket::{MsgFlags, recv};

const MESSAGE: usize = 64;

/// What a bulk source sends, again and again.
const BLOCK: usize = 1 << 20;

fn main() {
    raise_descriptor_limit();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let text = |i: usize| arguments.get(i).map_or("", String::as_str);
    let number = |i: usize| text(i).parse::<u64>().unwrap_or_else(|_| panic!("argument {i} is no number"));
    let address: IpAddr = text(1).parse().expect("an address");
    let port = u16::try_from(number(2)).expect("a port");
    let at = move |offset: u16| SocketAddr::new(address, port + offset);
    match text(0) {
        "serve" => serve(&at),
        "bulk-down" => bulk(at(1), b'D', number(3), number(4)),
        "bulk-up" => bulk(at(1), b'U', number(3), number(4)),
        "short" => short(at(0), number(3), number(4)),
        "rtt" => round_trips(at(2), number(3)),
        "idle" => idle(at(2), number(3), number(4)),
        "udp" => udp(at(3), number(3), number(4), usize::try_from(number(5)).expect("a size"), number(6)),
        "mqtt" => mqtt::load(at(0), text(3), u8::try_from(number(4)).expect("a QoS"), number(5), number(6)),
        "mqtt-connect" => again(number(3), number(4), move || mqtt::connect(at(0))),
        "mqtt-idle" => mqtt::idle(at(0), number(3), number(4) == 1, number(5)),
        "mqtt-subscribe" => mqtt::subscribe(at(0), number(3), number(4)),
        "mqtt-retain" => mqtt::retain(at(0), number(3), number(4)),
        other => panic!("no such case: {other}"),
    }
}

fn raise_descriptor_limit() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}

fn serve(at: &dyn Fn(u16) -> SocketAddr) {
    let echo = Arc::new(TcpListener::bind(at(0)).expect("bind echo"));
    for _ in 0..8 {
        let echo = Arc::clone(&echo);
        thread::spawn(move || {
            loop {
                let Ok((mut stream, _)) = echo.accept() else { continue };
                let mut message = [0; MESSAGE];
                if stream.read_exact(&mut message).is_ok() {
                    let _ = stream.write_all(&message);
                }
            }
        });
    }
    let bulk = TcpListener::bind(at(1)).expect("bind bulk");
    thread::spawn(move || {
        for stream in bulk.incoming().flatten() {
            thread::spawn(move || serve_bulk(stream));
        }
    });
    let keep = TcpListener::bind(at(2)).expect("bind keep");
    thread::spawn(move || {
        for stream in keep.incoming().flatten() {
            let mut stream = stream;
            let _ = stream.set_nodelay(true);
            let mut first = [0; 1];
            if stream.read_exact(&mut first).is_err() {
                continue;
            }
            let _ = stream.write_all(&first);
            match first {
                // Idle: stays open until the peer ends.
                [b'I'] => std::mem::forget(stream),
                _ => {
                    thread::spawn(move || {
                        let mut message = [0; MESSAGE];
                        while stream.read_exact(&mut message).is_ok() && stream.write_all(&message).is_ok() {}
                    });
                }
            }
        }
    });
    let socket = UdpSocket::bind(at(3)).expect("bind udp");
    let mut buffer = [0; 2048];
    loop {
        if let Ok((n, from)) = socket.recv_from(&mut buffer) {
            let _ = socket.send_to(&buffer[..n], from);
        }
    }
}

fn serve_bulk(mut stream: TcpStream) {
    let mut order = [0];
    if stream.read_exact(&mut order).is_err() {
        return;
    }
    let count = AtomicU64::new(0);
    if order == *b"D" { pour(&stream, &count) } else { discard(&stream, &count) }
}

/// Sends zeros without copying them from user space, until the peer ends.
fn pour(stream: &TcpStream, count: &AtomicU64) {
    let block: OwnedFd = memfd_create("block", MFdFlags::empty()).expect("memfd");
    std::fs::File::from(block.try_clone().expect("clone")).set_len(BLOCK as u64).expect("size");
    loop {
        let mut offset = 0;
        match sendfile(stream, &block, Some(&mut offset), BLOCK) {
            Ok(n @ 1..) => count.fetch_add(n as u64, Relaxed),
            _ => return,
        };
    }
}

/// Drops what arrives without copying it to user space.
fn discard(stream: &TcpStream, count: &AtomicU64) {
    let mut place = vec![0; 1 << 20];
    while let Ok(n @ 1..) = recv(stream.as_raw_fd(), &mut place, MsgFlags::MSG_TRUNC) {
        count.fetch_add(n as u64, Relaxed);
    }
}

fn bulk(to: SocketAddr, order: u8, streams: u64, seconds: u64) {
    let count = Arc::new(AtomicU64::new(0));
    let mut handles = Vec::new();
    for _ in 0..streams {
        let count = Arc::clone(&count);
        let mut stream = TcpStream::connect(to).expect("connect");
        stream.write_all(&[order]).expect("order");
        let control = stream.try_clone().expect("clone");
        let worker = thread::spawn(move || if order == b'D' { discard(&stream, &count) } else { pour(&stream, &count) });
        handles.push((control, worker));
    }
    let begin = Instant::now();
    thread::sleep(Duration::from_secs(seconds));
    let (bytes, elapsed) = (count.load(Relaxed), begin.elapsed());
    println!("bytes {bytes} seconds {:.3} gbit {:.2}", elapsed.as_secs_f64(), bytes as f64 * 8e-9 / elapsed.as_secs_f64());
    for (control, worker) in handles {
        let _ = control.shutdown(std::net::Shutdown::Both);
        let _ = worker.join();
    }
}

fn short(to: SocketAddr, parallel: u64, seconds: u64) {
    again(parallel, seconds, move || {
        let mut message = [7; MESSAGE];
        let mut stream = TcpStream::connect(to)?;
        stream.write_all(&message)?;
        stream.read_exact(&mut message)
    });
}

/// Does something again and again on so many threads, each time with a connection of its own.
fn again(parallel: u64, seconds: u64, once: impl Fn() -> std::io::Result<()> + Copy + Send + 'static) {
    let begin = Instant::now();
    let end = begin + Duration::from_secs(seconds);
    let workers: Vec<_> = (0..parallel)
        .map(|_| {
            thread::spawn(move || {
                let (mut done, mut failed) = (0u64, 0u64);
                while Instant::now() < end {
                    if once().is_ok() { done += 1 } else { failed += 1 }
                }
                (done, failed)
            })
        })
        .collect();
    let (done, failed) = workers.into_iter().map(|w| w.join().expect("worker")).fold((0, 0), |a, b| (a.0 + b.0, a.1 + b.1));
    println!("connections {done} failed {failed} rate {:.0}", done as f64 / begin.elapsed().as_secs_f64());
}

fn round_trips(to: SocketAddr, seconds: u64) {
    let mut stream = TcpStream::connect(to).expect("connect");
    stream.set_nodelay(true).expect("nodelay");
    let mut one = [b'E'];
    stream.write_all(&one).expect("order");
    stream.read_exact(&mut one).expect("order");
    let mut times = Vec::new();
    let mut message = [7; MESSAGE];
    let end = Instant::now() + Duration::from_secs(seconds);
    while Instant::now() < end {
        let begin = Instant::now();
        stream.write_all(&message).expect("send");
        stream.read_exact(&mut message).expect("receive");
        times.push(begin.elapsed().as_nanos());
    }
    times.sort_unstable();
    println!("trips {} p50_us {:.1} p99_us {:.1}", times.len(), times[times.len() / 2] as f64 / 1e3, times[times.len() * 99 / 100] as f64 / 1e3);
}

fn idle(to: SocketAddr, count: u64, seconds: u64) {
    let mut held = Vec::new();
    for _ in 0..count {
        let answered = TcpStream::connect(to).and_then(|mut stream| {
            let mut one = [b'I'];
            stream.set_read_timeout(Some(Duration::from_secs(5)))?;
            stream.write_all(&one)?;
            stream.read_exact(&mut one)?;
            Ok(stream)
        });
        held.extend(answered.ok());
    }
    println!("held {}", held.len());
    thread::sleep(Duration::from_secs(seconds));
}

fn udp(to: SocketAddr, flows: u64, window: u64, size: usize, seconds: u64) {
    let any: SocketAddr = if to.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0u16; 8], 0).into() };
    let end = Instant::now() + Duration::from_secs(seconds);
    let workers: Vec<_> = (0..flows)
        .map(|_| {
            thread::spawn(move || {
                let socket = UdpSocket::bind(any).expect("bind");
                socket.connect(to).expect("connect");
                socket.set_read_timeout(Some(Duration::from_millis(200))).expect("time-out");
                let mut message = vec![7; size];
                let (mut echoes, mut lost) = (0u64, 0u64);
                for _ in 0..window {
                    let _ = socket.send(&message);
                }
                while Instant::now() < end {
                    if socket.recv(&mut message).is_ok() { echoes += 1 } else { lost += 1 }
                    let _ = socket.send(&message);
                }
                (echoes, lost)
            })
        })
        .collect();
    let (echoes, lost) = workers.into_iter().map(|w| w.join().expect("worker")).fold((0, 0), |a, b| (a.0 + b.0, a.1 + b.1));
    println!("echoes {echoes} lost {lost} rate {:.0}", echoes as f64 / seconds as f64);
}
