"""The broker on the wire, byte by byte: what tests/mqtt/conformance.md names beside the unit tests."""

import base64
import contextlib
import os
import time

from lab import ROUTER_LAN, Daemon, LabTest

MQTT = f"""
mode: direct
mqtt:
  listeners:
    - {{name: tcp, type: tcp, listen: {ROUTER_LAN}:1883}}
    - {{name: ws, type: ws, listen: {ROUTER_LAN}:8083}}
  allow-anonymous: true
  users: [{{username: ann, password: plain}}]
  max-packet-size: 1000
  max-awaiting-rel: 20
  persistence: false
"""

V3, V4, V5 = 3, 4, 5
ACCEPTED = b"\x20\x02\x00\x00"


def packet(first, *parts):
    body = b"".join(parts)
    length, left = b"", len(body)
    while True:
        length += bytes([left & 0x7F | (0x80 if left > 0x7F else 0)])
        left >>= 7
        if not left:
            return bytes([first]) + length + body


def text(value):
    value = value if isinstance(value, bytes) else value.encode()
    return len(value).to_bytes(2, "big") + value


def number(value):
    return value.to_bytes(2, "big")


def properties(*parts):
    body = b"".join(parts)
    assert len(body) < 128
    return bytes([len(body)]) + body


def connect(name="c", version=V5, flags=2, keep_alive=60, own=b"", payload=b""):
    header = text("MQIsdp" if version == V3 else "MQTT") + bytes([version, flags]) + number(keep_alive)
    return packet(0x10, header, properties(own) if version == V5 else b"", text(name), payload)


def publish(topic, payload=b"", qos=0, identifier=1, own=b"", version=V5, flags=0):
    return packet(0x30 | qos << 1 | flags, text(topic), number(identifier) if qos else b"", properties(own) if version == V5 else b"", payload)


def subscribe(topic, options=0, own=b"", version=V5, first=0x82):
    return packet(first, number(7), properties(own) if version == V5 else b"", text(topic), bytes([options]))


class Wire:
    """A connection that speaks bytes."""

    def __init__(self, socket):
        self.socket = socket

    def send(self, data):
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.socket.sendall(data)

    def take(self, count):
        data = b""
        while len(data) < count:
            more = self.socket.recv(count - len(data))
            if not more:
                return data
            data += more
        return data

    def packet(self):
        """The next packet whole; nothing: the broker closed."""
        head = self.take(1)
        if not head:
            return b""
        length, shift = 0, 0
        while True:
            byte = self.take(1)
            head += byte
            length |= (byte[0] & 0x7F) << shift
            shift += 7
            if byte[0] < 0x80:
                return head + self.take(length)

    def rest(self):
        """Everything up to the end of the connection."""
        data = b""
        with contextlib.suppress(ConnectionResetError):
            while more := self.socket.recv(65536):
                data += more
        return data


