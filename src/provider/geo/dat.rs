//! `geosite.dat` and `geoip.dat`: protobuf lists of named lists (v2fly's `app.router` messages). Read
//! front to back; a list that nobody wants is passed over unread.
//!
//! ```text
//! GeoSiteList { repeated GeoSite entry = 1 }
//! GeoSite     { string country_code = 1; repeated Domain domain = 2 }
//! Domain      { Type type = 1; string value = 2; repeated Attribute attribute = 3 }
//! Type        { Plain = 0; Regex = 1; Domain = 2; Full = 3 }
//! Attribute   { string key = 1 }
//! GeoIPList   { repeated GeoIP entry = 1 }
//! GeoIP       { string country_code = 1; repeated CIDR cidr = 2; bool reverse_match = 3 }
//! CIDR        { bytes ip = 1; uint32 prefix = 2 }
//! ```

use std::io::{self, BufRead, Read, Seek};
use std::net::IpAddr;

use crate::prefix::Prefix;
use crate::rules::geo::GeoSet;
use crate::rules::set::SiteSetBuilder;

/// Bytes of one name, address or attribute with what belongs to it; larger is no such file.
const ENTRY_MAX: u64 = 64 * 1024;

/// Bytes of a list's name.
const NAME_MAX: u64 = 1024;

/// Reads names into those of `wanted` that their list and attributes belong to; the number of
/// entries that could not be used.
///
/// # Errors
/// The file breaks off, or is something else.
pub fn sites<R: BufRead + Seek>(
    source: &mut R,
    wanted: &mut [(&GeoSet, SiteSetBuilder)],
) -> io::Result<usize> {
    let mut skipped = 0;
    lists(source, |name, list| {
        let mut ours: Vec<_> = wanted
            .iter_mut()
            .filter(|(set, _)| *set.name == *name)
            .collect();
        if ours.is_empty() {
            return Ok(());
        }
        entries(list, |entry| {
            let domain = Domain::parse(entry).ok_or(io::ErrorKind::InvalidData)?;
            for (set, builder) in &mut ours {
                let mut asked = set.attributes.iter();
                if !asked.all(|asked| domain.attributes.contains(&&**asked)) {
                    continue;
                }
                let pushed = match domain.kind {
                    0 => builder.push_keyword(domain.value),
                    1 => builder.push_regex(domain.value),
                    2 => builder.push_domain(domain.value),
                    _ => builder.push_full(domain.value),
                };
                skipped += usize::from(pushed.is_err());
            }
            Ok(())
        })
    })?;
    Ok(skipped)
}

