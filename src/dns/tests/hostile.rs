//! Name servers that lie, loop, flood and stall.

use super::*;
use crate::dns::resolver::EXCHANGES_MAX;
use crate::dns::upstream::EXCHANGE_TIME;

/// The records of an answer section, written out, behind the query's question.
fn with_records(query: &Query<'_>, records: &[&[u8]]) -> Vec<u8> {
    let mut out = with(query, &[]);
    out.truncate(out.len() - if query.edns.is_some() { 11 } else { 0 });
    out[6..8].copy_from_slice(&u16::try_from(records.len()).unwrap().to_be_bytes());
    out[10..12].fill(0);
    for record in records {
        out.extend_from_slice(record);
    }
    out
}

const LOOPING: Behaviour = |query, _| {
    // a.example is b, b is a.example.
    let to_b = b"\xc0\x0c\0\x05\0\x01\0\0\0\x3c\0\x03\x01b\0";
    let to_a = b"\x01b\0\0\x05\0\x01\0\0\0\x3c\0\x02\xc0\x0c";
    vec![with_records(query, &[to_b, to_a])]
};

const FLOODING: Behaviour = |query, transport| {
    if transport == Transport::Udp {
        let mut cut = with(query, &[]);
        cut[2] |= 0x02;
        return vec![cut];
    }
    let record: &[u8] = b"\xc0\x0c\0\x01\0\x01\0\0\0\x3c\0\x04\xc0\0\x02\x01";
    vec![with_records(query, &[record; 4000])]
};

#[tokio::test]
async fn a_loop_of_aliases_has_no_addresses_and_ends() {
    assert_eq!(first(&[LOOPING]).await, Ok(vec![]));
    assert_eq!(first(&[LOOPING, GOOD]).await, Ok(ips(&["192.0.2.1"])));
}

#[tokio::test]
async fn an_answer_of_too_many_records_is_none() {
    assert_eq!(first(&[FLOODING]).await, Err(Failure::Malformed));
    assert_eq!(first(&[FLOODING, GOOD]).await, Ok(ips(&["192.0.2.1"])));
}

#[tokio::test]
async fn what_is_longer_than_announced_is_passed_over() {
    let oversized: Behaviour = |query, _| {
        let mut long = with(query, &["192.0.2.66"]);
        long.resize(6000, 0);
        vec![long, with(query, &["192.0.2.1"])]
    };
    // The datagram is cut by the read; what is left parses, and its tail is not looked at.
    let found = first(&[oversized]).await.unwrap();
    assert_eq!(found.len(), 1);
}

