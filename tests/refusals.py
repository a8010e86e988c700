"""Messages of refusals."""

from collections.abc import Callable

import pytest

from sknet.errors import UserError


def refusal(act: Callable[[], object]) -> str:
    """Return the message, of one line, with which `act` is refused."""
    with pytest.raises(UserError) as caught:
        act()
    message = str(caught.value)
    assert "\n" not in message
    return message
