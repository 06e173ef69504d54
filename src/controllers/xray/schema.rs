//! The `.proto` files of this API, read into the descriptors that reflection hands out.
//!
//! Pure. The files are our own and part of the program, so a mistake in them is a failing test, not
//! a client's concern; the parser takes what they use of proto3: messages with fields, `repeated`,
//! `map`, `oneof`, enums, services. Nothing is kept between requests: a router that nobody asks for
//! its schema holds the text alone.
//!
//! Source: proto3 language specification; `google/protobuf/descriptor.proto` for the numbers.

use super::protobuf::Message;

/// A `.proto` file's name for imports, and its text.
pub type Source = (&'static str, &'static str);

macro_rules! files {
    ($($path:literal),* $(,)?) => { &[$(($path, include_str!(concat!("proto/", $path)))),*] };
}

/// Every file, one a package.
pub const FILES: &[Source] = files![
    "app/log/command/config.proto",
    "app/observatory/command/command.proto",
    "app/observatory/config.proto",
    "app/proxyman/command/command.proto",
    "app/proxyman/config.proto",
    "app/router/command/command.proto",
    "app/router/config.proto",
    "app/stats/command/command.proto",
    "common/geodata/geodat.proto",
    "common/net/net.proto",
    "common/protocol/user.proto",
    "common/serial/typed_message.proto",
    "core/config.proto",
    "grpc/reflection/v1/reflection.proto",
    "grpc/reflection/v1alpha/reflection.proto",
    "proxy/blackhole/config.proto",
    "proxy/dokodemo/config.proto",
    "proxy/freedom/config.proto",
    "proxy/http/config.proto",
    "proxy/shadowsocks/config.proto",
    "proxy/shadowsocks_2022/config.proto",
    "proxy/socks/config.proto",
    "proxy/trojan/config.proto",
    "proxy/vless/account.proto",
    "proxy/vless/inbound/config.proto",
    "proxy/vless/outbound/config.proto",
    "proxy/vmess/account.proto",
    "proxy/vmess/inbound/config.proto",
    "proxy/vmess/outbound/config.proto",
    "transport/internet/config.proto",
    "transport/internet/httpupgrade/config.proto",
    "transport/internet/reality/config.proto",
    "transport/internet/tls/config.proto",
    "transport/internet/websocket/config.proto",
];

/// What services of Xray's are called for v2ray's clients.
const ALIAS: (&str, &str) = ("v2ray.core.", "xray.");

/// The descriptor of the file that declares `symbol` (a full name), and those of the files that it
/// imports; `None`: no file does. An alias of a service has a file of its own that imports Xray's.
#[must_use]
pub fn declaring(symbol: &str) -> Option<Vec<Vec<u8>>> {
    if let Some(name) = symbol.strip_prefix(ALIAS.0) {
        let name = format!("{}{name}", ALIAS.1);
        let files = files();
        let holds = |file: &&File<'_>| {
            file.services
                .iter()
                .any(|one| within(&name, &file.full(one.name)))
        };
        let file = files.iter().find(holds)?;
        let mut descriptors = with_imports(file, &files);
        descriptors.insert(0, alias(file));
        return Some(descriptors);
    }
    let files = files();
    let file = files.iter().find(|file| file.declares(symbol))?;
    Some(with_imports(file, &files))
}

/// The descriptor of the file of that name, and those of its imports.
#[must_use]
pub fn named(name: &str) -> Option<Vec<Vec<u8>>> {
    let files = files();
    let of_alias = name.strip_prefix(ALIAS.0);
    if let Some(file) = files.iter().find(|file| Some(file.name) == of_alias) {
        return Some(vec![alias(file)]);
    }
    let file = files.iter().find(|file| file.name == name)?;
    Some(with_imports(file, &files))
}

fn files() -> Vec<File<'static>> {
    FILES.iter().filter_map(File::parse).collect()
}

fn with_imports(file: &File<'_>, files: &[File<'_>]) -> Vec<Vec<u8>> {
    let mut names = vec![file.name];
    let mut done = 0;
    while let Some(&name) = names.get(done) {
        done += 1;
        for file in files.iter().filter(|file| file.name == name) {
            for &import in &file.imports {
                if !names.contains(&import) {
                    names.push(import);
                }
            }
        }
    }
    let found = names
        .iter()
        .filter_map(|&name| files.iter().find(|file| file.name == name));
    found
        .map(|file| file.descriptor(files).into_bytes())
        .collect()
}

