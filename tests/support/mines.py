"""The app of `errands`, mined: each handler ends the process, while its events may be applied. What only reads must never call one."""

import os
from typing import Any

import msgspec

from runtime.app import App
from tests.support.errands import Buyer, Clerk, Shop

MINE_CODE = 77


def mine(*_: Any, **__: Any) -> Any:
    os._exit(MINE_CODE)


app = App(actors=[Buyer, Shop, Clerk])
for kind in app.registry.types.values():
    for name, method in kind.methods.items():
        kind.methods[name] = msgspec.structs.replace(method, function=mine)
