//! Tests against the real kernel, each in a network namespace of its own. Without root, or
//! without nft, they say so and prove nothing.

use std::io::Write;
use std::net::IpAddr;
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sched::{CloneFlags, unshare};

use super::apply::{Capture, CaptureError, cleanup, has_tproxy, hold, release};
use super::options::{Fail, Mode, Options};
use super::routing::{self, Keeper};
use super::ruleset::{Facts, Ports, Ruleset};
use crate::metadata::Mac;
use crate::platform::neighbours::Neighbours;
use crate::platform::netlink::{Batch, Socket};
use crate::platform::sysctl;

const PORTS: Ports = Ports {
    tproxy: 7893,
    redirect: 7892,
    dns: 1053,
};

/// Runs `test` in a thread with a network namespace of its own.
fn isolated(test: fn()) {
    let thread = std::thread::spawn(move || {
        if unshare(CloneFlags::CLONE_NEWNET).is_err() {
            eprintln!("SKIPPED, PROVES NOTHING: a network namespace needs root");
        } else if Command::new("nft").arg("--version").output().is_err() {
            eprintln!("SKIPPED, PROVES NOTHING: nft is not installed");
        } else {
            test();
        }
    });
    thread.join().unwrap();
}

fn nft(arguments: &[&str], input: &str) -> Result<String, String> {
    let mut child = Command::new("nft")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(input.as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    if output.status.success() {
        Ok(String::from_utf8(output.stdout).unwrap())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

/// What nft says of a table, without what differs by nature: owner and remaining times.
fn listed(table: &str) -> String {
    let text = nft(&["list", "table", "inet", table], "").unwrap();
    let lines = text
        .lines()
        .filter(|line| !line.trim().starts_with("flags owner"));
    // "table inet headgate { # progname NAME".
    let lines = lines.map(|line| line.split(" #").next().unwrap());
    let mut words = lines.flat_map(str::split_whitespace);
    let mut kept = Vec::new();
    while let Some(word) = words.next() {
        if word != "expires" {
            kept.push(word);
        } else if words.next().is_some_and(|time| time.ends_with(',')) {
            kept.push(",");
        }
    }
    kept.join(" ")
}

/// Runs `ip` with these words.
fn ip(words: &str) -> String {
    let output = Command::new("ip").args(words.split(' ')).output().unwrap();
    assert!(
        output.status.success(),
        "ip {words}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

/// A namespace whose loopback device is up, and a runtime in it.
fn isolated_async(test: fn(&tokio::runtime::Runtime)) {
    let thread = std::thread::spawn(move || {
        if unshare(CloneFlags::CLONE_NEWNET).is_err() || Command::new("ip").output().is_err() {
            return eprintln!("SKIPPED, PROVES NOTHING: needs root and iproute2");
        }
        ip("link set lo up");
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        test(&runtime.enable_all().build().unwrap());
    });
    thread.join().unwrap();
}

fn facts() -> Facts {
    Facts {
        fake_ip: vec![
            "198.18.0.0/15".parse().unwrap(),
            "fdfe:dcba:9876::/64".parse().unwrap(),
        ],
        connected: vec![
            "203.0.113.128/25".parse().unwrap(),
            "2001:db8:1::/64".parse().unwrap(),
        ],
        direct: vec!["1.0.1.0/24".parse().unwrap(), "1.0.2.0/23".parse().unwrap()],
        blocked: vec![Mac([2, 0, 0, 0, 0, 9])],
    }
}

/// Option sets that together reach every line of the builder.
fn variants() -> Vec<Options> {
    let full = Options {
        interfaces: vec!["br-lan".into(), "wlan0-guest".into()],
        bypass: vec![
            "9.9.9.9/32".parse().unwrap(),
            "2620:fe::/48".parse().unwrap(),
        ],
        bypass_source: vec!["192.168.1.7".parse().unwrap(), "fe80::7".parse().unwrap()],
        bypass_source_mac: vec!["02:00:00:00:00:07".parse().unwrap()],
        router_traffic: true,
        fail: Fail::Closed,
        ..Options::default()
    };
    vec![
        Options::default(),
        Options {
            mode: Mode::Redirect,
            fail: Fail::Open,
            ..full.clone()
        },
        Options {
            ipv6: false,
            dns_hijack: false,
            offload: false,
            ..full.clone()
        },
        full,
    ]
}

#[test]
fn nft_reads_the_text_and_the_kernel_holds_the_same_rules() {
    isolated(|| {
        for options in variants() {
            for tproxy in [true, false] {
                let ruleset = Ruleset::new(&options, PORTS, &facts(), tproxy).unwrap();
                let text = ruleset.to_string();
                nft(&["-c", "-f", "-"], &text).unwrap_or_else(|error| panic!("{error}{text}"));
                nft(&["-f", "-"], &text).unwrap();
                let tables = [Some(&ruleset.capture), ruleset.closed.as_ref()];
                let names = || tables.iter().flatten().map(|table| table.name);
                let by_text: Vec<String> = names().map(listed).collect();
                nft(&["flush", "ruleset"], "").unwrap();
                let mut socket = Socket::open().unwrap();
                let mut batch = Batch::transaction();
                tables
                    .into_iter()
                    .flatten()
                    .for_each(|t| super::encode::replace(&mut batch, t));
                socket.commit(batch).unwrap();
                let by_netlink: Vec<String> = names().map(listed).collect();
                assert_eq!(by_netlink, by_text);
                drop(socket);
                nft(&["flush", "ruleset"], "").unwrap();
            }
        }
    });
}

#[test]
fn the_table_cannot_be_flushed_by_others_and_goes_with_its_owner() {
    isolated(|| {
        let options = Options::default();
        let capture = Capture::start(&options, PORTS, &facts()).unwrap();
        nft(&["flush", "ruleset"], "").unwrap();
        assert!(nft(&["delete", "table", "inet", "headgate"], "").is_err());
        assert!(listed("headgate").contains("tproxy ip to 127.0.0.1:7893"));
        drop(capture);
        assert_eq!(nft(&["list", "tables"], "").unwrap(), "");
    });
}

#[test]
fn asking_what_the_kernel_can_do_leaves_nothing_behind() {
    isolated(|| {
        assert!(has_tproxy().unwrap());
        assert_eq!(nft(&["list", "tables"], "").unwrap(), "");
    });
}

#[test]
fn a_second_instance_is_told_so_and_changes_nothing() {
    isolated(|| {
        let options = Options::default();
        let _first = Capture::start(&options, PORTS, &facts()).unwrap();
        let before = listed("headgate");
        let second = Capture::start(&options, PORTS, &Facts::default());
        assert!(matches!(second, Err(CaptureError::Running)), "{second:?}");
        assert!(matches!(cleanup(&options), Err(CaptureError::Running)));
        assert_eq!(listed("headgate"), before);
    });
}

#[test]
fn rules_are_replaced_only_when_they_differ() {
    isolated(|| {
        let options = Options::default();
        let mut capture = Capture::start(&options, PORTS, &facts()).unwrap();
        capture
            .set_proxy_servers(&["192.0.2.1".parse().unwrap()])
            .unwrap();
        assert!(!capture.apply(&options, PORTS, &facts()).unwrap());
        let mut moved = facts();
        moved.connected.push("198.51.100.0/24".parse().unwrap());
        assert!(capture.apply(&options, PORTS, &moved).unwrap());
        let table = listed("headgate");
        assert!(
            table.contains("198.51.100.0/24") && table.contains("192.0.2.1"),
            "{table}"
        );
    });
}

#[test]
fn drops_outlive_the_capture_until_they_are_released() {
    isolated(|| {
        let options = Options {
            fail: Fail::Closed,
            ..Options::default()
        };
        hold(&options, &facts()).unwrap();
        drop(Capture::start(&options, PORTS, &facts()).unwrap());
        assert_eq!(
            nft(&["list", "tables"], "").unwrap(),
            "table inet headgate_closed\n"
        );
        release().unwrap();
        release().unwrap();
        assert_eq!(nft(&["list", "tables"], "").unwrap(), "");
        hold(&options, &facts()).unwrap();
        cleanup(&options).unwrap();
        assert_eq!(nft(&["list", "tables"], "").unwrap(), "");
    });
}

#[test]
fn silence_for_three_seconds_ends_capture_and_renewal_brings_it_back() {
    isolated(|| {
        let mut capture = Capture::start(&Options::default(), PORTS, &facts()).unwrap();
        let alive = || nft(&["list", "set", "inet", "headgate", "alive"], "").unwrap();
        // The kernel's clock cannot be turned; this is the one test that waits.
        for _ in 0..2 {
            std::thread::sleep(Duration::from_millis(2000));
            assert!(alive().contains("tcp timeout 3s"), "{}", alive());
            capture.renew().unwrap();
        }
        std::thread::sleep(Duration::from_millis(3100));
        assert!(!alive().contains("tcp"), "{}", alive());
        capture.renew().unwrap();
        assert!(alive().contains("udp timeout 3s"), "{}", alive());
    });
}

#[test]
fn learned_addresses_come_expire_and_are_capped() {
    isolated(|| {
        let mut capture = Capture::start(&Options::default(), PORTS, &facts()).unwrap();
        let second = Duration::from_secs(60);
        let two: [IpAddr; 2] = ["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()];
        let set = |name| nft(&["list", "set", "inet", "headgate", name], "").unwrap();
        assert!(capture.add_direct(&two.map(|a| (a, second))).unwrap());
        assert!(capture.add_direct(&[(two[0], second * 2)]).unwrap());
        assert!(
            set("learned4").contains("192.0.2.1 timeout 2m"),
            "{}",
            set("learned4")
        );
        assert!(set("learned6").contains("2001:db8::1 timeout 1m"));
        capture.remove_direct(&two).unwrap();
        capture.remove_direct(&two).unwrap();
        assert!(!set("learned4").contains("192.0.2.1"));
        let many: Vec<(IpAddr, Duration)> = (0..4096_u32)
            .map(|n| (IpAddr::V4((0x0101_0000 + n).into()), second))
            .collect();
        assert!(capture.add_direct(&many).unwrap());
        assert!(!capture.add_direct(&[(two[0], second)]).unwrap());
        capture.flush_direct().unwrap();
        assert!(capture.add_direct(&[(two[0], second)]).unwrap());
    });
}

#[test]
fn twenty_thousand_ranges_fit_into_one_transaction() {
    isolated(|| {
        let mut facts = facts();
        facts.direct = (0..20_000_u32)
            .map(|n| {
                let address = IpAddr::V4((0x0100_0000 + n * 1024).into());
                crate::prefix::Prefix::new(address, 24)
            })
            .collect();
        let _capture = Capture::start(&Options::default(), PORTS, &facts).unwrap();
        let set = nft(&["list", "set", "inet", "headgate", "direct4"], "").unwrap();
        assert_eq!(set.matches("/24").count(), 20_000);
    });
}

#[test]
fn rules_and_routes_that_others_remove_come_back_within_a_second() {
    isolated_async(|runtime| {
        let options = Options::default();
        let (mut keeper, _network) = runtime.block_on(Keeper::start(&options)).unwrap();
        let there = || {
            ["-4", "-6"].iter().all(|family| {
                ip(&format!("{family} rule")).contains("fwmark 0x48000000/0xff000000 lookup 26727")
                    && ip(&format!("{family} route show table all"))
                        .contains("local default dev lo table 26727")
            })
        };
        assert!(there());
        for harm in ["-4 rule del pref 900", "-6 rule flush", "link set lo down"] {
            ip(harm);
            assert!(!there(), "{harm}");
            ip("link set lo up");
            runtime.block_on(async {
                let second = tokio::time::sleep(Duration::from_millis(900));
                tokio::select! { () = keeper.run() => {}, () = second => {} }
            });
            assert!(there(), "{harm}");
        }
        runtime.block_on(keeper.stop()).unwrap();
        assert!(!ip("-4 rule").contains("26727") && !ip("-6 rule").contains("26727"));
        assert!(!ip("route show table all").contains("26727"));
    });
}

#[test]
fn switches_are_put_back_by_stop_and_after_a_kill_by_the_next_start_and_by_cleanup() {
    const SWITCH: &str = "net/ipv4/conf/all/src_valid_mark";
    isolated_async(|runtime| {
        let options = Options {
            interfaces: vec!["lo".into()],
            ..Options::default()
        };
        sysctl::write(SWITCH, 1).unwrap();
        for leave in ["stop", "kill, start, stop", "kill, cleanup"] {
            let (keeper, _) = runtime.block_on(Keeper::start(&options)).unwrap();
            assert_eq!(sysctl::read(SWITCH), Some(0), "{leave}");
            match leave {
                "stop" => runtime.block_on(keeper.stop()).unwrap(),
                "kill, cleanup" => {
                    drop(keeper);
                    runtime.block_on(routing::cleanup(&options)).unwrap();
                }
                _ => {
                    drop(keeper);
                    let (next, _) = runtime.block_on(Keeper::start(&options)).unwrap();
                    runtime.block_on(next.stop()).unwrap();
                }
            }
            assert_eq!(sysctl::read(SWITCH), Some(1), "{leave}");
            assert!(!ip("route show table all").contains("192.0.2"), "{leave}");
        }
    });
}

#[test]
fn an_earlier_configurations_rules_are_removed_by_the_next_start() {
    isolated_async(|runtime| {
        let old = Options {
            table: 100,
            rule_priority: 7,
            ..Options::default()
        };
        drop(runtime.block_on(Keeper::start(&old)).unwrap());
        let _keeper = runtime
            .block_on(Keeper::start(&Options::default()))
            .unwrap();
        assert!(!ip("rule").contains("lookup 100") && ip("rule").contains("lookup 26727"));
        assert!(!ip("-6 route show table all").contains("table 100"));
    });
}

#[test]
fn a_route_into_the_fake_range_is_found_and_a_default_route_is_none() {
    isolated_async(|runtime| {
        ip("route add default dev lo");
        ip("route add 128.0.0.0/1 dev lo");
        let range = "198.18.0.0/15".parse().unwrap();
        let (keeper, _) = runtime
            .block_on(Keeper::start(&Options::default()))
            .unwrap();
        assert_eq!(
            runtime.block_on(keeper.overlapping_route(range)).unwrap(),
            None
        );
        ip("route add 198.18.7.0/24 dev lo");
        let found = runtime.block_on(keeper.overlapping_route(range)).unwrap();
        assert_eq!(found, Some("198.18.7.0/24".parse().unwrap()));
    });
}

#[test]
fn neighbours_are_known_and_followed() {
    isolated_async(|runtime| {
        ip("link add lan type veth peer name far");
        ip("link set lan up");
        ip("neigh add 192.168.1.2 lladdr 02:00:00:00:00:02 dev lan");
        runtime.block_on(async {
            let neighbours = Neighbours::watch().await.unwrap();
            let device = |n: u8| neighbours.mac_of(IpAddr::from([192, 168, 1, n]));
            assert_eq!(device(2), "02:00:00:00:00:02".parse().ok());
            assert_eq!(device(3), None);
            ip("neigh add 192.168.1.3 lladdr 02:00:00:00:00:03 dev lan");
            let learned = async {
                while device(3).is_none() {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            };
            tokio::time::timeout(Duration::from_secs(5), learned)
                .await
                .unwrap();
            assert_eq!(device(3), "02:00:00:00:00:03".parse().ok());
            // Nothing has been read yet of one that has just come: the kernel is asked.
            ip("neigh add 192.168.1.4 lladdr 02:00:00:00:00:04 dev lan");
            assert_eq!(device(4), None);
            let seek = |n: u8| neighbours.seek(IpAddr::from([192, 168, 1, n]));
            assert_eq!(seek(4).await, "02:00:00:00:00:04".parse().ok());
            assert_eq!(seek(5).await, None);
        });
    });
}
