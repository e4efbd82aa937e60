"""One request, after TLS and HTTP: how AppRole, tokens, wrapping and transit answer."""

import base64
import re
import secrets
import uuid

from .state import FORGED, Answer, Key, Namespace, Policy, seconds, when

OPEN_PATHS = {"sys/health", "sys/seal-status", "sys/init", "sys/unseal", "sys/leader"}
DENIED = "1 error occurred:\n\t* permission denied\n\n"
EVERYBODYS = {
    "auth/token/lookup-self", "auth/token/renew-self", "auth/token/revoke-self",
    "sys/capabilities-self", "sys/wrapping/unwrap", "sys/wrapping/lookup",
}


def envelope(data=None, auth=None, warnings=None):
    return {
        "request_id": str(uuid.uuid4()), "lease_id": "", "renewable": False, "lease_duration": 0,
        "data": data, "wrap_info": None, "warnings": warnings, "auth": auth,
    }


class Request:
    """One request, after TLS and HTTP."""

    def __init__(self, server, method, path, query, headers, body, rules):
        self.server, self.method, self.query, self.headers = server, method, query, headers
        self.path, self.body, self.rules = path, body, rules
        self.now = server.now()
        self.token = None
        self.space = server.spaces[""]
        self.prefix = ""
        self.new = server.age != "1.8"

    def answer(self):
        """Returns status, body (None: none), headers."""
        s = self.server
        if self.path in OPEN_PATHS:
            if s.age == "openbao" and self.headers.get("X-Vault-Namespace"):
                raise Answer(400, "operation unavailable in namespaces")
            return self.system()
        if not s.initialized or s.sealed or "sealed" in self.rules:
            raise Answer(503, "Vault is sealed")
        if "standby" in self.rules:
            raise Answer(307, Location=self.rules["standby"]["to"] + "/v1/" + self.path)
        self.enter_namespace()
        headers = self.quota()
        if self.path == "sys/wrapping/lookup":
            return 200, self.wrapping_lookup(), headers
        if self.path == "sys/wrapping/unwrap":
            return 200, self.unwrap(), headers
        if re.match(r"auth/[^/]+/login\Z", self.path) and self.path[5:-6] in self.space.auths:
            return 200, self.login(), headers
        self.authenticate()
        body = self.route()
        ttl = self.headers.get("X-Vault-Wrap-TTL")
        if ttl and body and body.get("data"):
            body = s.wrap(body["data"], seconds(ttl), self.path)
        return (200, body, headers) if body else (204, None, headers)

    # ---- before anything is done ----

    def enter_namespace(self):
        name = (self.headers.get("X-Vault-Namespace") or "").strip("/")
        if not name or self.server.age != "openbao":
            return
        if name not in self.server.spaces:
            raise Answer(404, "namespace not found")
        self.space = self.server.spaces[name]
        # Also where the namespace alone is sealed, from 2.6 on.
        if self.space.state:
            raise Answer(503, self.space.state)

    def quota(self):
        s, headers = self.server, {}
        for quota in s.quotas.values():
            if not self.path.startswith(quota["path"]):
                continue
            left, last = s.buckets.get(quota["path"], (quota["rate"], self.now))
            left = min(quota["rate"], left + (self.now - last) * quota["rate"])
            if s.quota_headers:
                headers = {
                    "X-Ratelimit-Limit": str(quota["rate"]),
                    "X-Ratelimit-Remaining": str(max(0, int(left) - 1)), "X-Ratelimit-Reset": "0",
                }
            if left < 1:
                s.buckets[quota["path"]] = (left, self.now)
                if s.quota_headers:
                    headers["Retry-After"] = "0"
                raise Answer(429, f'request path "{self.path}": rate limit quota exceeded', **headers)
            s.buckets[quota["path"]] = (left - 1, self.now)
        return headers

    def authenticate(self):
        bearer = self.headers.get("Authorization") or ""
        text = self.headers.get("X-Vault-Token") or bearer.partition("Bearer ")[2]
        if not text:
            raise Answer(400, "missing client token")
        if "expired" in self.rules:
            self.server.tokens.pop(text, None)
        token = self.server.find_token(text)
        self.reach(token)
        if token.uses:
            token.uses -= 1
            if token.uses == 0:
                del self.server.tokens[token.id]
        self.token = token
        if not self.allowed():
            raise Answer(403, DENIED)

    def reach(self, token):
        """A token is good in its namespace and below; its policies name paths from there."""
        home, here = token.home, self.space.name
        if here != home and home and not here.startswith(home + "/"):
            raise Answer(403, DENIED)
        self.prefix = (here[len(home):].lstrip("/") + "/").lstrip("/")

    def capabilities(self, path):
        if "root" in self.token.policies:
            return {"root"}
        policies = self.server.spaces[self.token.home].policies
        return set().union(
            *(p.capabilities(self.prefix + path) for n, p in policies.items() if n in self.token.policies)
        )

    def allowed(self):
        if self.path in EVERYBODYS:
            return True
        has = self.capabilities(self.path)
        wants = {"GET": {"read"}, "LIST": {"list"}, "DELETE": {"delete"}}.get(
            self.method, {"update", "create"}
        )
        if self.method == "GET" and self.query.get("list") == "true":
            wants = {"list"}
        parts = self.path.split("/")
        if parts[1:2] == ["encrypt"] and parts[0] in self.space.mounts:
            there = tuple(parts[::2]) in self.space.keys
            wants = {"update"} if there else {"create"}
        return "root" in has or bool(has & wants)

    # ---- sys ----

    def system(self):
        s = self.server
        sealed = s.sealed or "sealed" in self.rules
        standby = sealed or "standby" in self.rules
        version = {"1.8": "1.8.0-dev", "1.14": "1.14.0", "openbao": "2.6.2"}[s.age]
        if self.path == "sys/health":
            body = {
                "initialized": s.initialized, "sealed": sealed, "standby": standby,
                "performance_standby": False, "server_time_utc": int(self.now), "version": version,
                "replication_performance_mode": "unknown" if standby else "disabled",
                "replication_dr_mode": "unknown" if standby else "disabled",
            }
            if not sealed:
                body.update(s.identity)
            if not s.initialized:
                return int(self.query.get("uninitcode", 501)), body, {}
            if sealed:
                return int(self.query.get("sealedcode", 503)), body, {}
            if standby and self.query.get("standbyok") != "true":
                return int(self.query.get("standbycode", 429)), body, {}
            return 200, body, {}
        if self.path == "sys/leader":
            return 200, {
                "ha_enabled": True, "is_self": not standby, "active_time": when(self.now),
                "leader_address": "https://localhost", "leader_cluster_address": "",
                "performance_standby": False, "performance_standby_last_remote_wal": 0,
            }, {}
        if self.path == "sys/init":
            return 200, self.init(), {}
        if self.path == "sys/unseal":
            s.sealed = self.body.get("key") != s.share
        body = {
            "type": "shamir", "initialized": s.initialized, "sealed": s.sealed,
            "t": int(s.initialized), "n": int(s.initialized), "progress": 0, "nonce": "",
            "version": version, "migration": False, "recovery_seal": False,
        }
        if not s.sealed:
            body.update(s.identity)
        return 200, body, {}

    def init(self):
        s = self.server
        if self.method == "GET":
            return {"initialized": s.initialized}
        s.initialized, s.share = True, secrets.token_hex(32)
        token = s.new_token(["root"], 10 * 365 * 86400, renewable=False)
        token.policies = ["root"]
        return {
            "keys": [s.share], "keys_base64": [base64.b64encode(bytes.fromhex(s.share)).decode()],
            "root_token": token.id,
        }

    # ---- logging in, wrapping ----

    def login(self):
        s, space, role = self.server, self.space, None
        wrong = ["invalid role or secret ID"] * 2 if self.new else ["invalid role ID", "invalid secret id"]
        for field in ("role_id", "secret_id"):
            if not self.body.get(field):
                raise Answer(400, "missing " + field)
        for found in space.roles.values():
            role = found if found["role_id"] == self.body["role_id"] else role
        if not role:
            raise Answer(400, wrong[0])
        if self.new and s.failures.get(role["role_id"], 0) >= 5:
            raise Answer(403, "permission denied")
        secret = space.secrets.get(self.body["secret_id"])
        if secret and "used-up" in self.rules:
            del space.secrets[self.body["secret_id"]]
            secret = None
        if not secret or secret["role"] is not role or secret["ends"] <= self.now:
            s.failures[role["role_id"]] = s.failures.get(role["role_id"], 0) + 1
            raise Answer(400, wrong[1])
        s.failures.pop(role["role_id"], None)
        if secret["uses"]:
            secret["uses"] -= 1
            if secret["uses"] == 0:
                del space.secrets[self.body["secret_id"]]
        token = s.new_token(
            role["policies"], role["ttl"], top=role["top"], meta={"role_name": role["name"]},
            path=self.path, uses=role["num_uses"], home=space.name,
        )
        return envelope(auth=token.auth())

    def wrapped(self):
        text = self.body.get("token") or self.headers.get("X-Vault-Token")
        token = self.server.tokens.get(text)
        if not token or not token.wraps or token.ends <= self.now:
            raise Answer(400, "wrapping token is not valid or does not exist")
        return token

    def wrapping_lookup(self):
        token = self.wrapped()
        return envelope({
            "creation_path": token.wraps[1], "creation_time": when(token.born),
            "creation_ttl": token.wraps[2],
        })

    def unwrap(self):
        token = self.wrapped()
        del self.server.tokens[token.id]
        return envelope(token.wraps[0])

    # ---- everything else ----

    def route(self):
        mount, _, rest = self.path.partition("/")
        if self.path.startswith("auth/token/"):
            return self.own_token(self.path[11:])
        if mount == "sys":
            return self.administer(rest)
        if mount == "auth":
            return self.approle(rest)
        if mount in self.space.mounts:
            return self.transit(mount, rest)
        raise Answer(404, f"no handler for route '{self.path}'")

    def own_token(self, action):
        token, s = self.token, self.server
        if action == "revoke-self":
            s.tokens.pop(token.id, None)
            return None
        if action == "create":
            ttl = seconds(self.body.get("ttl")) or 2764800
            made = s.new_token(
                self.body.get("policies", []), ttl, uses=self.body.get("num_uses", 0),
                top=seconds(self.body.get("explicit_max_ttl")), home=self.space.name,
            )
            return envelope(auth=made.auth())
        if action == "renew-self":
            if not token.renewable:
                raise Answer(400, "invalid lease ID")
            ttl, warnings = seconds(self.body.get("increment")) or token.ttl, None
            if ttl > token.top:
                asked = self.body["increment"]
                warnings = [f'TTL of "{asked}" exceeded the effective max_ttl of "{token.top // 3600}h"; TTL value is capped accordingly']
            token.ttl = min(ttl, token.top)
            token.ends = self.now + token.ttl
            token.renewed = self.now
            return envelope(auth=token.auth(), warnings=warnings)
        data = {
            "accessor": token.accessor, "creation_time": int(token.born),
            "creation_ttl": token.ttl, "display_name": "approle", "entity_id": token.entity,
            "expire_time": when(token.ends), "explicit_max_ttl": 0, "id": token.id,
            "issue_time": when(token.born), "meta": token.meta, "num_uses": token.uses,
            "orphan": True, "path": token.path, "policies": token.policies,
            "renewable": token.renewable, "ttl": int(token.ends - self.now), "type": "service",
        }
        if hasattr(token, "renewed"):
            data.update(last_renewal=when(token.renewed), last_renewal_time=int(token.renewed))
        return envelope(data)

    def administer(self, rest):
        s, parts = self.server, rest.split("/")
        if rest == "capabilities-self":
            found = {p: sorted(self.capabilities(p)) or ["deny"] for p in self.body["paths"]}
            return {**found, **envelope(found)}
        if rest == "seal":
            s.sealed = True
        elif parts[0] == "namespaces" and s.age == "openbao":
            name = "/".join(filter(None, [self.space.name, parts[1]]))
            if len(parts) > 2:
                s.spaces[name].state = {
                    "lock": "API access to this namespace has been locked by an administrator - "
                            f'"{name}/" must be unlocked to gain access.',
                    "seal": "namespace is sealed",
                }.get(parts[2], "")
                return None
            s.spaces[name] = Namespace(name)
            return envelope({"path": name + "/"})
        elif parts[0] == "mounts" and self.method == "GET":
            return {**{m + "/": {"type": "transit"} for m in self.space.mounts}, **envelope({})}
        elif parts[0] == "mounts":
            self.space.mounts[parts[1]] = self.body["type"]
        elif parts[0] == "auth":
            self.space.auths[parts[1]] = self.body["type"]
        elif parts[0] in ("policies", "policy"):
            self.space.policies[parts[-1]] = Policy(self.body["policy"])
        elif parts[:2] == ["quotas", "rate-limit"]:
            if self.method == "DELETE":
                s.quotas.pop(parts[2], None)
            else:
                s.quotas[parts[2]] = self.body
        elif parts == ["quotas", "config"]:
            s.quota_headers = self.body["enable_rate_limit_response_headers"]
            s.buckets.clear()
        else:
            raise Answer(404, "1 error occurred:\n\t* unsupported path\n\n")
        return None

    def approle(self, rest):
        parts = rest.split("/")
        if len(parts) < 3 or parts[0] not in self.space.auths or parts[1] != "role":
            raise Answer(404, f"no handler for route '{self.path}'")
        if len(parts) == 3:
            policies = self.body.get("token_policies") or self.body.get("policies") or []
            role = self.space.roles.setdefault(parts[2], {"role_id": str(uuid.uuid4())})
            role |= {
                "name": parts[2],
                "policies": policies.split(",") if isinstance(policies, str) else policies,
                "ttl": seconds(self.body.get("token_ttl")) or 2764800,
                "top": seconds(self.body.get("token_max_ttl")) or 2764800,
                "num_uses": self.body.get("token_num_uses", 0),
                "secret_ttl": seconds(self.body.get("secret_id_ttl")),
                "secret_uses": self.body.get("secret_id_num_uses", 0),
            }
            return None
        role = self.space.roles[parts[2]]
        if parts[3] == "role-id":
            return envelope({"role_id": role["role_id"]})
        if parts[3:] == ["secret-id", "lookup"]:
            secret = self.space.secrets.get(self.body.get("secret_id"))
            if not secret or secret["role"] is not role:
                raise Answer(404)
            return envelope({
                "cidr_list": [], "creation_time": when(secret["born"]), "metadata": {},
                "expiration_time": when(secret["ends"]) if secret["ttl"] else "0001-01-01T00:00:00Z",
                "last_updated_time": when(secret["born"]), "secret_id_accessor": str(uuid.uuid4()),
                "secret_id_num_uses": secret["uses"], "secret_id_ttl": secret["ttl"],
                "token_bound_cidrs": [],
            })
        made = str(uuid.uuid4())
        self.space.secrets[made] = {
            "role": role, "uses": role["secret_uses"], "born": self.now, "ttl": role["secret_ttl"],
            "ends": self.now + (role["secret_ttl"] or 10 * 365 * 86400),
        }
        return envelope({
            "secret_id": made, "secret_id_accessor": str(uuid.uuid4()),
            "secret_id_ttl": role["secret_ttl"],
        })

    # ---- transit ----

    def transit(self, mount, rest):
        action, _, name = rest.partition("/")
        if rest == "keys" and (self.method == "LIST" or self.query.get("list") == "true"):
            found = sorted(n for m, n in self.space.keys if m == mount)
            if not found:
                raise Answer(404)
            return envelope({"keys": found})
        if action == "keys":
            return self.key(mount, *name.split("/"))
        if action not in ("encrypt", "decrypt", "rewrap", "datakey"):
            raise Answer(404, "1 error occurred:\n\t* unsupported path\n\n")
        if self.method not in ("POST", "PUT"):
            raise Answer(405, "1 error occurred:\n\t* unsupported operation\n\n")
        kind, _, name = name.rpartition("/")
        key = self.space.keys.get((mount, name))
        if not key:
            if action != "encrypt":
                raise Answer(400, "encryption key not found")
            key = self.space.keys[mount, name] = Key(name, {"derived": "context" in self.body}, self.now)
        if action == "datakey":
            return envelope(self.datakey(key, kind))
        if "batch_input" in self.body:
            return self.batch(key, action)
        return envelope(self.one(key, action, self.body))

    def one(self, key, action, item):
        try:
            if action == "encrypt":
                made = key.encrypt(item)
                self.server.record("plaintexts", item.get("plaintext", ""))
            elif action == "rewrap":
                made = key.encrypt(item, key.decrypt(item))
            else:
                made = {"plaintext": base64.b64encode(key.decrypt(item)).decode()}
                self.server.record("plaintexts", made["plaintext"])
        except Answer as refused:
            if refused.status == 0:
                refused.status = 400 if self.new else 500
                if not self.new:
                    refused.body = {"errors": [f"1 error occurred:\n\t* {FORGED}\n\n"]}
            raise
        return self.tamper(made)

    def tamper(self, made):
        field = "plaintext" if "plaintext" in made else "ciphertext"
        if "tampered" in self.rules:
            text = made[field]
            at = text.rfind(":") + 9
            made[field] = text[:at] + ("A" if text[at] != "A" else "B") + text[at + 1:]
        return made

    def batch(self, key, action):
        items, results, failed = self.body["batch_input"], [], 0
        if not items:
            raise Answer(400, "missing batch input to process")
        if len({bool(item.get("context")) for item in items}) > 1:
            raise Answer(400, "context should be set either in all the request blocks or in none")
        for item in items:
            try:
                if "partial" in self.rules and len(results) + 1 == int(self.rules["partial"].get("nth", 1)):
                    raise Answer(400, "invalid ciphertext: version is too new")
                result = self.one(key, action, item)
            except Answer as refused:
                # Which of them it was is not said by servers of that age.
                if refused.status == 500:
                    raise
                text = refused.body["errors"][0]
                result = {"plaintext": "", "error": text} if action == "decrypt" else {"error": text}
                failed += 1
            if self.new and "reference" in item:
                result["reference"] = item["reference"]
            results.append(result)
        if "short" in self.rules:
            results.pop()
        body = envelope({"batch_results": results})
        if failed and self.new and action != "rewrap":
            refused = Answer(self.body.get("partial_failure_response_code", 400))
            refused.body = body
            raise refused
        return body

    def datakey(self, key, kind):
        bits = self.body.get("bits", 256)
        if bits not in (128, 256, 512):
            raise Answer(400, "invalid bit length")
        if kind not in ("plaintext", "wrapped"):
            raise Answer(400, "Invalid path, must be 'plaintext' or 'wrapped'")
        plain = secrets.token_bytes(bits // 8)
        made = key.encrypt(self.body, plain)
        self.server.record("plaintexts", base64.b64encode(plain).decode())
        if kind == "plaintext":
            made["plaintext"] = base64.b64encode(plain).decode()
        return made

    def key(self, mount, name, action=None):
        space, key = self.space, self.space.keys.get((mount, name))
        if self.method == "GET":
            if not key:
                raise Answer(404)
            return envelope(key.describe(self.server.age))
        if self.method == "DELETE":
            if not key or not key.settings["deletion_allowed"]:
                raise Answer(400, f"error deleting policy {name}: deletion is not allowed for this key"
                             if key else f"could not delete key; not found")
            del space.keys[mount, name]
            return None
        warnings = None
        if action is None:
            if key:
                warnings = [f"key {name} already existed"]
            else:
                key = space.keys[mount, name] = Key(name, self.body, self.now)
        elif not key:
            raise Answer(400, "key not found" if action == "rotate" else f"no existing key named {name} could be found")
        elif action == "rotate":
            key.rotate(self.now)
        elif action == "config":
            key.configure(self.body)
        elif action == "trim":
            key.trim(self.body)
        return envelope(key.describe(self.server.age), warnings=warnings) if self.new else None
