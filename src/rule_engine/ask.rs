//! Queries by MQTT: SQL published to `$query/NAME` is answered at `$query/NAME/result`, or at the response
//! topic that the message names, with its correlation data (MQTT 5.0, 4.10).
//!
//! Who may publish there is said by the broker's access rules, which let nobody unless they name the topic
//! (users.md S20); a response topic is one that the asker may publish to himself. The answer is what
//! `POST /api/v4/query` answers. Queries run apart from the broker's thread, one after the other; at most
//! [`WAITING_MAX`] wait and [`RATE`] a second come in, further ones are answered with a refusal.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use serde_json::json;

use super::counters::Bucket;
use super::feed::Feed;
use super::outside::Outside;
use super::tables::{Tables, run_query};
use crate::mqtt::Time;
use crate::mqtt::acl::{Access, Client};
use crate::mqtt::broker::Broker;
use crate::mqtt::codec::property::{Value as Property, id};
use crate::mqtt::codec::{PropertyWriter, Qos};
use crate::mqtt::hook::{Publication, Publisher, QUERIES};
use crate::mqtt::message::Message;
use crate::mqtt::topic;

/// Queries that wait for their turn.
const WAITING_MAX: usize = 16;

/// Queries a second, and five times as many at once.
const RATE: u32 = 5;

/// What the topic of an answer ends with, where none is named.
const RESULT: &str = "/result";

/// Who answers.
const PUBLISHER: &str = "headgate_query";

/// Room for the head of a packet beside topic, properties and payload.
const HEAD_BYTES: usize = 64;

/// The queries by topic, on the broker's thread.
pub(super) struct Queries {
    queue: Arc<Queue>,
    bucket: Bucket,
}

/// Table: what waits.
#[derive(Default)]
struct Queue(Mutex<Waiting>);

#[derive(Default)]
struct Waiting {
    queries: VecDeque<(Box<str>, Reply)>,
    /// Whether there is a thread that takes them.
    served: bool,
}

/// A client that asks.
struct Asker {
    client_id: Box<str>,
    username: Option<Box<str>>,
    address: IpAddr,
}

/// Where an answer goes.
struct Reply {
    topic: Box<str>,
    /// Whose word it was that it goes there; none: nobody's, or that of one who may publish anywhere.
    asker: Option<Asker>,
    correlation: Option<Box<[u8]>>,
    qos: Qos,
}

impl Queries {
    pub(super) fn new() -> Self {
        Self {
            queue: Arc::default(),
            bucket: Bucket::new(RATE, 5 * RATE),
        }
    }

    /// Has a query answered, if the message is one.
    pub(super) fn ask(
        &mut self,
        now: Time,
        (message, publisher): (&Message, &Publisher),
        outside: &Outside,
        feed: &Arc<Feed>,
    ) {
        let answers = *publisher.client_id == *PUBLISHER && publisher.address.is_none();
        if !message.topic().starts_with(QUERIES) || answers {
            return;
        }
        let Some(reply) = Reply::to(message, publisher) else {
            return;
        };
        let Ok(sql) = str::from_utf8(message.payload()) else {
            return reply.send(feed, refusal("sql: not UTF-8"));
        };
        if !self.bucket.take(now) {
            return reply.send(feed, refusal(BUSY));
        }
        match self.queue.push(sql.into(), reply) {
            Err(reply) => reply.send(feed, refusal(BUSY)),
            Ok(true) => {}
            Ok(false) => {
                let (queue, feed) = (Arc::clone(&self.queue), Arc::clone(feed));
                let tables = Weak::clone(&outside.tables);
                outside
                    .runtime
                    .spawn_blocking(move || queue.serve(&tables, &feed));
            }
        }
    }
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a query in; whether somebody takes them out.
    fn push(&self, sql: Box<str>, reply: Reply) -> Result<bool, Reply> {
        let mut waiting = self.lock();
        if waiting.queries.len() >= WAITING_MAX {
            return Err(reply);
        }
        waiting.queries.push_back((sql, reply));
        Ok(std::mem::replace(&mut waiting.served, true))
    }

    /// Answers what waits, until nothing does.
    fn serve(&self, tables: &Weak<dyn Tables>, feed: &Feed) {
        loop {
            let next = {
                let mut waiting = self.lock();
                let next = waiting.queries.pop_front();
                waiting.served = next.is_some();
                next
            };
            // The tables are gone when the daemon goes.
            let (Some((sql, reply)), Some(tables)) = (next, tables.upgrade()) else {
                return;
            };
            let answer = match run_query(&sql, &*tables) {
                Ok(mut rows) => {
                    rows.insert_str(0, "{\"code\":0,\"data\":");
                    rows.push('}');
                    rows
                }
                Err(why) => refusal(&format!("sql: {why}")),
            };
            reply.send(feed, answer);
        }
    }
}

/// Why a query is refused that another time would not be.
const BUSY: &str = "too many queries at once";

fn refusal(why: &str) -> String {
    json!({"code": 400, "message": why}).to_string()
}

impl Reply {
    /// Where the answer to a message goes; `None`: there is no such topic.
    fn to(message: &Message, publisher: &Publisher) -> Option<Self> {
        let (mut named, mut correlation) = (None, None);
        for (identifier, value, _) in message.property_list().iter() {
            match (identifier, value) {
                (id::RESPONSE_TOPIC, Property::Text(topic)) => named = Some(topic),
                (id::CORRELATION_DATA, Property::Binary(bytes)) => correlation = Some(bytes.into()),
                _ => {}
            }
        }
        let asker = |address| Asker {
            client_id: (&*publisher.client_id).into(),
            username: publisher.username.as_deref().map(Into::into),
            address,
        };
        let topic: Box<str> = match named {
            Some(topic) => topic.into(),
            None => format!("{}{RESULT}", message.topic()).into(),
        };
        topic::is_name(&topic).then(|| Self {
            asker: named.and(publisher.address).map(asker),
            topic,
            correlation,
            qos: message.qos,
        })
    }

    fn send(self, feed: &Feed, answer: String) {
        if !feed.tell(move |broker, now| self.publish(broker, now, answer)) {
            log::warn!("the broker is too busy for the answer to a query");
        }
    }

    fn publish(self, broker: &mut Broker, now: Time, mut answer: String) {
        let may = self.asker.is_none_or(|asker| {
            let client = Client {
                client_id: &asker.client_id,
                username: asker.username.as_deref(),
                address: asker.address,
            };
            broker.permits(client, Access::Publish, &self.topic)
        });
        if !may {
            log::debug!("{}: the asker may not publish there", self.topic);
            return;
        }
        let mut properties = PropertyWriter::default();
        properties.text(id::CONTENT_TYPE, "application/json");
        if let Some(correlation) = &self.correlation {
            properties.binary(id::CORRELATION_DATA, correlation);
        }
        let head = self.topic.len() + properties.finish().bytes().len() + HEAD_BYTES;
        let room = broker.limits().packet_bytes_max.saturating_sub(head);
        if answer.len() > room {
            answer =
                refusal("sql: a result larger than a packet may be: ask for less, or with LIMIT");
        }
        broker.publish_for(
            now,
            &Publication {
                topic: self.topic,
                payload: answer.into_bytes().into(),
                properties,
                qos: self.qos,
                retain: false,
                client_id: PUBLISHER.into(),
            },
        );
    }
}
