"""A copy of the apps for each test, to be edited as a deployment would."""

import shutil
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from ctlcase import hanging, path, running  # noqa: F401 - fixtures
from embedcase import program  # noqa: F401 - fixture
from keptcase import kind, server  # noqa: F401 - fixtures
from preloadcase import where  # noqa: F401 - fixture

APPS = Path(__file__).parent.parent / "apps"


@pytest.fixture
def apps(tmp_path):
    directory = tmp_path / "apps"
    shutil.copytree(APPS, directory, ignore=shutil.ignore_patterns("__pycache__"))
    return directory
