//! The engine itself: rules, the tree that finds them, and the hook by which the broker shows events.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::action::Action;
use super::ask::Queries;
use super::counters::{Bucket, Totals};
use super::cut;
use super::definition::{BadRule, Definition, Ids};
use super::down::Down;
use super::event::{EventKind, Occurrence, Shown};
use super::feed::Feed;
use super::message::BrokerEvent;
use super::outside::Outside;
use super::report::{RuleReport, report};
use super::resource::{Resource, ResourceReport, Resources};
use super::resource_definition::{Plan, ResourceDefinition};
use super::rule::{Around, Rule};
use super::world::World;
use super::{ACT_RATE, RENDERED_MAX_BYTES, RULES_MAX, Router, state};
use crate::mqtt::Time;
use crate::mqtt::codec::Qos;
use crate::mqtt::hook::{Event, Hook, Interest, Publication};
use crate::mqtt::topic::tree::{Match, Subscriber, Tree};
use crate::platform::clock;
use crate::sql::{Columns, Value as SqlValue, parse_json};

/// The rules, on the broker's thread.
pub struct Engine {
    /// By number; the tree knows them by it.
    rules: Vec<Option<Box<Rule>>>,
    topics: Tree,
    /// Who wants which event, but messages.
    listeners: Vec<(EventKind, u32)>,
    interest: Interest,
    world: World,
    feed: Arc<Feed>,
    router: Arc<dyn Router>,
    resources: Resources,
    /// Where resources reach; none in tests.
    outside: Option<Arc<Outside>>,
    /// The numbers that match; kept for its room.
    matched: Vec<u32>,
    stamped: u64,
    /// Bytes that a message may have.
    packet_max: usize,
    /// How many commands by topic are still obeyed; none: none is.
    commands: Option<Bucket>,
    queries: Queries,
    /// The most rules, actions and resources so far, as far as somebody looked.
    peaks: [usize; 3],
}

impl Engine {
    /// An engine without rules.
    #[must_use]
    pub fn new(feed: Arc<Feed>, router: Arc<dyn Router>) -> Self {
        feed.want(0);
        Self {
            rules: Vec::new(),
            topics: Tree::default(),
            listeners: Vec::new(),
            interest: Interest::NOTHING,
            world: World::new(),
            feed,
            router,
            resources: Resources::default(),
            outside: None,
            matched: Vec::new(),
            stamped: 0,
            packet_max: RENDERED_MAX_BYTES,
            commands: None,
            queries: Queries::new(),
            peaks: [0; 3],
        }
    }

    /// Bounds what rules publish, as the broker bounds what clients do.
    pub fn bound(&mut self, packet_max: usize) {
        self.packet_max = packet_max;
    }

    /// Whether messages to `headgate/…/set` act on the router from now on.
    pub fn obey(&mut self, commands: bool) {
        self.commands = commands.then(|| Bucket::new(ACT_RATE, 5 * ACT_RATE));
        self.index();
    }

    /// Does what a message commands.
    fn command(&mut self, now: Time, topic: &str, payload: &[u8]) {
        let Some(bucket) = &mut self.commands else {
            return;
        };
        if let Some(act) = state::command(topic, payload)
            && !(bucket.take(now) && self.router.act(act))
        {
            log::warn!("{topic}: too many commands at once");
        }
    }

    /// Lets resources reach out from now on.
    pub fn reach(&mut self, outside: Arc<Outside>) {
        self.outside = Some(outside);
        self.index();
    }

    /// Takes in what was kept; what no longer is a rule is logged and left out.
    pub fn load(&mut self, document: &Value) {
        let resources = document.get("resources").and_then(Value::as_array);
        for kept in resources.into_iter().flatten() {
            let asked = kept.as_object().cloned().unwrap_or_default();
            if let Err(error) = self.take_resource(&asked, false) {
                let id = asked.get("id").and_then(Value::as_str);
                log::error!("resource {} is left out: {error}", id.unwrap_or_default());
            }
        }
        let rules = document.get("rules").and_then(Value::as_array);
        for kept in rules.into_iter().flatten() {
            let asked = kept.as_object().cloned().unwrap_or_default();
            if let Err(error) = self.create(&asked) {
                let id = asked.get("id").and_then(Value::as_str);
                log::error!("rule {} is left out: {error}", id.unwrap_or_default());
            }
        }
    }

    /// What is to be kept.
    #[must_use]
    pub fn document(&self) -> Value {
        let rules = self.rules.iter().flatten();
        let rules: Vec<Value> = rules.map(|rule| rule.definition.to_json()).collect();
        let resources = self.resources.all().map(|one| one.definition.to_json());
        json!({"resources": resources.collect::<Vec<_>>(), "rules": rules})
    }

