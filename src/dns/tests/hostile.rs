//! Name servers that lie, loop, flood and stall.

use super::*;

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
