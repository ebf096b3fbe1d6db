"""The rows about vectors, where numpy is installed."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from ops.bench.measure import Cases, Setting, Unavailable


@asynccontextmanager
async def vector_cases(setting: Setting) -> AsyncIterator[Cases]:
    """See `ops.bench.vectors_numpy`."""
    try:
        from ops.bench.vectors_numpy import vector_cases as cases
    except ImportError:
        yield {name: Unavailable("needs numpy: pip install 'cuebook[memory]'") for name in setting.wanted}
        return
    async with cases(setting) as made:
        yield made
