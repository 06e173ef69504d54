//! `rule-providers:` (clash-api.md 3.11), read in weak style as mihomo does.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use md5::Digest;

use super::decode::Cursor;
use super::error::{ConfigError, Excerpt, Reason, Remark, Warnings};
use super::geodata::GeoUses;
use super::section::Section;
use crate::encoding::HEX;
use crate::provider::options::{Download, Format, RuleProviderOptions, Source};
use crate::provider::url::Url;
use crate::rules::geo::Geodata;
use crate::rules::set::{Behavior, NamedSet, RuleSetBuilder};

/// Keys of mihomo's that are not served yet.
const OTHER_KEYS: &[&str] = &["path-in-bundle"];

/// The section, in the order of the file.
pub(super) fn decode(
    section: &mut Section<'_>,
    uses: &mut GeoUses,
    warnings: &mut Warnings,
) -> Result<Vec<RuleProviderOptions>, ConfigError> {
    let Some(providers) = section.take("rule-providers") else {
        return Ok(Vec::new());
    };
    providers
        .entries()?
        .map(|(name, entry)| {
            let options = provider(name, &entry.weak(), uses.geodata(), warnings)?;
            uses.note(&entry);
            Ok(options)
        })
        .collect()
}

fn provider(
    name: &str,
    entry: &Cursor<'_>,
    geodata: &Geodata,
    warnings: &mut Warnings,
) -> Result<RuleProviderOptions, ConfigError> {
    let mut section = entry.section()?;
    let behavior_at = section.require("behavior")?;
    let behavior = match behavior_at.text()? {
        "domain" => Behavior::Domain,
        "ipcidr" => Behavior::IpCidr,
        "classical" => Behavior::Classical,
        other => return Err(behavior_at.fail(Reason::Unknown("behavior", Excerpt::of(other)))),
    };
    let format = match section.take("format") {
        Some(at) => format(&at, behavior)?,
        None => Format::default(),
    };
    let set = Arc::new(NamedSet::new(name, behavior));
    let kind = section.require("type")?;
    let source = match kind.text()? {
        "inline" => {
            let payload = section.require("payload")?;
            Source::Inline(fill(&set, &payload, geodata, warnings)?)
        }
        "file" => Source::File(PathBuf::from(section.require("path")?.text()?)),
        "http" => Source::Http(Box::new(download(&mut section, warnings)?)),
        other => return Err(kind.fail(Reason::Unknown("provider type", Excerpt::of(other)))),
    };
    let options = RuleProviderOptions {
        set,
        geodata: geodata.clone(),
        source,
        format,
        interval: Duration::from_secs(section.number("interval", 0)?.into()),
        size_limit: section.number("size-limit", 0)?.into(),
    };
    // Keys of the other types mean nothing here, as in mihomo.
    for key in ["payload", "path", "url", "proxy", "header"] {
        section.take(key);
    }
    section.not_implemented(OTHER_KEYS, warnings);
    section.finish(warnings);
    Ok(options)
}

pub(super) fn download(
    section: &mut Section<'_>,
    warnings: &mut Warnings,
) -> Result<Download, ConfigError> {
    let address = section.require("url")?;
    let mut download = from_address(&address)?;
    if !download.url.tls {
        warnings.note(&address, Remark::Unencrypted);
    }
    let mut fields = Vec::new();
    if let Some(header) = section.take("header") {
        for (name, values) in header.entries()? {
            for value in values.items()? {
                fields.push((
                    field_text(name, &value)?,
                    field_text(value.text()?, &value)?,
                ));
            }
        }
    }
    download.path = section.text("path")?.map(|path| PathBuf::from(&*path));
    download.proxy = section.text("proxy")?;
    download.fields = fields;
    Ok(download)
}

/// A download from the address that stands here.
pub(super) fn from_address(at: &Cursor<'_>) -> Result<Download, ConfigError> {
    // Not quoted in the message: the address may hold a token.
    let wrong = || at.fail(Reason::SecretValue("an http or https address"));
    from_text(at.text()?).ok_or_else(wrong)
}

/// A download from this address.
pub(super) fn from_text(address: &str) -> Option<Download> {
    let hash = md5::Md5::digest(address.as_bytes());
    Some(Download {
        url: Url::parse(address)?,
        path: None,
        hash: HEX.encode(&hash).into(),
        proxy: None,
        fields: Vec::new(),
    })
}

/// Text that can stand in a field of a request without ending it.
fn field_text(text: &str, at: &Cursor<'_>) -> Result<Box<str>, ConfigError> {
    if text.chars().any(char::is_control) {
        return Err(at.fail(Reason::SecretValue("text without control characters")));
    }
    Ok(text.into())
}

fn format(at: &Cursor<'_>, behavior: Behavior) -> Result<Format, ConfigError> {
    let text = at.text()?;
    match Format::parse(text) {
        Some(Format::Mrs) if behavior == Behavior::Classical => {
            Err(at.expected("yaml or text, since mrs holds no classical rules"))
        }
        Some(format) => Ok(format),
        None => Err(at.fail(Reason::Unknown("format", Excerpt::of(text)))),
    }
}

/// Compiles the entries that stand in the file itself; those that are none are passed over, as in
/// mihomo, and reported.
fn fill(
    set: &NamedSet,
    payload: &Cursor<'_>,
    geodata: &Geodata,
    warnings: &mut Warnings,
) -> Result<Arc<[Box<str>]>, ConfigError> {
    let mut builder = RuleSetBuilder::new(set.behavior(), geodata);
    let mut entries = Vec::new();
    for item in payload.items()? {
        let text = item.text()?;
        match builder.push(text.trim()) {
            Ok(()) => entries.push(text.trim().into()),
            Err(why) => warnings.note(
                &item,
                Remark::Entry(Excerpt::of(text), Excerpt::of(&why.to_string())),
            ),
        }
    }
    set.replace(Arc::new(builder.finish()));
    Ok(entries.into())
}