/// A file that declares the services of `file` once more, under the alias.
fn alias(file: &File<'_>) -> Vec<u8> {
    let package = file.package.replacen(ALIAS.1, ALIAS.0, 1);
    let mut descriptor = Message::default();
    descriptor.text(1, &format!("{}{}", ALIAS.0, file.name));
    descriptor.text(2, &package);
    descriptor.text(3, file.name);
    for service in &file.services {
        descriptor.message(6, &service.descriptor(file));
    }
    descriptor.text(12, "proto3");
    descriptor.into_bytes()
}

/// Whether `symbol` is `name` or a member of it.
fn within(symbol: &str, name: &str) -> bool {
    symbol
        .strip_prefix(name)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

struct File<'a> {
    name: &'a str,
    package: &'a str,
    imports: Vec<&'a str>,
    messages: Vec<Type<'a>>,
    enums: Vec<Enum<'a>>,
    services: Vec<Service<'a>>,
}

struct Type<'a> {
    name: &'a str,
    fields: Vec<Field<'a>>,
    oneofs: Vec<&'a str>,
}

struct Field<'a> {
    name: &'a str,
    number: u64,
    kind: &'a str,
    repeated: bool,
    /// The type of a map's keys.
    key: Option<&'a str>,
    oneof: Option<usize>,
}

struct Enum<'a> {
    name: &'a str,
    values: Vec<(&'a str, u64)>,
}

struct Service<'a> {
    name: &'a str,
    methods: Vec<Rpc<'a>>,
}

struct Rpc<'a> {
    name: &'a str,
    takes: &'a str,
    gives: &'a str,
    takes_stream: bool,
    gives_stream: bool,
}

/// A file's words and signs, one after the other.
struct Words<'a>(&'a str);

impl<'a> Words<'a> {
    fn next(&mut self) -> Option<&'a str> {
        let text = self.0.trim_start();
        let word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '/');
        let length = match text.chars().next()? {
            '"' => text.get(1..)?.find('"')? + 2,
            first if word(first) => text.find(|c| !word(c)).unwrap_or(text.len()),
            first => first.len_utf8(),
        };
        let (token, rest) = text.split_at_checked(length)?;
        self.0 = rest;
        Some(token.trim_matches('"'))
    }

    fn expect(&mut self, sign: &str) -> Option<()> {
        (self.next()? == sign).then_some(())
    }

    /// What follows up to `;`, as `= 1;`.
    fn number(&mut self) -> Option<u64> {
        self.expect("=")?;
        let number = self.next()?.parse().ok()?;
        self.expect(";")?;
        Some(number)
    }
}

impl<'a> File<'a> {
    fn parse(&(name, text): &(&'a str, &'a str)) -> Option<Self> {
        let mut file = Self {
            name,
            package: "",
            imports: Vec::new(),
            messages: Vec::new(),
            enums: Vec::new(),
            services: Vec::new(),
        };
        let mut words = Words(text);
        while let Some(word) = words.next() {
            match word {
                "syntax" => {
                    words.expect("=")?;
                    words.expect("proto3")?;
                    words.expect(";")?;
                }
                "package" => {
                    file.package = words.next()?;
                    words.expect(";")?;
                }
                "import" => {
                    file.imports.push(words.next()?);
                    words.expect(";")?;
                }
                "message" => file.messages.push(Type::parse(&mut words)?),
                "enum" => file.enums.push(Enum::parse(&mut words)?),
                "service" => file.services.push(Service::parse(&mut words)?),
                _ => return None,
            }
        }
        Some(file)
    }

    fn full(&self, name: &str) -> String {
        format!("{}.{name}", self.package)
    }

    fn declares(&self, symbol: &str) -> bool {
        let services = self.services.iter().map(|service| service.name);
        let types = self.messages.iter().map(|message| message.name);
        let enums = self.enums.iter().map(|one| one.name);
        let mut names = services.chain(types).chain(enums);
        names.any(|name| within(symbol, &self.full(name)))
    }

    /// A type's full name: names without a package are the file's own.
    fn resolved(&self, kind: &str) -> String {
        if kind.contains('.') {
            format!(".{kind}")
        } else {
            format!(".{}", self.full(kind))
        }
    }

    fn descriptor(&self, files: &[File<'_>]) -> Message {
        let mut descriptor = Message::default();
        descriptor.text(1, self.name).text(2, self.package);
        for import in &self.imports {
            descriptor.text(3, import);
        }
        for message in &self.messages {
            descriptor.message(4, &message.descriptor(self, files));
        }
        for one in &self.enums {
            descriptor.message(5, &one.descriptor());
        }
        for service in &self.services {
            descriptor.message(6, &service.descriptor(self));
        }
        descriptor.text(12, "proto3");
        descriptor
    }
}

impl<'a> Type<'a> {
    fn parse(words: &mut Words<'a>) -> Option<Self> {
        let name = words.next()?;
        words.expect("{")?;
        let (mut fields, mut oneofs) = (Vec::new(), Vec::new());
        let mut oneof = None;
        loop {
            match words.next()? {
                "}" if oneof.is_some() => oneof = None,
                "}" => break,
                "oneof" => {
                    oneof = Some(oneofs.len());
                    oneofs.push(words.next()?);
                    words.expect("{")?;
                }
                word => fields.push(Field::parse(word, oneof, words)?),
            }
        }
        Some(Self {
            name,
            fields,
            oneofs,
        })
    }

