"""What the double keeps: tokens, policies, keys, and the rules by which it misbehaves."""

import base64
import datetime
import os
import re
import secrets
import shlex
import threading
import time
import uuid

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

FORGED = "cipher: message authentication failed"


class Answer(Exception):
    """Status and body, where the way to it is left at once."""

    def __init__(self, status, *errors, **headers):
        super().__init__(status)
        self.status, self.headers = status, headers
        self.body = {"errors": list(errors)}


def seconds(text):
    if isinstance(text, (int, float)) or not text:
        return int(text or 0)
    return int(text[:-1]) * {"s": 1, "m": 60, "h": 3600}[text[-1]]


def when(stamp):
    return datetime.datetime.utcfromtimestamp(stamp).isoformat() + "Z"


def unbase64(text):
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        raise Answer(400, "illegal base64 data at input byte 0") from None


class Policy:
    """Path patterns and what may be done to them."""

    def __init__(self, text):
        self.rules = []
        for path, words in re.findall(r'path "([^"]*)" \{ capabilities = \[([^\]]*)\]', text):
            pattern = re.escape(path).replace(r"\+", "[^/]+")
            pattern = pattern[:-2] + ".*" if pattern.endswith(r"\*") else pattern
            self.rules.append((re.compile(pattern + r"\Z"), set(re.findall(r'"(\w+)"', words))))

    def capabilities(self, path):
        return set().union(*(words for pattern, words in self.rules if pattern.match(path)))


class Token:
    def __init__(self, identifier, policies, now, ttl, **rest):
        self.id, self.policies, self.born, self.ends = identifier, policies, now, now + ttl
        self.ttl = ttl
        self.accessor = secrets.token_urlsafe(18)[:24]
        self.top = rest.get("top") or ttl
        self.uses = rest.get("uses", 0)
        self.path, self.meta = rest.get("path", "auth/token/create"), rest.get("meta")
        self.renewable = rest.get("renewable", True)
        self.entity = str(uuid.uuid4()) if self.meta else ""
        self.wraps = rest.get("wraps")
        self.home = rest.get("home", "")  # its namespace

    def auth(self):
        return {
            "client_token": self.id, "accessor": self.accessor, "policies": self.policies,
            "token_policies": self.policies, "metadata": self.meta,
            "lease_duration": self.ttl, "renewable": self.renewable,
            "entity_id": self.entity, "token_type": "service", "orphan": bool(self.meta),
        }


class Key:
    """A key of the transit engine."""

    def __init__(self, name, body, now):
        self.name, self.type = name, body.get("type", "aes256-gcm96")
        if self.type not in ("aes256-gcm96", "rsa-2048"):
            raise Answer(400, "unknown key type " + self.type)
        self.derived = body.get("derived", False)
        self.settings = {
            "allow_plaintext_backup": body.get("allow_plaintext_backup", False),
            "deletion_allowed": False, "exportable": body.get("exportable", False),
            "min_available_version": 0, "min_decryption_version": 1, "min_encryption_version": 0,
        }
        self.versions = {}
        self.rotate(now)

    def latest(self):
        return max(self.versions)

    def rotate(self, now):
        self.versions[len(self.versions) + 1] = (secrets.token_bytes(32), int(now))

    def describe(self, age):
        least = self.settings["min_decryption_version"]
        data = {
            **self.settings, "name": self.name, "type": self.type, "derived": self.derived,
            "latest_version": self.latest(),
            "keys": {str(n): v[1] for n, v in self.versions.items() if n >= least},
            "supports_encryption": True, "supports_decryption": True,
            "supports_derivation": self.type != "rsa-2048",
            "supports_signing": self.type == "rsa-2048",
        }
        if self.derived:
            data.update(kdf="hkdf_sha256", convergent_encryption=False)
        if age != "1.8":
            data.update(auto_rotate_period=0, imported_key=False)
        if age == "openbao":
            data.update(soft_deleted=False)
        return data

    def cipher(self, version, item):
        material = self.versions[version][0]
        if not self.derived:
            return AESGCM(material)
        if not item.get("context"):
            raise Answer(
                400,
                "missing 'context' for key derivation; the key was created using a derived key, "
                "which means additional, per-request information must be included in order to "
                "perform operations with the key",
            )
        context = unbase64(item["context"])
        return AESGCM(HKDF(hashes.SHA256(), 32, None, context).derive(material))

    def encrypt(self, item, plaintext=None):
        if plaintext is None:
            if "plaintext" not in item:
                raise Answer(400, "missing plaintext to encrypt")
            plaintext = unbase64(item["plaintext"])
        version = item.get("key_version") or self.latest()
        if version > self.latest():
            raise Answer(
                400, "requested version for encryption is higher than the latest key version"
            )
        if version < self.settings["min_encryption_version"]:
            raise Answer(400, "requested version for encryption is less than the minimum encryption key version")
        nonce = secrets.token_bytes(12)
        sealed = nonce + self.cipher(version, item).encrypt(nonce, plaintext, None)
        text = f"vault:v{version}:{base64.b64encode(sealed).decode()}"
        return {"ciphertext": text, "key_version": version}

    def decrypt(self, item):
        text = item.get("ciphertext")
        if not text:
            raise Answer(400, "missing ciphertext to decrypt")
        found = re.match(r"vault:v(\d+):(.*)\Z", text, re.S)
        if not found:
            raise Answer(400, "invalid ciphertext: no prefix")
        version = int(found[1]) or 1
        if version > self.latest():
            raise Answer(400, "invalid ciphertext: version is too new")
        if version < self.settings["min_decryption_version"]:
            raise Answer(400, "ciphertext or signature version is disallowed by policy (too old)")
        try:
            sealed = base64.b64decode(found[2], validate=True)
        except ValueError:
            raise Answer(400, "invalid ciphertext: could not decode base64") from None
        if len(sealed) < 12:
            raise Answer(400, "invalid ciphertext length")
        try:
            return self.cipher(version, item).decrypt(sealed[:12], sealed[12:], None)
        except InvalidTag:
            raise Answer(0, FORGED) from None

    def configure(self, body):
        new = {k: v for k, v in body.items() if k in self.settings and k != "min_available_version"}
        least = new.get("min_decryption_version", self.settings["min_decryption_version"])
        if least > self.latest():
            raise Answer(400, f"cannot set min decryption version of {least}, latest key version is {self.latest()}")
        if least < self.settings["min_available_version"]:
            raise Answer(400, "min decryption version should not be less then min available version")
        self.settings.update(new)

    def trim(self, body):
        least = body["min_available_version"]
        if least > min(self.settings["min_decryption_version"], self.settings["min_encryption_version"]):
            raise Answer(400, "cannot set min available version to a higher value than min decryption or encryption version")
        self.settings["min_available_version"] = least


