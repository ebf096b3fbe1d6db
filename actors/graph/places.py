"""Where a checkpoint stands, as LangGraph says it in a config: the same for both checkpointers."""

from langchain_core.runnables import RunnableConfig

from events.errors import ConfigurationError


def place_of(config: RunnableConfig) -> tuple[str, str, str | None]:
    """Thread, namespace and checkpoint id of a config.

    Raises:
        ConfigurationError: it names no thread.
    """
    configurable = config.get("configurable", {})
    thread_id = configurable.get("thread_id")
    if thread_id is None:
        raise ConfigurationError('a checkpointer needs a thread: {"configurable": {"thread_id": ...}}')
    return str(thread_id), configurable.get("checkpoint_ns", ""), configurable.get("checkpoint_id") or None


def place_of_writes(config: RunnableConfig) -> tuple[str, str, str]:
    """The checkpoint that writes belong to.

    Raises:
        ConfigurationError: it names none, or no thread.
    """
    thread_id, ns, checkpoint_id = place_of(config)
    if checkpoint_id is None:
        raise ConfigurationError("put_writes needs the checkpoint_id of the checkpoint that the writes belong to")
    return thread_id, ns, checkpoint_id


def config_of(config: RunnableConfig, ns: str, checkpoint_id: str) -> RunnableConfig:
    """What names a checkpoint of the thread of `config`."""
    return {"configurable": {"thread_id": config["configurable"]["thread_id"], "checkpoint_ns": ns, "checkpoint_id": checkpoint_id}}
