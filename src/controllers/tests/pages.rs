//! The dashboard's files.

use super::*;
use crate::controllers::options::Ui;

#[test]
fn pages_need_no_secret_and_come_whole_typed_and_cached() {
    run(async {
        let rig = Rig::new(Options {
            ui: Some(Ui {
                directory: "ui".into(),
                name: Some("board".into()),
                url: None,
            }),
            ..with_secret()
        });
        let board = rig.control.directory.join("ui/board");
        std::fs::create_dir_all(board.join("assets")).unwrap();
        std::fs::write(board.join("index.html"), "<html>").unwrap();
        let large = "x".repeat(100_000);
        std::fs::write(board.join("assets/app-1a2b.js"), &large).unwrap();
        std::fs::write(rig.control.directory.join("secret"), "s").unwrap();
        let get = async |target: &str, fields: &str| {
            let request =
                format!("GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{fields}\r\n");
            let answer = rig.exchange(request.as_bytes()).await;
            let (head, body) = answer.split_once("\r\n\r\n").unwrap();
            (status(head), head.to_owned(), body.to_owned())
        };
        for (from, to) in [("/ui", "ui/"), ("/ui/", "board/"), ("/ui/board", "board/")] {
            let (status, head, _) = get(from, "").await;
            assert_eq!(status, 307);
            assert!(head.contains(&format!("\r\nLocation: {to}\r\n")), "{head}");
        }
        let (status, head, body) = get("/ui/board/", "").await;
        assert_eq!((status, &*body), (200, "<html>"));
        assert!(
            head.contains("\r\nContent-Type: text/html; charset=utf-8\r\nCache-Control: no-cache")
        );
        let etag = head.split("ETag: ").nth(1).unwrap().split("\r\n").next();
        let known = format!("If-None-Match: W/\"x\", {}\r\n", etag.unwrap());
        let (status, head, body) = get("/ui/board/?a#b", &known).await;
        assert_eq!((status, &*body), (304, ""));
        assert!(!head.contains("Content-Length"), "{head}");
        let (status, head, body) = get("/ui/board/assets/app%2D1a2b.js", "").await;
        assert_eq!((status, body.len()), (200, large.len()));
        assert!(
            head.contains("immutable") && head.contains("nosniff"),
            "{head}"
        );
        for outside in [
            "/ui/../secret",
            "/ui/%2e%2e/secret",
            "/ui/board/%2e%2e/%2e%2e/secret",
            "/ui//etc/passwd",
            "/ui/%2fetc/passwd",
            "/ui/none",
            "/ui/%ff",
        ] {
            assert_eq!(get(outside, "").await.0, 404, "{outside}");
        }
        let foreign = rig
            .exchange(b"GET /ui/ HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n")
            .await;
        assert!(foreign.starts_with("HTTP/1.1 403 "), "{foreign}");
        rig.check("PUT", "/ui/board/", "", (405, "")).await;
        let without = Rig::new(with_secret());
        without
            .check("GET", "/ui/", "", (404, "404 page not found\n"))
            .await;
    });
}
