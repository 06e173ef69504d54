//! The alarm of a rule that acts too often: `rule/ID/cut`. It stands until the rule was calm for [`CALM`].

use std::sync::Arc;

use serde_json::json;
use tokio::sync::oneshot;
use tokio::time::sleep;

use super::engine::Engine;
use super::feed::Feed;
use super::outside::Outside;
use super::rule::CALM;
use crate::mqtt::Time;
use crate::mqtt::broker::Broker;

/// Has the alarm of a rule raised that was cut just now, and ended in its time.
pub(super) fn raise(feed: &Arc<Feed>, outside: Option<&Arc<Outside>>, id: &str) {
    let name: Box<str> = id.into();
    let told = feed.tell(move |broker, now| _ = settle(broker, now, &name));
    if !told {
        log::warn!("the broker is too busy for an alarm, which comes later");
    }
    if let Some(outside) = outside {
        outside
            .runtime
            .spawn(watch_cut(Arc::clone(feed), id.into()));
    }
}

/// Ends the alarm of a rule when the rule is calm, or gone.
async fn watch_cut(feed: Arc<Feed>, id: Box<str>) {
    loop {
        sleep(CALM).await;
        let (answer, stands) = oneshot::channel();
        let rule = id.clone();
        let told = feed.tell(move |broker, now| {
            let _gone = answer.send(settle(broker, now, &rule));
        });
        // A broker that is too busy, or gone, is asked again.
        if told && stands.await == Ok(false) {
            return;
        }
    }
}

/// Has the alarm of a rule stand for as long as the rule is cut; whether it does.
pub(super) fn settle(broker: &mut Broker, now: Time, id: &str) -> bool {
    let is_cut = broker.with_hook(|engine: &mut Engine| engine.is_cut(now, id));
    let (is_cut, name) = (is_cut.unwrap_or_default(), format!("rule/{id}/cut"));
    if is_cut {
        let message = "a rule acts too often and is cut";
        broker.raise_alarm(now, &name, message, &json!({"rule": id}));
    } else {
        broker.lower_alarm(now, &name);
    }
    is_cut
}
