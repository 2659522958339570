"""An OpenID issuer as GitHub and GitLab are for the jobs that they run: it publishes a key, and signs tokens with it."""

import base64
import functools
import hashlib
import http.server
import json
import math
import secrets
import threading
import time
import urllib.parse


# The product of all small primes: most numbers that are not prime share a factor with it.
SMALL = math.prod(number for number in range(2, 5000) if all(number % less for less in range(2, math.isqrt(number) + 1)))


def prime(bits):
    """A prime, almost certainly (Miller and Rabin)."""
    while True:
        number = secrets.randbits(bits) | (3 << (bits - 2)) | 1
        if math.gcd(number, SMALL) > 1:
            continue
        odd, twos = number - 1, 0
        while odd % 2 == 0:
            odd, twos = odd // 2, twos + 1
        for _ in range(16):
            power = pow(secrets.randbelow(number - 3) + 2, odd, number)
            if power in (1, number - 1):
                continue
            for _ in range(twos - 1):
                power = power * power % number
                if power == number - 1:
                    break
            else:
                break
        else:
            if (number - 1) % 65537:
                return number


@functools.cache
def pair():
    """An RSA key of 2048 bits, made once: modulus and private exponent."""
    p, q = prime(1024), prime(1024)
    return p * q, pow(65537, -1, (p - 1) * (q - 1))


def text(data):
    if not isinstance(data, bytes):
        data = json.dumps(data).encode()
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class Issuer:
    """Answers on loopback, until it is stopped."""

    def __init__(self):
        self.modulus, self.private = pair()
        # What a job of GitHub shows to be given a token, and what it is given then.
        self.request_token = secrets.token_urlsafe(24)
        self.claims = {}
        self.given = []
        issuer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                status, answer = issuer.answer(self.path, self.headers.get("Authorization"))
                body = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.request_url = f"{self.url}/token?api-version=2.0"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def stop(self):
        self.server.shutdown()
        self.server.server_close()

    def answer(self, target, authorization):
        path, _, query = target.partition("?")
        if path == "/.well-known/openid-configuration":
            return 200, {"issuer": self.url, "jwks_uri": f"{self.url}/jwks"}
        if path == "/jwks":
            number = self.modulus.to_bytes(256, "big")
            return 200, {
                "keys": [{"kty": "RSA", "use": "sig", "alg": "RS256", "kid": "1", "n": text(number), "e": "AQAB"}]
            }
        if path == "/token" and authorization == f"Bearer {self.request_token}":
            return 200, {"value": self.token(urllib.parse.parse_qs(query)["audience"][0], **self.claims)}
        return 401, {"message": "no"}

    def token(self, audience, **claims):
        now = int(time.time())
        claims = {"iss": self.url, "aud": audience, "iat": now, "nbf": now, "exp": now + 300} | claims
        signed = f"{text({'alg': 'RS256', 'kid': '1', 'typ': 'JWT'})}.{text(claims)}"
        # RSASSA-PKCS1-v1_5 with SHA-256 (RFC 8017, section 8.2.1).
        digest = bytes.fromhex("3031300d060960864801650304020105000420") + hashlib.sha256(signed.encode()).digest()
        padded = b"\x00\x01" + b"\xff" * (256 - 3 - len(digest)) + b"\x00" + digest
        signature = pow(int.from_bytes(padded, "big"), self.private, self.modulus).to_bytes(256, "big")
        token = f"{signed}.{text(signature)}"
        self.given.append(token)
        return token
