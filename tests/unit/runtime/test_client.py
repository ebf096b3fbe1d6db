"""How a call repeats itself: over a link that the test plays, with a clock that the test moves (S9)."""

from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager

import msgspec
import pytest

from actors.errors import (
    ActorError,
    DeadlinePassed,
    LogFull,
    OutcomeUnknown,
    Overloaded,
    Rejected,
    TooLarge,
    Unavailable,
    Unknown,
    error_body,
)
from events.errors import ConfigurationError, EncodingError, TransientError
from ops.examples.bank import AccountActor
from runtime.client import Client, connect
from runtime.hearing import Mail
from runtime.link import Answer, News

Script = Callable[[int], "Answer | ActorError | Exception | None"]


class PlayedLink:
    """Answers attempt n of every call with ``script(n)``: an answer, an error, an exception of `send`, or None for silence."""

    payload_bytes_max = 2 * 1024 * 1024

    def __init__(self, script: Script) -> None:
        self.now = 1_000.0
        self.sent: list[tuple[str, bytes, dict[str, str] | None]] = []
        self.copies = 1
        self._went_out = 0
        self._script = script
        self._answers: list[Answer] = []

    def wall_us(self) -> int:
        return int(self.now * 1e6)

    def monotonic(self) -> float:
        return self.now

    def token_bytes(self, count: int) -> bytes:
        return bytes(count)

    async def send(self, subject: str, body: bytes, headers: dict[str, str] | None) -> None:
        self.sent.append((subject, body, headers))
        answer = self._script(len(self.sent))
        if isinstance(answer, ActorError):
            answer = Answer(msgspec.json.encode(error_body(answer)), error=True)
        if isinstance(answer, Exception):
            raise answer
        self._went_out += 1
        if answer is not None:
            self._answers += [msgspec.structs.replace(answer, attempt=self._went_out)] * self.copies

    async def next(self, timeout_s: float) -> Answer | None:
        if self._answers:
            return self._answers.pop(0)
        self.now += timeout_s
        return None

    @contextmanager
    def replies(self) -> Iterator["PlayedLink"]:
        yield self

    def listen(self, subject: str) -> AbstractAsyncContextManager[News]:
        raise NotImplementedError(subject)

    def messages(self, subject: str) -> AbstractAsyncContextManager[Mail]:
        raise NotImplementedError(subject)

    def client(self) -> Client:
        return Client(self, clock=self, entropy=self)


def after(*first: Answer | ActorError | Exception | None) -> Script:
    """`first`, then 500."""
    return lambda n: first[n - 1] if n <= len(first) else Answer(b"500")


@pytest.mark.parametrize(
    "first",
    [
        (),
        (None,),
        (Answer(b"", nobody=True),),
        (Unavailable("draining", retry_after_ms=500),),
        (Overloaded("full"),),
        (OutcomeUnknown("?"),),
        (TransientError("no connection"),),
        (None, Unavailable("starting"), None, Overloaded("full")),
    ],
)
async def test_an_ask_repeats_with_one_id_until_it_is_answered(first: tuple[Answer | ActorError | Exception | None, ...]) -> None:
    link = PlayedLink(after(*first))
    assert await link.client().ref(AccountActor, "42").deposit(cents=500) == 500
    assert len(link.sent) == len(first) + 1
    assert len({subject for subject, _, _ in link.sent}) == 1
    subject, body, headers = link.sent[0]
    assert subject.startswith("cue.ask.account.42.deposit.")
    assert (body, headers) == (b'{"cents":500}', None)


@pytest.mark.parametrize("kind", [Unavailable, Overloaded, OutcomeUnknown, LogFull])
async def test_s24_what_the_log_remembers_is_not_asked_for_again(kind: type[ActorError]) -> None:
    """Else the caller would hear after its whole time that nobody has answered."""
    failure = kind("of something that the turn had asked")
    failure.final = True
    link = PlayedLink(lambda _: failure)
    with pytest.raises(kind, match="had asked"):
        await link.client().ref("account", "42").ask("deposit", cents=1)
    assert len(link.sent) == 1


async def test_two_calls_have_two_ids() -> None:
    link = PlayedLink(after())
    account = link.client().ref("account", "42")
    await account.ask("deposit", cents=1)
    await account.ask("deposit", cents=1)
    assert link.sent[0][0] != link.sent[1][0]


async def test_a_refusal_is_raised_at_once_as_its_class() -> None:
    link = PlayedLink(lambda _: Rejected("not enough", balance=3))
    with pytest.raises(Rejected) as refused:
        await link.client().ref(AccountActor, "42").withdraw(cents=5)
    assert (refused.value.message, refused.value.fields, len(link.sent)) == ("not enough", {"balance": 3}, 1)


