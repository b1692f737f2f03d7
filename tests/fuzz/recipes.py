"""The recipe language a second time, by what docs/configuration.md and the head of presets.toml say.

Reads ingest's presets, one request as JSON a line, and says for each whether it is accepted:
{"preset": …, "secret": …, "secret_id": …, "url": …, "now": …, "method": …, "query": …,
 "headers": [[name, base64], …], "body": base64}
"""

import base64
import binascii
import datetime
import hashlib
import hmac
import json
import pathlib
import re
import subprocess
import sys
import tempfile
import tomllib
import unicodedata
import urllib.parse
import zlib

OWN = {"documentation", "otherwise", "vector"}
DEFAULTS = {"scheme": "hmac", "algorithm": "sha256", "parse": "whole", "encoding": "hex", "key": "text",
            "content": "{body}", "timestamp_unit": "s", "tolerance": "5m"}
MOST = 16
NUMBERED = 100


# How a text is hashed before a key pair signs it, where it is.
PAIRS = {"ed25519": None, "ecdsa-p256": "sha256", "rsa-sha256": "sha256", "rsa-sha1": "sha1"}


def is_of_pair(public, scheme, signature, content):
    with tempfile.TemporaryDirectory() as folder:
        files = [pathlib.Path(folder, name) for name in ("public", "signature", "content")]
        for file, data in zip(files, (public, signature, content)):
            file.write_bytes(data)
        key, signed, text = map(str, files)
        if PAIRS[scheme]:
            asked = ["dgst", "-" + PAIRS[scheme], "-verify", key, "-signature", signed, text]
        else:
            asked = ["pkeyutl", "-verify", "-pubin", "-inkey", key, "-rawin", "-sigfile", signed, "-in", text]
        return subprocess.run(["openssl", *asked], capture_output=True).returncode == 0


class Refused(Exception):
    """The request is not accepted."""


def whole(presets, name):
    words = dict(presets[name])
    like = words.pop("like", None)
    if like:
        inherited = {key: value for key, value in whole(presets, like).items() if key not in OWN}
        words = inherited | words
    return words


class Number(str):
    """A number as it is written."""


class Request:
    def __init__(self, asked):
        self.method, self.query = asked["method"], asked["query"] or ""
        self.headers = [(name, base64.b64decode(value)) for name, value in asked["headers"]]
        self.body = base64.b64decode(asked["body"])
        self.url, self.now = asked["url"], asked["now"]
        self.secret, self.secret_id = asked["secret"], asked["secret_id"]
        if self.query:
            self.url += "?" + self.query

    def values(self, name):
        return [value for known, value in self.headers if known == name.lower()]

    def json(self, pointer):
        try:
            found = json.loads(self.body, parse_int=Number, parse_float=Number, parse_constant=lambda _: None)
            for step in pointer.split("/")[1:]:
                step = step.replace("~1", "/").replace("~0", "~")
                found = found[int(step)] if isinstance(found, list) else found[step]
        except (ValueError, KeyError, IndexError, TypeError):
            return None
        return found.encode() if isinstance(found, str) else None


def parameters(raw):
    def text(part):
        return urllib.parse.unquote_to_bytes(part.replace(b"+", b" ")).decode(errors="replace").encode()

    for pair in raw.split(b"&"):
        if pair:
            name, _, value = pair.partition(b"=")
            yield text(name), text(value)


def pairs(text, separator):
    for pair in text.split(separator):
        name, equals, value = pair.strip().partition("=")
        if equals:
            yield name, value


