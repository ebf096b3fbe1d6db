"""What the log files of a deployment may say of a failure (S29): of a sealed actor its kind and its place in the code, never its text."""

import traceback
from typing import Any


def said(sealed: bool, text: str, error: BaseException | None = None, code: str = "") -> dict[str, Any]:
    """Fields of a log line. The text of an error, and a traceback, quote what an actor was told.

    code: what to call the failure of a sealed actor where there is no exception to name.
    """
    if not sealed:
        return {"error": text} if error is None else {"error": text, "exc_info": error}
    if error is None:
        return {"error": code or "see the log of its stream"}
    frames = traceback.extract_tb(error.__traceback__)
    at = f"{frames[-1].filename}:{frames[-1].lineno}" if frames else None
    return {"error": type(error).__name__, "at": at}