    /// Makes a resource.
    ///
    /// # Errors
    /// [`BadRule`]; nothing is changed then.
    pub fn create_resource(&mut self, asked: &Map<String, Value>) -> Result<Box<str>, BadRule> {
        self.take_resource(asked, true)
    }

    /// What can never work is refused when it is `fresh`. What was kept stays, also while a file is gone.
    fn take_resource(
        &mut self,
        asked: &Map<String, Value>,
        fresh: bool,
    ) -> Result<Box<str>, BadRule> {
        let definition = ResourceDefinition::read(asked, None, self)?;
        let mut plan = self.plan(&definition);
        if fresh {
            plan = Ok(plan?);
        }
        let id = definition.id.clone();
        if self.resources.find(&id).is_some() {
            return Err(BadRule::Exists);
        }
        let down = Down::new(&self.feed, definition.kind, &id);
        let resource = Resource::start(definition, plan, self.outside.as_ref(), &self.feed, down);
        self.resources.add(resource)?;
        Ok(id)
    }

    /// Changes a resource, or without changes starts it anew.
    ///
    /// # Errors
    /// [`BadRule`]; nothing is changed then.
    pub fn update_resource(&mut self, id: &str, asked: &Map<String, Value>) -> Result<(), BadRule> {
        let before = self.resources.find(id).map(|one| one.definition.clone());
        let before = before.ok_or_else(|| BadRule::Resource(id.into()))?;
        let definition = ResourceDefinition::read(asked, Some(&before), self)?;
        let plan = self.plan(&definition)?;
        let (outside, feed) = (self.outside.as_ref(), &self.feed);
        let down = Down::new(feed, definition.kind, id);
        self.resources.replace(id, || {
            Resource::start(definition, Ok(plan), outside, feed, down)
        });
        Ok(())
    }

    fn plan(&self, definition: &ResourceDefinition) -> Result<Plan, BadRule> {
        let outside = self.outside.as_ref();
        let file = |name: &str| outside.and_then(|outside| outside.file(name).ok());
        definition.plan(self.feed.node(), &file)
    }

    /// Removes a resource, if there is one.
    ///
    /// # Errors
    /// [`BadRule::InUse`].
    pub fn delete_resource(&mut self, id: &str) -> Result<(), BadRule> {
        let rules = self.rules.iter().flatten();
        let using = rules.filter(|rule| rule.definition.enabled && rule.definition.uses(id));
        let using: Vec<&str> = using.map(|rule| &*rule.definition.id).collect();
        if !using.is_empty() {
            return Err(BadRule::InUse(using.join(", ").into()));
        }
        self.resources.remove(id);
        Ok(())
    }

    /// What all rules together have done since they were made.
    pub fn totals(&mut self) -> Totals {
        fn add(actions: &[Action], totals: &mut Totals) {
            for action in actions {
                let [taken, success, failed] = &mut totals.actions;
                let (done, not_done) = action.ended();
                *taken += action.taken;
                *success += done;
                *failed += not_done;
                totals.held[1][0] += 1;
                add(&action.fallbacks, totals);
            }
        }
        let mut totals = Totals::default();
        for rule in self.rules.iter().flatten() {
            let counters = &rule.counters;
            let [matched, passed, failed] = &mut totals.rules;
            *matched += counters.matched;
            *passed += counters.passed;
            *failed += counters.no_result + counters.exception;
            totals.held[0][0] += 1;
            add(&rule.actions, &mut totals);
        }
        totals.held[2][0] = self.resources.all().count();
        for ([count, max], peak) in totals.held.iter_mut().zip(&mut self.peaks) {
            *peak = (*peak).max(*count);
            *max = *peak;
        }
        totals
    }

    /// The resources, or the one of an id.
    #[must_use]
    pub fn resources(&self, id: Option<&str>) -> Vec<ResourceReport> {
        let wanted = self.resources.all();
        let wanted = wanted.filter(|one| id.is_none_or(|id| *one.definition.id == *id));
        wanted
            .map(|one| ResourceReport {
                definition: one.definition.clone(),
                alive: one.is_alive(),
            })
            .collect()
    }

