"""The Internet of the lab: servers that say whom they saw. Runs inside the WAN namespace.

Each HTTP answer is a JSON object: who connected, at which address, asking for which host. Each UDP
answer is the datagram's payload, a space, and the client's address. No address outside the
namespace is ever used.
"""

import http.server
import json
import socket
import socketserver
import ssl
import sys
import threading


class Echo(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        if self.path == "/slow":
            # Bytes for as long as the client stays.
            self.send_response(200)
            self.end_headers()
            try:
                while True:
                    self.wfile.write(b"x" * 1024)
                    self.wfile.flush()
                    threading.Event().wait(0.1)
            except OSError:
                return
        if self.path.startswith("/bytes/"):
            count = int(self.path.rsplit("/", 1)[1])
            self.send_response(200)
            self.send_header("Content-Length", str(count))
            self.end_headers()
            self.wfile.write(b"x" * count)
            return
        body = json.dumps({
            "client": self.client_address[0].removeprefix("::ffff:"),
            "port": self.client_address[1],
            "server": self.connection.getsockname()[0].removeprefix("::ffff:"),
            "host": self.headers.get("Host", ""),
            "path": self.path,
        }).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_HEAD(self):
        # What a delay test asks for.
        self.send_response(204)
        self.end_headers()

    def do_POST(self):
        length = int(self.headers.get("Content-Length", 0))
        self.rfile.read(length)
        self.do_GET()

    def log_message(self, *_):
        pass


class DualStack(http.server.ThreadingHTTPServer):
    def handle_error(self, *_):
        """Clients that leave are part of the tests."""

    address_family = socket.AF_INET6
    daemon_threads = True
    request_queue_size = 512

    def server_bind(self):
        self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        super().server_bind()


class ServerFirst(socketserver.StreamRequestHandler):
    """Speaks first, as SSH and SMTP do; then echoes until the end."""

    def handle(self):
        self.wfile.write(b"220 hello\r\n")
        while chunk := self.request.recv(4096):
            self.wfile.write(chunk)


class V6TCP(socketserver.ThreadingTCPServer):
    def handle_error(self, *_):
        """Clients that leave are part of the tests."""

    address_family = socket.AF_INET6
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 512


def udp_echo(address, port):
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    server = socket.socket(family, socket.SOCK_DGRAM)
    server.bind((address, port))
    while True:
        payload, client = server.recvfrom(65535)
        try:
            server.sendto(payload + b" " + f"{client[0]} {client[1]}".encode(), client)
        except OSError:
            # Nobody that can be reached from here: a source address that the router did not translate.
            continue


def main():
    certificate, *udp = sys.argv[1:]
    services = [DualStack(("::", port), Echo) for port in (80, 8080)]
    tls = DualStack(("::", 443), Echo)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    tls.socket = context.wrap_socket(tls.socket, server_side=True, do_handshake_on_connect=False)
    services += [tls, V6TCP(("::", 2222), ServerFirst)]
    for service in services:
        threading.Thread(target=service.serve_forever, daemon=True).start()
    for where in udp:
        address, port = where.rsplit(",", 1)
        threading.Thread(target=udp_echo, args=(address, int(port)), daemon=True).start()
    print("ready", flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    main()
