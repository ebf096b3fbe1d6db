"""The verbs of the command line: one table, no imports of what they need.

A verb is added by one row here and one function in a module of this folder, in the commit in which it works. Its module
is imported when the verb is called, never for `cuebook --help`.
"""

from typing import Literal, NamedTuple

Heading = Literal["Run", "Talk", "Look", "Travel", "Keep"]
HEADINGS: tuple[Heading, ...] = ("Run", "Talk", "Look", "Travel", "Keep")


class Verb(NamedTuple):
    """One verb.

    `words` is what is typed ("stop", "config show"); `target` is MODULE:FUNCTION; `summary` equals the first line of
    the function's docstring (a test compares them); a verb that is not `shown` works and is left out of `--help`.
    """

    words: str
    heading: Heading
    target: str
    summary: str
    shown: bool = True


VERBS: tuple[Verb, ...] = (
    Verb("up", "Run", "ops.commands.run:up", "Start a deployment: a NATS server and workers, until Ctrl-C."),
    Verb("worker", "Run", "ops.commands.run:worker", "Run one worker process for a deployment whose server runs.", shown=False),
    Verb(
        "projector",
        "Run",
        "ops.commands.run:projector",
        "Run one projector process: it keeps the app's projections; a second one stands by.",
        shown=False,
    ),
    Verb("stop", "Run", "ops.commands.run:stop", "Stop the running deployment: drain, then end its processes."),
    Verb("status", "Run", "ops.commands.health:status", "Show what runs on the deployment's folder."),
    Verb(
        "doctor",
        "Run",
        "ops.commands.health:doctor",
        "Check what a deployment needs from this machine; exits 1 and says what to do if something is wrong.",
    ),
    Verb("review", "Run", "ops.commands.review:review", "Examine a Python code base and write report.md, report.html and report.json."),
    Verb("task start", "Run", "ops.commands.tasks:start", "Start a run: agents plan it, you decide, they do it."),
    Verb("task ls", "Run", "ops.commands.tasks:ls", "List the runs: where each stands, and what it waits for."),
    Verb("task show", "Run", "ops.commands.tasks:show", "Show a run: its steps, what it asks, and the commands that answer."),
    Verb("task approve", "Run", "ops.commands.tasks:approve", "Approve what a run proposes; its agents begin."),
    Verb("task reject", "Run", "ops.commands.tasks:reject", "Reject what a run proposes; it ends, and nothing was done."),
    Verb("task modify", "Run", "ops.commands.tasks:modify", "Have another version of the proposal made; the former ones are kept."),
    Verb(
        "task say", "Run", "ops.commands.tasks:say", "Decide in your own words, German or English; what is no clear yes asks back."
    ),
    Verb("task answer", "Run", "ops.commands.tasks:answer", "Answer a question of an agent; its step begins anew with the answer."),
    Verb("task pause", "Run", "ops.commands.tasks:pause", "Let no further step of a run begin; what is under way goes on to its end."),
    Verb(
        "task resume",
        "Run",
        "ops.commands.tasks:resume",
        "Let a paused run go on, with further instructions for every step that begins from here on.",
    ),
    Verb(
        "task stop",
        "Run",
        "ops.commands.tasks:stop",
        "End a run now, with whatever its agents do; with --rollback as if it had never been.",
    ),
    Verb("config show", "Run", "ops.commands.config:show", "Show the settings and, with --origin, where each comes from."),
    Verb("bench", "Run", "ops.commands.bench:bench", "Measure speed beside the raw limits of this machine."),
    Verb("ask", "Talk", "ops.commands.talk:ask", "Ask an actor and print its reply."),
    Verb("tell", "Talk", "ops.commands.talk:tell", "Send a command and return once it is kept; it is done when its actor can."),
    Verb(
        "cancel", "Talk", "ops.commands.talk:cancel", "Cancel a command that waits or runs; says whether it was cancelled or done before."
    ),
    Verb(
        "waits ls",
        "Talk",
        "ops.commands.waits:ls",
        "List all that a person can answer: who asks what, until when, and the command that answers.",
    ),
    Verb("waits answer", "Talk", "ops.commands.waits:answer", "Answer an open wait; the first answer counts."),
    Verb("dead ls", "Talk", "ops.commands.dead:ls", "List the dead letters: stored commands that were given up after their retries."),
    Verb("dead show", "Talk", "ops.commands.dead:show", "Show one dead letter: reason, arguments, attempts and events of its failures."),
    Verb("dead retry", "Talk", "ops.commands.dead:retry", "Try dead letters again, each under its own id, in chunks."),
    Verb("dead drop", "Talk", "ops.commands.dead:drop", "Drop dead letters for good; that they were dropped stays in the log."),
    Verb(
        "restart",
        "Talk",
        "ops.commands.dead:restart",
        "Start an actor again that was stopped because it failed too often; what waits for it is done.",
    ),
    Verb("tail", "Look", "ops.commands.look:tail", "Follow events as they happen; survives restarts of server and workers."),
    Verb("log", "Look", "ops.commands.look:log", "Show recorded events, the newest 50 unless told otherwise."),
    Verb("streams", "Look", "ops.commands.look:streams", "List the streams: one per actor that has recorded anything."),
    Verb("show", "Look", "ops.commands.look:show", "Show one event, with its state, its patch, its causes and effects if asked."),
    Verb("state", "Look", "ops.commands.look:state", "Show the state of an actor, now or after any version of its past."),
    Verb("trace", "Look", "ops.commands.tracing:trace", "Show which turn caused which in a conversation; of a graph, its path."),
    Verb("ps", "Look", "ops.commands.under_way:ps", "Show what is under way, and what waits for whom."),
    Verb("memory search", "Look", "ops.commands.memory:search", "Find memories that answer a question, the best first."),
    Verb("memory ls", "Look", "ops.commands.memory:ls", "List the newest memories of a workspace."),
    Verb("memory patterns", "Look", "ops.commands.memory:patterns", "List learned patterns with their success rates, per agent."),
    Verb("memory stats", "Look", "ops.commands.memory:stats", "Show what the memory of a workspace holds."),
    Verb(
        "memory remember",
        "Look",
        "ops.commands.memory:remember",
        "Remember something, on a running deployment; prints the name of the memory.",
    ),
    Verb(
        "memory forget",
        "Look",
        "ops.commands.memory:forget",
        "Forget memories by name: text, words and vector, on a running deployment.",
    ),
    Verb(
        "memory consolidate",
        "Look",
        "ops.commands.memory:consolidate",
        "Forget what is old, unimportant and was hardly ever found, on a running deployment.",
    ),
    Verb(
        "memory renew",
        "Look",
        "ops.commands.memory:renew",
        "Give every memory a vector of the model that the deployment runs now; recalls go on meanwhile.",
    ),
    Verb("diff", "Travel", "ops.commands.differences:diff", "Show what changed in a state between two versions, as JSON Patch (RFC 6902)."),
    Verb(
        "blame",
        "Travel",
        "ops.commands.differences:blame",
        "Show which event set a value: the event, its command, its causes, and when.",
    ),
    Verb(
        "fork",
        "Travel",
        "ops.commands.fork:fork",
        "Branch a stream off at a version, or a whole conversation at an event, edited if you like, and run it on.",
    ),
    Verb("rerun", "Travel", "ops.commands.fork:rerun", "Run a recorded turn again, effects included, in a fork that begins before it."),
    Verb("branches", "Travel", "ops.commands.fork:branches", "List the forks of a stream, and theirs, and where each branched off."),
    Verb("replay", "Travel", "ops.commands.travel:replay", "Fold recorded events again and show the states, or verify them."),
    Verb(
        "compare",
        "Travel",
        "ops.commands.compare:compare",
        "Show where two runs first diverge, how their states differ, and what each took.",
    ),
    Verb(
        "projections ls",
        "Travel",
        "ops.commands.projections:ls",
        "List the projections: how far they are, who applies them, what is parked.",
    ),
    Verb(
        "projections rebuild",
        "Travel",
        "ops.commands.projections:rebuild",
        "Build a view anew from the log beside the old one, which answers meanwhile, and switch over.",
    ),
    Verb(
        "projections verify",
        "Travel",
        "ops.commands.projections:verify",
        "Build a view anew in a folder of its own and compare the two; exits 4 and names the first difference.",
    ),
    Verb(
        "projections parked",
        "Travel",
        "ops.commands.projections:parked",
        "List the streams that a projection applies no further because one of their events could not be applied.",
    ),
    Verb(
        "projections release",
        "Travel",
        "ops.commands.projections:release",
        "Apply what was held back of a parked stream, in order, and go on with it; without STREAM, of all that are parked.",
    ),
    Verb("projections ask", "Travel", "ops.commands.projections:ask", "Ask a projection of the running deployment and print its reply."),
    Verb(
        "verify",
        "Keep",
        "ops.commands.keep:verify",
        "Check hashes, versions and checksums of the whole log; exits 4 and names what is damaged.",
    ),
    Verb(
        "backup",
        "Keep",
        "ops.commands.keep:backup",
        "Copy the log into a new or empty folder, also while a deployment runs, and verify the copy.",
    ),
    Verb(
        "export",
        "Keep",
        "ops.commands.keep:export",
        "Write the log as JSON Lines with all hashes, also while a deployment runs; `import` reads it.",
    ),
    Verb(
        "import",
        "Keep",
        "ops.commands.keep:import_",
        "Make a new log from an export, in a data folder that has none; every hash is checked.",
    ),
    Verb("restore", "Keep", "ops.commands.keep:restore", "Put a backup in the place of the log; the replaced files are kept beside it."),
    Verb(
        "archive",
        "Keep",
        "ops.commands.ending:archive",
        "Close a stream for good: it stays readable, and no command changes it any more.",
    ),
    Verb("cache stats", "Talk", "ops.commands.cache:stats", "Show where the cache is, what it holds, and how many lookups were hits."),
    Verb(
        "cache clear",
        "Talk",
        "ops.commands.cache:clear",
        "Remove everything from the cache; a running deployment fills it again from the log.",
    ),
    Verb("quarantine ls", "Talk", "ops.commands.quarantine:ls", "List the streams that are put aside because they are damaged."),
    Verb("quarantine lift", "Talk", "ops.commands.quarantine:lift", "Let a stream work again that was put aside, once it is mended."),
    Verb(
        "erase",
        "Keep",
        "ops.commands.ending:erase",
        "Remove what a stream said, for good: a sealed one by destroying its key, another by removing its payloads.",
    ),
    Verb("version", "Keep", "ops.commands.version:version", "Show the versions of Cuebook and of the parts it runs on."),
)
"""Rows stand in the order in which `--help` lists them."""

GROUP_SUMMARIES = {
    "memory": "What the agents of a workspace remember.",
    "cache": "Results of steps that somebody has had before.",
    "config": "Settings of the deployment.",
    "quarantine": "Streams that are put aside because they are damaged.",
    "dead": "Commands that were given up after their retries.",
    "projections": "Read models that are kept from the log.",
    "task": "Work that people decide about: start, see, approve, change, pause, stop, roll back.",
    "waits": "All that waits for a person.",
}
"""What `--help` says of a first word that has verbs below it."""
