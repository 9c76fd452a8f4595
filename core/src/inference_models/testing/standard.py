"""What all standard tests share: none is left out in silence."""

from __future__ import annotations

from difflib import get_close_matches
from typing import Any


class StandardTests:
    """Standard tests, which a plugin subclasses and does not change."""

    def test_overrides_no_standard_test_without_a_reason(self) -> None:
        """A gap is known by `@pytest.mark.xfail(reason=…)`, or it is no gap."""
        cls = type(self)
        changed = [
            name
            for name, test in standard_tests(cls).items()
            if getattr(cls, name) is not test and not _is_excused(getattr(cls, name))
        ]

        assert not changed, (
            f"{cls.__name__} overrides {', '.join(changed)}; mark what cannot "
            "pass with @pytest.mark.xfail(reason=...)"
        )


def misspelt(cls: type[Any], contract: type[Any]) -> list[str]:
    """Public members of a plugin's class that may be meant as some of its contract's.

    Those that it has are not meant.
    """
    own = [each for each in cls.__mro__ if each not in contract.__mro__]
    names = {name for each in own for name in vars(each) if not name.startswith("_")}
    known = {*dir(contract), *contract.__annotations__}
    near = {
        name: get_close_matches(name, known - names, 1, 0.85) for name in names - known
    }
    return [f"{name!r} for {near[name][0]!r}?" for name in sorted(near) if near[name]]


def standard_tests(cls: type[Any]) -> dict[str, Any]:
    """The kit's own tests that a class inherits, by name."""
    kit = __name__.rpartition(".")[0]
    classes = [c for c in reversed(cls.__mro__) if c.__module__.startswith(kit)]
    return {
        name: test
        for standard in classes
        for name, test in vars(standard).items()
        if name.startswith("test_")
    }


def _is_excused(test: Any) -> bool:
    marks = getattr(test, "pytestmark", ())
    return any(mark.name == "xfail" and mark.kwargs.get("reason") for mark in marks)