    fn descriptor(&self, file: &File<'_>, files: &[File<'_>]) -> Message {
        let mut descriptor = Message::default();
        descriptor.text(1, self.name);
        for field in &self.fields {
            let entry = field
                .key
                .map(|_| format!("{}.{}", self.name, field.entry()));
            descriptor.message(2, &field.descriptor(entry.as_deref(), file, files));
        }
        for field in &self.fields {
            if let Some(key) = field.key {
                descriptor.message(3, &field.entry_descriptor(key, file, files));
            }
        }
        for oneof in &self.oneofs {
            let mut declared = Message::default();
            declared.text(1, oneof);
            descriptor.message(8, &declared);
        }
        descriptor
    }
}

impl<'a> Field<'a> {
    fn parse(word: &'a str, oneof: Option<usize>, words: &mut Words<'a>) -> Option<Self> {
        let (mut kind, mut key) = (word, None);
        let repeated = matches!(word, "repeated" | "map");
        if word == "repeated" {
            kind = words.next()?;
        } else if word == "map" {
            words.expect("<")?;
            key = Some(words.next()?);
            words.expect(",")?;
            kind = words.next()?;
            words.expect(">")?;
        }
        Some(Self {
            name: words.next()?,
            number: words.number()?,
            kind,
            repeated,
            key,
            oneof,
        })
    }

    /// The name of a map's entry type.
    fn entry(&self) -> String {
        let mut name = String::new();
        for part in self.name.split('_') {
            let mut letters = part.chars();
            name.extend(letters.next().map(|first| first.to_ascii_uppercase()));
            name.push_str(letters.as_str());
        }
        name + "Entry"
    }

    fn descriptor(&self, entry: Option<&str>, file: &File<'_>, files: &[File<'_>]) -> Message {
        let mut descriptor = Message::default();
        descriptor.text(1, self.name).integer(3, self.number);
        descriptor.integer(4, if self.repeated { 3 } else { 1 });
        let (kind, of) = match entry {
            Some(entry) => (11, Some(format!(".{}", file.full(entry)))),
            None => match scalar(self.kind) {
                Some(kind) => (kind, None),
                None => {
                    let name = file.resolved(self.kind);
                    (if is_enum(&name, files) { 14 } else { 11 }, Some(name))
                }
            },
        };
        descriptor.integer(5, kind);
        descriptor.text(6, of.as_deref().unwrap_or_default());
        if let Some(index) = self.oneof {
            // Index 0 is no default here: it says that there is one.
            descriptor.present(9, index as u64);
        }
        descriptor
    }

    /// The entry type that a map stands for.
    fn entry_descriptor(&self, key: &str, file: &File<'_>, files: &[File<'_>]) -> Message {
        let mut descriptor = Message::default();
        descriptor.text(1, &self.entry());
        for (name, number, kind) in [("key", 1, key), ("value", 2, self.kind)] {
            let field = Field {
                name,
                number,
                kind,
                repeated: false,
                key: None,
                oneof: None,
            };
            descriptor.message(2, &field.descriptor(None, file, files));
        }
        let mut options = Message::default();
        options.integer(7, 1);
        descriptor.message(7, &options);
        descriptor
    }
}

impl<'a> Enum<'a> {
    fn parse(words: &mut Words<'a>) -> Option<Self> {
        let name = words.next()?;
        words.expect("{")?;
        let mut values = Vec::new();
        loop {
            match words.next()? {
                "}" => return Some(Self { name, values }),
                value => values.push((value, words.number()?)),
            }
        }
    }

    fn descriptor(&self) -> Message {
        let mut descriptor = Message::default();
        descriptor.text(1, self.name);
        for &(name, number) in &self.values {
            let mut value = Message::default();
            value.text(1, name).present(2, number);
            descriptor.message(2, &value);
        }
        descriptor
    }
}

impl<'a> Service<'a> {
    fn parse(words: &mut Words<'a>) -> Option<Self> {
        let name = words.next()?;
        words.expect("{")?;
        let mut methods = Vec::new();
        loop {
            match words.next()? {
                "}" => return Some(Self { name, methods }),
                "rpc" => methods.push(Rpc::parse(words)?),
                _ => return None,
            }
        }
    }

