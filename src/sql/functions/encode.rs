//! Encodings, hashes and random ids.

use crate::encoding::{BASE64, HEX};
use md5::{Digest as _, Md5};
use ring::digest;

use super::{Arguments, Function, term};
use crate::sql::error::Fault;
use crate::sql::json;
use crate::sql::run::Run;
use crate::sql::value::Value;

pub(super) const FUNCTIONS: &[Function] = &[
    Function::new("base64_decode", 1, 1, |run, a| {
        let text = a.bytes(0)?;
        run.make(text.len())?;
        let bytes = BASE64.decode(text.trim_ascii()).map_err(|_| a.mistyped())?;
        run.text(bytes)
    }),
    Function::new("base64_encode", 1, 1, |run, a| {
        let bytes = a.bytes(0)?;
        run.make(bytes.len())?;
        run.text(BASE64.encode(bytes).into_bytes())
    }),
    Function::new("json_decode", 1, 1, |run, a| match a.get(0) {
        Value::Text(text) => run.decode(text),
        _ => Err(a.mistyped()),
    }),
    Function::new("json_encode", 1, 1, |run, a| {
        run.make(a.get(0).weight())?;
        let mut out = Vec::new();
        json::write(a.get(0), &mut out);
        run.text(out)
    }),
    Function::new("md5", 1, 1, |run, a| {
        let bytes = a.bytes(0)?;
        run.look(bytes.len() * 4)?;
        run.text(HEX.encode(&Md5::digest(bytes)).into_bytes())
    }),
    Function::new("sha", 1, 1, |run, a| {
        hash(run, a, &digest::SHA1_FOR_LEGACY_USE_ONLY)
    }),
    Function::new("sha256", 1, 1, |run, a| hash(run, a, &digest::SHA256)),
    Function::new("term_decode", 1, 1, |run, a| {
        let bytes = a.bytes(0)?;
        run.make_values(bytes.len())?;
        term::decode(bytes).ok_or(a.mistyped())
    }),
    Function::new("term_encode", 1, 1, |run, a| {
        run.make(a.get(0).weight() + 8)?;
        run.text(term::encode(a.get(0)))
    }),
    Function::new("uuid_v4", 0, 0, |run, _| {
        let digits = uuid(run);
        let mut out = Vec::with_capacity(36);
        for (i, digit) in digits.bytes().enumerate() {
            if matches!(i, 8 | 12 | 16 | 20) {
                out.push(b'-');
            }
            out.push(digit);
        }
        run.text(out)
    }),
    Function::new("uuid_v4_no_hyphen", 0, 0, |run, _| {
        let digits = uuid(run);
        run.text(digits.into_bytes())
    }),
];

fn hash<'e>(
    run: &mut Run<'e>,
    a: &Arguments<'_, 'e>,
    algorithm: &'static digest::Algorithm,
) -> Result<Value<'e>, Fault> {
    let bytes = a.bytes(0)?;
    run.look(bytes.len() * 4)?;
    run.text(
        HEX.encode(digest::digest(algorithm, bytes).as_ref())
            .into_bytes(),
    )
}

/// The digits of a UUID of version 4 (RFC 9562 section 5.4).
fn uuid(run: &Run<'_>) -> String {
    let random = || run.input.surroundings.random();
    let high = random() & !0xf000 | 0x4000;
    let low = random() & !(3 << 62) | 1 << 63;
    format!("{high:016x}{low:016x}")
}