class Namespace:
    """What a namespace has of its own; a server without them has one."""

    def __init__(self, name=""):
        self.name, self.state = name, ""
        self.mounts, self.auths, self.policies, self.roles = {}, {}, {}, {}
        self.keys = {}
        self.secrets = {}


class Server:
    def __init__(self, directory, age):
        self.directory, self.age = directory, age
        self.lock = threading.Lock()
        self.spaces = {"": Namespace()}
        self.tokens, self.quotas, self.buckets = {}, {}, {}
        self.initialized, self.sealed, self.share = False, True, None
        self.quota_headers = False
        self.failures = {}
        self.identity = {"cluster_name": "vault-cluster-double", "cluster_id": str(uuid.uuid4())}
        self.ahead = 0
        self.rules, self.stamp = [], None

    def now(self):
        return time.time() + self.ahead

    # ---- rules ----

    def read_rules(self):
        path = os.path.join(self.directory, "rules")
        try:
            stamp = os.stat(path)
        except FileNotFoundError:
            self.rules, self.stamp = [], None
            return
        if self.stamp == (stamp.st_ino, stamp.st_mtime_ns):
            return
        self.stamp = (stamp.st_ino, stamp.st_mtime_ns)
        self.rules = []
        with open(path) as f:
            for words in filter(None, map(shlex.split, f)):
                rule = dict(word.split("=", 1) for word in words[1:])
                if words[0] == "clock":
                    self.ahead += int(rule["add"])
                else:
                    self.rules.append({"name": words[0], **rule})

    def rules_for(self, path):
        """Those that apply to this request, by name; it counts."""
        found = {}
        for rule in self.rules:
            left = int(rule.get("times", 1))
            if left > 0 and re.search(rule.get("path", ""), path):
                found[rule["name"]] = rule
                if "times" in rule:
                    rule["times"] = left - 1
        return found

    # ---- tokens ----

    def new_token(self, policies, ttl, **rest):
        text = secrets.token_hex(12)
        if self.age == "1.14":
            text = "hvs." + secrets.token_urlsafe(69)
        else:
            text = "s." + text
        token = Token(text, sorted({"default", *policies}), self.now(), ttl, **rest)
        self.tokens[text] = token
        self.record("tokens", text)
        return token

    def record(self, name, text):
        """For whoever looks whether it is anywhere else."""
        with open(os.path.join(self.directory, name), "a") as f:
            f.write(text + "\n")

    def wrap(self, data, ttl, path):
        token = self.new_token(["response-wrapping"], ttl, wraps=(data, path, ttl))
        return {
            "request_id": "", "lease_id": "", "renewable": False, "lease_duration": 0,
            "data": None, "warnings": None, "auth": None,
            "wrap_info": {
                "token": token.id, "accessor": token.accessor, "ttl": ttl,
                "creation_time": when(token.born), "creation_path": path,
            },
        }

    def find_token(self, text):
        token = self.tokens.get(text)
        if token and not token.wraps and token.ends > self.now():
            return token
        self.tokens.pop(text, None) if token and not token.wraps else None
        raise Answer(403, "permission denied")