class Conformance(LabTest):
    CONFIG_TEXT = MQTT

    def wire(self, port=1883):
        socket = self.lab.connect("lan1", ROUTER_LAN, port)
        self.addCleanup(socket.close)
        return Wire(socket)

    def joined(self, **options):
        wire = self.wire()
        wire.send(connect(**options))
        answer = wire.packet()
        self.assertEqual((answer[0], answer[3]), (0x20, 0), answer)
        wire.connack = answer
        return wire

    def test_nothing_but_a_connect_comes_first(self):
        for first in (b"\xc0\x00", publish("a", version=V4), b"\xe0\x00", subscribe("a")):
            wire = self.wire()
            wire.send(first)
            self.assertEqual(wire.rest(), b"")

    def test_a_second_connect_ends_the_connection(self):
        for version, last in ((V4, b""), (V5, b"\xe0\x02\x82\x00")):
            wire = self.joined(version=version)
            wire.send(connect(version=version))
            self.assertEqual(wire.rest(), last)

    def test_an_unknown_protocol_is_refused(self):
        cases = (
            ("another name", packet(0x10, text("MQTX"), b"\x04\x02\x00\x3c", text("c")), b""),
            ("a level of the future", packet(0x10, text("MQTT"), b"\x06\x02\x00\x3c\x00", text("c")), b"\x20\x02\x00\x01"),
            ("a level that the name does not have", packet(0x10, text("MQIsdp"), b"\x04\x02\x00\x3c", text("c")), b"\x20\x02\x00\x01"),
        )
        for name, data, answer in cases:
            with self.subTest(name):
                wire = self.wire()
                wire.send(data)
                self.assertEqual(wire.rest(), answer)

    def test_a_malformed_connect_is_refused_and_5_0_is_told_why(self):
        cases = [
            ("the reserved flag", {"flags": 3}, 0x81),
            ("a will's quality without a will", {"flags": 0x0A}, 0x81),
            ("a will that is kept without a will", {"flags": 0x22}, 0x81),
            ("a will of quality 3", {"flags": 0x1E}, 0x81),
            ("a will that is announced and missing", {"flags": 6}, 0x81),
            ("a user name that is announced and missing", {"flags": 0x82}, 0x81),
            ("a user name that is not announced", {"payload": text("ann")}, 0x81),
            ("a password that is announced and missing", {"flags": 0xC2, "payload": text("ann")}, 0x81),
            ("a password that is not announced", {"flags": 0x82, "payload": text("ann") + text("x")}, 0x81),
            ("a name that is not UTF-8", {"name": b"\xff"}, 0x81),
            ("a surrogate in the name", {"name": b"\xed\xa0\x80"}, 0x81),
            ("U+0000 in the name", {"name": b"a\0"}, 0x81),
            ("a user name that is not UTF-8", {"flags": 0x82, "payload": text(b"\xc0\x80")}, 0x81),
            ("a will topic that is not UTF-8", {"flags": 6, "payload": (b"\0" + text(b"\xff") + text("x"), text(b"\xff") + text("x"))}, 0x81),
        ]
        for name, options, reason in cases:
            for version, place in ((V5, 0), (V4, 1)):
                with self.subTest(name, version=version):
                    wire = self.wire()
                    payload = options.get("payload", b"")
                    payload = payload[place] if isinstance(payload, tuple) else payload
                    wire.send(connect(version=version, **{**options, "payload": payload}))
                    self.assertEqual(wire.rest(), bytes([0x20, 3, 0, reason, 0]) if version == V5 else b"")
        wire = self.wire()
        wire.send(connect(version=V4, flags=0x42, payload=text("x")))
        self.assertEqual(wire.rest(), b"", "a password without a user name")

    def test_properties_of_a_connect_are_checked(self):
        cases = [
            ("receive maximum 0", b"\x21\0\0", 0x82),
            ("maximum packet size 0", b"\x27\0\0\0\0", 0x82),
            ("a property twice", b"\x11\0\0\0\1" * 2, 0x82),
            ("a flag of 2", b"\x19\2", 0x82),
            ("a property of another packet", b"\x23\0\1", 0x82),
            ("an unknown property", b"\x7e\0", 0x81),
            ("a property that is cut off", b"\x11\0", 0x81),
            ("a pair that is not UTF-8", b"\x26" + text("a") + text(b"\xff"), 0x81),
            ("authentication data without a method", b"\x16" + text("x"), 0x82),
            ("an authentication method", b"\x15" + text("PLAIN"), 0x8C),
        ]
        for name, own, reason in cases:
            with self.subTest(name):
                wire = self.wire()
                wire.send(connect(own=own))
                self.assertEqual(wire.rest(), bytes([0x20, 3, 0, reason, 0]))

    def test_names_are_given_where_they_may_be_left_out(self):
        for version, flags, answer in ((V3, 2, b"\x20\x02\x00\x02"), (V4, 0, b"\x20\x02\x00\x02")):
            wire = self.wire()
            wire.send(connect("", version=version, flags=flags))
            self.assertEqual(wire.rest(), answer)
        self.assertEqual(self.joined(name="", version=V4).connack, ACCEPTED)
        self.assertIn(b"\x12\x00\x15auto-", self.joined(name="", flags=0).connack)

    def test_who_is_refused_is_told_and_nothing_that_he_sent_behind_counts(self):
        watcher = self.joined(name="watcher")
        watcher.send(subscribe("refused"))
        self.assertEqual(watcher.packet()[0], 0x90)
        login = {"flags": 0xC2, "payload": text("ann") + text("wrong")}
        for version, answer in ((V5, b"\x20\x03\x00\x86\x00"), (V4, b"\x20\x02\x00\x04")):
            wire = self.wire()
            wire.send(connect(version=version, **login) + publish("refused", b"x", version=version))
            self.assertEqual(wire.rest(), answer)
        watcher.send(b"\xc0\0")
        self.assertEqual(watcher.packet(), b"\xd0\0", "nothing came before this answer")

    def test_what_comes_with_a_connect_is_answered_behind_it(self):
        wire = self.wire()
        wire.send(connect(version=V4) + subscribe("a", version=V4) + publish("a", b"x", version=V4) + b"\xc0\0")
        got = [wire.packet() for _ in range(4)]
        self.assertEqual(got[0], ACCEPTED)
        self.assertCountEqual(got[1:], [b"\x90\x03\x00\x07\x00", b"\xd0\x00", publish("a", b"x", version=V4)])
        self.assertEqual(got[1], b"\x90\x03\x00\x07\x00")

    def test_a_malformed_packet_ends_the_connection_and_5_0_is_told_why(self):
        cases = [
            ("SUBSCRIBE with other flags", subscribe("a", first=0x80), 0x81),
            ("UNSUBSCRIBE with other flags", packet(0xA0, number(1), b"\0", text("a")), 0x81),
            ("PUBREL with other flags", packet(0x60, number(1)), 0x81),
            ("DISCONNECT with flags", b"\xe1\x00", 0x81),
            ("AUTH with flags", b"\xf1\x00", 0x81),
            ("PINGREQ with flags", b"\xc1\x00", 0x81),
            ("a packet of type 0", b"\x00\x00", 0x81),
            ("PUBLISH of quality 3", packet(0x36, text("a"), number(1), b"\0"), 0x81),
            ("PUBLISH of quality 0 that is sent again", publish("a", flags=8), 0x81),
            ("PUBLISH without an identifier", publish("a", qos=1, identifier=0), 0x81),
            ("PUBLISH to a filter", publish("a/+"), 0x90),
            ("PUBLISH to nothing", publish(""), 0x82),
            ("a topic with U+0000", publish(b"a\0"), 0x81),
            ("a topic that is not UTF-8", publish(b"\xed\xbf\xbf"), 0x81),
            ("a topic longer than its packet", b"\x30\x03\x00\x05a", 0x81),
            ("SUBSCRIBE without a filter", packet(0x82, number(1), b"\0"), 0x82),
            ("UNSUBSCRIBE without a filter", packet(0xA2, number(1), b"\0"), 0x82),
            ("a filter that is not UTF-8", subscribe(b"\xff"), 0x81),
            ("a filter to forget that is not UTF-8", packet(0xA2, number(1), b"\0", text(b"\xff")), 0x81),
            ("SUBSCRIBE of quality 3", subscribe("a", 3), 0x81),
            ("reserved options", subscribe("a", 0x40), 0x81),
            ("retain handling 3", subscribe("a", 0x30), 0x81),
            ("no local on a share", subscribe("$share/g/a", 4), 0x82),
            ("subscription identifier 0", subscribe("a", own=b"\x0b\0"), 0x82),
            ("a subscription identifier of too many bytes", subscribe("a", own=b"\x0b\x81\0"), 0x81),
            ("a client's subscription identifier in PUBLISH", publish("a", own=b"\x0b\1"), 0x82),
            ("topic alias 0", publish("a", own=b"\x23\0\0"), 0x94),
            ("a topic alias beyond the maximum", publish("a", own=b"\x23\0\x11"), 0x94),
            ("a topic alias that nobody gave", publish("", own=b"\x23\0\1"), 0x94),
            ("an answer's topic with a wildcard", publish("a", own=b"\x08" + text("r/#")), 0x82),
            ("a content type that is not UTF-8", publish("a", own=b"\x03" + text(b"\xff")), 0x81),
            ("a property of another packet", publish("a", own=b"\x13\0\1"), 0x82),
            ("properties longer than their packet", packet(0x30, text("a"), b"\x09\x01"), 0x81),
            ("AUTH without a method before", packet(0xF0, b"\x18\x00"), 0x82),
            ("a packet that only brokers send", b"\xd0\x00", 0x82),
            ("a packet larger than allowed", publish("a", b"x" * 2000), 0x95),
            ("a length of five bytes", b"\x30\xff\xff\xff\xff\x01", 0x81),
        ]
        for name, data, reason in cases:
            with self.subTest(name):
                wire = self.joined()
                wire.send(data)
                self.assertEqual(wire.rest(), bytes([0xE0, 2, reason, 0]))
        self.joined(name="alive").send(publish("a"))

    def test_a_malformed_packet_of_mqtt_3_ends_the_connection_without_a_word(self):
        cases = [
            ("SUBSCRIBE with other flags", subscribe("a", version=V4, first=0x80)),
            ("UNSUBSCRIBE with other flags", packet(0xA0, number(1), text("a"))),
            ("PUBREL with other flags", packet(0x60, number(1))),
            ("DISCONNECT with flags", b"\xe1\x00"),
            ("PUBLISH of quality 3", packet(0x36, text("a"), number(1))),
            ("PUBLISH of quality 0 that is sent again", publish("a", flags=8, version=V4)),
            ("PUBLISH without an identifier", publish("a", qos=1, identifier=0, version=V4)),
            ("PUBLISH to a filter", publish("a/+", version=V4)),
            ("PUBLISH to nothing", publish("", version=V4)),
            ("a topic with U+0000", publish(b"a\0", version=V4)),
            ("SUBSCRIBE without an identifier", packet(0x82, number(0), text("a"), b"\0")),
            ("SUBSCRIBE without a filter", packet(0x82, number(1))),
            ("SUBSCRIBE with bits of 5.0", subscribe("a", 4, version=V4)),
            ("UNSUBSCRIBE without a filter", packet(0xA2, number(1))),
            ("AUTH", b"\xf0\x00"),
        ]
        for name, data in cases:
            with self.subTest(name):
                wire = self.joined(version=V4)
                wire.send(data)
                self.assertEqual(wire.rest(), b"")

    def test_who_sends_more_than_he_may_is_told_so_though_he_goes_on_sending(self):
        wire = self.joined()
        self.assertIn(b"\x21\x00\x14", wire.connack)
        for identifier in range(1, 30):
            wire.send(publish("a", b"x", 2, identifier))
        time.sleep(0.2)  # until the broker has closed its side
        for identifier in range(1, 30):
            wire.send(packet(0x62, number(identifier)))
        self.assertTrue(wire.rest().endswith(b"\xe0\x02\x93\x00"))

    def test_a_silent_client_is_sent_away_after_one_and_a_half_keep_alives(self):
        began = time.monotonic()
        wire = self.joined(keep_alive=2)
        self.assertEqual(wire.rest(), b"\xe0\x02\x8d\x00")
        self.assertTrue(2.9 <= time.monotonic() - began <= 4.5, time.monotonic() - began)

    def test_a_will_comes_after_its_delay_however_far_other_deadlines_are(self):
        watcher = self.joined(name="watcher")
        watcher.send(subscribe("will"))
        watcher.packet()
        dying = self.joined(name="dying", flags=6, keep_alive=600, own=b"\x11\0\0\0\x3c",
                            payload=properties(b"\x18\0\0\0\x02") + text("will") + text("gone"))
        began = time.monotonic()
        dying.socket.close()
        self.assertEqual(watcher.packet(), publish("will", b"gone"))
        self.assertTrue(1.9 <= time.monotonic() - began <= 3.5, time.monotonic() - began)

    def test_a_client_that_comes_again_takes_over_from_itself(self):
        for version, last in ((V5, b"\xe0\x02\x8e\x00"), (V4, b"")):
            first = self.joined(name="same", version=version)
            self.joined(name="same", version=version)
            self.assertEqual(first.rest(), last)

    def test_disconnect_is_followed_by_the_end_and_by_no_answer(self):
        wire = self.joined(version=V4)
        wire.send(subscribe("a", version=V4) + b"\xe0\0" + b"\xc0\0")
        self.assertNotIn(b"\xd0\0", wire.rest())

    def test_a_password_alone_is_for_5_0(self):
        wire = self.wire()
        wire.send(connect(flags=0x42, payload=text("token")))
        self.assertEqual(wire.packet()[3], 0)

    # Over WebSocket (section 6).

    def upgraded(self, offer="mqtt"):
        wire = self.wire(8083)
        key = base64.b64encode(os.urandom(16)).decode()
        wire.send(f"GET /mqtt HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                  f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Protocol: {offer}\r\n\r\n".encode())
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += wire.take(1)
        return wire, head.decode().lower()

    @staticmethod
    def frame(kind, data):
        mask = os.urandom(4)
        return bytes([0x80 | kind, 0x80 | len(data)]) + mask + bytes(byte ^ mask[at % 4] for at, byte in enumerate(data))

    def test_websocket_frames_say_nothing_about_packets(self):
        wire, head = self.upgraded("chat, mqtt")
        self.assertIn("sec-websocket-protocol: mqtt\r\n", head)
        data = connect(version=V4) + b"\xc0\0"
        for at in range(0, len(data) - 1, 3):
            wire.send(self.frame(2, data[at:at + 3]))
        wire.send(self.frame(2, data[(len(data) - 1) // 3 * 3 + 3:] or b""))
        got = b""
        while len(got) < 6:
            head = wire.take(2)
            self.assertEqual(head[0], 0x82, "a binary frame")
            got += wire.take(head[1])
        self.assertEqual(got, ACCEPTED + b"\xd0\0")

    def test_a_websocket_frame_of_text_ends_the_connection(self):
        wire, _ = self.upgraded()
        wire.send(self.frame(1, b"\xc0\0"))
        self.assertNotIn(ACCEPTED, wire.rest())

    def test_a_websocket_of_something_else_is_refused(self):
        _, head = self.upgraded("chat")
        self.assertTrue(head.startswith("http/1.1 400"), head)


class ServerKeepAlive(LabTest):
    CONFIG_TEXT = MQTT + "  max-keep-alive: 2s\n  response-information: answers/\n"

    def test_the_broker_s_keep_alive_holds_for_who_asked_for_none(self):
        wire = Wire(self.lab.connect("lan1", ROUTER_LAN, 1883))
        self.addCleanup(wire.socket.close)
        wire.send(connect(keep_alive=0, own=b"\x19\1"))
        answer = wire.packet()
        self.assertIn(b"\x13\x00\x02", answer)
        self.assertIn(b"\x1a" + text("answers/"), answer)
        began = time.monotonic()
        self.assertEqual(wire.rest(), b"\xe0\x02\x8d\x00")
        self.assertTrue(2.5 <= time.monotonic() - began <= 4.5)

    def test_a_mistake_is_told(self):
        daemon = Daemon(self.lab, MQTT + "  max-keep-alive: 1d\n")
        with self.assertRaisesRegex(AssertionError, "mqtt.max-keep-alive"):
            daemon.start()
