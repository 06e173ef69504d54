//! `GET /debug/pprof/` (an index), `/heap` and `/allocs`: what the allocator knows, as `go tool pprof` reads it
//! (`profile.proto` of google/pprof, uncompressed).
//!
//! The allocator notes no call sites, which would cost each allocation; it knows the pages that it holds
//! for each size of block. So a "function" here is a size of block, and a sample the pages of it: those
//! in use (heap), or those ever taken (allocs).

use crate::controllers::Context;
use crate::controllers::http::{Request, Response};
use crate::platform::clock;
use crate::platform::memory::{PageClass, page_classes};

/// What is there, for a browser.
pub(super) fn index(context: &Context, _: &Request<'_>) -> Response {
    match context.control.is_debugged() {
        true => Response::of("text/html; charset=utf-8", INDEX.into()),
        false => Response::no_route(),
    }
}

/// Links are relative: a reverse proxy may have put us under a path of its own.
const INDEX: &str = "<!doctype html><title>/debug/pprof/</title><h1>/debug/pprof/</h1><ul>\
    <li><a href=heap>heap</a>: blocks in use, by size\
    <li><a href=allocs>allocs</a>: blocks ever taken, by size</ul>\
    <p>For <code>go tool pprof</code>.\n";

/// Pages in use.
pub(super) fn heap(context: &Context, _: &Request<'_>) -> Response {
    answer(context, ["inuse_pages", "inuse_space"], |class| {
        class.current
    })
}

/// Pages ever taken.
pub(super) fn allocs(context: &Context, _: &Request<'_>) -> Response {
    answer(context, ["alloc_pages", "alloc_space"], |class| class.total)
}

fn answer(context: &Context, kinds: [&str; 2], pages: fn(&PageClass) -> u64) -> Response {
    if !context.control.is_debugged() {
        return Response::no_route();
    }
    let time = u64::try_from(clock::unix_time().as_nanos()).unwrap_or(0);
    let profile = profile(&page_classes(), kinds, pages, time);
    Response::of("application/octet-stream", profile)
}

/// A message of Protocol Buffers in the making.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(u8::try_from(value & 0x7f).unwrap_or(0) | 0x80);
            value >>= 7;
        }
        self.0.push(u8::try_from(value).unwrap_or(0));
    }

    fn number(&mut self, field: u64, value: u64) -> &mut Self {
        self.varint(field << 3);
        self.varint(value);
        self
    }

    fn bytes(&mut self, field: u64, bytes: &[u8]) -> &mut Self {
        self.varint(field << 3 | 2);
        self.varint(u64::try_from(bytes.len()).unwrap_or(0));
        self.0.extend_from_slice(bytes);
        self
    }
}

/// The profile: a string table, and a sample, a location and a function for each class with pages.
fn profile(
    classes: &[PageClass],
    kinds: [&str; 2],
    pages: fn(&PageClass) -> u64,
    time_nanos: u64,
) -> Vec<u8> {
    let [count_kind, space_kind] = kinds;
    // Index 0 must be empty; the indexes of the first five are used below.
    let mut strings = vec![String::new()];
    strings.extend([count_kind, "count", space_kind, "bytes"].map(String::from));
    let mut message = Message::default();
    for (kind, unit) in [(1, 2), (3, 4)] {
        let mut value_type = Message::default();
        value_type.number(1, kind).number(2, unit);
        message.bytes(1, &value_type.0);
    }
    let used = classes.iter().filter(|class| pages(class) > 0);
    for (id, class) in (1..).zip(used) {
        let count = pages(class);
        let name = u64::try_from(strings.len()).unwrap_or(0);
        strings.push(format!("blocks of {} bytes", class.block_bytes));
        let mut sample = Message::default();
        let bytes = count.saturating_mul(class.page_bytes);
        sample.number(1, id).number(2, count).number(2, bytes);
        message.bytes(2, &sample.0);
        let (mut location, mut line, mut function) = Default::default();
        Message::number(&mut line, 1, id);
        Message::number(&mut location, 1, id).bytes(4, &line.0);
        Message::number(&mut function, 1, id).number(2, name);
        message.bytes(4, &location.0).bytes(5, &function.0);
    }
    for text in &strings {
        message.bytes(6, text.as_bytes());
    }
    message.number(9, time_nanos).number(14, 3);
    message.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_has_a_sample_for_each_class_in_use() {
        let class = |block_bytes, current| PageClass {
            block_bytes,
            page_bytes: 65_536,
            current,
            total: 9,
        };
        let classes = [class(16, 2), class(32, 0)];
        let bytes = profile(&classes, ["p", "s"], |class| class.current, 1);
        let want: &[&[u8]] = &[
            b"\x0a\x04\x08\x01\x10\x02\x0a\x04\x08\x03\x10\x04",
            // Location 1: two pages, 131 072 bytes.
            b"\x12\x08\x08\x01\x10\x02\x10\x80\x80\x08",
            b"\x22\x06\x08\x01\x22\x02\x08\x01\x2a\x04\x08\x01\x10\x05",
            b"\x32\x00\x32\x01p\x32\x05count\x32\x01s\x32\x05bytes\x32\x12blocks of 16 bytes",
            b"\x48\x01\x70\x03",
        ];
        assert_eq!(bytes, want.concat());
    }
}