class Recipe:
    def __init__(self, words):
        self.words = DEFAULTS | words

    def names(self, request):
        header = self.words["header"]
        if header.endswith("*"):
            return [f"{header[:-1]}{number}" for number in range(1, NUMBERED + 1)]
        return [name.strip() for name in header.split("|")]

    def lies_in_value(self):
        return self.words["header"].split(":")[0] in ("json", "form", "query")

    @staticmethod
    def refuse_repeated(request, words):
        kind, _, name = words.partition(":")
        raw = {"form": request.body, "query": request.query.encode()}.get(kind, b"")
        times = sum(known == name.encode() for known, _ in parameters(raw))
        if kind == "header":
            times = len(request.values(name))
        if times > 1:
            raise Refused(words)

    def texts(self, request):
        if self.lies_in_value():
            self.refuse_repeated(request, self.words["header"])
            value = self.place(request, self.words["header"], [])
            return [value.decode()] if value else []
        texts = []
        for name in self.names(request):
            values = request.values(name)
            if not values or not values[0]:
                continue
            if len(values) > 1:
                raise Refused(name)
            texts.append(values[0].decode())
        return texts

    def is_taken_by(self, request):
        if self.lies_in_value():
            has = self.place(request, self.words["header"], []) is not None
        else:
            named = [values[0].decode() for name in self.names(request) if (values := request.values(name))]
            has = any(self.candidates(text) for text in named)
        return has and self.has_required(request)

    def has_required(self, request):
        required = self.words.get("requires", {}).items()
        return all(request.values(name) and request.values(name)[0].lower() == wanted.lower().encode()
                   for name, wanted in required)

    def candidates(self, text):
        kind, _, rest = self.words["parse"].partition(":")
        if kind == "whole":
            return [text]
        if kind == "prefix":
            return [text.removeprefix(rest)] if text.startswith(rest) else []
        if kind == "prefix?":
            return [item.strip().removeprefix(rest) for item in text.split(",")][:MOST]
        separator, rest = rest[0], rest[2:]
        if kind == "tail":
            return [item.strip() for item in text.split(separator)[1:]][:MOST]
        if kind == "kv":
            return [value for name, value in pairs(text, separator) if name == rest][:MOST]
        assert kind == "list"
        tags, tag = rest[0], rest[2:]
        items = [item.partition(tags) for item in text.split(separator)]
        return [value for name, found, value in items if found and name == tag][:MOST]

    def field(self, text, name):
        kind, _, rest = self.words["parse"].partition(":")
        if kind == "kv":
            return next((value for known, value in pairs(text, rest[0]) if known == name), None)
        if kind == "tail" and name == "0":
            return text.split(rest[0])[0].strip()
        return None

    def place(self, request, words, texts):
        kind, _, name = words.partition(":")
        if kind == "header":
            return next(iter(request.values(name)), None)
        if kind == "field":
            fields = (self.field(text, name) for text in texts)
            return next((field.encode() for field in fields if field is not None), None)
        if kind == "json":
            return request.json(name)
        raw = request.body if kind == "form" else request.query.encode()
        return next((value for known, value in parameters(raw) if known == name.encode()), None)

    def content(self, request, texts):
        parts = []
        for literal, name in re.findall(r"([^{]*)(?:\{([^}]*)\})?", self.words["content"]):
            parts.append(literal.encode())
            if name:
                parts.append(self.part(request, name, texts))
        return b"".join(parts)

    def part(self, request, name, texts):
        fixed = {
            "body": lambda: request.body,
            "url": lambda: request.url.encode(),
            "bare-url": lambda: request.url.split("?")[0].encode(),
            "encoded-path": lambda: self.encoded_path(request.url).encode(),
            "method": lambda: request.method.encode(),
            "secret": lambda: self.key(request),
            "secret-id": lambda: request.secret_id.encode(),
            "form": lambda: b"".join(name + value for name, value in sorted(set(parameters(request.body)))),
            "quoted-body": lambda: json.dumps(request.body.decode(errors="replace"), ensure_ascii=False).encode(),
            "open": lambda: b"{",
            "close": lambda: b"}",
            "crc32": lambda: str(zlib.crc32(request.body)).encode(),
        }
        if name in fixed:
            return fixed[name]()
        kind, _, names = name.partition(":")
        if kind == "signed-headers":
            return self.signed_headers(request, names.lower().split(","))
        if kind == "php-form-without":
            return self.php_form(request.body, names.encode())
        place = name.removesuffix("?")
        self.refuse_repeated(request, place)
        value = self.place(request, place, texts)
        if value is None and place == name:
            raise Refused(place)
        return value or b""

    @staticmethod
    def php_form(body, without):
        fields = list(parameters(body))
        names = [name for name, _ in fields]
        unclear = len(set(names)) < len(names) or b";" in body
        if unclear or any("\ufffd" in part.decode() for field in fields for part in field):
            raise Refused("form")
        fields = [field for field in sorted(fields) if field[0] != without]
        texts = b"".join(b's:%d:"%s";' % (len(part), part) for field in fields for part in field)
        return b"a:%d:{%s}" % (len(fields), texts)

    @staticmethod
    def encoded_path(url):
        component, uri = "-_.!~*'()", "-_.!~*'();,/?:@&=+$#"
        target, _, query = url.split("://", 1)[-1].partition("?")
        path = "/" + target.partition("/")[2]
        query = urllib.parse.quote(urllib.parse.quote(query, safe=component), safe=uri)
        return urllib.parse.quote(path, safe=uri) + ("?" + query if query else "")

    @staticmethod
    def signed_headers(request, names):
        listed = (request.values(names[0]) or [b""])[0].decode()
        listed = {name.strip().lower() for name in listed.split(",")[:128]} - {""}
        if not listed.issuperset(names) or any(len(request.values(name)) != 1 for name in listed):
            raise Refused(names[0])
        return b";".join(name.encode() + b":" + request.values(name)[0].strip() for name in sorted(listed))

    def key(self, request):
        secret, form = request.secret, self.words["key"]
        if form == "text":
            return secret.encode()
        if form == "nfkd":
            return unicodedata.normalize("NFKD", secret).encode()
        if form == "hex":
            return bytes.fromhex(secret)
        assert form in ("base64", "whsec")
        return base64.b64decode(secret.removeprefix("v1,").removeprefix("whsec_"))

    def decoded(self, text):
        """The one spelling of each signature, but for the case of hex and the padding of base64."""
        encoding = self.words["encoding"]
        try:
            if encoding == "hex":
                return binascii.unhexlify(text)
            bare = text.rstrip("=")
            if "=" in bare or len(text) - len(bare) > -len(bare) % 4:
                return None
            altchars = b"-_" if encoding == "base64url" else b"+/"
            decoded = base64.b64decode(bare + "=" * (-len(bare) % 4), altchars=altchars, validate=True)
            return decoded if base64.b64encode(decoded, altchars).decode().rstrip("=") == bare else None
        except (ValueError, binascii.Error):
            return None

    def covers_body(self):
        return any(part in self.words["content"] for part in ("{body}", "{form}", "{quoted-body}", "{php-form-"))

    def judge(self, request):
        texts = self.texts(request)
        if not texts or not self.has_required(request):
            raise Refused("signature")
        for name in self.words.get("requires", {}):
            self.refuse_repeated(request, f"header:{name}")
        signatures = [self.decoded(text) for whole in texts for text in self.candidates(whole)]
        if self.covers_body() and not request.body and request.method == "POST":
            raise Refused("body")
        if self.words["content"].startswith("{secret}"):
            request.body.decode()
        if "key_id" in self.words:
            self.refuse_repeated(request, self.words["key_id"])
            if self.place(request, self.words["key_id"], texts) != request.secret_id.encode():
                raise Refused("key_id")
        content = self.content(request, texts)
        if not any(self.is_signature(request, signature, content) for signature in signatures if signature):
            raise Refused("signature")
        if "timestamp" in self.words:
            self.judge_time(request, texts)

    def is_signature(self, request, signature, content):
        scheme, algorithm = self.words["scheme"], self.words["algorithm"]
        if scheme in PAIRS:
            return is_of_pair(request.secret.encode(), scheme, signature, content)
        if scheme == "digest":
            return signature == hashlib.new(algorithm, content).digest()
        return signature == hmac.new(self.key(request), content, algorithm).digest()

    def judge_time(self, request, texts):
        place, unit = self.words["timestamp"], self.words["timestamp_unit"]
        self.refuse_repeated(request, place)
        text = (self.place(request, place, texts) or b"").decode().strip()
        if unit in ("s", "ms"):
            if not re.fullmatch(r"\+?[0-9]+", text):
                raise Refused(place)
            signed = int(text) * (1000 if unit == "s" else 1)
        else:
            moment = datetime.datetime.fromisoformat(text)
            if moment.tzinfo is None:
                moment = moment.replace(tzinfo=datetime.timezone.utc)
            signed = moment.timestamp() * 1000
        count, unit = re.fullmatch(r"([0-9]+)(s|m|h|days?)", self.words["tolerance"]).groups()
        tolerance = int(count) * {"s": 1, "m": 60, "h": 3600}.get(unit, 86400) * 1000
        ahead = signed - request.now * 1000
        if abs(ahead) > tolerance and not (self.words.get("past_only") and ahead > 0):
            raise Refused(place)


def main():
    with open(sys.argv[1], "rb") as file:
        presets = tomllib.load(file)
    for line in sys.stdin:
        asked = json.loads(line)
        request = Request(asked)
        name, ways = asked["preset"], []
        while name:
            ways.append(Recipe(whole(presets, name)))
            name = presets[name].get("otherwise")
        try:
            way = next((way for way in ways if way.is_taken_by(request)), ways[0])
            way.judge(request)
            print("accepted")
        except (Refused, UnicodeDecodeError, ValueError):
            print("refused")


main()
