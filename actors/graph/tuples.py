"""Checkpoints as LangGraph reads them, made from a thread in memory."""

from collections.abc import Mapping, Sequence
from typing import Any

from langgraph.checkpoint.base import CheckpointTuple, DeltaChannelHistory, PendingWrite, writes_sort_key

from actors.graph.packing import Packer
from actors.graph.thread_state import Checkpoint, ThreadState, Write, WriteKey


def tuple_of(packer: Packer, found: Checkpoint, pending: Mapping[WriteKey, Write], thread_id: Any) -> CheckpointTuple:
    """`found` with new objects throughout. packer: that of the thread when it was found. thread_id: as the caller wrote it."""
    value = packer.value
    checkpoint: dict[str, Any] = {
        "v": found.v,
        **({} if found.ts is None else {"ts": found.ts}),
        "id": found.id,
        "channel_values": {channel: value(each.text()) for channel, each in found.values.items()},
        "channel_versions": dict(found.versions),
        "versions_seen": {node: dict(versions) for node, versions in found.seen.items()},
        "updated_channels": None if found.updated is None else list(found.updated),
        **{key: value(text) for key, text in found.rest.items()},
    }

    def config(checkpoint_id: str) -> Any:
        return {"configurable": {"thread_id": thread_id, "checkpoint_ns": found.ns, "checkpoint_id": checkpoint_id}}

    return CheckpointTuple(
        config=config(found.id),
        checkpoint=checkpoint,  # type: ignore[arg-type]  # with whatever else the checkpoint held
        metadata=metadata_of(packer, found),  # type: ignore[arg-type]  # likewise
        parent_config=None if found.parent is None else config(found.parent),
        pending_writes=ordered(packer, pending),
    )


def metadata_of(packer: Packer, found: Checkpoint) -> dict[str, Any]:
    return {key: packer.value(text) for key, text in found.metadata.items()}


def ordered(packer: Packer, pending: Mapping[WriteKey, Write], channel: str | None = None) -> list[PendingWrite]:
    """The writes, or those on `channel`, in the order in which a live run applies them."""
    keys = sorted(
        (key for key, write in pending.items() if channel is None or write.channel == channel),
        key=lambda key: writes_sort_key(pending[key].path, *key),
    )
    return [(task, pending[task, index].channel, packer.value(pending[task, index].value)) for task, index in keys]


def delta_history(state: ThreadState, ns: str, checkpoint_id: str | None, channels: Sequence[str]) -> Mapping[str, DeltaChannelHistory]:
    """What each channel got on the way to a checkpoint, back to the nearest stored value. Hidden ancestors count: a run depends on them."""
    target = state.find(ns, checkpoint_id)
    return {channel: _history(state, ns, None if target is None else target.parent, channel) for channel in channels}


def _history(state: ThreadState, ns: str, checkpoint_id: str | None, channel: str) -> DeltaChannelHistory:
    steps: list[list[PendingWrite]] = []
    while checkpoint_id is not None and (found := state.any(ns, checkpoint_id)) is not None:
        steps.append(ordered(state.packer, state.writes(ns, checkpoint_id), channel))
        if channel in found.values:
            return {"writes": _flat(steps), "seed": state.packer.value(found.values[channel].text())}
        checkpoint_id = found.parent
    return {"writes": _flat(steps)}


def _flat(steps: list[list[PendingWrite]]) -> list[PendingWrite]:
    return [write for step in reversed(steps) for write in step]
