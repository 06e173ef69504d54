//! The databases, written here as their makers write them.

use std::io::Write;

use super::*;
use crate::rules::set::Behavior;
use proptest::prelude::*;

/// A field of protobuf with bytes in it.
fn bytes(number: u8, content: &[u8]) -> Vec<u8> {
    let mut field = vec![number << 3 | 2];
    let mut length = content.len();
    while length >= 0x80 {
        field.push(u8::try_from(length & 0x7f).unwrap() | 0x80);
        length >>= 7;
    }
    field.push(u8::try_from(length).unwrap());
    field.extend(content);
    field
}

fn domain(kind: u8, value: &str, attributes: &[&str]) -> Vec<u8> {
    let mut domain = vec![1 << 3, kind];
    domain.extend(bytes(2, value.as_bytes()));
    for attribute in attributes {
        let mut message = bytes(1, attribute.as_bytes());
        message.extend([2 << 3, 1]);
        domain.extend(bytes(3, &message));
    }
    bytes(2, &domain)
}

fn list(name: &str, entries: &[Vec<u8>]) -> Vec<u8> {
    let mut list = bytes(1, name.as_bytes());
    list.extend(entries.concat());
    bytes(1, &list)
}

fn geosite() -> Vec<u8> {
    let long = format!("{}.org", "x".repeat(200));
    [
        list("OTHER", &[domain(2, &long, &[]), domain(3, "a.other", &[])]),
        list(
            "CN",
            &[
                domain(2, "baidu.com", &[]),
                domain(3, "full.cn", &["ads"]),
                domain(0, "taobao", &["ads", "!cn"]),
                domain(1, r"^r\d+\.cn$", &[]),
                domain(1, "(", &[]),
            ],
        ),
    ]
    .concat()
}

fn cidr(address: &[u8], length: u8) -> Vec<u8> {
    let mut cidr = bytes(1, address);
    cidr.extend([2 << 3, length]);
    bytes(2, &cidr)
}

fn geoip() -> Vec<u8> {
    let v6 = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let mut cn = vec![cidr(&[1, 0, 0, 0], 8), cidr(&v6, 32)];
    // `reverse_match`, and a hash such as some builders add.
    cn.extend([vec![3 << 3, 0], bytes(4, b"hash")]);
    [list("US", &[cidr(&[2, 0, 0, 0], 8)]), list("cn", &cn)].concat()
}

/// Reads categories as the rules name them, and asks them.
fn read_all(database: Database, file: &[u8], names: &[&str]) -> Result<Vec<RuleSet>, ReadError> {
    let geodata = Geodata::default();
    for name in names {
        let _set = match database {
            Database::Sites => geodata.site(name),
            Database::Systems => geodata.autonomous_system(name.parse().unwrap()),
            Database::Countries | Database::CountriesDat => geodata.country(name),
        };
    }
    let directory = std::env::temp_dir();
    let path = directory.join(format!(
        "headgate-geo-{}-{}",
        std::process::id(),
        file.len()
    ));
    let mut made = File::options();
    let made = made.write(true).read(true).create(true).truncate(true);
    let mut made = made.open(&path).unwrap();
    fs::remove_file(&path).unwrap();
    made.write_all(file).unwrap();
    io::Seek::rewind(&mut made).unwrap();
    read(database, &made, &geodata.sets())
}

fn has(set: &RuleSet, address: &str) -> bool {
    set.has_address(address.parse().unwrap())
}

#[test]
fn a_list_of_names_is_read_with_its_attributes() {
    let names = ["cn", "cn@ads", "CN@ads@!cn", "cn@none", "gone", "other"];
    let sets = read_all(Database::Sites, &geosite(), &names).unwrap();
    let counts: Vec<_> = sets.iter().map(RuleSet::entries).collect();
    assert_eq!(counts, [4, 2, 1, 0, 0, 2]);
    for (name, want) in [
        ("www.baidu.com", [true, false, false]),
        ("full.cn", [true, true, false]),
        ("www.full.cn", [false, false, false]),
        ("x.taobao.org", [true, true, true]),
        ("r12.cn", [true, false, false]),
        ("a.other", [false, false, false]),
    ] {
        let got: Vec<_> = sets.iter().take(3).map(|set| set.has_name(name)).collect();
        assert_eq!(got, want, "{name}");
    }
}

