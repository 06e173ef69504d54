"""gRPC's own library as the other end of a stream in gRPC ("gun"), which Debian's v2ray is too old for.

    gun_gateway.py serve ADDRESS PORT SERVICE TARGET_PORT [DIRECTORY]   calls, each to a connection to TARGET_PORT there
    gun_gateway.py dial PORT SERVICE ADDRESS TARGET_PORT [DIRECTORY]    connections to PORT, each in a call to the target

With DIRECTORY over TLS by its leaf.pem and key.pem.
"""

import pathlib
import socket
import sys
import threading
from concurrent import futures

import grpc


def pack(data):
    length, digits = len(data), b""
    while True:
        digits += bytes([length & 0x7F | (0x80 if length > 0x7F else 0)])
        length >>= 7
        if not length:
            return b"\x0a" + digits + data


def unpack(message):
    """The payloads of a message's fields; headgate is to write no other field."""
    while message:
        assert message[0] == 0x0A, message[:10]
        length = shift = 0
        for place, digit in enumerate(message[1:], 2):
            length |= (digit & 0x7F) << shift
            shift += 7
            if digit < 0x80:
                break
        yield message[place:place + length]
        message = message[place + length:]


def send(messages, connection):
    try:
        for message in messages:
            for data in unpack(message):
                connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
    except (OSError, grpc.RpcError):
        connection.close()


def receive(connection):
    try:
        while data := connection.recv(30000):
            yield pack(data)
    except OSError:
        return


def serve(address, port, service, target, directory=None):
    def tun(messages, _context):
        connection = socket.create_connection((address, int(target)))
        threading.Thread(target=send, args=(messages, connection), daemon=True).start()
        yield from receive(connection)

    server = grpc.server(futures.ThreadPoolExecutor(64))
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(service, {"Tun": grpc.stream_stream_rpc_method_handler(tun)})])
    at = f"{address}:{port}"
    if directory:
        pair = [(pathlib.Path(directory) / name).read_bytes() for name in ("key.pem", "leaf.pem")]
        server.add_secure_port(at, grpc.ssl_server_credentials([tuple(pair)]))
    else:
        server.add_insecure_port(at)
    server.start()
    server.wait_for_termination()


def dial(port, service, address, target, directory=None):
    to = f"{address}:{target}"
    if directory:
        trusted = grpc.ssl_channel_credentials((pathlib.Path(directory) / "leaf.pem").read_bytes())
        channel = grpc.secure_channel(to, trusted, [("grpc.ssl_target_name_override", "lab")])
    else:
        channel = grpc.insecure_channel(to)
    tun = channel.stream_stream(f"/{service}/Tun")
    listener = socket.create_server(("127.0.0.1", int(port)))
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=send, args=(tun(receive(connection)), connection), daemon=True).start()


{"serve": serve, "dial": dial}[sys.argv[1]](*sys.argv[2:])
