//! A bridge's end at the broker: a client without a socket, which is let in as it is and is not asked
//! for signs of life. [`super::bridge`] has the other end.

use std::future::poll_fn;
use std::net::Ipv4Addr;
use std::rc::Rc;
use std::task::Poll;

use super::bridge::Leg;
use super::broker::{Admitted, NO_LISTENER};
use super::codec::property::id as property;
use super::codec::{Connect, PropertyWriter, Version};
use super::driver::Driver;
use super::link::Link;
use super::listener::{Presence, run};
use super::transport::Stream;

/// Serves a leg until its bridge drops it.
pub(super) async fn attach(driver: Rc<Driver>, leg: Leg) {
    let waker = poll_fn(|context| Poll::Ready(context.waker().clone())).await;
    let stream = Stream::Layered(Box::new(leg.io));
    let link = Rc::new(Link::new(stream, Version::V5, None, Some(waker)));
    let Ok(id) = driver.add(&link) else {
        return;
    };
    let presence = Presence { driver, link, id };
    let Presence { driver, link, .. } = &presence;
    let mut properties = PropertyWriter::default();
    properties.u32(property::SESSION_EXPIRY, u32::MAX);
    properties.u16(property::RECEIVE_MAXIMUM, leg.inflight_max.max(1));
    properties.u32(property::MAXIMUM_PACKET, leg.packet_max.max(1));
    let connect = Connect {
        version: Version::V5,
        bridge: true,
        clean: false,
        keep_alive: 0,
        properties: properties.finish(),
        client_id: &leg.client_id,
        will: None,
        username: None,
        password: None,
    };
    let who = Admitted {
        username: None,
        superuser: true,
        address: (Ipv4Addr::LOCALHOST, 0).into(),
        listener: NO_LISTENER,
    };
    driver.with(|broker, now| broker.adopt(now, &leg.client_id, &leg.filters, leg.forgotten));
    match driver.with(|broker, now| broker.connect(now, id, &connect, who)) {
        Ok(session) => {
            link.session.set(Some(session));
            run(&presence).await;
        }
        Err(reason) => log::warn!("mqtt: {}: {:#04x}", leg.client_id, reason.0),
    }
}
