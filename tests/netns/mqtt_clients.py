"""What test_mqtt.py lets paho do: mqtt_clients.py CASE HOST PORT; prints what it saw as JSON."""

import json
import ssl
import sys
import threading
import time

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

HOST, PORT = sys.argv[2], int(sys.argv[3])
CALLBACKS = (mqtt.CallbackAPIVersion.VERSION2,) if hasattr(mqtt, "CallbackAPIVersion") else ()


def until(condition, seconds=30):
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise SystemExit("waited in vain")
        time.sleep(0.01)


def properties(kind, **values):
    made = Properties(kind)
    for name, value in values.items():
        setattr(made, name, value)
    return made


class Client(mqtt.Client):
    """Connected and looping when it is made."""

    def __init__(self, name, protocol=mqtt.MQTTv5, expiry=0, clean=True, secure=False, **options):
        super().__init__(*CALLBACKS, name, protocol=protocol, **options)
        if secure:
            self.tls_set(cert_reqs=ssl.CERT_NONE)
        self.got, self.joined, self.parted, self.granted = [], threading.Event(), threading.Event(), threading.Event()
        self.on_message = lambda _client, _data, message: self.got.append(message)
        self.on_connect = lambda *_: self.joined.set()
        self.on_disconnect = lambda *_: self.parted.set()
        self.on_subscribe = lambda *_: self.granted.set()
        self.username_pw_set("ann", "plain")
        if protocol == mqtt.MQTTv5:
            self.connect(HOST, PORT, 30, clean_start=clean, properties=properties(PacketTypes.CONNECT, SessionExpiryInterval=expiry))
        else:
            self.connect(HOST, PORT, 30)
        self.loop_start()
        assert self.joined.wait(10)

    def follow(self, *arguments, **options):
        self.granted.clear()
        self.subscribe(*arguments, **options)
        assert self.granted.wait(10)


def version5():
    listener, speaker = Client("listener"), Client("speaker")
    subscription = properties(PacketTypes.SUBSCRIBE, SubscriptionIdentifier=42)
    listener.follow("v5/#", options=SubscribeOptions(qos=2, noLocal=True), properties=subscription)
    listener.follow("al/#")
    sent = properties(PacketTypes.PUBLISH, ContentType="text/x", ResponseTopic="r/t", CorrelationData=b"\x01\x02",
                      UserProperty=[("a", "b"), ("a", "c")], MessageExpiryInterval=100)
    listener.publish("v5/own", "no-local").wait_for_publish(10)
    for qos in (0, 1, 2):
        speaker.publish("v5/x", str(qos), qos, properties=sent)
    aliased = properties(PacketTypes.PUBLISH, TopicAlias=3)
    speaker.publish("al/x", "named", 0, properties=aliased)
    speaker.publish("", "by number", 1, properties=aliased)
    until(lambda: len(listener.got) >= 5)
    messages = [m for m in listener.got if m.topic == "v5/x"]
    last = messages[-1].properties
    return {
        "qos": [m.qos for m in messages], "content_type": last.ContentType, "response_topic": last.ResponseTopic,
        "correlation": last.CorrelationData.hex(), "user": last.UserProperty, "identifier": last.SubscriptionIdentifier,
        "expiry": last.MessageExpiryInterval, "own_came_back": any(m.topic == "v5/own" for m in listener.got),
        "aliased": [m.topic for m in listener.got if m.topic.startswith("al/")],
    }


def order():
    first = Client("durable", expiry=300)
    first.follow("order/#", 2)
    speaker = Client("speaker2", protocol=mqtt.MQTTv311, clean_session=True)
    for n in range(1000):
        speaker.publish("order/x", str(n), 2)
    until(lambda: len(first.got) == 1000)
    second = Client("durable", expiry=300, clean=False)
    taken = first.parted.wait(10)
    first.loop_stop()
    for n in range(1000, 2000):
        speaker.publish("order/x", str(n), 2)
    until(lambda: len(first.got) + len(second.got) >= 2000)
    return {"received": [int(m.payload) for m in first.got + second.got], "taken_over": taken}


def websocket(secure=False):
    client = Client("web", protocol=mqtt.MQTTv311, transport="websockets", secure=secure)
    client.follow("ws/#", 1)
    for size in (1, 70_000, 900_000):
        client.publish("ws/x", b"x" * size, 1)
    until(lambda: len(client.got) == 3)
    return [len(m.payload) for m in client.got]


class Speaker(mqtt.Client):
    """paho forgets at its second attempt to connect that PUBREC came, and publishes anew."""

    def _messages_reconnect_reset_out(self):
        released = [m for m in self._out_messages.values() if m.state == mqtt.mqtt_ms_resend_pubrel]
        super()._messages_reconnect_reset_out()
        for message in released:
            message.state = mqtt.mqtt_ms_resend_pubrel


def crash():
    """Quality two through a broker that is killed again and again; ends when a line is read."""
    listener = mqtt.Client(*CALLBACKS, "crash-listener", protocol=mqtt.MQTTv311, clean_session=False)
    speaker = Speaker(*CALLBACKS, "crash-speaker", protocol=mqtt.MQTTv311, clean_session=False)
    got, confirmed, over = [], [], threading.Event()
    listener.on_message = lambda _client, _data, message: got.append(int(message.payload))
    listener.on_connect = lambda client, *_: client.subscribe("crash/#", 2)
    speaker.on_publish = lambda _client, _data, mid, *_: confirmed.append(mid)
    for client in (listener, speaker):
        client.reconnect_delay_set(0.05, 0.1)
        client.connect(HOST, PORT, 30)
        client.loop_start()
    threading.Thread(target=lambda: (sys.stdin.readline(), over.set()), daemon=True).start()
    sent = 0
    until(lambda: listener.is_connected() and speaker.is_connected())
    print("running", flush=True)
    while not over.is_set():
        if sent - len(confirmed) < 20:
            speaker.publish("crash/x", str(sent), 2)
            sent += 1
        else:
            time.sleep(0.001)
    until(lambda: len(confirmed) >= sent, 20)
    until(lambda: len(got) >= sent, 20)
    time.sleep(0.3)  # for what comes twice
    return {"sent": sent, "missing": sent - len(set(got)), "twice": len(got) - len(set(got)), "in_order": got == sorted(got)}


print(json.dumps({"crash": crash, "version5": version5, "order": order, "websocket": websocket, "secure": lambda: websocket(True)}[sys.argv[1]]()))
