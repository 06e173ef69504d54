//! Xray's stream settings: what stands between a socket and its protocol, as mihomo's keys say it.
//!
//! Pure. What headgate does not speak is refused, never left out: a proxy without the TLS that was
//! asked for would be worse than none. Fields that only tune are passed over.

use crate::encoding::HEX;
use serde_json::{Map, Value, json};

use super::protobuf::Field;
use super::reality;
use super::status::Status;
use super::typed::{Typed, entry};

/// A mapping in mihomo's words.
pub type Entry = Map<String, Value>;

/// What the socket settings say of transparent listeners.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Capture {
    /// Nothing.
    #[default]
    Off,
    /// `TProxy`.
    TProxy,
    /// `Redirect`.
    Redirect,
}

/// `xray.transport.internet.StreamConfig`.
#[derive(Default)]
pub struct Stream<'a> {
    transports: Vec<(&'a str, Typed<'a>)>,
    security: &'a str,
    securities: Vec<Typed<'a>>,
    transport: &'a str,
    /// `routing-mark`, `interface-name` and the like.
    pub dial: Entry,
    /// For transparent listeners.
    pub capture: Capture,
}

fn unsupported(what: &str) -> Status {
    Status::unknown(format!("headgate does not support {what}"))
}

impl<'a> Stream<'a> {
    /// Of a field.
    ///
    /// # Errors
    /// No such message.
    pub fn read(field: &Field<'a>) -> Result<Self, Status> {
        let mut stream = Self::default();
        for field in field.message()? {
            let field = field?;
            match field.number {
                2 => {
                    let (mut name, mut settings) = ("", Typed::default());
                    for field in field.message()? {
                        let field = field?;
                        match field.number {
                            2 => settings = Typed::read(&field)?,
                            3 => name = field.text()?,
                            _ => {}
                        }
                    }
                    stream.transports.push((name, settings));
                }
                3 => stream.security = field.text()?,
                4 => stream.securities.push(Typed::read(&field)?),
                5 => stream.transport = field.text()?,
                6 => stream.socket(&field)?,
                _ => {}
            }
        }
        Ok(stream)
    }

    fn socket(&mut self, field: &Field<'a>) -> Result<(), Status> {
        for field in field.message()? {
            let field = field?;
            let (key, value) = match field.number {
                1 => ("routing-mark", json!(field.short()?)),
                2 => ("tfo", json!(field.short()?.cast_signed() > 0)),
                3 => {
                    self.capture = match field.short()? {
                        1 => Capture::TProxy,
                        2 => Capture::Redirect,
                        _ => Capture::Off,
                    };
                    continue;
                }
                9 => ("dialer-proxy", json!(field.text()?)),
                13 => ("interface-name", json!(field.text()?)),
                _ => continue,
            };
            self.dial.insert(key.to_owned(), value);
        }
        Ok(())
    }

    /// Refuses everything but a plain socket.
    ///
    /// # Errors
    /// A transport or a security.
    pub fn require_plain(&self) -> Result<(), Status> {
        if !matches!(self.transport, "" | "tcp") {
            return Err(unsupported(&format!(
                "the transport {} here",
                self.transport
            )));
        }
        if !self.security.is_empty() {
            return Err(unsupported(&format!("{} here", self.security)));
        }
        Ok(())
    }

    /// As [`Self::tls`], or REALITY in its place.
    ///
    /// # Errors
    /// Another security, or what [`reality::ask`] refuses.
    pub fn tls_or_reality(&self, name_key: &str, proxy: &mut Entry) -> Result<(), Status> {
        match Typed::named(self.security).kind() {
            reality::KIND => reality::ask(&self.settings_of(reality::KIND), name_key, proxy),
            _ => self.tls(name_key, proxy),
        }
    }