/// Reads prefixes into those of `wanted` that are named like their list, and counts them.
///
/// # Errors
/// The file breaks off, or is something else.
pub fn addresses<R: BufRead + Seek>(
    source: &mut R,
    wanted: &mut [super::mmdb::Wanted<'_>],
) -> io::Result<()> {
    lists(source, |name, list| {
        let mut ours: Vec<_> = wanted
            .iter_mut()
            .filter(|(code, ..)| *code == name)
            .collect();
        if ours.is_empty() {
            return Ok(());
        }
        entries(list, |entry| {
            let prefix = cidr(entry).ok_or(io::ErrorKind::InvalidData)?;
            for (_, builder, count) in &mut ours {
                builder.push(prefix);
                *count += 1;
            }
            Ok(())
        })
    })
}

/// Goes through the lists of a file: `take` gets the name of each, in lower case, and what follows
/// it, which it need not read.
fn lists<R: BufRead + Seek>(
    source: &mut R,
    mut take: impl FnMut(&str, &mut dyn BufRead) -> io::Result<()>,
) -> io::Result<()> {
    while !source.fill_buf()?.is_empty() {
        let length = tagged_length(source, 1)?;
        let mut list = source.by_ref().take(length);
        let name_length = tagged_length(&mut list, 1)?;
        let name = chunk(&mut list, name_length, NAME_MAX)?;
        let name = String::from_utf8(name).map_err(io::Error::other)?;
        take(&name.to_ascii_lowercase(), &mut list)?;
        // To its last byte, which must be there.
        let rest = list.limit();
        if let Some(before) = rest.checked_sub(1) {
            source.seek_relative(i64::try_from(before).map_err(io::Error::other)?)?;
            source.read_exact(&mut [0])?;
        }
    }
    Ok(())
}

/// Goes through the entries of a list. Other fields, such as a checksum, are passed over.
fn entries(
    list: &mut dyn BufRead,
    mut take: impl FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<()> {
    while !list.fill_buf()?.is_empty() {
        match varint(list)? {
            0x12 => {
                let length = varint(list)?;
                take(&chunk(list, length, ENTRY_MAX)?)?;
            }
            tag if tag & 7 == 0 => {
                varint(list)?;
            }
            tag if tag & 7 == 2 => {
                let length = varint(list)?;
                chunk(list, length, ENTRY_MAX)?;
            }
            _ => return Err(io::ErrorKind::InvalidData.into()),
        }
    }
    Ok(())
}

/// One entry of a list of names.
struct Domain<'a> {
    kind: u64,
    value: &'a str,
    attributes: Vec<&'a str>,
}

impl<'a> Domain<'a> {
    fn parse(bytes: &'a [u8]) -> Option<Self> {
        let mut domain = Self {
            kind: 0,
            value: "",
            attributes: Vec::new(),
        };
        for field in Fields(bytes) {
            match field? {
                (1, Value::Number(kind)) => domain.kind = kind,
                (2, Value::Bytes(value)) => domain.value = str::from_utf8(value).ok()?,
                (3, Value::Bytes(attribute)) => {
                    for field in Fields(attribute) {
                        if let (1, Value::Bytes(key)) = field? {
                            domain.attributes.push(str::from_utf8(key).ok()?);
                        }
                    }
                }
                _ => {}
            }
        }
        Some(domain)
    }
}

fn cidr(bytes: &[u8]) -> Option<Prefix> {
    let (mut address, mut length) = (None, 0);
    for field in Fields(bytes) {
        match field? {
            (1, Value::Bytes(&[a, b, c, d])) => address = Some(IpAddr::from([a, b, c, d])),
            (1, Value::Bytes(bytes)) => {
                address = Some(IpAddr::from(<[u8; 16]>::try_from(bytes).ok()?));
            }
            (2, Value::Number(number)) => length = u8::try_from(number).ok()?,
            _ => {}
        }
    }
    let address = address?;
    let most = if address.is_ipv4() { 32 } else { 128 };
    (length <= most).then(|| Prefix::new(address, length))
}

/// The fields of a small message; `None` for one that breaks off, and then the end.
struct Fields<'a>(&'a [u8]);

enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

impl<'a> Iterator for Fields<'a> {
    type Item = Option<(u64, Value<'a>)>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_none() {
            self.0 = &[];
        }
        Some(field)
    }
}

impl<'a> Fields<'a> {
    fn field(&mut self) -> Option<(u64, Value<'a>)> {
        let tag = varint(&mut self.0).ok()?;
        let value = match tag & 7 {
            0 => Value::Number(varint(&mut self.0).ok()?),
            2 => {
                let length = usize::try_from(varint(&mut self.0).ok()?).ok()?;
                let (bytes, rest) = self.0.split_at_checked(length)?;
                self.0 = rest;
                Value::Bytes(bytes)
            }
            _ => return None,
        };
        Some((tag >> 3, value))
    }
}

/// The length of the field `number`, which must come next.
fn tagged_length(source: &mut dyn Read, number: u64) -> io::Result<u64> {
    if varint(source)? != number << 3 | 2 {
        return Err(io::ErrorKind::InvalidData.into());
    }
    varint(source)
}

/// Seven bits a byte, the least first; the top bit says that more follow.
fn varint(source: &mut (impl Read + ?Sized)) -> io::Result<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let mut byte = [0];
        source.read_exact(&mut byte)?;
        let [byte] = byte;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Ok(value);
        }
    }
    Err(io::ErrorKind::InvalidData.into())
}

fn chunk(source: &mut dyn Read, length: u64, most: u64) -> io::Result<Vec<u8>> {
    if length > most {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut bytes = Vec::new();
    source.take(length).read_to_end(&mut bytes)?;
    if bytes.len() as u64 == length {
        Ok(bytes)
    } else {
        Err(io::ErrorKind::UnexpectedEof.into())
    }
}
