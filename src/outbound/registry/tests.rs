//! What fits together and what does not, on small registries.

use std::io;
use std::net::{IpAddr, SocketAddr};

use super::*;
use crate::metadata::{Endpoint, InboundType, Network};
use crate::outbound::options::{DialOptions, Protocol, ServerAddress, Socks5Options};
use crate::outbound::{BoxFuture, IpVersion, Purpose, Resolve};

struct NoNames;

impl Resolve for NoNames {
    fn resolve<'a>(
        &'a self,
        _name: &'a str,
        _version: IpVersion,
        _purpose: Purpose,
    ) -> BoxFuture<'a, io::Result<Vec<IpAddr>>> {
        Box::pin(std::future::ready(Err(io::ErrorKind::NotFound.into())))
    }
}

fn proxy(name: &str, dialer: Option<&str>) -> ProxyOptions {
    ProxyOptions {
        mux: None,
        name: name.into(),
        protocol: Protocol::Socks5(Socks5Options {
            server: ServerAddress {
                host: format!("{name}.example").into(),
                port: 1080,
            },
            credentials: None,
            tls: None,
        }),
        udp: false,
        dial: DialOptions {
            dialer_proxy: dialer.map(Into::into),
            ..DialOptions::default()
        },
    }
}

fn group(name: &str, members: &[&str]) -> GroupOptions {
    GroupOptions {
        proxies: members.iter().map(|&member| member.into()).collect(),
        ..GroupOptions::new(name, GroupKind::Select)
    }
}

fn build(
    proxies: &[ProxyOptions],
    groups: &[GroupOptions],
    selected: &[(&str, &str)],
) -> Result<Registry, RegistryError> {
    let environment = Environment {
        resolver: Arc::new(NoNames),
        own_mark: 1,
        routing_mark: 0,
        interface: None,
        ipv6: true,
        reach: Arc::default(),
    };
    let selected = selected
        .iter()
        .map(|&(g, m)| (g.into(), m.into()))
        .collect();
    Registry::build(proxies, &[], groups, &environment, &selected, None)
}

#[track_caller]
fn refused(proxies: &[ProxyOptions], groups: &[GroupOptions], want: &str) {
    let error = build(proxies, groups, &[]).err().unwrap();
    assert_eq!(error.to_string(), want);
}

#[test]
fn the_order_is_built_ins_proxies_groups_and_global() {
    let registry = build(
        &[proxy("p", None)],
        &[group("g", &["h", "p"]), group("h", &["DIRECT"])],
        &[],
    );
    let registry = registry.unwrap();
    let names: Vec<_> = registry.iter().map(|o| &**o.name()).collect();
    let built_in = BUILT_IN.iter().map(|(name, _)| *name);
    let want: Vec<_> = built_in.chain(["p", "g", "h", "GLOBAL"]).collect();
    assert_eq!(names, want);
    let global = registry.get(GLOBAL).unwrap().members();
    let global: Vec<_> = global.iter().map(|name| &**name).collect();
    assert_eq!(global, ["DIRECT", "REJECT", "p", "g", "h"]);
    assert_eq!(registry.proxy_servers().collect::<Vec<_>>(), ["p.example"]);
}

#[test]
fn a_global_of_the_user_is_kept() {
    let registry = build(&[], &[group("GLOBAL", &["REJECT"])], &[]).unwrap();
    let members = registry.get(GLOBAL).unwrap().members();
    assert_eq!(members, [Arc::from("REJECT")]);
}

#[test]
fn the_chain_goes_from_the_node_to_the_group() {
    let groups = [group("g", &["p", "h"]), group("h", &[])];
    let registry = build(&[proxy("p", None)], &groups, &[("g", "h")]).unwrap();
    let client = SocketAddr::from(([127, 0, 0, 1], 1));
    let to = Endpoint::parse("1.2.3.4:80").unwrap();
    let metadata = Metadata::new(
        Network::Tcp,
        InboundType::Inner,
        &Arc::from("x"),
        client,
        to,
    );
    let (leaf, chain) = resolve_leaf(registry.get("g").unwrap(), &metadata);
    assert_eq!(leaf.kind(), Kind::Compatible);
    let chain: Vec<_> = chain.iter().map(|name| &**name).collect();
    assert_eq!(chain, ["COMPATIBLE", "h", "g"]);
}

#[test]
fn what_does_not_fit_together_is_named() {
    let p = || proxy("p", None);
    refused(&[p(), p()], &[], "the name p is taken");
    refused(&[proxy("DIRECT", None)], &[], "the name DIRECT is taken");
    refused(&[p()], &[group("p", &[])], "the name p is taken");
    refused(
        &[],
        &[group("g", &[]), group("g", &[])],
        "the name g is taken",
    );
    refused(
        &[],
        &[group("g", &["x"])],
        "group g: no proxy or group is named x",
    );
    let around = [group("g", &["h"]), group("h", &["DIRECT", "g"])];
    refused(&[], &around, "group g contains itself");
    refused(
        &[proxy("p", Some("x"))],
        &[],
        "proxy p: dialer-proxy x is no proxy or group",
    );
    refused(
        &[proxy("p", Some("q")), proxy("q", Some("p"))],
        &[],
        "proxy p: dialer-proxy leads back to it",
    );
}

#[test]
fn a_replaced_configuration_is_freed_though_outbounds_know_each_other() {
    let groups = [group("g", &["p", "q"])];
    let proxies = [proxy("p", Some("g")), proxy("q", None)];
    let registry = build(&proxies, &groups, &[("g", "q")]).unwrap();
    let p = Arc::clone(registry.get("p").unwrap());
    assert_eq!(&**p.dialer().unwrap().name(), "g");
    let weak = Arc::downgrade(&p);
    drop((registry, p));
    assert!(weak.upgrade().is_none());
}