    /// Does the fallbacks of an action that was found to have failed when its event was gone.
    pub(super) fn fall_back(
        &mut self,
        now: Time,
        action: &str,
        row: &[u8],
        out: &mut Vec<Publication>,
    ) {
        let Ok(SqlValue::Map(row)) = parse_json(row) else {
            return;
        };
        let around = Around {
            now,
            world: &self.world,
            router: &*self.router,
            publisher: "",
            qos: Qos::AtMostOnce,
            topic: "",
            retain: false,
            packet_max: self.packet_max,
            resources: &self.resources,
        };
        let mut rules = self.rules.iter_mut().flatten();
        let cut = rules.find_map(|rule| {
            let cut = rule.fall_back(action, &row, &around, out)?;
            Some(cut.then(|| rule.definition.id.clone()))
        });
        if let Some(id) = cut.flatten() {
            cut::raise(&self.feed, self.outside.as_ref(), &id);
        }
    }

    /// Makes a rule.
    ///
    /// # Errors
    /// [`BadRule`]; nothing is changed then.
    pub fn create(&mut self, asked: &Map<String, Value>) -> Result<Box<str>, BadRule> {
        if self.rules.iter().flatten().count() >= RULES_MAX {
            return Err(BadRule::TooMany);
        }
        let definition = Definition::read(asked, None, self)?;
        if self.number(&definition.id).is_some() {
            return Err(BadRule::Exists);
        }
        let id = definition.id.clone();
        let rule = Box::new(Rule::new(definition)?);
        match self.rules.iter_mut().find(|place| place.is_none()) {
            Some(place) => *place = Some(rule),
            None => self.rules.push(Some(rule)),
        }
        self.index();
        Ok(id)
    }

    /// Changes a rule; `None`: there is no such.
    ///
    /// # Errors
    /// [`BadRule`]; nothing is changed then.
    pub fn update(&mut self, id: &str, asked: &Map<String, Value>) -> Option<Result<(), BadRule>> {
        let number = self.number(id)?;
        let before = self.rules.get_mut(number)?.take()?;
        let changed = Definition::read(asked, Some(&before.definition), self);
        let changed = changed.and_then(Rule::new).map(|mut rule| {
            rule.inherit(&before);
            rule
        });
        let (rule, result) = match changed {
            Ok(rule) => (Box::new(rule), Ok(())),
            Err(bad) => (before, Err(bad)),
        };
        *self.rules.get_mut(number)? = Some(rule);
        self.index();
        Some(result)
    }

    /// Removes a rule; whether there was one.
    pub fn delete(&mut self, id: &str) -> bool {
        let Some(number) = self.number(id) else {
            return false;
        };
        let gone = self.rules.get_mut(number).and_then(Option::take);
        if gone.is_some_and(|rule| rule.is_cut()) {
            let name: Box<str> = id.into();
            // Where that is too much at once, who watches it does the same later.
            let _busy = self
                .feed
                .tell(move |broker, now| _ = cut::settle(broker, now, &name));
        }
        self.index();
        true
    }

    /// Sets a rule's counters to zero; whether there is one.
    pub fn reset(&mut self, id: &str) -> bool {
        let number = self.number(id);
        let rule = number.and_then(|number| self.rules.get_mut(number)?.as_mut());
        rule.map(|rule| rule.reset()).is_some()
    }

    /// The rules, or the one of an id.
    pub fn reports(&mut self, now: Time, id: Option<&str>) -> Vec<RuleReport> {
        let rules = self.rules.iter_mut().flatten();
        let wanted = rules.filter(|rule| id.is_none_or(|id| *rule.definition.id == *id));
        wanted.map(|rule| report(rule, now)).collect()
    }

    fn number(&self, id: &str) -> Option<usize> {
        let is = |place: &Option<Box<Rule>>| {
            place
                .as_ref()
                .is_some_and(|rule| *rule.definition.id == *id)
        };
        self.rules.iter().position(is)
    }

    /// Builds what finds rules anew.
    fn index(&mut self) {
        self.topics = Tree::default();
        self.listeners.clear();
        self.interest = match &self.commands {
            Some(_) => Interest::PUBLISHED,
            None => Interest::NOTHING,
        };
        if self.outside.is_some() {
            self.interest = self.interest.with(Interest::QUERIED);
        }
        let mut wanted = 0;
        for (number, rule) in (0..).zip(&self.rules) {
            let Some(rule) = rule.as_ref().filter(|rule| rule.definition.enabled) else {
                continue;
            };
            for name in rule.program.from() {
                let Some(kind) = EventKind::of(name) else {
                    continue;
                };
                self.interest = self.interest.with(kind.about().interest);
                if kind == EventKind::Published {
                    let subscriber = Subscriber {
                        session: number,
                        ..Subscriber::default()
                    };
                    self.topics.insert(name, None, subscriber);
                } else if !self.listeners.contains(&(kind, number)) {
                    wanted |= kind.bit();
                    self.listeners.push((kind, number));
                }
            }
        }
        self.feed.want(wanted);
    }

