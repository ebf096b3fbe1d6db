"""Clarification: what agents have to ask a person before they can go on, durable and answered once."""

from actors.actor import command, query
from actors.errors import Rejected
from actors.tasks import limits
from actors.tasks.course import Course
from actors.tasks.deciders import Session
from actors.tasks.records import Question, Text, View
from actors.tasks.state import QuestionAnswered, QuestionAsked, QuestionExpired
from actors.tasks.view import view_of
from actors.tasks.waiting import answer_timer


class Questions(Course):
    """The part of `Task` that asks back. A step whose agent asks stands still until the answer, the others go on; then the agent is given
    the step once more, with everything that was answered in this run."""

    @command
    def step_asks(self, step: str, attempt: int, question: Text) -> None:
        """An agent cannot go on without an answer of a person. A question of an attempt that is over is none."""
        if self._reported(step, attempt) is None:
            return
        if len(self.state.questions) >= limits.QUESTIONS_MAX:
            self._failed(step, "failed", f"it asked again, after {limits.QUESTIONS_MAX} questions of this run: {question}"[:2_000], False)
            return
        number = len(self.state.questions) + 1
        self.unschedule(f"late-{step}")
        expires_at_us = self._now_us() + int(self.state.approval_s * 1_000_000)
        self.emit(QuestionAsked(number=number, step=step, question=question, expires_at_us=expires_at_us))
        self.schedule(self.state.approval_s, "answer_late", timer_id=answer_timer(number), number=number)

    @command
    def answer(self, session: Session, text: Text, number: int | None = None) -> View:
        """Answer an agent's question; by default the oldest that is open.

        Raises:
            Rejected: it is not for that session to answer, no such question, answered before, or too late; says which.
        """
        by = self._may_decide(session)
        question = self._open_question(number, by)
        if not text.strip():
            raise Rejected("an answer has words", number=question.number)
        self.unschedule(answer_timer(question.number))
        self.emit(QuestionAnswered(number=question.number, answer=text, by=by))
        if question.step.startswith("_"):
            self._send_internal(question.step)
        else:
            self._move(question.step, "pending", "it was answered")
            self._advance()
        return view_of(self.state)

    @command
    def answer_late(self, number: int) -> None:
        """Nobody has answered in time: the step fails, and what needs it cannot be done."""
        self._from_timer()
        question = self.state.questions[number - 1]
        if question.standing != "open":
            return
        self.emit(QuestionExpired(number=number))
        why = f"nobody answered in time: {question.question}"[:2_000]
        if question.step.startswith("_"):
            self._end("failed", f"{question.step[1:]}: {why}")
        else:
            self._move(question.step, "failed", why)
            self._advance()

    @query
    def questions(self) -> list[Question]:
        """Every question of this run, oldest first, with what became of it."""
        return list(self.state.questions)

    def _open_question(self, number: int | None, by: str) -> Question:
        questions = self.state.questions
        if number is None:
            asked = next((question for question in questions if question.standing == "open"), None)
            if asked is None:
                last = f"; the last one was {questions[-1].standing}" if questions else ""
                raise Rejected(f"nobody asks anything{last}", phase=self.state.phase)
            number = asked.number
        if not 1 <= number <= len(questions):
            raise Rejected(f"there is no question {number}", phase=self.state.phase)
        question = questions[number - 1]
        self._check_open(f"question {number}", "answered", question.standing, question.expires_at_us, by, question.by)
        return question
