"""What the README says is to be typed."""

import re

from tests.systemd.machine import REPOSITORY


def blocks(heading: str) -> list[tuple[str, str]]:
    """The language and the text of each block below the README's *heading*, of whatever level."""
    text = (REPOSITORY / "README.md").read_text()
    [section] = re.findall(rf"^##+ {heading}\n(.*?)^##+ [A-Z]", text, re.MULTILINE | re.DOTALL)
    return re.findall(r"^```(\w+)\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