    fn descriptor(&self, file: &File<'_>) -> Message {
        let mut descriptor = Message::default();
        descriptor.text(1, self.name);
        for method in &self.methods {
            let mut rpc = Message::default();
            rpc.text(1, method.name);
            rpc.text(2, &file.resolved(method.takes));
            rpc.text(3, &file.resolved(method.gives));
            rpc.integer(5, method.takes_stream.into());
            rpc.integer(6, method.gives_stream.into());
            descriptor.message(2, &rpc);
        }
        descriptor
    }
}

impl<'a> Rpc<'a> {
    fn parse(words: &mut Words<'a>) -> Option<Self> {
        let name = words.next()?;
        let (takes_stream, takes) = Self::end(words)?;
        words.expect("returns")?;
        let (gives_stream, gives) = Self::end(words)?;
        words.expect(";")?;
        Some(Self {
            name,
            takes,
            gives,
            takes_stream,
            gives_stream,
        })
    }

    /// `(Type)` or `(stream Type)`.
    fn end(words: &mut Words<'a>) -> Option<(bool, &'a str)> {
        words.expect("(")?;
        let mut kind = words.next()?;
        let stream = kind == "stream";
        if stream {
            kind = words.next()?;
        }
        words.expect(")")?;
        Some((stream, kind))
    }
}

/// The number of a scalar type.
fn scalar(kind: &str) -> Option<u64> {
    Some(match kind {
        "float" => 2,
        "int64" => 3,
        "uint64" => 4,
        "int32" => 5,
        "bool" => 8,
        "string" => 9,
        "bytes" => 12,
        "uint32" => 13,
        _ => return None,
    })
}

fn is_enum(name: &str, files: &[File<'_>]) -> bool {
    files.iter().any(|file| {
        let mut enums = file.enums.iter();
        enums.any(|one| name.strip_prefix('.') == Some(&*file.full(one.name)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controllers::xray::SERVICES;
    use crate::controllers::xray::protobuf::Fields;

    #[test]
    fn every_file_is_read_and_names_only_what_is_declared() {
        let files = files();
        assert_eq!(files.len(), FILES.len());
        for file in &files {
            let fields = file.messages.iter().flat_map(|message| &message.fields);
            let kinds = fields
                .map(|field| field.kind)
                .filter(|kind| scalar(kind).is_none());
            let methods = file.services.iter().flat_map(|service| &service.methods);
            let ends = methods.flat_map(|method| [method.takes, method.gives]);
            for kind in kinds.chain(ends) {
                let name = file.resolved(kind);
                let symbol = name.strip_prefix('.').unwrap();
                let owner = files.iter().find(|other| other.declares(symbol));
                let owner = owner.unwrap_or_else(|| panic!("{}: {name}", file.name));
                let reached = owner.name == file.name || file.imports.contains(&owner.name);
                assert!(reached, "{} does not import {}", file.name, owner.name);
            }
        }
    }

    #[test]
    fn the_services_of_the_files_are_those_that_are_served() {
        for served in SERVICES {
            assert!(declaring(served.name).is_some(), "{}", served.name);
            let name = served.name.replacen(ALIAS.0, ALIAS.1, 1);
            let files = files();
            let mut declared = files.iter().flat_map(|file| {
                let services = file.services.iter();
                services.map(|service| (file.full(service.name), service))
            });
            let (_, service) = declared.find(|(full, _)| *full == name).unwrap();
            let mut methods: Vec<_> = service.methods.iter().map(|rpc| rpc.name).collect();
            methods.sort_unstable();
            let served: Vec<_> = served.methods.iter().map(|(name, _)| *name).collect();
            assert_eq!(methods, served, "{name}");
        }
    }

    #[test]
    fn a_symbol_leads_to_its_file() {
        let file_of = |symbol: &str| {
            let files = declaring(symbol)?;
            let name = Fields::new(&files[0]).next().unwrap().unwrap();
            Some(name.text().unwrap().to_owned())
        };
        let stats = Some("app/stats/command/command.proto".to_owned());
        assert_eq!(file_of("xray.app.stats.command.StatsService"), stats);
        assert_eq!(
            file_of("xray.app.stats.command.StatsService.GetStats"),
            stats
        );
        assert_eq!(file_of("xray.app.stats.command.Stat"), stats);
        assert_eq!(file_of("xray.app.stats.command.Sta"), None);
        let alias = file_of("v2ray.core.app.stats.command.StatsService").unwrap();
        assert_eq!(named(&alias).unwrap().len(), 1);
        assert_eq!(file_of("v2ray.core.app.stats.command.Stat"), None);
    }
}
