"""A QUIC client by aioquic with several connections on one UDP socket.

usage: aioquic_client.py ADDRESS PORT NAME...

Follows the script of `quic::Client` and writes a line for each answer of a server: step, name that was asked for, tag of
the server, address that the server saw.
"""

import select
import socket
import ssl
import sys
import time

from aioquic.quic import events
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection

ROUNDS = 5
PATIENCE = 60
# The request "who are you?" of the servers by quinn.
WHO = b"?" + bytes(16)
# Length of aioquic's own connection IDs.
ID = 8


class Connection:
    """A connection, the IDs by which the server addresses it, and what the server has answered."""

    def __init__(self, name):
        self.name = name
        configuration = QuicConfiguration(is_client=True, alpn_protocols=["h3"], server_name=name)
        configuration.verify_mode = ssl.CERT_NONE
        self.quic = QuicConnection(configuration=configuration)
        self.ids = {self.quic.host_cid}
        self.established = False
        self.answers = {}
        self.complete = set()

    def handle_events(self):
        while (event := self.quic.next_event()) is not None:
            if isinstance(event, events.ConnectionIdIssued):
                self.ids.add(event.connection_id)
            elif isinstance(event, events.HandshakeCompleted):
                self.established = True
            elif isinstance(event, events.ConnectionTerminated):
                sys.exit(f"{self.name}: terminated: {event}")
            elif isinstance(event, events.StreamDataReceived):
                self.answers[event.stream_id] = self.answers.get(event.stream_id, b"") + event.data
                if event.end_stream:
                    self.complete.add(event.stream_id)


class Client:
    """Connections that share a socket."""

    def __init__(self, to, names):
        self.to = to
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.connections = [Connection(name) for name in names]
        for connection in self.connections:
            connection.quic.connect(to, time.monotonic())
        self.until("the handshakes are complete", lambda: all(c.established for c in self.connections))

    def until(self, what, ready):
        """Serves all connections until `ready`."""
        deadline = time.monotonic() + PATIENCE
        while not ready():
            now = time.monotonic()
            if now > deadline:
                sys.exit(f"waited too long until {what}")
            self.flush()
            timers = [timer for c in self.connections if (timer := c.quic.get_timer()) is not None]
            wait = max(0, min([*timers, now + 1]) - now)
            if select.select([self.socket], [], [], wait)[0]:
                self.receive()
            now = time.monotonic()
            for connection in self.connections:
                timer = connection.quic.get_timer()
                if timer is not None and timer <= now:
                    connection.quic.handle_timer(now)
                connection.handle_events()

    def flush(self):
        for connection in self.connections:
            for datagram, address in connection.quic.datagrams_to_send(time.monotonic()):
                self.socket.sendto(datagram, address)

    def receive(self):
        datagram, address = self.socket.recvfrom(65536)
        # RFC 9000 section 17: the length of the ID stands in long headers only.
        destination = datagram[6 : 6 + datagram[5]] if datagram[0] & 0x80 else datagram[1 : 1 + ID]
        for connection in self.connections:
            if destination in connection.ids:
                connection.quic.receive_datagram(datagram, address, time.monotonic())
                connection.handle_events()

    def ask(self, step):
        """Asks all servers in turns who they are."""
        for _ in range(ROUNDS):
            for connection in self.connections:
                stream = connection.quic.get_next_available_stream_id()
                connection.quic.send_stream_data(stream, WHO, end_stream=True)
                self.until(f"{connection.name} answers ({step})", lambda: stream in connection.complete)
                tag, client, *_ = connection.answers[stream].decode().split("\n")
                print(step, connection.name, tag, client, flush=True)

    def change_ids(self):
        self.until("all servers have given IDs", lambda: all(c.quic._peer_cid_available for c in self.connections))
        for connection in self.connections:
            connection.quic.change_connection_id()

    def change_port(self):
        """The port changes under the connections, as by a NAT: they do not notice."""
        self.socket.close()
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)

    def close_first(self):
        self.connections[0].quic.close()
        self.flush()
        del self.connections[0]


def main():
    client = Client((sys.argv[1], int(sys.argv[2])), sys.argv[3:])
    client.ask("connected")
    client.change_ids()
    client.ask("new-ids")
    client.change_port()
    client.ask("moved")
    while len(client.connections) > 1:
        client.close_first()
        client.change_port()
        client.ask("fewer")
    client.close_first()


main()
