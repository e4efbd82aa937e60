"""What scenarios with a software TPM share: each tree has one of its own beside it."""

import base64
import re
import shutil
import subprocess
from pathlib import Path

from faultbench import ENVIRONMENT, must
from sweep import Scenario

SWTPM = Path(__file__).resolve().parents[1] / "swtpm"


class TpmScenario(Scenario):
    """A tree's TPM is new, or after keep_tpm() a copy of the template's. PCRS have been measured in it."""

    pcrs = ()
    settings = ""  # more lines of qs-util.conf

    def __init__(self, template):
        self.tpms = []
        self.state = None
        super().__init__(template)

    def stop(self):
        while self.tpms:
            self.drop_tpm(self.tpms.pop())

    @staticmethod
    def directory_of(tree):
        return tree.root.parent / f"{tree.root.name}.tpm"

    @staticmethod
    def drop_tpm(directory):
        if (directory / "pid").exists():
            subprocess.run([SWTPM, "crash", directory], check=False, capture_output=True)
        shutil.rmtree(directory, ignore_errors=True)

    def enrol(self, tree):
        """A TPM2 keyslot, and the TPM kept."""
        self.use_tpm(tree)
        must(*tree.command("cryptenroll", tree.link(), "--tpm2"))
        self.keep_tpm(tree)

    def keep_tpm(self, tree):
        """From now on TPMs begin with what the TPM of TREE holds."""
        directory = self.directory_of(tree)
        must(SWTPM, "stop", directory)
        self.state = directory.parent / "tpm.b64"
        self.state.write_bytes(base64.encodebytes((directory / "tpm2-00.permall").read_bytes()))
        self.drop_tpm(directory)

    def use_tpm(self, tree):
        """Start it, or drop what a killed run left in it: it has no resource manager."""
        directory = self.directory_of(tree)
        if (directory / "pid").exists():
            must(SWTPM, "flush", directory)
            return
        self.tpms.append(directory)
        must(SWTPM, "start", directory, *([self.state] if self.state else []))
        if self.pcrs:
            must(SWTPM, "measure", directory, "booted", *self.pcrs)
        (tree.conf / "qs-util.conf").write_text(f'tpm2_device = "swtpm:path={directory}/s";\n{self.settings}')

    def measure(self, tree, word, *pcrs):
        must(SWTPM, "measure", self.directory_of(tree), word, *pcrs)

    def pcr(self, tree, number):
        """Its SHA-256 value in hex."""
        self.use_tpm(tree)
        where = {**ENVIRONMENT, "TPM2TOOLS_TCTI": f"swtpm:path={self.directory_of(tree)}/s"}
        done = subprocess.run(
            ["tpm2_pcrread", f"sha256:{number}"], env=where, capture_output=True, text=True, check=True
        )
        return re.search(r"0x([0-9A-F]+)", done.stdout)[1].lower()

    def run(self, tree, process, log, *options, main_too=False):
        self.use_tpm(tree)
        return super().run(tree, process, log, *options, main_too=main_too)
