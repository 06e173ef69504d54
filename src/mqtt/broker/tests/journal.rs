//! What is left after a restart, from the log alone.

use proptest::prelude::*;

use super::*;
use crate::mqtt::acl::Row;
use crate::mqtt::auth::Account;
use crate::mqtt::banned::{Ban, Who};
use crate::mqtt::broker::Extent;
use crate::mqtt::password::{Secret, Storage};

/// A broker and its log.
struct Kept {
    broker: Broker,
    log: Vec<u8>,
}

impl Kept {
    fn new(log: Vec<u8>) -> Self {
        let mut broker = broker();
        broker.keep_journal(1000);
        assert_eq!(broker.restore(1, &log), log.len());
        Self { broker, log }
    }

    /// Writes what is due at `now`; how many bytes that was.
    fn write(&mut self, now: Time) -> usize {
        let before = self.log.len();
        self.broker.write_journal(now, Extent::Due, &mut self.log);
        self.log.len() - before
    }

    /// The power fails, and comes back.
    fn restart(self) -> Self {
        Self::new(self.log)
    }

    /// The same, after the log was begun anew.
    fn restart_rewritten(mut self) -> Self {
        let mut log = Vec::new();
        self.broker.rewrite_journal(1, &mut log);
        Self::new(log)
    }
}

fn back(broker: &mut Broker, link: LinkId, client_id: &str) -> SessionId {
    let connect = connect(client_id, Version::V4, false);
    let id = broker.connect(1, link, &connect, anyone()).unwrap();
    broker.effects().clear();
    id
}

fn say(broker: &mut Broker, topic: &str, payload: &str, qos: Qos) {
    let from = back(broker, 9, "speaker");
    let message = publish(topic, payload, qos, 7);
    broker.receive(1, from, &Packet::Publish(message));
    ack(broker, from, AckKind::PubRel, 7);
    sent(broker, 1, from);
}

#[test]
fn what_waited_for_a_client_waits_on_after_a_restart() {
    let mut kept = Kept::new(Vec::new());
    let id = join(&mut kept.broker, 0, "c", false);
    subscribe(&mut kept.broker, id, "a/+", 1);
    subscribe(&mut kept.broker, id, "$share/g/b", 1);
    sent(&mut kept.broker, 1, id);
    kept.broker.lost(1, id, "tcp_closed");
    say(&mut kept.broker, "a/1", "one", Qos::AtLeastOnce);
    kept.write(1);
    say(&mut kept.broker, "b", "two", Qos::ExactlyOnce);
    kept.write(1);
    for rewritten in [false, true] {
        kept = if rewritten {
            kept.restart_rewritten()
        } else {
            kept.restart()
        };
        let stats = kept.broker.stats();
        assert_eq!((stats.subscriptions.count, stats.shared.count), (2, 1));
    }
    let id = back(&mut kept.broker, 0, "c");
    assert_eq!(payloads(&mut kept.broker, 1, id), ["one", "two"]);
    say(&mut kept.broker, "a/2", "three", Qos::AtLeastOnce);
    assert_eq!(payloads(&mut kept.broker, 1, id), ["three"]);
}

#[test]
fn what_was_sent_and_confirmed_in_time_is_never_written() {
    let mut kept = Kept::new(Vec::new());
    let id = join(&mut kept.broker, 0, "c", false);
    subscribe(&mut kept.broker, id, "a", 1);
    sent(&mut kept.broker, 1, id);
    let speaker = join(&mut kept.broker, 1, "speaker", true);
    kept.write(1);
    for _ in 0..10 {
        let message = publish("a", "x", Qos::AtLeastOnce, 1);
        kept.broker.receive(1, speaker, &Packet::Publish(message));
        let got = messages(&mut kept.broker, 1, id);
        ack(&mut kept.broker, id, AckKind::PubAck, got[0].0);
    }
    assert!(kept.broker.has_journal(1));
    assert_eq!(kept.write(1), 0);
}

#[test]
fn exactly_once_stays_so_over_a_restart() {
    let mut kept = Kept::new(Vec::new());
    let id = join(&mut kept.broker, 0, "c", false);
    subscribe(&mut kept.broker, id, "a", 2);
    let speaker = join(&mut kept.broker, 1, "s", false);
    let message = publish("a", "x", Qos::ExactlyOnce, 7);
    kept.broker.receive(1, speaker, &Packet::Publish(message));
    let sent_as = messages(&mut kept.broker, 1, id)[0].0;
    ack(&mut kept.broker, id, AckKind::PubRec, sent_as);
    kept.write(1);
    kept = kept.restart();
    // The publisher says it again: it is known, and goes to nobody a second time.
    let speaker = back(&mut kept.broker, 1, "s");
    kept.broker.receive(1, speaker, &Packet::Publish(message));
    let id = back(&mut kept.broker, 0, "c");
    let bytes = sent(&mut kept.broker, 1, id);
    let [high, low] = sent_as.to_be_bytes();
    assert!(bytes.ends_with(&[0x62, 2, high, low]), "{bytes:?}");
    ack(&mut kept.broker, id, AckKind::PubComp, sent_as);
    kept.write(1);
    kept = kept.restart();
    let id = back(&mut kept.broker, 0, "c");
    assert!(payloads(&mut kept.broker, 1, id).is_empty());
}

