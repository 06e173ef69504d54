//! What controllers ask of the broker, and what the hook sees.

use std::cell::RefCell;

use super::*;
use crate::mqtt::acl::Row;
use crate::mqtt::auth::Account;
use crate::mqtt::banned::{Ban, Who};
use crate::mqtt::broker::NotSubscribed;
use crate::mqtt::password::Secret;

fn publication(topic: &str, payload: &str) -> Publication {
    Publication {
        topic: topic.into(),
        payload: payload.as_bytes().into(),
        properties: PropertyWriter::default(),
        qos: Qos::AtLeastOnce,
        retain: false,
        client_id: "api".into(),
    }
}

fn join_as(broker: &mut Broker, link: LinkId, client_id: &str, user: &str) -> SessionId {
    let who = Admitted {
        username: Some(user.into()),
        ..anyone()
    };
    let connect = connect(client_id, Version::V4, true);
    let id = broker.connect(1, link, &connect, who).unwrap();
    sent(broker, 1, id);
    broker.effects().clear();
    id
}

fn filters_of(broker: &Broker, client_id: &str) -> Vec<String> {
    let session = broker.find(client_id).unwrap();
    let all = broker.subscriptions(session);
    all.map(|one| one.filter).collect()
}

#[test]
fn what_a_controller_does_for_a_client_reaches_it() {
    let mut broker = broker();
    let id = join(&mut broker, 0, "c", true);
    let subscribed = broker.subscribe_for(1, "c", "a/+", Qos::AtMostOnce);
    assert_eq!(subscribed, Ok(()));
    assert_eq!(broker.publish_for(1, &publication("a/b", "x")), Some(1));
    assert_eq!(payloads(&mut broker, 1, id), ["x"]);
    assert!(broker.has_route("a/+") && !broker.has_route("a"));
    assert_eq!(broker.unsubscribe_for(1, "c", "a/+"), Ok(true));
    assert_eq!(broker.publish_for(1, &publication("a/b", "x")), Some(0));
    assert_eq!(broker.publish_for(1, &publication("a/+", "x")), None);
    let nobody = broker.subscribe_for(1, "nobody", "a", Qos::AtMostOnce);
    assert_eq!(nobody, Err(NotSubscribed::NoSession));
    let bad = broker.subscribe_for(1, "c", "a#", Qos::AtMostOnce);
    assert_eq!(bad, Err(NotSubscribed::BadFilter));
}

#[test]
fn a_list_shows_sessions_subscriptions_and_how_many_there_are() {
    let mut broker = broker();
    let id = join(&mut broker, 0, "c", true);
    join(&mut broker, 1, "d", false);
    subscribe(&mut broker, id, "a/+", 1);
    subscribe(&mut broker, id, "$share/g/a/+", 2);
    subscribe(&mut broker, id, "$queue/q", 2);
    let session = broker.find("c").unwrap();
    let shown: Vec<_> = broker
        .subscriptions(session)
        .map(|one| (one.group, one.filter, one.qos.bits()))
        .collect();
    let want = [
        (None, "a/+".to_owned(), 1),
        (Some("g"), "a/+".to_owned(), 2),
        (Some("$queue"), "q".to_owned(), 2),
    ];
    assert_eq!(shown, want);
    let routes: Vec<_> = broker.routes().map(|node| broker.filter(node)).collect();
    assert_eq!(routes, ["a/+", "q"]);
    broker.lost(2, id, "tcp_closed");
    let stats = broker.stats();
    assert_eq!((stats.connections.count, stats.connections.max), (1, 2));
    assert_eq!((stats.sessions.count, stats.sessions.max), (1, 2));
    assert_eq!((stats.subscriptions.count, stats.subscriptions.max), (0, 3));
    assert_eq!((stats.shared.max, stats.routes.count), (2, 0));
    assert_eq!(broker.sessions().count(), 1);
}

