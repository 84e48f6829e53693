"""``distill`` is pure torch: it imports with ray and mlflow blocked, and never names them."""

import re
import subprocess
import sys
from pathlib import Path

import distill

ROOT = Path(distill.__file__).parent

BLOCKED = """
import importlib, pkgutil, sys
for name in ("ray", "mlflow", "orchestrator"):
    sys.modules[name] = None
import distill
for module in pkgutil.walk_packages(distill.__path__, "distill."):
    importlib.import_module(module.name)
for name in distill.__all__:
    getattr(distill, name)
print(len(list(pkgutil.walk_packages(distill.__path__, "distill."))))
"""


def test_every_module_imports_with_ray_and_mlflow_blocked():
    done = subprocess.run([sys.executable, "-c", BLOCKED], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 50


def test_no_module_names_them():
    forbidden = re.compile(r"^\s*(import|from)\s+(ray|mlflow|orchestrator)\b", flags=re.MULTILINE)
    assert [path.name for path in ROOT.rglob("*.py") if forbidden.search(path.read_text())] == []


def test_importing_the_package_waits_for_nothing():
    code = "import distill, sys; assert 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
