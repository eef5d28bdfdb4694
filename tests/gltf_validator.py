"""The Khronos glTF validator, from npm, for the tests: installed once into the user's cache, absent where that can't be."""

import functools
import json
import os
import pathlib
import shutil
import subprocess
import tempfile

import pytest

PACKAGE = "gltf-validator@2.0.0-dev.3.10"

_SEVERITIES = ("error", "warning", "information", "hint")

_SCRIPT = """
const validator = require(process.argv[1]), fs = require("fs");
const files = process.argv.slice(2).map(async (path) => {
  const report = await validator.validateBytes(new Uint8Array(fs.readFileSync(path)), { maxIssues: 100 });
  return report.issues;
});
Promise.all(files).then((issues) => console.log(JSON.stringify(issues)));
"""


@functools.cache
def _install() -> pathlib.Path | str:
    """The package's folder, or why there is none."""
    for program in ("node", "npm"):
        if shutil.which(program) is None:
            return f"{program} is not installed; the Khronos glTF validator needs it"
    cache = pathlib.Path.home() / ".cache" / "realiz3d_jax"
    place = cache / PACKAGE
    if not place.exists():
        cache.mkdir(parents=True, exist_ok=True)
        folder = tempfile.mkdtemp(dir=cache)
        command = ["npm", "install", "--prefix", folder, "--ignore-scripts", "--no-audit", "--no-fund", PACKAGE]
        try:
            subprocess.run(
                [*command, "--fetch-retries=0"], capture_output=True, encoding="utf-8", timeout=60, check=True
            )
            os.replace(folder, place)
        except (OSError, subprocess.SubprocessError) as error:
            if not place.exists():  # or another process was faster
                lines = (getattr(error, "stderr", None) or str(error)).splitlines()
                printed = [line for line in lines if "error" in line] or lines
                return f"{PACKAGE} could not be had from npm ({' '.join(printed[:2])})"
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    return place / "node_modules" / "gltf-validator"


def issues(*paths: pathlib.Path) -> dict[str, list[str]]:
    """What there is to say of each file, by its name, where there is anything; skips the test without the validator."""
    package = _install()
    if isinstance(package, str):
        pytest.skip(package)
    command = ["node", "-e", _SCRIPT, str(package), *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    reports = zip(paths, json.loads(done.stdout), strict=True)
    found = {
        path.name: [f"{_SEVERITIES[one['severity']]}: {one['code']}" for one in report["messages"]]
        for path, report in reports
    }
    return {name: messages for name, messages in found.items() if messages}