#[tokio::test]
async fn records_of_other_names_are_no_addresses_of_this_one() {
    let poisoning: Behaviour = |query, _| {
        let stranger = b"\x04bank\x07example\0\0\x01\0\x01\0\0\x0e\x10\0\x04\xc0\0\x02\x42";
        vec![with_records(query, &[stranger])]
    };
    let servers = name_servers(&[poisoning]).await;
    let resolver = resolver(&servers);
    assert_eq!(ask(&resolver, "a.example", types::A).await, Ok(vec![]));
    // Nor was anything kept for that other name.
    ask(&resolver, "bank.example", types::A).await.unwrap();
    assert_eq!(servers.asked.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn service_bindings_come_without_addresses() {
    let binding: Behaviour = |query, _| {
        let record: &[u8] = b"\xc0\x0c\0\x41\0\x01\0\0\0\x3c\0\x12\0\x01\0\
            \0\x01\0\x03\x02h2\0\x04\0\x04\xc0\0\x02\x01";
        vec![with_records(query, &[record])]
    };
    for (mode, hints) in [
        (EnhancedMode::RedirHost, false),
        (EnhancedMode::Normal, true),
    ] {
        let servers = name_servers(&[binding]).await;
        let options = Options {
            mode,
            ..options(&servers.list)
        };
        let resolver = Resolver::new(&options, None, sockets()).unwrap();
        let question = Question::new("a.example", types::HTTPS).unwrap();
        let answer = resolver.query(&question, Manner::default()).await.unwrap();
        assert!(
            answer
                .windows(4)
                .any(|four| four == b"\x03\x02h2".as_slice())
                || !hints
        );
        assert_eq!(answer.windows(4).any(|four| four == [192, 0, 2, 1]), hints);
        assert_eq!(Answer::parse(&answer).unwrap().records().count(), 1);
    }
}

#[tokio::test]
async fn local_addresses_of_public_names_are_withheld_if_so_wished() {
    let local: Behaviour = |query, _| vec![with(query, &["192.168.1.1", "fd00::1"])];
    let servers = name_servers(&[local]).await;
    let guarded = Options {
        rebind: Some(vec!["+.allowed.example".into()]),
        ..options(&servers.list)
    };
    let resolver = Resolver::new(&guarded, None, sockets()).unwrap();
    for (name, told) in [
        ("evil.example", false),
        ("x.allowed.example", true),
        ("nas.lan", true),
        ("nas", true),
    ] {
        for qtype in [types::A, types::AAAA] {
            let found = ask(&resolver, name, qtype).await.unwrap();
            assert_eq!(!found.is_empty(), told, "{name}");
        }
    }
    let open = Resolver::new(&options(&servers.list), None, sockets()).unwrap();
    assert_eq!(ask(&open, "evil.example", types::A).await.unwrap().len(), 1);
}

/// Long enough that no random spelling is the plain one.
const LETTERS: &str = "a-name-of-very-many-letters.that-somebody.asks-for.example";

/// The answer with its question spelled in small letters.
fn in_small_letters(mut answer: Vec<u8>) -> Vec<u8> {
    answer[12..12 + LETTERS.len()].make_ascii_lowercase();
    answer
}

#[tokio::test]
async fn an_answer_spelled_otherwise_loses_to_the_true_one() {
    let overtaken: Behaviour = |query, _| {
        let forged = in_small_letters(with(query, &["192.0.2.66"]));
        vec![forged.clone(), forged, with(query, &["192.0.2.1"])]
    };
    let servers = name_servers(&[overtaken]).await;
    let found = ask(&resolver(&servers), LETTERS, types::A).await;
    assert_eq!(found, Ok(ips(&["192.0.2.1"])));
    assert_eq!(servers.asked.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_server_that_respells_names_is_asked_plainly_from_then_on() {
    let respelling: Behaviour = |query, _| vec![in_small_letters(with(query, &["192.0.2.1"]))];
    let servers = name_servers(&[respelling]).await;
    let resolver = resolver(&servers);
    for asked in [2, 3] {
        resolver.flush();
        let found = ask(&resolver, LETTERS, types::A).await;
        assert_eq!(found, Ok(ips(&["192.0.2.1"])));
        assert_eq!(servers.asked.load(Ordering::Relaxed), asked);
    }
}

#[tokio::test]
async fn a_stream_that_drips_is_given_up_in_time() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        read_frame(&mut stream).await;
        stream.write_u16(1000).await.unwrap();
        while stream.write_u8(0).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
    let dripping = NameServer::new(Protocol::Tcp, "127.0.0.1", port);
    let resolver = Resolver::new(&options(&[Upstream::Server(dripping)]), None, sockets()).unwrap();
    let begun = clock::now();
    let failure = ask(&resolver, "a.example", types::A).await;
    assert_eq!(failure, Err(Failure::Timeout));
    assert!(clock::now() < begun + EXCHANGE_TIME * 2);
}

#[tokio::test]
async fn questions_beyond_the_limit_wait_and_are_given_up_in_time() {
    static SEEN: Mutex<Vec<Question>> = Mutex::new(Vec::new());
    let noting: Behaviour = |query, _| {
        let mut seen = SEEN.lock().unwrap();
        if !seen.contains(&query.question) {
            seen.push(query.question.clone());
        }
        Vec::new()
    };
    let seen = || SEEN.lock().unwrap().len();
    let resolver = resolver(&name_servers(&[noting]).await);
    let names = (0..EXCHANGES_MAX + 20).map(|i| format!("n{i}.example"));
    let all = names.map(|name| {
        let resolver = &resolver;
        async move { ask(resolver, &name, types::A).await }
    });
    let all = futures_util::future::join_all(all);
    let watch = async {
        while seen() < EXCHANGES_MAX {
            tokio::task::yield_now().await;
        }
        // Further ones would come now.
        tokio::time::sleep(Duration::from_millis(100)).await;
        seen()
    };
    let (outcomes, asked) = futures_util::future::join(all, watch).await;
    assert_eq!(asked, EXCHANGES_MAX);
    let given_up = |outcome: &Result<_, _>| *outcome == Err(Failure::Timeout);
    assert!(outcomes.iter().all(given_up));
}