#[test]
fn a_country_is_read_from_protobuf() {
    let sets = read_all(Database::CountriesDat, &geoip(), &["cn", "de"]).unwrap();
    let [cn, de] = sets.as_slice() else {
        panic!("two sets")
    };
    assert_eq!((cn.entries(), de.entries()), (2, 0));
    assert!(has(cn, "1.255.0.1") && has(cn, "2001:db8::1"));
    assert!(!has(cn, "2.0.0.1") && !has(de, "1.0.0.1"));
    assert_eq!(cn.behavior(), Behavior::IpCidr);
}

#[test]
fn a_file_that_breaks_off_or_is_another_is_refused() {
    for (database, file) in [
        (Database::Sites, geosite()),
        (Database::CountriesDat, geoip()),
    ] {
        let name = ["us", "other"];
        for cut in 1..file.len() {
            // At the end of a list it is a whole file.
            if cut != file.len() && read_all(database, &file[..cut], &name).is_ok() {
                let next = &file[cut..];
                assert!(next.starts_with(&[0x0a]), "{database:?} {cut}");
            }
        }
    }
    let page = b"<!DOCTYPE html>\n<html>";
    for database in Database::ALL {
        let read = read_all(database, page, &["1"]);
        assert!(matches!(read, Err(ReadError::NotGeodata)), "{database:?}");
    }
}

/// A MaxMind database of a few IPv4 prefixes, in a tree of both families.
struct Tree {
    /// Pairs; a record is its place in the data plus the number of nodes and the gap.
    nodes: Vec<[Leaf; 2]>,
    data: Vec<u8>,
}

#[derive(Clone, Copy)]
enum Leaf {
    Node(usize),
    Record(usize),
    Nothing,
}

impl Tree {
    fn new() -> Self {
        Self {
            nodes: vec![[Leaf::Nothing; 2]],
            data: Vec::new(),
        }
    }

    fn insert(&mut self, bits: u128, length: u32, record: usize) {
        let mut node = 0;
        for depth in 0..length {
            let side = usize::from(bits >> (127 - depth) & 1 == 1);
            if depth + 1 == length {
                self.nodes[node][side] = Leaf::Record(record);
            } else if let Leaf::Node(next) = self.nodes[node][side] {
                node = next;
            } else {
                self.nodes.push([Leaf::Nothing; 2]);
                self.nodes[node][side] = Leaf::Node(self.nodes.len() - 1);
                node = self.nodes.len() - 1;
            }
        }
    }

    /// Has ::ffff:0:0/96 lead to the IPv4 addresses too, as MaxMind does.
    fn alias(&mut self) {
        let mut root = 0;
        for _ in 0..96 {
            if let Leaf::Node(next) = self.nodes[root][0] {
                root = next;
            }
        }
        self.insert(0xffff << 32, 96, 0);
        let mut node = 0;
        for depth in 0..95 {
            let side = usize::from((0xffffu128 << 32) >> (127 - depth) & 1 == 1);
            if let Leaf::Node(next) = self.nodes[node][side] {
                node = next;
            }
        }
        self.nodes[node][1] = Leaf::Node(root);
    }

    fn write(&self, width: u32, kind: &str) -> Vec<u8> {
        let count = self.nodes.len();
        let mut file = Vec::new();
        for node in &self.nodes {
            let [left, right] = node.map(|leaf| {
                u32::try_from(match leaf {
                    Leaf::Node(next) => next,
                    Leaf::Nothing => count,
                    Leaf::Record(at) => count + 16 + at,
                })
                .unwrap()
            });
            let (l, r) = (left.to_be_bytes(), right.to_be_bytes());
            match width {
                24 => file.extend([&l[1..], &r[1..]].concat()),
                28 => file.extend([&l[1..], &[l[0] << 4 | r[0]], &r[1..]].concat()),
                _ => file.extend([l, r].concat()),
            }
        }
        file.extend([0; 16]);
        file.extend(&self.data);
        file.extend(b"\xab\xcd\xefMaxMind.com");
        file.push(0xe5);
        for (key, value) in [
            ("node_count", uint(u32::try_from(count).unwrap())),
            ("record_size", uint(width)),
            ("ip_version", uint(6)),
            ("binary_format_major_version", uint(2)),
            ("database_type", text(kind)),
        ] {
            file.extend(text(key));
            file.extend(value);
        }
        file
    }
}

fn text(text: &str) -> Vec<u8> {
    let length = u8::try_from(text.len()).unwrap();
    let mut item = match length {
        0..29 => vec![0x40 | length],
        _ => vec![0x5d, length - 29],
    };
    item.extend(text.as_bytes());
    item
}

fn uint(number: u32) -> Vec<u8> {
    [vec![0xc4], number.to_be_bytes().to_vec()].concat()
}