#[test]
fn a_kicked_client_loses_its_session_and_its_will_is_said() {
    let mut broker = broker();
    let watcher = join(&mut broker, 0, "w", true);
    subscribe(&mut broker, watcher, "will", 0);
    sent(&mut broker, 1, watcher);
    let dying = Connect {
        will: Some(Will {
            topic: "will",
            payload: b"gone",
            qos: Qos::AtMostOnce,
            retain: false,
            properties: Properties::default(),
        }),
        ..connect("c", Version::V5, false)
    };
    let id = broker.connect(1, 1, &dying, anyone()).unwrap();
    sent(&mut broker, 1, id);
    broker.effects().clear();
    assert!(broker.kick(1, "c") && !broker.kick(1, "c"));
    assert_eq!(payloads(&mut broker, 1, watcher), ["gone"]);
    let close = Effect::Close(1, b"\xe0\x02\x98\x00".to_vec());
    assert!(broker.effects().contains(&close));
}

#[test]
fn a_change_of_rules_takes_what_it_forbids_and_no_more() {
    let mut broker = broker();
    let ann = join_as(&mut broker, 0, "ann1", "ann");
    let bob = join_as(&mut broker, 1, "bob1", "bob");
    for id in [ann, bob] {
        subscribe(&mut broker, id, "secret/x", 0);
        subscribe(&mut broker, id, "open", 0);
    }
    let row = Row {
        topic: "secret/#".into(),
        access: None,
        allow: false,
    };
    assert!(broker.add_row(2, "ann", row));
    assert_eq!(filters_of(&broker, "ann1"), ["open"]);
    assert_eq!(filters_of(&broker, "bob1"), ["secret/x", "open"]);
    broker.receive(
        2,
        ann,
        &Packet::Publish(publish("secret/x", "1", Qos::AtMostOnce, 0)),
    );
    assert_eq!(broker.metrics().get(Metric::PublishAuthError), 1);
    assert_eq!(broker.decisions(2, "ann1").unwrap().len(), 1);
    assert!(broker.remove_row(3, "ann", "secret/#"));
    assert!(broker.decisions(3, "ann1").unwrap().is_empty());
    let links = broker.sessions().filter(|one| one.link.is_some()).count();
    assert_eq!(links, 2);
}

#[test]
fn a_change_of_a_user_ends_his_connections_and_no_others() {
    let mut broker = broker();
    let account = |password: &[u8]| Account {
        secret: Secret::Plain(password.into()),
        superuser: false,
    };
    broker.add_user("ann", account(b"a")).unwrap();
    broker.add_user("bob", account(b"b")).unwrap();
    join_as(&mut broker, 0, "ann1", "ann");
    join_as(&mut broker, 1, "bob1", "bob");
    assert!(broker.change_user(2, "ann", account(b"c")));
    assert!(broker.find("ann1").is_none() && broker.find("bob1").is_some());
    assert!(broker.remove_user(2, "bob") && !broker.remove_user(2, "bob"));
    assert!(broker.find("bob1").is_none());
}

#[test]
fn a_ban_ends_a_connection_and_refuses_the_next() {
    let mut broker = broker();
    broker.set_epoch(1_000_000);
    join(&mut broker, 0, "c", true);
    let ban = Ban {
        by: "user".into(),
        reason: None,
        at: 1000,
        until: 2000,
    };
    assert!(broker.ban(1, &Who::ClientId("c".into()), ban));
    assert!(broker.find("c").is_none());
    let again = connect("c", Version::V4, true);
    let address = anyone().address;
    let login = broker.login(1, &again, address);
    assert_eq!(
        login,
        crate::mqtt::auth::Login::Refused(Reason::BANNED),
        "until its end"
    );
    let after = broker.login(1_000_000, &again, address);
    assert_eq!(after, crate::mqtt::auth::Login::Anonymous);
}

#[test]
fn a_superuser_is_bound_by_no_rule() {
    let mut broker = broker();
    let row = Row {
        topic: "#".into(),
        access: None,
        allow: false,
    };
    broker.add_row(1, crate::mqtt::acl::EVERYONE, row);
    let who = Admitted {
        username: Some("root".into()),
        superuser: true,
        ..anyone()
    };
    let root = connect("root", Version::V4, true);
    let id = broker.connect(1, 0, &root, who).unwrap();
    subscribe(&mut broker, id, "a", 0);
    assert_eq!(filters_of(&broker, "root"), ["a"]);
}