#[test]
fn a_new_retained_topic_is_due_at_once_and_a_further_value_later() {
    let mut kept = Kept::new(Vec::new());
    let speaker = join(&mut kept.broker, 1, "s", true);
    let keep = |kept: &mut Kept, topic, payload| {
        let mut message = publish(topic, payload, Qos::AtMostOnce, 0);
        message.retain = true;
        kept.broker.receive(1, speaker, &Packet::Publish(message));
    };
    keep(&mut kept, "a", "1");
    keep(&mut kept, "b", "1");
    assert!(kept.write(10) > 0);
    keep(&mut kept, "a", "2");
    keep(&mut kept, "a", "3");
    assert!(!kept.broker.has_journal(10));
    assert_eq!(kept.write(10), 0);
    let due = kept.broker.journal_due();
    assert!(kept.broker.has_journal(due) && kept.write(due) > 0);
    keep(&mut kept, "b", "");
    assert!(kept.write(due) > 0);
    let mut kept = kept.restart();
    assert_eq!(kept.broker.stats().retained.count, 1);
    let id = join(&mut kept.broker, 0, "c", true);
    subscribe(&mut kept.broker, id, "#", 0);
    assert_eq!(payloads(&mut kept.broker, 1, id), ["3"]);
}

#[test]
fn users_rows_and_bans_are_there_after_a_restart() {
    let mut kept = Kept::new(Vec::new());
    let account = Account {
        secret: Secret::of(b"secret", Storage::Sha256).unwrap(),
        superuser: true,
    };
    kept.broker.add_user("ann", account.clone()).unwrap();
    kept.broker.add_user("bob", account.clone()).unwrap();
    kept.broker.remove_user(1, "bob");
    let row = Row {
        topic: "a b/%u".into(),
        access: None,
        allow: false,
    };
    kept.broker.add_row(1, "ann", row.clone());
    let who = Who::ClientId("x y".into());
    let ban = Ban {
        by: "the user".into(),
        reason: Some("too loud".into()),
        at: 1,
        until: u64::MAX,
    };
    kept.broker.ban(1, &who, ban.clone());
    kept.broker.set_document("rule 1", Some(b"SELECT"));
    kept.write(1);
    let kept = kept.restart().restart_rewritten();
    let broker = &kept.broker;
    assert_eq!(broker.users().added().get("ann"), Some(&account));
    assert_eq!(broker.users().added().len(), 1);
    assert_eq!(broker.acl().rows_of("ann"), [row]);
    assert_eq!(broker.bans().iter().next(), Some((&who, &ban)));
    let rules: Vec<_> = broker.documents("rule ").collect();
    assert_eq!(rules, [("rule 1", &b"SELECT"[..])]);
}

#[test]
fn a_session_that_ended_does_not_come_back() {
    let mut kept = Kept::new(Vec::new());
    let id = join(&mut kept.broker, 0, "c", false);
    subscribe(&mut kept.broker, id, "a", 1);
    kept.write(1);
    let again = join(&mut kept.broker, 1, "c", true);
    assert_eq!(kept.broker.stats().sessions.count, 1);
    kept.broker.lost(1, again, "tcp_closed");
    kept.write(1);
    let kept = kept.restart();
    assert_eq!(kept.broker.stats().sessions.count, 0);
    assert_eq!(kept.broker.stats().subscriptions.count, 0);
}

/// What a client would find: filters, and what it gets.
fn found(kept: Kept) -> Vec<(Vec<String>, Vec<String>)> {
    let mut kept = kept;
    let mut all = Vec::new();
    for client in ["c0", "c1"] {
        let id = back(&mut kept.broker, 3, client);
        let mut filters: Vec<_> = kept
            .broker
            .subscriptions(kept.broker.find(client).unwrap())
            .map(|one| one.filter)
            .collect();
        filters.sort();
        all.push((filters, payloads(&mut kept.broker, 1, id)));
    }
    all
}

