"""Five thousand clients in one process: mqtt_crowd.py HOST PORT COUNT; each subscribes, all get one message."""

import resource
import select
import socket
import sys

HOST, PORT, COUNT = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
resource.setrlimit(resource.RLIMIT_NOFILE, (COUNT + 100, COUNT + 100))


def connect(number):
    name = f"crowd-{number}".encode()
    client = socket.create_connection((HOST, PORT), 30)
    body = b"\x00\x04MQTT\x04\x02\x00\x00" + len(name).to_bytes(2, "big") + name
    client.sendall(b"\x10" + bytes([len(body)]) + body + b"\x82\x0a\x00\x01\x00\x05crowd\x01")
    return client


clients = [connect(number) for number in range(COUNT)]
waiting = {client.fileno(): (client, bytearray()) for client in clients}
poll = select.epoll()
for descriptor in waiting:
    poll.register(descriptor, select.EPOLLIN)


def until(count):
    """Reads until each has so many bytes."""
    left = {descriptor for descriptor, (_, got) in waiting.items() if len(got) < count}
    while left:
        events = poll.poll(30)
        if not events:
            sys.exit(f"{len(left)} clients wait")
        for descriptor, _ in events:
            client, got = waiting[descriptor]
            data = client.recv(4096)
            if not data:
                sys.exit("a client was sent away")
            got += data
            if len(got) >= count:
                left.discard(descriptor)


HELLO = b"\x20\x02\x00\x00\x90\x03\x00\x01\x01"
until(len(HELLO))
print("ready", flush=True)
sys.stdin.readline()
MESSAGE = b"\x32\x0b\x00\x05crowd\x00\x01hi"
until(len(HELLO) + len(MESSAGE))
assert all(got == HELLO + MESSAGE for _, got in waiting.values())
print("all of them", flush=True)
