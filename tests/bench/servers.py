"""What a key server that takes its time costs a fleet: as much as its answers to one device do."""

import os
import shutil
import statistics
import subprocess

from fleet import Fleet, quietly
from measure import compare

COUNT = 100
ANSWER = 0.05  # seconds, of each answer
SERVER = os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir, "vault-server")


def read(*path):
    with open(os.path.join(*path), encoding="ascii") as f:
        return f.read().strip()


def fleet_with(b, provider, server=None):
    fleet = Fleet(os.path.join(b.memory, f"served-{provider}"), COUNT)
    if server:
        fleet.config(f'vault_servers = "localhost:{read(server, "port")}"; '
                     f'vault_role_id = "{read(server, "role-id")}";\n')
        os.makedirs(f"{fleet.root}/etc/cryptconf/vault")
        for file, name in (("certs/ca.crt", "ca.pem"), ("secret-id", "secret-id")):
            quietly("install", "-m", "0400", f"{server}/{file}", f"{fleet.root}/etc/cryptconf/vault/{name}")
    quietly(*fleet.ours(b.qs, "--yes", "keystore", "enable", "--provider", provider))
    quietly(*fleet.ours(b.qs, "cryptformat", "--no-open"), *fleet.images)
    return fleet


def slow_server(b):
    server = os.path.join(b.memory, "vault")
    subprocess.run([SERVER, "start", server, "1.14"], check=True)
    try:
        ours, peer = fleet_with(b, "vault", server), fleet_with(b, "local")
        with open(os.path.join(server, "rules"), "w", encoding="ascii") as f:
            f.write(f"slow seconds={ANSWER}\n")
        s = b.interleave({
            "ours": (ours.ours(b.qs, "cryptopenall", "--test"), None),
            "peer": (peer.ours(b.qs, "cryptopenall", "--test"), None),
        })
    finally:
        subprocess.run([SERVER, "stop", server], check=True)
    more = statistics.median(a.wall - p.wall for a, p in zip(s["ours"], s["peer"]))
    for path in (ours.root, peer.root, server):
        shutil.rmtree(path)
    yield compare("S1", f"`cryptopenall --test`, N = {COUNT}, a Vault server that answers in {1000 * ANSWER:.0f} ms",
                  "the same, key-encryption key in a file", s["ours"], s["peer"], None,
                  f"{more / ANSWER:.1f} answers' time more, one login and one request")
