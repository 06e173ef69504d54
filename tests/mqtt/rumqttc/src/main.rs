//! What `tests/netns/test_mqtt_clients.py` lets rumqttc do: HOST PORT. Prints `good` when all of it was as
//! it should be, in MQTT 3.1.1 and in 5.0.

use std::time::Duration;

use rumqttc::v5;
use tokio::time::timeout;

/// Messages of each quality.
const COUNT: usize = 100;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let host = arguments.next().expect("HOST");
    let port: u16 = arguments
        .next()
        .and_then(|port| port.parse().ok())
        .expect("PORT");
    let patience = Duration::from_secs(30);
    let old = timeout(patience, version_4(&host, port))
        .await
        .expect("in time");
    check("3.1.1", &old);
    let new = timeout(patience, version_5(&host, port))
        .await
        .expect("in time");
    check("5.0", &new);
    println!("good");
}

/// Payloads by quality; each its number, in order.
fn check(version: &str, got: &[Vec<usize>; 3]) {
    let want: Vec<usize> = (0..COUNT).collect();
    for (quality, got) in got.iter().enumerate() {
        assert_eq!(*got, want, "{version}, quality {quality}");
    }
}

fn note(got: &mut [Vec<usize>; 3], topic: &str, payload: &[u8]) -> bool {
    let quality: usize = topic
        .rsplit('/')
        .next()
        .and_then(|last| last.parse().ok())
        .expect("a quality");
    let number = std::str::from_utf8(payload)
        .ok()
        .and_then(|text| text.parse().ok());
    got[quality].push(number.expect("a number"));
    got.iter().map(Vec::len).sum::<usize>() == 3 * COUNT
}

async fn version_4(host: &str, port: u16) -> [Vec<usize>; 3] {
    use rumqttc::{AsyncClient, Event, MqttOptions, Packet, QoS};
    let mut options = MqttOptions::new("rumqttc-4", host, port);
    options.set_inflight(20);
    let (client, mut events) = AsyncClient::new(options, 10);
    client
        .subscribe("rumqttc/4/#", QoS::ExactlyOnce)
        .await
        .expect("a queue");
    let mut got = <[Vec<usize>; 3]>::default();
    loop {
        match events.poll().await.expect("a connection") {
            Event::Incoming(Packet::SubAck(_)) => {
                let client = client.clone();
                tokio::spawn(async move {
                    for quality in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
                        for number in 0..COUNT {
                            let topic = format!("rumqttc/4/{}", quality as u8);
                            client
                                .publish(topic, quality, false, number.to_string())
                                .await
                                .expect("a queue");
                        }
                    }
                });
            }
            Event::Incoming(Packet::Publish(message)) => {
                if note(&mut got, &message.topic, &message.payload) {
                    return got;
                }
            }
            _ => {}
        }
    }
}

async fn version_5(host: &str, port: u16) -> [Vec<usize>; 3] {
    use v5::mqttbytes::QoS;
    use v5::mqttbytes::v5::Packet;
    use v5::{AsyncClient, Event, MqttOptions};
    // Without aliases: rumqttc leaves it to its user to look topics up by them.
    let options = MqttOptions::new("rumqttc-5", host, port);
    let (client, mut events) = AsyncClient::new(options, 10);
    client
        .subscribe("rumqttc/5/#", QoS::ExactlyOnce)
        .await
        .expect("a queue");
    let mut got = <[Vec<usize>; 3]>::default();
    loop {
        match events.poll().await.expect("a connection") {
            Event::Incoming(Packet::SubAck(_)) => {
                let client = client.clone();
                tokio::spawn(async move {
                    for quality in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
                        for number in 0..COUNT {
                            let topic = format!("rumqttc/5/{}", quality as u8);
                            client
                                .publish(topic, quality, false, number.to_string())
                                .await
                                .expect("a queue");
                        }
                    }
                });
            }
            Event::Incoming(Packet::Publish(message)) => {
                let topic = std::str::from_utf8(&message.topic).expect("a topic");
                if note(&mut got, topic, &message.payload) {
                    return got;
                }
            }
            _ => {}
        }
    }
}
