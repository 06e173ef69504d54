//! What a Shadowsocks server sends on a stream, in every cipher: bytes as they come, or messages
//! sealed with the right key. What the client reads is the plaintext up to the first mistake.
#![no_main]

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use headgate::outbound::carrier::Carrier;
use headgate::outbound::crypto::Nonce;
use headgate::outbound::shadowsocks::method::{Edition, METHODS, Secret};
use headgate::outbound::shadowsocks::stream;
use headgate::outbound::{Outbound, Stream};
use headgate_fuzz::Input;
use headgate_fuzz::network::{Wire, flow, pieces, run};
use libfuzzer_sys::fuzz_target;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

fuzz_target!(|data: &[u8]| {
    let mut input = Input::new(data);
    let [method, flags] = input.array();
    let (cipher, method) = METHODS[usize::from(method) % METHODS.len()];
    let password = match (method.edition, method.cipher.key_length()) {
        (Edition::Aead, _) => "password",
        (Edition::Of2022, 16) => "AAECAwQFBgcICQoLDA0ODw==",
        (Edition::Of2022, _) => "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=",
    };
    let secret = Arc::new(Secret::new(cipher, password).unwrap());
    let sizes = input.chunk().to_vec();
    let server = Arc::clone(&secret);
    let bytes = input.rest().to_vec();
    let mut plain = Vec::new();
    if flags & 1 != 0 {
        plain = chunks(&mut Input::new(&bytes)).concat();
    }
    let wire = Wire::new(
        Box::new(move |request| {
            let answer = match flags & 1 {
                0 => bytes,
                _ => sealed(&server, flags, &request[..server.salt_length()], &bytes),
            };
            pieces(&answer, &sizes)
        }),
        Vec::new(),
    );
    run(async {
        let Ok(Stream::Boxed(carrier)) = wire.connect(&flow()).await else {
            unreachable!("the wire connects");
        };
        let target = vec![1, 192, 0, 2, 3, 0, 80];
        let carrier = Carrier::Boxed(carrier);
        let mut stream = stream::connect(carrier, &secret, target).unwrap();
        stream.write_all(b"GET").await.unwrap();
        stream.flush().await.unwrap();
        let mut read = Vec::new();
        let ended = stream.read_to_end(&mut read).await;
        assert!(plain.starts_with(&read));
        // Nothing wrong was sent: no header spoiled, no message too long or left out.
        if flags & 0x0f == 1 && plain_is_sound(&secret, &plain) {
            assert_eq!((read.len(), ended.is_ok()), (plain.len(), true));
        }
    });
});

fn plain_is_sound(secret: &Secret, plain: &[u8]) -> bool {
    secret.method.edition == Edition::Of2022 || plain.len() <= 0x3fff
}

/// Plaintexts of one byte repeated: three bytes of input each.
fn chunks(input: &mut Input<'_>) -> Vec<Vec<u8>> {
    let mut chunks = Vec::new();
    while !input.is_empty() && chunks.len() < 16 {
        let length = usize::from(u16::from_be_bytes(input.array()));
        chunks.push(vec![input.byte(); length]);
    }
    chunks
}

/// An answer of those chunks, with the mistakes that `flags` asks for.
fn sealed(secret: &Secret, flags: u8, request_salt: &[u8], bytes: &[u8]) -> Vec<u8> {
    let chunks = chunks(&mut Input::new(bytes));
    let salt = vec![9; secret.salt_length()];
    let mut key = secret.stream_key(&salt).unwrap();
    let mut nonce = Nonce::default();
    let mut out = salt;
    let mut seal = |message: &[u8]| {
        let mut message = message.to_vec();
        let tag = key
            .wake()
            .unwrap()
            .seal(&nonce.advance(), &mut message)
            .unwrap();
        out.extend(message);
        out.extend(tag);
    };
    let length = |chunk: &[u8]| (chunk.len() as u16).to_be_bytes();
    let mut rest = chunks.as_slice();
    if secret.method.edition == Edition::Of2022 {
        let first = rest
            .split_off_first()
            .map(Vec::as_slice)
            .unwrap_or_default();
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap()
            .as_secs();
        let time = now + if flags & 2 != 0 { 100 } else { 0 };
        let kind = u8::from(flags & 4 == 0);
        seal(
            &[
                &[kind],
                &time.to_be_bytes()[..],
                request_salt,
                &length(first),
            ]
            .concat(),
        );
        seal(first);
    }
    for chunk in rest {
        seal(&length(chunk));
        seal(chunk);
    }
    if flags & 8 != 0 {
        out.pop();
    }
    out
}
