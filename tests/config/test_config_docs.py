"""Every configuration that the documentation shows is one."""

import json
import re
from pathlib import Path

import jsonschema
import pytest
import yaml
from support.configuring import loaded

from gateway import config

ROOT = Path(__file__).parents[2]
_BLOCK = re.compile(r"^```yaml\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
BLOCKS = [
    pytest.param(block, id=f"{page.name}-{number}")
    for page in PAGES
    for number, block in enumerate(_BLOCK.findall(page.read_text()), 1)
]


def test_the_page_of_the_configuration_has_blocks() -> None:
    assert len(_BLOCK.findall((ROOT / "docs" / "configuration.md").read_text())) >= 7


@pytest.mark.parametrize("block", BLOCKS)
def test_every_block_is_a_configuration(tmp_path: Path, block: str) -> None:
    """A page may show one section alone, and variables without a default."""
    names = re.findall(r"\$\{([A-Z0-9_]+)\}", block)
    if not re.search(r"^models:", block, re.MULTILINE):
        block += "models: {}\n"
    loaded(tmp_path, block, **{name: f"{i:064x}" for i, name in enumerate(names, 1)})


@pytest.mark.parametrize(
    "block", re.findall(_BLOCK, (ROOT / "docs" / "configuration.md").read_text())
)
def test_editors_take_the_blocks_of_the_page_too(block: str) -> None:
    data = json.loads(json.dumps(yaml.safe_load(block)))  # keys are text to an editor
    jsonschema.validate(data, config.schema())
