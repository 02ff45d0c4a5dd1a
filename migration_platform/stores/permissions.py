"""Checks what the stores allow a run to do: before it begins, and again when one refuses later."""

import time

from migration_platform.errors import DeniedError, PreflightError, TransientError
from migration_platform.plan.model import Plan
from migration_platform.stores.interface import Origin, Target, Uses
from migration_platform.stores.planning import make_plan

LOOKS = 3
SECONDS_BETWEEN_LOOKS = 2.0


def refuse_denied(plan: Plan, origin: Origin, target: Target, uses: Uses | None = None) -> None:
    """Refuse what the stores would refuse for every row, for the user or by their settings.

    Raises:
        PreflightError: one message with everything, and what to grant or to change.
    """
    uses = uses or Uses()
    wrong = [*origin.validate_use(plan, uses), *target.validate_use(plan, uses)]
    if wrong:
        told = "; ".join(dict.fromkeys(wrong))
        raise PreflightError(f"{plan.migration.name} cannot be migrated: {told}")


def look_again(plan: Plan, origin: Origin, target: Target, uses: Uses | None = None) -> None:
    """Check a running run against the stores again, after one of them refused something.

    Raises:
        DeniedError: the run cannot go on: what it needs is gone, or is not allowed any more.
    """
    for look in range(1, LOOKS + 1):
        try:
            changed = make_plan(plan.migration, origin, target).fingerprint != plan.fingerprint
            refuse_denied(plan, origin, target, uses)
        except TransientError:
            # The stores cannot be asked now: the tasks find out for themselves.
            return
        except PreflightError as error:
            if isinstance(error.__cause__, TransientError):
                return
            # A schema that is on its way, or a server that is busy, passes.
            if look == LOOKS:
                raise DeniedError(f"the run ended, because {error}") from error
            time.sleep(SECONDS_BETWEEN_LOOKS)
        else:
            if changed:
                raise DeniedError(
                    f"the run ended, because {plan.origin.name} or {plan.target.name} was changed, "
                    "or dropped and made anew, while it was copied; run it again"
                )
            return
