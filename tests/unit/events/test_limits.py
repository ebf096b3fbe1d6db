"""The bounds keep the promises that S12 makes about them."""

from events import limits


def test_every_relation_between_the_bounds_holds() -> None:
    assert all(holds for holds, _ in limits._RELATIONS)


def test_the_largest_message_fits_an_embedded_server() -> None:
    """S12: 1 MiB of arguments, its headers and the reserve."""
    needed = limits.ARGUMENTS_BYTES_MAX + limits.HEADERS_BYTES_MAX + limits.PUBLISH_RESERVE_BYTES
    assert needed <= limits.SERVER_PAYLOAD_BYTES_MAX


def test_every_bound_is_a_positive_number() -> None:
    bounds = {name: value for name, value in vars(limits).items() if name.isupper() and not name.startswith(("_", "INT64"))}
    assert len(bounds) > 30
    assert all(value > 0 for value in bounds.values())
