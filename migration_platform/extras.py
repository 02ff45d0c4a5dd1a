"""Packages that only some kinds of stores need; an extra of this package brings each of them."""

from collections.abc import Iterator
from contextlib import contextmanager

from migration_platform.errors import PreflightError


@contextmanager
def needed_for(what: str, *, extra: str) -> Iterator[None]:
    """Name the extra that brings a package, where its import in this `with` block fails.

    It belongs at the top of a kind's own module, which is imported when a store of that kind is
    opened and not before: a project must load where nobody opens one. `what` begins the sentence,
    as `a Neo4j store`.

    Raises:
        PreflightError: the package, or one that it needs itself, is not installed; one sentence.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        # A module of this package that is missing is no package to install.
        if package in ("", "migration_platform"):
            raise
        raise PreflightError(
            f"{what} needs the package {package}, which is not installed; install it with: "
            f"pip install 'migration-platform[{extra}]'"
        ) from None
