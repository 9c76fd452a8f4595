"""What all standard tests share: none is left out in silence."""

from __future__ import annotations

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
