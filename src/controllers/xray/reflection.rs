//! ServerReflection, v1 and v1alpha alike (gRPC Server Reflection Protocol; xray-api.md 2.8).
//!
//! Lists what is served and hands out descriptors, aliases' included, which Xray does not. Failures
//! are told within the stream, as the protocol says.

use super::protobuf::{Fields, Message};
use super::schema;
use super::status::{Code, Status};
use super::{Answer, Context, SERVICES};

/// `grpc.reflection.v1.ServerReflection`.
pub(super) const METHODS: &[(&str, Answer)] = &[("ServerReflectionInfo", Answer::Each(answer))];

/// Numbers of `ServerReflectionRequest`.
const BY_FILENAME: u32 = 3;
const BY_SYMBOL: u32 = 4;
const LIST_SERVICES: u32 = 7;

fn answer(context: &Context, request: &[u8]) -> Result<Message, Status> {
    let (mut host, mut asked) = ("", (0, ""));
    for field in Fields::new(request) {
        let field = field?;
        match field.number {
            1 => host = field.text()?,
            BY_FILENAME | BY_SYMBOL | LIST_SERVICES => asked = (field.number, field.text()?),
            number => asked = (number, ""),
        }
    }
    let mut response = Message::default();
    response.text(1, host);
    response.item(2, request);
    match asked {
        (BY_FILENAME, name) => files(&mut response, schema::named(name), name),
        (BY_SYMBOL, symbol) => files(&mut response, schema::declaring(symbol), symbol),
        (LIST_SERVICES, _) => {
            let mut list = Message::default();
            let served = SERVICES.iter();
            for served in served.filter(|served| context.services.contains(&served.service)) {
                let mut entry = Message::default();
                entry.text(1, served.name);
                list.message(1, &entry);
            }
            response.message(6, &list);
        }
        // Nothing here has extensions.
        _ => failure(&mut response, Code::NotFound, "unknown extension"),
    }
    Ok(response)
}

fn files(response: &mut Message, found: Option<Vec<Vec<u8>>>, asked: &str) {
    let Some(files) = found else {
        return failure(response, Code::NotFound, &format!("not found: {asked}"));
    };
    let mut list = Message::default();
    for file in files {
        list.item(1, &file);
    }
    response.message(4, &list);
}

fn failure(response: &mut Message, code: Code, text: &str) {
    let mut failure = Message::default();
    failure.integer(1, code as u64).text(2, text);
    response.message(7, &failure);
}