    /// What is said of a security; nothing when nothing is.
    fn settings_of(&self, kind: &str) -> Typed<'a> {
        let mut settings = self.securities.iter();
        let settings = settings.find(|settings| settings.kind() == kind);
        settings.copied().unwrap_or_default()
    }

    /// `tls` with its keys. `name_key` is how the proxy's type calls the server's name.
    ///
    /// # Errors
    /// Another security than TLS.
    pub fn tls(&self, name_key: &str, proxy: &mut Entry) -> Result<(), Status> {
        if self.security.is_empty() {
            return Ok(());
        }
        let asked = Typed::named(self.security);
        if asked.kind() != "transport.internet.tls.Config" {
            return Err(unsupported(self.security));
        }
        proxy.insert("tls".to_owned(), json!(true));
        let settings = self.settings_of(asked.kind());
        let (mut protocols, mut pins) = (Vec::new(), Vec::new());
        for field in settings.fields() {
            let field = field?;
            match field.number {
                1 => {
                    proxy.insert("skip-cert-verify".to_owned(), json!(field.boolean()?));
                }
                3 => {
                    proxy.insert(name_key.to_owned(), json!(field.text()?));
                }
                4 => protocols.push(field.text()?),
                22 => pins.push(HEX.encode(field.bytes()?)),
                _ => {}
            }
        }
        if !protocols.is_empty() {
            proxy.insert("alpn".to_owned(), json!(protocols));
        }
        match pins.as_slice() {
            [] => {}
            [pin] => {
                proxy.insert("fingerprint".to_owned(), json!(pin));
            }
            _ => return Err(unsupported("several pinned certificates")),
        }
        Ok(())
    }

    /// What a server puts around its protocol: `certificate`, `private-key`, `reality-config`, `ws-path`,
    /// `grpc-service-name`.
    ///
    /// # Errors
    /// Another security than TLS and REALITY, no certificate for it, or a transport that headgate does not serve.
    pub fn serve(&self, listener: &mut Entry) -> Result<(), Status> {
        match self.transport {
            "" | "tcp" => self.plain_tcp()?,
            "websocket" | "httpupgrade" => {
                let mut path = "/";
                for field in self.settings(self.transport).iter().flat_map(Typed::fields) {
                    let field = field?;
                    if field.number == 2 && !field.bytes()?.is_empty() {
                        path = field.text()?;
                    }
                }
                listener.insert("ws-path".to_owned(), json!(path));
            }
            "grpc" => {
                listener.insert("grpc-service-name".to_owned(), json!(self.service()?));
            }
            other => return Err(unsupported(&format!("the transport {other} here"))),
        }
        if self.security.is_empty() {
            return Ok(());
        }
        let asked = Typed::named(self.security);
        let settings = self.settings_of(asked.kind());
        match asked.kind() {
            "transport.internet.tls.Config" => {}
            reality::KIND => return reality::serve(&settings, listener),
            _ => return Err(unsupported(&format!("{} here", self.security))),
        }
        for field in settings.fields() {
            let field = field?;
            if field.number == 2 {
                return certificate(&field, listener);
            }
        }
        Err(Status::unknown("TLS needs a certificate here"))
    }

    /// `network` with its keys.
    ///
    /// # Errors
    /// A transport that headgate does not speak.
    pub fn network(&self, proxy: &mut Entry) -> Result<(), Status> {
        let upgrade = match self.transport {
            "" | "tcp" => return self.plain_tcp(),
            "websocket" => false,
            "httpupgrade" => true,
            "grpc" => {
                let options = json!({"grpc-service-name": self.service()?});
                proxy.insert("network".to_owned(), json!("grpc"));
                proxy.insert("grpc-opts".to_owned(), options);
                return Ok(());
            }
            other => return Err(unsupported(&format!("the transport {other}"))),
        };
        let (mut headers, mut options) = (Entry::new(), Entry::new());
        if let Some(settings) = self.settings(self.transport) {
            for field in settings.fields() {
                let field = field?;
                match field.number {
                    1 if !field.bytes()?.is_empty() => {
                        headers.insert("Host".to_owned(), json!(field.text()?));
                    }
                    2 => {
                        options.insert("path".to_owned(), json!(field.text()?));
                    }
                    3 => {
                        let (name, value) = entry(&field)?;
                        headers.insert(name.to_owned(), json!(value));
                    }
                    5 => {
                        options.insert("max-early-data".to_owned(), json!(field.short()?));
                        let name = "Sec-WebSocket-Protocol";
                        options.insert("early-data-header-name".to_owned(), json!(name));
                    }
                    _ => {}
                }
            }
        }
        if upgrade {
            options.insert("v2ray-http-upgrade".to_owned(), json!(true));
        }
        options.insert("headers".to_owned(), Value::Object(headers));
        proxy.insert("network".to_owned(), json!("ws"));
        proxy.insert("ws-opts".to_owned(), Value::Object(options));
        Ok(())
    }

    /// The name of a gRPC service (`xray.transport.internet.grpc.encoding.Config`).
    fn service(&self) -> Result<String, Status> {
        let mut name = "";
        for field in self.settings("grpc").iter().flat_map(Typed::fields) {
            let field = field?;
            match field.number {
                1 if !field.bytes()?.is_empty() => return Err(unsupported("a gRPC authority")),
                2 => name = field.text()?,
                _ => {}
            }
        }
        // Without a name the path is this.
        Ok(if name.is_empty() { "//Tun" } else { name }.to_owned())
    }

    fn settings(&self, transport: &str) -> Option<Typed<'a>> {
        let mut known = self.transports.iter();
        let found = known
            .find(|(name, settings)| *name == transport || settings.kind().contains(transport));
        found.map(|(_, settings)| *settings)
    }

    /// TCP may be dressed up as HTTP, which nobody here would understand.
    fn plain_tcp(&self) -> Result<(), Status> {
        let Some(settings) = self.settings("tcp") else {
            return Ok(());
        };
        for field in settings.fields() {
            let field = field?;
            if field.number == 2 {
                let header = Typed::read(&field)?;
                if !header.is_absent() && !header.kind().ends_with("noop.ConnectionConfig") {
                    return Err(unsupported("TCP headers"));
                }
            }
        }
        Ok(())
    }
}

/// `xray.transport.internet.tls.Certificate`: PEM text, or files.
fn certificate(field: &Field<'_>, listener: &mut Entry) -> Result<(), Status> {
    for field in field.message()? {
        let field = field?;
        let key = match field.number {
            1 | 5 => "certificate",
            2 | 6 => "private-key",
            _ => continue,
        };
        if !field.bytes()?.is_empty() {
            listener.insert(key.to_owned(), json!(field.text()?));
        }
    }
    Ok(())
}
