//! `type: relay`: the members one behind the other, each reached through those before it
//! (clash-api.md 3.9). What stands in a group is that group's choice; DIRECT is passed over.

use std::io;
use std::sync::Arc;

use super::{Choose, Field, Member};
use crate::metadata::Metadata;
use crate::outbound::dial::{carried, present_row};
use crate::outbound::registry::resolve_leaf;
use crate::outbound::{BoxFuture, Datagrams, Kind, Outbound, Stream};

/// The whole row: nobody chooses.
pub struct Relay;

impl Choose for Relay {
    fn kind(&self) -> Kind {
        Kind::Relay
    }

    /// The last one, which the destination sees.
    fn choose(&self, field: &Field<'_>, _metadata: Option<&Metadata>) -> usize {
        field.members.len().saturating_sub(1)
    }
}

/// A node of the row, and what carries its connections; `None`: a socket.
struct Link {
    node: Arc<dyn Outbound>,
    before: Option<Arc<dyn Outbound>>,
}

/// The row as it stands for this flow, seen from its far end; `None`: there is nothing but DIRECT in it.
pub(super) fn row(members: &[Member], metadata: &Metadata) -> Option<Arc<dyn Outbound>> {
    let nodes = members.iter().map(|member| {
        let (node, _) = resolve_leaf(&member.outbound, metadata);
        node
    });
    let nodes = nodes.filter(|node| !node.kind().is_direct());
    // A relay that is a member of another begins where that one has come to.
    nodes.fold(present_row(), |before, node| {
        Some(Arc::new(Link { node, before }))
    })
}

/// The names of the nodes and of the groups around them, from the near end to the far one.
pub(super) fn names(members: &[Member], metadata: &Metadata) -> Vec<Arc<str>> {
    let chains = members
        .iter()
        .map(|member| resolve_leaf(&member.outbound, metadata).1);
    chains.flat_map(|chain| chain.into_iter().rev()).collect()
}

impl Outbound for Link {
    fn name(&self) -> &Arc<str> {
        self.node.name()
    }

    fn kind(&self) -> Kind {
        self.node.kind()
    }

    fn udp(&self) -> bool {
        self.node.udp()
    }

    fn connect<'a>(&'a self, metadata: &'a Metadata) -> BoxFuture<'a, io::Result<Stream>> {
        // Begun within: what a relay begins with is asked at once.
        let dialling = async { self.node.connect(metadata).await };
        Box::pin(async { carried(self.before.clone(), dialling)?.await })
    }

    fn associate<'a>(
        &'a self,
        metadata: &'a Metadata,
    ) -> BoxFuture<'a, io::Result<Box<dyn Datagrams>>> {
        let dialling = async { self.node.associate(metadata).await };
        Box::pin(async { carried(self.before.clone(), dialling)?.await })
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::sync::Mutex;

    use super::super::Group;
    use super::*;
    use crate::metadata::{Endpoint, InboundType, Network};
    use crate::outbound::options::{GroupKind, GroupOptions};

    /// A node that notes what it is dialled through.
    struct Node {
        name: Arc<str>,
        kind: Kind,
        dials: Arc<Mutex<Vec<String>>>,
    }

    impl Outbound for Node {
        fn name(&self) -> &Arc<str> {
            &self.name
        }

        fn kind(&self) -> Kind {
            self.kind
        }

        fn udp(&self) -> bool {
            &*self.name != "tcp"
        }

        fn connect<'a>(&'a self, metadata: &'a Metadata) -> BoxFuture<'a, io::Result<Stream>> {
            Box::pin(async {
                let before = present_row();
                let through = before.as_ref().map_or("socket", |node| node.name());
                let dial = format!("{} by {through}", self.name);
                self.dials.lock().unwrap().push(dial);
                match before {
                    Some(before) => before.connect(metadata).await,
                    None => Ok(Stream::Closed),
                }
            })
        }

        fn associate<'a>(
            &'a self,
            _: &'a Metadata,
        ) -> BoxFuture<'a, io::Result<Box<dyn Datagrams>>> {
            Box::pin(std::future::ready(Err(io::ErrorKind::Unsupported.into())))
        }
    }

    fn relay(name: &str, members: &[Arc<dyn Outbound>]) -> Arc<dyn Outbound> {
        let members = members.iter().map(|outbound| Member {
            outbound: Arc::clone(outbound),
            health: Arc::default(),
        });
        let options = GroupOptions::new(name, GroupKind::Relay);
        Arc::new(Group::new(
            &options,
            members.collect(),
            None,
            Arc::default(),
        ))
    }

    fn metadata() -> Metadata {
        let client = SocketAddr::from(([127, 0, 0, 1], 1));
        let to = Endpoint::parse("1.2.3.4:80").unwrap();
        let inbound = Arc::from("x");
        Metadata::new(Network::Tcp, InboundType::Inner, &inbound, client, to)
    }

    #[tokio::test]
    async fn each_member_is_reached_through_those_before_it_relays_within_relays_too() {
        let dials = Arc::default();
        let node = |name: &str, kind| -> Arc<dyn Outbound> {
            let dials = Arc::clone(&dials);
            Arc::new(Node {
                name: name.into(),
                kind,
                dials,
            })
        };
        let [a, b, c] = ["a", "b", "c"].map(|name| node(name, Kind::Socks5));
        let direct = node("DIRECT", Kind::Direct);
        let inner = relay("inner", &[Arc::clone(&b), direct, Arc::clone(&c)]);
        let outer = relay("outer", &[Arc::clone(&a), inner, Arc::clone(&a)]);
        let metadata = metadata();
        assert!(outer.connect(&metadata).await.is_ok());
        let noted = std::mem::take(&mut *dials.lock().unwrap());
        assert_eq!(noted, ["a by inner", "c by b", "b by a", "a by socket"]);
        let (leaf, chain) = resolve_leaf(&outer, &metadata);
        let chain: Vec<_> = chain.iter().map(|name| &**name).collect();
        assert_eq!(&**leaf.name(), "outer");
        assert_eq!(chain, ["a", "c", "DIRECT", "b", "inner", "a", "outer"]);
        assert!(outer.udp() && outer.selected(None).is_none());
        assert_eq!(
            outer.candidates().len(),
            3,
            "direct only when all of them are"
        );
        assert!(!relay("r", &[a, node("tcp", Kind::Http)]).udp());
    }

    #[tokio::test]
    async fn a_row_of_direct_is_direct() {
        let dials = Arc::default();
        let node = Node {
            name: "DIRECT".into(),
            kind: Kind::Direct,
            dials: Arc::clone(&dials),
        };
        let group = relay("r", &[Arc::new(node)]);
        assert!(group.connect(&metadata()).await.is_ok());
        assert_eq!(*dials.lock().unwrap(), ["DIRECT by socket"]);
    }
}