    /// Shows what happened to the router to the rules that want it.
    pub fn occurred(&mut self, now: Time, what: &Occurrence, out: &mut Vec<Publication>) {
        self.listen(what.kind);
        let feed = Arc::clone(&self.feed);
        let node = feed.node();
        self.run_matched(now, &Shown { what, node }, &Sent::default(), out);
    }

    fn listen(&mut self, kind: EventKind) {
        self.matched.clear();
        let listeners = self.listeners.iter().filter(|(wanted, _)| *wanted == kind);
        self.matched.extend(listeners.map(|(_, number)| *number));
    }

    fn run_matched(
        &mut self,
        now: Time,
        event: &dyn Columns,
        sent: &Sent<'_>,
        out: &mut Vec<Publication>,
    ) {
        let around = Around {
            now,
            world: &self.world,
            router: &*self.router,
            publisher: sent.publisher,
            qos: sent.qos,
            topic: sent.topic,
            retain: sent.retain,
            packet_max: self.packet_max,
            resources: &self.resources,
        };
        let mut cut: Vec<Box<str>> = Vec::new();
        for number in &self.matched {
            let rule = self.rules.get_mut(*number as usize);
            let Some(rule) = rule.and_then(Option::as_mut) else {
                continue;
            };
            if rule.run(event, &around, out) {
                cut.push(rule.definition.id.clone());
            }
        }
        for id in cut {
            cut::raise(&self.feed, self.outside.as_ref(), &id);
        }
    }

    /// Whether a rule's alarm still stands at `now`.
    pub(super) fn is_cut(&mut self, now: Time, id: &str) -> bool {
        let number = self.number(id);
        let rule = number.and_then(|number| self.rules.get_mut(number)?.as_mut());
        rule.is_some_and(|rule| !rule.calms(now) && rule.is_cut())
    }
}

/// How the message of an event was published; of other events nothing.
#[derive(Default)]
struct Sent<'a> {
    publisher: &'a str,
    topic: &'a str,
    qos: Qos,
    retain: bool,
}

impl Ids for Engine {
    fn resource_kind(&self, id: &str) -> Option<&'static str> {
        self.resources.find(id).map(|one| one.definition.kind)
    }

    fn digits(&mut self) -> u32 {
        self.world.digits()
    }

    fn stamp(&mut self) -> u64 {
        let now = u64::try_from(clock::unix_time().as_nanos()).unwrap_or(u64::MAX);
        self.stamped = now.max(self.stamped.saturating_add(1));
        self.stamped
    }
}

impl Hook for Engine {
    fn interest(&self) -> Interest {
        self.interest
    }

    fn event(&mut self, now: Time, event: &Event<'_>, out: &mut Vec<Publication>) {
        let feed = Arc::clone(&self.feed);
        let shown = BrokerEvent::new(event, now, feed.node());
        let publisher = match event {
            Event::Published { publisher, .. } => &*publisher.client_id,
            _ => "",
        };
        let sent = match shown.message() {
            Some((message, qos)) => Sent {
                publisher,
                topic: message.topic(),
                qos,
                retain: message.retain,
            },
            None => Sent::default(),
        };
        if let Event::Published {
            message, publisher, ..
        } = event
        {
            self.command(now, message.topic(), message.payload());
            if let Some(outside) = &self.outside {
                self.queries.ask(now, (message, publisher), outside, &feed);
            }
            self.matched.clear();
            let matched = &mut self.matched;
            self.topics.matching(sent.topic, &mut |found| {
                if let Match::Each(subscribers) = found {
                    matched.extend(subscribers.iter().map(|one| one.session));
                }
            });
            // A rule may have several filters that match; it runs once.
            matched.sort_unstable();
            matched.dedup();
        } else {
            self.listen(shown.kind);
        }
        self.run_matched(now, &shown, &sent, out);
        if let Event::Disconnected { session, .. } = event {
            self.world.forget(&session.client_id);
        }
    }

    fn cut(&mut self, now: Time, publication: &Publication) {
        let mut rules = self.rules.iter_mut().flatten();
        let cut = rules.find_map(|rule| {
            let first = rule.has_action(&publication.client_id) && rule.note_cut(now);
            first.then(|| rule.definition.id.clone())
        });
        if let Some(id) = cut {
            cut::raise(&self.feed, self.outside.as_ref(), &id);
        }
    }
}