/// Writes down what it sees; answers a message on `in/…` with one on `out`, and one on `loop` with itself.
struct Notes(Rc<RefCell<Vec<String>>>);

impl Hook for Notes {
    fn interest(&self) -> Interest {
        [
            Interest::PUBLISHED,
            Interest::DELIVERED,
            Interest::ACKED,
            Interest::DROPPED,
            Interest::CONNECTED,
            Interest::DISCONNECTED,
            Interest::SUBSCRIBED,
            Interest::UNSUBSCRIBED,
            Interest::DELIVERY_DROPPED,
        ]
        .into_iter()
        .fold(Interest::default(), Interest::with)
    }

    fn event(&mut self, _: Time, event: &Event<'_>, out: &mut Vec<Publication>) {
        let note = match event {
            Event::Published {
                message, publisher, ..
            } => {
                match message.topic() {
                    "in" => out.push(publication("out", "from in")),
                    "loop" => out.push(publication("loop", "again")),
                    _ => {}
                }
                format!("publish {} by {}", message.topic(), publisher.client_id)
            }
            Event::Delivered {
                message, receiver, ..
            } => {
                let from = &message.origin.as_ref().unwrap().publisher.client_id;
                format!("deliver {} {from} {}", message.topic(), receiver.client_id)
            }
            Event::Acked {
                message, receiver, ..
            } => format!("ack {} {}", message.topic(), receiver.client_id),
            Event::Dropped {
                message, reason, ..
            } => format!("drop {} {reason}", message.topic()),
            Event::DeliveryDropped {
                message, reason, ..
            } => format!("lose {} {reason}", message.topic()),
            Event::Connected { session } => format!("in {}", session.client_id),
            Event::Disconnected { session, reason } => {
                format!("out {} {reason}", session.client_id)
            }
            Event::Subscribed {
                session, filter, ..
            } => format!("sub {} {filter}", session.client_id),
            Event::Unsubscribed { session, filter } => {
                format!("unsub {} {filter}", session.client_id)
            }
        };
        self.0.borrow_mut().push(note);
    }

    fn cut(&mut self, _: Time, publication: &Publication) {
        let note = format!("cut {}", publication.topic);
        self.0.borrow_mut().push(note);
    }
}

#[test]
fn the_hook_sees_what_happens_and_its_answers_are_published() {
    let mut broker = broker();
    let notes = Rc::default();
    broker.set_hook(Box::new(Notes(Rc::clone(&notes))));
    let id = join(&mut broker, 0, "c", true);
    subscribe(&mut broker, id, "$share/g/out", 1);
    sent(&mut broker, 1, id);
    let message = publish("in", "x", Qos::AtLeastOnce, 1);
    broker.receive(1, id, &Packet::Publish(message));
    sent(&mut broker, 1, id);
    ack(&mut broker, id, AckKind::PubAck, 1);
    broker.unsubscribe_for(1, "c", "$share/g/out").unwrap();
    broker.kick(1, "c");
    assert_eq!(
        *notes.borrow(),
        [
            "in c",
            "sub c out",
            "publish in by c",
            "publish out by api",
            "drop in no_subscribers",
            "deliver out api c",
            "ack out c",
            "unsub c out",
            "out c kicked",
        ]
    );
    let seen = broker.with_hook(|notes: &mut Notes| notes.0.borrow().len());
    assert_eq!(seen, Some(9));
}

#[test]
fn what_a_hook_answers_itself_with_goes_round_so_often() {
    let mut broker = broker();
    let notes = Rc::default();
    broker.set_hook(Box::new(Notes(Rc::clone(&notes))));
    broker.publish_for(1, &publication("loop", "first"));
    assert_eq!(broker.metrics().get(Metric::MessagesForbidden), 1);
    let rounds = notes
        .borrow()
        .iter()
        .filter(|note| note.starts_with("publish"))
        .count();
    assert_eq!(rounds, usize::from(HOPS_MAX) + 1);
}
