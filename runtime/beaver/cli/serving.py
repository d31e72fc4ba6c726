"""`beaver run`."""

from __future__ import annotations

from typing import Annotated

from beaver.cli import flags, output
from beaver.cli.store import Store, on_store
from beaver.text.foreign import counted


def run_command(
    app: Annotated[str | None, flags.setting("app", "MODULE:APP", "-A")] = None,
    data: flags.Data = None,
    workers: Annotated[str | None, flags.setting("workers", "N")] = None,
    executor: Annotated[str | None, flags.setting("executor", "KIND")] = None,
    concurrency: Annotated[str | None, flags.setting("concurrency", "N")] = None,
    timeout: Annotated[str | None, flags.setting("timeout", "TIME")] = None,
    max_attempts: Annotated[str | None, flags.setting("max_attempts", "N")] = None,
    grace: Annotated[str | None, flags.setting("grace", "TIME")] = None,
    start_timeout: Annotated[str | None, flags.setting("start_timeout", "TIME")] = None,
    lease: Annotated[str | None, flags.setting("lease", "TIME")] = None,
    heartbeat: Annotated[str | None, flags.setting("heartbeat", "TIME")] = None,
    snapshot: Annotated[str | None, flags.setting("snapshot", "TIME")] = None,
    burst: Annotated[bool | None, flags.switch("burst")] = None,
    takeover: Annotated[bool | None, flags.switch("takeover")] = None,
    http: Annotated[str | None, flags.setting("http", "HOST:PORT|off")] = None,
    tls_cert: Annotated[str | None, flags.setting("tls_cert", "FILE")] = None,
    tls_key: Annotated[str | None, flags.setting("tls_key", "FILE")] = None,
    http_insecure: Annotated[bool | None, flags.switch("http_insecure")] = None,
    http_host: Annotated[list[str] | None, flags.setting("http_host", "NAME")] = None,
    http_connections: Annotated[str | None, flags.setting("http_connections", "N")] = None,
    max_jobs: Annotated[str | None, flags.setting("max_jobs", "N")] = None,
    max_rss: Annotated[str | None, flags.setting("max_rss", "SIZE")] = None,
    allow_exec: Annotated[bool | None, flags.switch("allow_exec")] = None,
    exec_allow: Annotated[list[str] | None, flags.setting("exec_allow", "PROGRAM")] = None,
    payload_size_max: Annotated[str | None, flags.setting("payload_size_max", "SIZE")] = None,
    state_size_max: Annotated[str | None, flags.setting("state_size_max", "SIZE")] = None,
    log_level: Annotated[str | None, flags.setting("log_level", "LEVEL")] = None,
    log_format: Annotated[str | None, flags.setting("log_format", "FORM")] = None,
    config: flags.ConfigFile = None,
    debug: flags.Debug = False,
) -> None:
    """Serve a queue: recover it and run its jobs.

    Ctrl-C, SIGTERM or SIGQUIT stops it when the running jobs have finished, or after --grace;
    a second one stops it at once.
    Times are 500ms, 30s, 5m, 2h or 1d; a bare number means seconds.

    Examples:
      beaver run                                   the built-in tasks, data in ./data
      beaver run -A shop:app --workers 4           the tasks of shop.py
      beaver run -A shop:app --takeover            in the place of the server that runs
      beaver run --burst --http off                run what is there, then end
      beaver run --config beaver.yaml              with settings from a file
    """
    asked = {
        "app": app,
        "workers": workers,
        "executor": executor,
        "concurrency": concurrency,
        "timeout": timeout,
        "max_attempts": max_attempts,
        "grace": grace,
        "start_timeout": start_timeout,
        "lease": lease,
        "heartbeat": heartbeat,
        "snapshot": snapshot,
        "burst": burst,
        "takeover": takeover,
        "http": http,
        "tls_cert": tls_cert,
        "tls_key": tls_key,
        "http_insecure": http_insecure,
        "http_host": http_host,
        "http_connections": http_connections,
        "max_jobs": max_jobs,
        "max_rss": max_rss,
        "allow_exec": allow_exec,
        "exec_allow": exec_allow,
        "payload_size_max": payload_size_max,
        "state_size_max": state_size_max,
        "log_level": log_level,
        "log_format": log_format,
    }
    settings = flags.configuration(data, config, asked)
    from beaver.cli.becoming import Handover, become_server

    become_server(Handover(settings, debug, {"data": data, **asked}, config))


@on_store
def reload_command(store: Store) -> None:
    """Give the running server new workers, with code and settings as they are now.

    The old workers finish their running jobs and exit. No attempt is used up, and there are
    always workers to run jobs. If the application cannot be imported, or a setting is wrong,
    the old workers stay, and this command says why and exits with 2. SIGHUP does the same and
    logs the outcome.

    Examples:
      beaver reload
      beaver reload --data /srv/queue
    """
    from beaver.client import blocking
    from beaver.transport import endpoint

    if not store.url:
        endpoint.require_directory(store.data)
    with store.connect() if store.url else blocking.connect(store.data) as server:
        if not server.runs_jobs:
            raise blocking.no_server(store.data)
        view = server.reload()
    if store.as_json:
        output.json_line(view)
        return
    new, former = counted(view.workers, "new worker"), counted(view.leaving, "former one")
    left = f"; {former} still at work" if view.leaving else ""
    output.line(f"reloaded: {new} for {', '.join(view.tasks)}{left}")
    for name in view.restart:
        output.note(f"beaver: {name} was changed as well; that takes a restart")