/// Records of two countries, MaxMind's way: the second names the first's map of names by pointer.
fn countries() -> (Tree, Vec<usize>) {
    let mut tree = Tree::new();
    let names = tree.data.len();
    tree.data
        .extend([vec![0xe1], text("en"), text("Land of a rather long name")].concat());
    let mut places = Vec::new();
    for code in ["CN", "US"] {
        places.push(tree.data.len());
        let pointer = vec![0x20, u8::try_from(names).unwrap()];
        let country = [
            vec![0xe2],
            text("names"),
            pointer,
            text("iso_code"),
            text(code),
        ]
        .concat();
        // A boolean and a list stand in the way.
        let before = [
            text("flag"),
            vec![0x01, 7],
            text("list"),
            vec![0x02, 4, 0xa1, 1, 0xa0],
        ];
        tree.data
            .extend([vec![0xe3], before.concat(), text("country"), country].concat());
    }
    (tree, places)
}

#[test]
fn a_country_is_collected_from_a_tree_of_any_width() {
    let (mut tree, places) = countries();
    tree.insert(0x0100_0000, 104, places[0]);
    tree.insert(0x0200_0000, 105, places[0]);
    tree.insert(0x0280_0000, 105, places[1]);
    tree.insert(0x2001_0db8 << 96, 32, places[0]);
    tree.alias();
    for width in [24, 28, 32] {
        let file = tree.write(width, "GeoLite2-Country");
        let sets = read_all(Database::Countries, &file, &["cn", "us", "de"]).unwrap();
        let counts: Vec<_> = sets.iter().map(RuleSet::entries).collect();
        assert_eq!(counts, [3, 1, 0], "{width}");
        let [cn, us, _] = sets.as_slice() else {
            panic!("three sets")
        };
        for (address, in_cn, in_us) in [
            ("1.2.3.4", true, false),
            ("2.127.255.255", true, false),
            ("2.128.0.0", false, true),
            ("3.0.0.0", false, false),
            ("2001:db8::1", true, false),
            ("2001:db9::", false, false),
        ] {
            assert_eq!(
                (has(cn, address), has(us, address)),
                (in_cn, in_us),
                "{address}"
            );
        }
    }
}

#[test]
fn the_other_layouts_are_known_by_their_type() {
    for (kind, record, database, name) in [
        ("sing-geoip", text("cn"), Database::Countries, "cn"),
        ("Meta-geoip0", text("cn"), Database::Countries, "cn"),
        (
            "Meta-geoip0",
            [vec![0x02, 4], text("telegram"), text("cn")].concat(),
            Database::Countries,
            "cn",
        ),
        (
            "GeoLite2-ASN",
            [vec![0xe1], text("autonomous_system_number"), uint(13335)].concat(),
            Database::Systems,
            "13335",
        ),
        (
            "ipinfo generic_asn_free.mmdb",
            [vec![0xe1], text("asn"), text("AS13335")].concat(),
            Database::Systems,
            "13335",
        ),
    ] {
        let mut tree = Tree::new();
        tree.data = record;
        tree.insert(0x0100_0000, 104, 0);
        let sets = read_all(database, &tree.write(24, kind), &[name]).unwrap();
        assert!(sets.iter().all(|set| has(set, "1.0.0.1")), "{kind}");
        assert!(sets.iter().all(|set| set.entries() == 1), "{kind}");
    }
}

#[test]
fn a_tree_that_leads_back_or_out_is_refused() {
    let (mut tree, places) = countries();
    tree.insert(0x0100_0000, 104, places[0]);
    for leaf in [Leaf::Node(0), Leaf::Record(1 << 20)] {
        let mut broken = Tree {
            nodes: tree.nodes.clone(),
            data: tree.data.clone(),
        };
        let last = broken.nodes.len() - 1;
        broken.nodes[last] = [leaf; 2];
        let file = broken.write(32, "GeoLite2-Country");
        let read = read_all(Database::Countries, &file, &["cn"]);
        assert!(matches!(read, Err(ReadError::NotGeodata)));
    }
}

proptest! {
    #[test]
    fn no_bytes_panic(at in 0usize..2000, byte in any::<u8>(), cut in 0usize..2000) {
        let (mut tree, places) = countries();
        tree.insert(0x0100_0000, 104, places[0]);
        for (database, mut file) in [
            (Database::Sites, geosite()),
            (Database::CountriesDat, geoip()),
            (Database::Countries, tree.write(28, "GeoLite2-Country")),
        ] {
            if let Some(place) = file.get_mut(at) {
                *place = byte;
            }
            let length = file.len();
            file.truncate(length - cut.min(length) / 2);
            let _ = read_all(database, &file, &["cn"]);
        }
    }
}
