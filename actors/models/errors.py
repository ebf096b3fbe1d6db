"""How a call to a model service fails, by class. Each travels as the wire error that it is a kind of."""

from actors.errors import Rejected, Unavailable


class ModelUnavailable(Unavailable):
    """The service could not be had in time, nor any fallback: ask again later.

    Fields: `provider`; `reason` - ``open`` (its circuit breaker), ``rate``, ``busy``, ``deadline``, or the code of the last failure.
    """


class ModelRefused(Rejected):
    """The service refuses this request for good: a wrong key, an unknown model, a bad request. Fields: `provider`, `reason`."""


class BudgetSpent(Rejected):
    """No budget is left for the call. Fields: `provider`; `reason` - ``budget`` (the provider's day), ``agent_budget`` (the agent's day
    there), ``run_budget``, or ``call_budget`` (it alone may cost more than any may: give a lower `max_tokens`); `spent` and `limit` in
    millionths of a dollar."""


class AnswerInvalid(Rejected):
    """The model did not give what the schema asks for, also when told so. Fields: `provider`, `reason` ``schema``, `text`."""
