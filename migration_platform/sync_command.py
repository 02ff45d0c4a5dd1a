"""A search sync on its own: `sync` sends the ids of a file, where no tenant moves.

What it sends, and the logs that it writes, are those of a move's step.
"""

from pathlib import Path

import click

from migration_platform.run_commands import project_option

_DEFAULT_BLOCK_SIZE, _DEFAULT_SLEEP_MS = 100, 5000


@click.command()
@click.argument("id_file", type=click.Path(dir_okay=False, path_type=Path), required=False)
@click.option("--store", required=True, metavar="NAME", help="A sunbird_sync store.")
@click.option("--object-type", metavar="TYPE", help="user, organisation, batch (or course_batch).")
@click.option(
    "--dry-run/--no-dry-run",
    default=True,
    show_default=True,
    help="Say what would be sent, try the API key, and send nothing.",
)
@click.option("--block-size", default=_DEFAULT_BLOCK_SIZE, show_default=True, help="Ids a call.")
@click.option(
    "--sleep-ms",
    default=_DEFAULT_SLEEP_MS,
    show_default=True,
    help="Milliseconds before each call but the first.",
)
@click.option(
    "--replay",
    type=click.Path(dir_okay=False, path_type=Path),
    help="A failure log, SyncFailure_<milliseconds>.log: exactly its blocks are sent.",
)
@click.option(
    "--logs",
    type=click.Path(file_okay=False, path_type=Path),
    default=".",
    help="Folder for SyncSuccess_ and SyncFailure_<milliseconds>.log.  [default: here]",
)
@project_option
def sync(
    id_file: Path | None,
    store: str,
    object_type: str | None,
    dry_run: bool,
    block_size: int,
    sleep_ms: int,
    replay: Path | None,
    logs: Path,
    project: Path,
) -> None:
    """Have Sunbird's search service read rows again, by the ids of a file.

    ID_FILE has one id a line and no header, as the plans of a tenant's move write it. It is a dry
    run unless --no-dry-run is given. A missing or empty file is an error, never a sync of all.
    """
    from migration_platform.components.projects import find_sync_store
    from migration_platform.errors import MigrationError
    from migration_platform.tenant import search_sync

    if (id_file is None) == (replay is None):
        raise click.UsageError("Name an ID_FILE, or a failure log with --replay.")
    if replay is None and object_type is None:
        raise click.UsageError("Name the --object-type of the ids.")
    try:
        settings = find_sync_store(project, store)
        with settings.connect() as client:
            if unasked := client.check_key():
                click.echo(f"The API key could not be tried: {unasked}", err=True)
            if dry_run:
                click.echo(_tell(id_file, replay, settings, object_type, block_size, sleep_ms))
                return
            options = {"log_folder": logs, "sleep_ms": sleep_ms, "on_progress": click.echo}
            if replay is not None:
                result = search_sync.replay_failed(client, replay, **options)
            else:
                assert id_file is not None
                assert object_type is not None
                result = search_sync.sync_ids(
                    client,
                    search_sync.read_ids(id_file),
                    search_sync.count_ids(id_file),
                    object_type=object_type,
                    block_size=block_size,
                    **options,
                )
    except MigrationError as error:
        raise click.ClickException(str(error)) from error
    click.echo(str(result))
    if not result.complete:
        raise SystemExit(1)


def _tell(
    id_file: Path | None,
    replay: Path | None,
    settings: object,
    object_type: str | None,
    block_size: int,
    sleep_ms: int,
) -> str:
    """Say what a real run would send."""
    from migration_platform.tenant import search_sync

    if replay is not None:
        blocks = list(search_sync.read_failed_blocks(replay))
        ids = sum(len(block.ids) for block in blocks)
        return f"Dry run: {ids} ids in {len(blocks)} calls of {replay} to {settings}"
    assert id_file is not None
    assert object_type is not None
    said = search_sync.describe_sync(
        search_sync.read_ids(id_file),
        search_sync.count_ids(id_file),
        endpoint=str(settings),
        object_type=object_type,
        block_size=block_size,
        sleep_ms=sleep_ms,
    )
    return f"Dry run: {said}; nothing was sent"
