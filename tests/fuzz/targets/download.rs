//! Addresses of downloads, and what servers answer to a GET: in whatever pieces an answer arrives,
//! it is the same file or none, and never larger than allowed. Input: sizes of the pieces, an
//! address, the answer.
#![no_main]

use std::io;

use headgate::metadata::Endpoint;
use headgate::outbound::{BoxFuture, Outbound, Stream};
use headgate::provider::http::{self, Answer, Connect, Request};
use headgate::provider::url::Url;
use headgate_fuzz::Input;
use headgate_fuzz::network::{Wire, flow, pieces, run};
use libfuzzer_sys::fuzz_target;

const SIZE_MAX: u64 = 4096;

/// Every connection gets the same answer, in the same pieces.
struct Server {
    answer: Vec<u8>,
    sizes: Vec<u8>,
}

impl Connect for Server {
    fn connect<'a>(
        &'a self,
        _: &'a Endpoint,
        _: Option<&'a str>,
    ) -> BoxFuture<'a, io::Result<Stream>> {
        let (answer, sizes) = (self.answer.clone(), self.sizes.clone());
        Box::pin(async move {
            let wire = Wire::new(
                Box::new(move |request| {
                    assert!(request.starts_with(b"GET /") && request.ends_with(b"\r\n\r\n"));
                    pieces(&answer, &sizes)
                }),
                Vec::new(),
            );
            wire.connect(&flow()).await
        })
    }
}

fuzz_target!(|data: &[u8]| {
    let mut input = Input::new(data);
    let (sizes, address, answer) = (input.chunk(), input.chunk(), input.rest());
    let written = str::from_utf8(address).ok().and_then(Url::parse);
    // Redirects to TLS would need a server that speaks it.
    let written = written.filter(|url| !url.tls);
    let url = written.unwrap_or_else(|| Url::parse("http://example.com/a/b?c").unwrap());
    let whole = fetch(&url, answer, &[]);
    assert_eq!(whole, fetch(&url, answer, sizes));
});

fn fetch(url: &Url, answer: &[u8], sizes: &[u8]) -> Option<(Answer, Vec<u8>)> {
    let server = Server {
        answer: answer.to_vec(),
        sizes: sizes.to_vec(),
    };
    let request = Request {
        url,
        proxy: None,
        agent: "fuzz",
        fields: &[],
        etag: Some("\"x\""),
        size_max: SIZE_MAX,
    };
    let mut body = Vec::new();
    let mut sink = |piece: &[u8]| {
        body.extend_from_slice(piece);
        Ok(())
    };
    let got = run(http::get(&request, &server, &mut sink)).ok();
    assert!(body.len() as u64 <= SIZE_MAX);
    got.map(|answer| (answer, body))
}
