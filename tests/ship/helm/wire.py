"""A printer's wire, byte for byte: what libraries would smooth over is what printers stumble on."""

import base64
import hashlib
import json
import os
import socket
import struct
import time


def head(stream):
    """Status line and headers of an answer, as they were written."""
    data = b""
    while b"\r\n\r\n" not in data:
        byte = stream.recv(1)
        assert byte, f"the answer ends in its head: {data!r}"
        data += byte
    status, *lines = data[:-4].decode().split("\r\n")
    return status, [tuple(part.strip() for part in line.split(":", 1)) for line in lines]


def http10(port, path, *headers, version="1.0", slow=0, pause=0):
    """A download as ESP8266httpUpdate asks for it: status line, headers by small names, body. A slow one takes in next to
    nothing for so many seconds; a pause is made shortly before the end, as where a printer's radio is disturbed."""
    with socket.socket() as stream:
        if slow or pause:
            # Small, or the kernel takes the whole image in for us.
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        # 8 seconds without a byte are the device's own limit.
        stream.settimeout(8)
        stream.connect(("127.0.0.1", port))
        lines = [
            f"GET {path} HTTP/{version}", f"Host: 127.0.0.1:{port}", "User-Agent: ESP8266-http-Update", "Connection: close",
            "x-ESP8266-mode: sketch", "x-ESP8266-free-space: 6000000", *headers,
        ]
        stream.sendall("\r\n".join([*lines, "", ""]).encode())
        status, found = head(stream)
        body = b""
        end = time.monotonic() + slow
        while time.monotonic() < end:
            body += stream.recv(512)
            time.sleep(0.5)
        length = int(dict((name.lower(), value) for name, value in found).get("content-length", 0))
        if pause:
            while len(body) < length - 24_000:
                body += stream.recv(min(65536, length - 24_000 - len(body)))
            time.sleep(pause)
        try:
            while part := stream.recv(65536):
                body += part
        except ConnectionResetError:
            # Cut: the body tells by its length.
            pass
    return status, {name.lower(): value for name, value in found}, body


class Socket:
    """A printer's WebSocket, as arduinoWebSockets opens it."""

    def __init__(self, port, user):
        self.stream = socket.create_connection(("127.0.0.1", port), 20)
        key = base64.b64encode(os.urandom(16)).decode()
        self.stream.sendall((
            f"GET /ws/{user} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\nSec-WebSocket-Protocol: arduino\r\nOrigin: file://\r\n"
            "User-Agent: arduino-WebSocket-Client\r\n\r\n").encode())
        self.status, self.headers = head(self.stream)
        wanted = base64.b64encode(hashlib.sha1((key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").encode()).digest()).decode()
        self.accepted = dict((name.lower(), value) for name, value in self.headers).get("sec-websocket-accept") == wanted

    def send(self, message):
        data = json.dumps(message).encode()
        assert len(data) < 65536
        length = struct.pack("!B", 0x80 | len(data)) if len(data) < 126 else struct.pack("!BH", 0x80 | 126, len(data))
        # The mask may be anything; of noughts it is the easiest.
        self.stream.sendall(b"\x81" + length + bytes(4) + data)

    def exactly(self, count):
        data = b""
        while len(data) < count:
            part = self.stream.recv(count - len(data))
            assert part, "the socket was cut"
            data += part
        return data

    def receive(self):
        """The next text message."""
        while True:
            first, second = self.exactly(2)
            length = second & 0x7F
            if length == 126:
                length = struct.unpack("!H", self.exactly(2))[0]
            data = self.exactly(length)
            if first & 0x0F == 1:
                return json.loads(data)
            assert first & 0x0F == 9, f"frame {first:#x} instead of a message"

    def close(self):
        self.stream.close()
