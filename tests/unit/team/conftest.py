"""A code base small enough to know by heart."""

from pathlib import Path

import pytest

from actors.testing import ActorTest, Result

FILES = {
    "shop/__init__.py": "",
    "shop/cart.py": "import os\nfrom shop import price\n\n\ndef total(items):\n    return price.of(items) if items else 0\n",
    "shop/price.py": "from shop import cart\n\n\ndef of(items):\n    return len(items)\n\n\ndef _unused():\n    return cart\n",
    "main.py": "from shop.cart import total\n\nif __name__ == '__main__':\n    total([])\n",
    "README.md": "# Shop\n",
}


@pytest.fixture
def codebase(tmp_path: Path) -> Path:
    """Two modules that import each other, an unused import, an unused private function, an entry point."""
    root = tmp_path / "code"
    for path, content in FILES.items():
        place = root / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(content)
    return root


@pytest.fixture
def parts(tmp_path: Path) -> str:
    return str(tmp_path / "out" / ".parts")


async def when(actor: ActorTest, method: str, **arguments: object) -> Result:
    """As `ActorTest.when`, for commands that must not be refused."""
    result = await actor.when(method, **arguments)
    assert result.refusal is None, result.refusal
    return result