proptest! {
    /// Whatever happened: an appended log, one begun anew, and memory itself tell the same.
    #[test]
    fn the_log_tells_what_memory_holds(steps in proptest::collection::vec((0..7, 0_u32..2, 0..3), 0..40)) {
        let mut kept = Kept::new(Vec::new());
        for (step, client, topic) in steps {
            let (name, topic) = (format!("c{client}"), format!("t/{topic}"));
            let here = kept.broker.find(&name).filter(|one| one.link.is_some()).is_some();
            let id = kept.broker.by_client.get(&*name).copied();
            match (step, id) {
                (0, _) => _ = back(&mut kept.broker, client, &name),
                (1, Some(id)) => subscribe(&mut kept.broker, id, &topic, 2),
                (2, Some(_)) => {
                    let unsubscribed = kept.broker.unsubscribe_for(1, &name, &topic);
                    prop_assert!(unsubscribed.is_ok());
                }
                (3, _) => say(&mut kept.broker, &topic, &format!("{name} {topic}"), Qos::AtLeastOnce),
                (4, Some(id)) if here => {
                    for (packet_id, ..) in messages(&mut kept.broker, 1, id) {
                        ack(&mut kept.broker, id, AckKind::PubAck, packet_id);
                    }
                }
                (5, Some(id)) => kept.broker.lost(1, id, "tcp_closed"),
                _ => _ = kept.write(1),
            }
            kept.broker.effects().clear();
        }
        kept.write(1);
        let appended = found(Kept::new(kept.log.clone()));
        let mut rewritten = Vec::new();
        kept.broker.rewrite_journal(1, &mut rewritten);
        prop_assert_eq!(&found(Kept::new(rewritten)), &appended);
        prop_assert_eq!(&found(kept), &appended);
    }
}

fn say_later(broker: &mut Broker, topic: &str, payload: &str) -> Vec<u8> {
    let (from, _) = (back(broker, 9, "speaker"), ());
    let message = publish(topic, payload, Qos::AtLeastOnce, 7);
    broker.receive(1, from, &Packet::Publish(message));
    sent(broker, 1, from)
}

#[test]
fn a_message_that_waits_for_its_time_comes_then_also_after_a_restart() {
    let mut kept = Kept::new(Vec::new());
    let id = join(&mut kept.broker, 0, "c", false);
    subscribe(&mut kept.broker, id, "#", 1);
    sent(&mut kept.broker, 1, id);
    say_later(&mut kept.broker, "$delayed/20/a", "later");
    say_later(&mut kept.broker, "$delayed/10/a", "sooner");
    say_later(&mut kept.broker, "$delayed/10/a", "and this");
    say_later(&mut kept.broker, "$delayed/x/a", "never");
    assert!(payloads(&mut kept.broker, 1, id).is_empty());
    assert!(kept.broker.has_journal(1) && kept.write(1) > 0);
    assert_eq!(kept.broker.deadline(), 10_001);
    let mut kept = kept.restart().restart_rewritten();
    assert_eq!(kept.broker.stats().delayed.count, 3);
    let id = back(&mut kept.broker, 0, "c");
    kept.broker.tick(10_000);
    assert!(payloads(&mut kept.broker, 10_000, id).is_empty());
    kept.broker.tick(10_001);
    let got = messages(&mut kept.broker, 10_001, id);
    let got: Vec<_> = got.iter().map(|one| (one.0, &*one.3)).collect();
    assert_eq!(got, [(1, "sooner"), (2, "and this")]);
    ack(&mut kept.broker, id, AckKind::PubAck, 1);
    ack(&mut kept.broker, id, AckKind::PubAck, 2);
    kept.write(10_001);
    let mut kept = kept.restart();
    assert_eq!(kept.broker.stats().delayed.count, 1);
    let id = back(&mut kept.broker, 0, "c");
    kept.broker.tick(20_001);
    assert_eq!(payloads(&mut kept.broker, 20_001, id), ["later"]);
}

#[test]
fn what_waits_is_bounded_obeys_the_rules_of_its_topic_and_expires() {
    let mut options = open();
    options.limits.delayed_max = 1;
    options.acl = vec![crate::mqtt::acl::Rule {
        allow: false,
        username: None,
        client_id: None,
        from: None,
        access: None,
        topics: vec!["no".into()],
    }];
    let mut broker = Broker::new(&options);
    let id = join(&mut broker, 0, "c", true);
    subscribe(&mut broker, id, "a", 0);
    sent(&mut broker, 1, id);
    let from = connect("p", Version::V5, true);
    let from = broker.connect(1, 1, &from, anyone()).unwrap();
    sent(&mut broker, 1, from);
    let mut expiry = PropertyWriter::default();
    expiry.u32(property::MESSAGE_EXPIRY, 2);
    let mut say = |topic, properties| {
        let message = Publish {
            properties,
            ..publish(topic, "x", Qos::AtLeastOnce, 7)
        };
        broker.receive(1, from, &Packet::Publish(message));
        sent(&mut broker, 1, from)
    };
    let none = Properties::default();
    assert_eq!(say("$delayed/5/no", none), b"\x40\x04\x00\x07\x87\x00");
    assert_eq!(say("$delayed/5/$SYS/x", none), b"\x40\x04\x00\x07\x87\x00");
    assert_eq!(say("$delayed/soon/a", none), b"\x40\x04\x00\x07\x90\x00");
    let short = expiry.finish();
    assert_eq!(say("$delayed/5/a", short), b"\x40\x04\x00\x07\x10\x00");
    assert_eq!(say("$delayed/5/a", none), b"\x40\x04\x00\x07\x97\x00");
    broker.tick(6000);
    assert!(payloads(&mut broker, 6000, id).is_empty(), "it expired");
    assert_eq!(broker.stats().delayed.count, 0);
}