async def test_silence_until_the_deadline_is_an_unknown_outcome_with_the_id() -> None:
    link = PlayedLink(lambda _: None)
    with pytest.raises(OutcomeUnknown) as unknown:
        await link.client().ref("account", "42").ask("deposit", cents=1, command_id="pay-1", timeout_s=10)
    assert unknown.value.fields["command_id"] == "pay-1"
    assert 1_010 <= link.now < 1_011
    assert all(subject.endswith(".pay-1") for subject, _, _ in link.sent)


@pytest.mark.parametrize("certain", [Answer(b"", nobody=True), Overloaded("full"), TransientError("no connection")])
async def test_if_every_attempt_was_certainly_not_done_the_last_reason_is_raised(certain: Answer | ActorError | Exception) -> None:
    link = PlayedLink(lambda _: certain)
    with pytest.raises((Unavailable, Overloaded)):
        await link.client().ref("account", "42").ask("deposit", cents=1, timeout_s=2)
    assert len(link.sent) > 3


async def test_one_silent_attempt_among_refused_ones_leaves_the_outcome_unknown() -> None:
    link = PlayedLink(lambda n: None if n == 2 else Unavailable("draining"))
    with pytest.raises(OutcomeUnknown):
        await link.client().ref("account", "42").ask("deposit", cents=1, timeout_s=5)


@pytest.mark.parametrize(("first", "raised"), [(None, OutcomeUnknown), (Unavailable("draining"), DeadlinePassed)])
async def test_too_late_means_not_done_only_if_no_earlier_attempt_is_open(first: ActorError | None, raised: type[ActorError]) -> None:
    """A repeat that comes after the deadline is refused; the first attempt may have been done and its reply lost."""
    link = PlayedLink(lambda n: first if n == 1 else DeadlinePassed("too late"))
    with pytest.raises(raised):
        await link.client().ref("account", "42").ask("deposit", cents=1, timeout_s=5)


async def test_the_deadline_header_is_sent_only_for_another_time_than_30_s() -> None:
    link = PlayedLink(after())
    await link.client().ref("account", "42").ask("deposit", cents=1, timeout_s=5)
    await link.client().ref("account", "42", timeout_s=30).ask("deposit", cents=1)
    assert [headers for _, _, headers in link.sent] == [{"Cue-Deadline": "1005000"}, None]


async def test_a_typed_reference_refuses_unknown_methods_and_replies_of_another_type() -> None:
    link = PlayedLink(lambda _: Answer(b'"text"'))
    account = link.client().ref(AccountActor, "42")
    with pytest.raises(Unknown, match="it has: balance, deposit"):
        await account.depot(cents=1)
    with pytest.raises(EncodingError, match="was done, but"):
        await account.deposit(cents=1)
    assert await link.client().ref("account", "42").ask("deposit") == "text"


@pytest.mark.parametrize(("acknowledged", "kept"), [(b'{"stream":"cue_tell","seq":1}', True), (b'{"error":{"code":503}}', False)])
async def test_a_tell_is_kept_once_jetstream_says_so(acknowledged: bytes, kept: bool) -> None:
    link = PlayedLink(lambda n: None if n == 1 else Answer(acknowledged))
    account = link.client().ref(AccountActor, "42")
    if kept:
        assert link.sent == []
        command_id = await account.tell.deposit(cents=5)
        assert [subject for subject, _, _ in link.sent] == [f"cue.tell.account.42.deposit.{command_id}"] * 2
        assert await account.tell("deposit", cents=5, command_id="t-1") == "t-1"
    else:
        with pytest.raises(OutcomeUnknown):
            await account.tell.deposit(cents=5)


async def test_a_projection_that_does_not_answer_is_unavailable_and_never_unknown() -> None:
    link = PlayedLink(lambda _: None)
    with pytest.raises(Unavailable):
        await link.client().view("memory", timeout_s=3).recall(query="x")
    assert link.sent[0][0] == "cue.view.memory.recall"


async def test_too_large_a_body_is_refused_before_it_costs_the_connection() -> None:
    link = PlayedLink(after())
    link.payload_bytes_max = 64 * 1024
    with pytest.raises(TooLarge):
        await link.client().ref("account", "42").ask("deposit", text="x" * 65_536)
    link.payload_bytes_max = 2 * 1024 * 1024
    with pytest.raises(TooLarge):
        await link.client().ref("account", "42").ask("deposit", text="x" * 1_048_576)
    assert link.sent == []


async def test_connect_without_a_url_says_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUEBOOK_NATS_URL", raising=False)
    with pytest.raises(ConfigurationError, match="CUEBOOK_NATS_URL"):
        async with connect():
            pass
