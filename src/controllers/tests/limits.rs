//! Many, slow, greedy and ambiguous clients.

use super::*;

#[test]
fn pipelined_requests_are_answered_in_order() {
    run(async {
        let rig = Rig::new(Options::default());
        let answer = rig
            .exchange(
                b"GET /version HTTP/1.1\r\nHost: x\r\n\r\n\
                  PATCH /configs HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n\
                  5\r\n{\"ipv\r\n9;x=y\r\n6\":true} \r\n0\r\nA: b\r\n\r\n\
                  \r\nGET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n\
                  GET / HTTP/1.0\r\n\r\nGET /ignored",
            )
            .await;
        let answers = answer.split_inclusive("HTTP/1.1 ").skip(1);
        let statuses: Vec<_> = answers.map(|a| a.split(' ').next().unwrap()).collect();
        assert_eq!(statuses, ["200", "204", "404", "200"], "{answer}");
        assert!(answer.contains("\r\nConnection: close\r\n\r\n{\"hello\""));
        assert_eq!(rig.control.calls().len(), 1);
    });
}

#[test]
fn what_is_too_large_or_ambiguous_ends_the_connection() {
    run(async {
        let rig = Rig::new(Options::default());
        let request = |fields: &str| {
            format!(
                "PATCH /configs HTTP/1.1\r\nHost: x\r\n{fields}\r\n{{}}GET / HTTP/1.1\r\nHost: x\r\n\r\n"
            )
        };
        let long = format!("X: {}\r\n", "a".repeat(9000));
        let chunks = format!("{:x}\r\n{}\r\n0\r\n\r\n", 70_000, " ".repeat(70_000));
        for (request, want) in [
            (request(&long), 431),
            (request(&"A: b\r\n".repeat(70)), 431),
            (request("Content-Length: 65537\r\n"), 413),
            (request("Content-Length: 99999999999999999999999\r\n"), 413),
            (
                request("Content-Length: 2\r\nTransfer-Encoding: chunked\r\n"),
                400,
            ),
            (request("Content-Length: 2\r\nContent-Length: 2\r\n"), 400),
            (request("Content-Length : 2\r\n"), 400),
            (request("Transfer-Encoding: gzip, chunked\r\n"), 501),
            (request("Transfer-Encoding: chunked\r\n"), 400),
            (request("X: a\r\n b\r\n"), 400),
            (request("Expect: the-unexpected\r\n"), 417),
            ("GET /version HTTP/1.1\nHost: x\n\n".to_owned(), 400),
            ("\u{16}\u{3}\u{1}\r\n\r\n".to_owned(), 400),
            (
                format!(
                    "PATCH /configs HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}"
                ),
                413,
            ),
        ] {
            let answer = rig.exchange(request.as_bytes()).await;
            assert_eq!(status(&answer), want, "{request:.90}");
            assert_eq!(answer.matches("HTTP/1.1").count(), 1, "{answer}");
        }
        assert!(rig.control.calls().is_empty());
    });
}

#[test]
fn a_client_that_waits_for_continue_gets_it_once_it_may_send() {
    run(async {
        let rig = Rig::new(with_secret());
        let mut stream = rig.connect().await;
        let head = "PATCH /configs HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\
            Expect: 100-continue\r\nConnection: close\r\n";
        let allowed = format!("{head}Authorization: Bearer s3cret\r\n\r\n");
        stream.write_all(allowed.as_bytes()).await.unwrap();
        let mut interim = [0; 25];
        stream.read_exact(&mut interim).await.unwrap();
        assert_eq!(&interim, b"HTTP/1.1 100 Continue\r\n\r\n");
        stream.write_all(b"{}").await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 204 "), "{answer}");
        assert!(!answer.contains("Content-Length"));
        let refused = rig.exchange(format!("{head}\r\n").as_bytes()).await;
        assert!(refused.starts_with("HTTP/1.1 401 "), "{refused}");
    });
}

#[test]
fn silent_and_slow_clients_starve_nobody_and_are_closed() {
    run(async {
        let rig = Rig::new(Options::default());
        let mut silent = Vec::new();
        for _ in 0..300 {
            silent.push(rig.connect().await);
        }
        let mut slow = rig.connect().await;
        slow.write_all(b"GET /version HTTP/1.1\r\nHo")
            .await
            .unwrap();
        let good = rig.ask("GET", "/version", "");
        let (status, _) = tokio::time::timeout(Duration::from_secs(1), good)
            .await
            .unwrap();
        assert_eq!(status, 200);
        let mut answer = String::new();
        slow.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
        for mut client in silent {
            assert_eq!(client.read(&mut [0; 1]).await.unwrap(), 0);
        }
    });
}

#[test]
fn the_client_that_waited_longest_makes_room() {
    run(async {
        let rig = Rig::new(Options::default());
        let mut clients = Vec::new();
        // An answered request each: they may be idle for longer than this test takes.
        for _ in 0..520 {
            let mut client = rig.connect().await;
            client
                .write_all(b"GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n")
                .await
                .unwrap();
            let mut answer = [0; 12];
            client.read_exact(&mut answer).await.unwrap();
            assert_eq!(&answer, b"HTTP/1.1 404");
            clients.push(client);
        }
        let longest = &mut clients[0];
        while longest.read(&mut [0; 64]).await.unwrap() != 0 {}
        rig.check("GET", "/rules", "", (200, "{\"rules\":[]}\n"))
            .await;
    });
}

#[test]
fn slow_requests_leave_links_for_the_others() {
    run(async {
        let rig = Rig::new(Options::default());
        let mut waiting = Vec::new();
        for _ in 0..10 {
            let mut stream = rig.connect().await;
            let request = b"GET /dns/query?name=waits.example HTTP/1.1\r\nHost: x\r\n\r\n";
            stream.write_all(request).await.unwrap();
            waiting.push(stream);
        }
        rig.check("GET", "/rules", "", (200, "{\"rules\":[]}\n"))
            .await;
        drop(rig.control.dns_answers.lock().unwrap().take());
        for mut stream in waiting {
            let mut status = [0; 12];
            stream.read_exact(&mut status).await.unwrap();
            assert_eq!(&status, b"HTTP/1.1 200");
        }
    });
}
