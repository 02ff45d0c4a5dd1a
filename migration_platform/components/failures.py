"""How a run fails: with one sentence, and no stack trace of Dagster's behind it."""

from collections.abc import Mapping
from typing import Any

import dagster as dg
from dagster._core.errors import DagsterUserCodeProcessError
from dagster_shared.error import SerializableErrorInfo


class RunFailure(DagsterUserCodeProcessError, dg.Failure):  # noqa: N818 (as Dagster's own)
    """The end of a run that says all itself: where in the code it was raised helps nobody.

    Dagster writes down the stack of every exception, but for those that carry what is to be
    written, as this one does.
    """

    def __init__(self, description: str, metadata: Mapping[str, Any] | None = None):
        told = SerializableErrorInfo(f"{description}\n", stack=[], cls_name=dg.Failure.__name__)
        # Not to be tried again: that would do once more what is already done.
        arguments = description, metadata, False
        super().__init__(*arguments, user_code_process_error_infos=[told])
