//! What an HTTP proxy answers to CONNECT: the head is taken off, what follows it reaches the
//! client byte for byte. Input: sizes of the pieces in which it arrives, the answer.
#![no_main]

use headgate::outbound::http::Http;
use headgate::outbound::options::{HttpOptions, ServerAddress};
use headgate::outbound::{Outbound, Stream};
use headgate_fuzz::Input;
use headgate_fuzz::network::{Wire, flow, pieces, run};
use libfuzzer_sys::fuzz_target;
use tokio::io::AsyncReadExt;

fuzz_target!(|data: &[u8]| {
    let mut input = Input::new(data);
    let (sizes, answer) = (input.chunk().to_vec(), input.rest().to_vec());
    let said = answer.clone();
    let wire = Wire::new(
        Box::new(move |request| {
            assert!(request.starts_with(b"CONNECT example.com:443 HTTP/1.1\r\n"));
            pieces(&said, &sizes)
        }),
        Vec::new(),
    );
    let options = HttpOptions {
        server: ServerAddress {
            host: "192.0.2.1".into(),
            port: 3128,
        },
        credentials: None,
        tls: None,
        headers: Vec::new(),
    };
    let proxy = Http::new(wire.node(), &options).unwrap();
    run(async {
        if let Ok(Stream::Boxed(mut stream)) = proxy.connect(&flow()).await {
            let mut rest = Vec::new();
            stream.read_to_end(&mut rest).await.unwrap();
            let head = answer.strip_suffix(rest.as_slice()).unwrap();
            assert!(head.len() <= 16 * 1024 + 512);
            assert!(head.ends_with(b"\n\r\n") || head.ends_with(b"\n\n"));
        }
    });
});
