//! gzip (RFC 1952), zlib (RFC 1950) and bare DEFLATE.

use super::deflate::deflate;
use super::{Arguments, Function};
use crate::inflate::{crc32, gzip_body, inflate};
use crate::sql::error::Fault;
use crate::sql::run::Run;
use crate::sql::value::Value;

pub(super) const FUNCTIONS: &[Function] = &[
    Function::new("gunzip", 1, 1, |run, a| unpack(run, a, gunzip)),
    Function::new("gzip", 1, 1, |run, a| pack(run, a, gzip)),
    Function::new("unzip", 1, 1, |run, a| {
        unpack(run, a, |bytes, max| inflate(bytes, max).map(|(out, _)| out))
    }),
    Function::new("zip", 1, 1, |run, a| pack(run, a, deflate)),
    Function::new("zip_compress", 1, 1, |run, a| pack(run, a, compress)),
    Function::new("zip_uncompress", 1, 1, |run, a| unpack(run, a, uncompress)),
];

/// Work of compression is this many times that of looking at the bytes.
const EFFORT: usize = 8;

fn pack<'e>(
    run: &mut Run<'e>,
    a: &Arguments<'_, 'e>,
    pack: fn(&[u8]) -> Vec<u8>,
) -> Result<Value<'e>, Fault> {
    let bytes = a.bytes(0)?;
    run.look(bytes.len().saturating_mul(EFFORT))?;
    run.make(bytes.len())?;
    run.text(pack(bytes))
}

fn unpack<'e>(
    run: &mut Run<'e>,
    a: &Arguments<'_, 'e>,
    unpack: fn(&[u8], usize) -> Option<Vec<u8>>,
) -> Result<Value<'e>, Fault> {
    let bytes = a.bytes(0)?;
    run.look(bytes.len().saturating_mul(EFFORT))?;
    let out = unpack(bytes, run.room()).ok_or(a.out_of_range())?;
    run.look(out.len().saturating_mul(EFFORT))?;
    run.text(out)
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    // DEFLATE, no flags, no time, no extra flags, an unknown system.
    let mut out = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];
    out.extend(deflate(bytes));
    out.extend(crc32(bytes).to_le_bytes());
    out.extend(u32::try_from(bytes.len()).unwrap_or_default().to_le_bytes());
    out
}

fn gunzip(bytes: &[u8], max: usize) -> Option<Vec<u8>> {
    let rest = gzip_body(bytes)?;
    let (out, taken) = inflate(rest, max)?;
    let check = rest.get(taken..taken + 4)?.try_into().ok()?;
    (crc32(&out) == u32::from_le_bytes(check)).then_some(out)
}

fn compress(bytes: &[u8]) -> Vec<u8> {
    let mut out = vec![0x78, 0x9c];
    out.extend(deflate(bytes));
    out.extend(adler32(bytes).to_be_bytes());
    out
}

fn uncompress(bytes: &[u8], max: usize) -> Option<Vec<u8>> {
    let (head, rest) = bytes.split_first_chunk::<2>()?;
    let [method, flags] = *head;
    if method & 15 != 8 || flags & 32 != 0 || u16::from_be_bytes(*head) % 31 != 0 {
        return None;
    }
    let (out, taken) = inflate(rest, max)?;
    let check = rest.get(taken..taken + 4)?.try_into().ok()?;
    (adler32(&out) == u32::from_be_bytes(check)).then_some(out)
}

/// RFC 1950 section 8.2.
fn adler32(bytes: &[u8]) -> u32 {
    const BASE: u32 = 65_521;
    let (low, high) = bytes.iter().fold((1, 0), |(low, high), byte| {
        let low = (low + u32::from(*byte)) % BASE;
        (low, (high + low) % BASE)
    });
    high << 16 | low
}
