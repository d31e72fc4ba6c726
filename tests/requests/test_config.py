"""Configuration: layers, origins, and refusals that name file and key."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from beaver.config.layers import STATE_PERCENT, Config, load_config, shown
from beaver.config.setting import QueueConfig
from beaver.config.settings import SETTINGS
from beaver.errors import InvalidInput
from beaver.system.memory import memory_bytes


@pytest.fixture(autouse=True)
def _in_an_empty_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def load(
    flags: dict[str, Any] | None = None, *, yaml: str | bytes | None = None, **environ: str
) -> Config:
    if yaml is not None:
        with open("some.yaml", "wb") as file:
            file.write(yaml if isinstance(yaml, bytes) else yaml.encode())
    return load_config(flags, file=None if yaml is None else "some.yaml", environ=environ)


def refusal(flags: dict[str, Any] | None = None, **layers: Any) -> str:
    with pytest.raises(InvalidInput) as refused:
        load(flags, **layers)
    return str(refused.value)


def test_each_layer_overrides_the_one_before_and_the_origin_says_which() -> None:
    config = load(
        {"grace": "3s", "workers": None},
        yaml="timeout: 1m\nmax_attempts: 7\ngrace: 1s\n",
        BEAVER_MAX_ATTEMPTS="8",
        BEAVER_GRACE="2s",
    )
    assert (config.timeout_ms, config.max_attempts, config.grace_ms) == (60_000, 8, 3_000)
    assert config.snapshot_ms == 10_000
    assert {name: config.origins[name] for name in ("timeout_ms", "max_attempts", "grace_ms")} == {
        "timeout_ms": "some.yaml",
        "max_attempts": "BEAVER_MAX_ATTEMPTS",
        "grace_ms": "--grace",
    }
    assert config.origins["snapshot_ms"] == config.origins["workers"] == "default"


def test_every_setting_is_a_field_and_every_default_is_valid_in_its_written_form() -> None:
    config = load()
    assert {s.field for s in SETTINGS.values()} | {"origins"} == set(Config.__struct_fields__)
    for setting in SETTINGS.values():
        value = getattr(config, setting.field)
        assert setting.parse(shown(config, setting), setting.name) == value
        assert setting.help.endswith(".")


def test_a_worker_a_core_is_the_default() -> None:
    assert load().workers == len(os.sched_getaffinity(0))


def test_the_default_file_is_read_where_it_exists_and_a_named_one_must_exist() -> None:
    with open("beaver.yaml", "w") as file:
        file.write("data: here\n")
    config = load_config(environ={})
    assert (config.data, config.origins["data"]) == ("here", "beaver.yaml")
    with open("other.yaml", "w") as file:
        file.write("data: there\n")
    assert load_config(environ={"BEAVER_CONFIG": "other.yaml"}).data == "there"
    with pytest.raises(InvalidInput, match=r"^missing.yaml: No such file"):
        load_config(file="missing.yaml", environ={})


@pytest.mark.parametrize(
    ("yaml", "said"),
    [
        ("wrokers: 3", "some.yaml: 'wrokers': unknown key; did you mean workers?"),
        ("7: 3", "some.yaml: 7: unknown key; known are data, "),
        ("workers: 0", "some.yaml: workers: 1 to 1024 is allowed, found 0"),
        ("workers: many", "some.yaml: workers: an integer is expected"),
        ("workers: true", "some.yaml: workers: an integer is expected"),
        ("workers: 2\nworkers: 3", "some.yaml: 'workers': repeated key at line 2 column 1"),
        ("workers: [", "some.yaml: "),
        ("- workers", "some.yaml: a mapping of settings is expected"),
        ("[a]: 1", "some.yaml: a key must be a word at line 1 column 1"),
        (b"data: \xff", "some.yaml: not UTF-8"),
        ("data: !!python/object:os.system {}", "some.yaml: "),
        ("timeout: soon", "some.yaml: timeout: 'soon' is no duration"),
        ("timeout: 0", "some.yaml: timeout: 1ms to 30d is allowed"),
        ("executor: threads", "some.yaml: executor: one of process, thread, async is expected"),
        ("http_host: [a, 7]", "some.yaml: http_host: a text or a list of texts is expected"),
        ("http_host: a b", "some.yaml: http_host: a name such as"),
        ("exec_allow: [bin/true]", "some.yaml: exec_allow: an absolute path"),
        ("http: 127.0.0.1:70000", "some.yaml: http: host:port or off is expected"),
        ("http: yes", "some.yaml: http: host:port or off is expected"),
        ("burst: 7", "some.yaml: burst: true or false is expected"),
        ("app: some module", "some.yaml: app: module:app is expected"),
        ("data: ''", "some.yaml: data: a path is expected"),
        ("segment_size: 1MiB", "some.yaml: segment_size: 16MiB to 4GiB is allowed"),
        ("queues: [a]", "some.yaml: queues: a mapping of queue names is expected"),
        ("queues: {a: 7}", "some.yaml: queues: a: a mapping is expected"),
        ("queues: {a: {wieght: 7}}", "some.yaml: queues: a: 'wieght': unknown key; did you mean"),
        ("queues: {a: {weight: 0}}", "some.yaml: queues: a: weight: 1 to 1000 is allowed"),
        ("queues: {a: {bytes_max: x}}", "some.yaml: queues: a: bytes_max: 'x' is no size"),
        (
            "queues: {a: {durable_dispatch: 2}}",
            "some.yaml: queues: a: durable_dispatch: true or false is expected",
        ),
    ],
)
def test_a_wrong_file_is_refused_naming_file_and_key(yaml: bytes | str, said: str) -> None:
    assert refusal(yaml=yaml).startswith(said)


def test_the_environment_is_checked_and_a_slip_in_a_name_is_refused() -> None:
    assert refusal(BEAVER_WORKERS="x").startswith("BEAVER_WORKERS: an integer is expected")
    assert refusal(BEAVER_WORKRES="3") == (
        "BEAVER_WORKRES: no such setting in the environment; did you mean BEAVER_WORKERS?"
    )
    config = load(BEAVER_BURST="yes", BEAVER_HOME="x", BEAVER_STORE="ab", BEAVER_ALLOW_EXEC="0")
    assert (config.burst, config.allow_exec) == (True, False)


def test_flags_are_named_as_flags() -> None:
    assert refusal({"max_attempts": "0"}).startswith("--max-attempts: 1 to 10000 is allowed")


@pytest.mark.parametrize(
    ("yaml", "address"),
    [
        ("http: off", None),
        ("http: 'off'", None),
        ("http: 9091", ("127.0.0.1", 9091)),
        ("http: localhost:0", ("localhost", 0)),
        ("http: '[::1]:80'", ("::1", 80)),
        ("{}", ("127.0.0.1", 9090)),
    ],
)
def test_http_is_an_address_or_off(yaml: str, address: tuple[str, int] | None) -> None:
    config = load(yaml=yaml)
    assert config.http_address == address
    assert config.http_is_explicit == (yaml != "{}")


def test_queues_are_settings_of_each_queue() -> None:
    config = load(
        yaml="queues:\n  mail: {weight: 20, bytes_max: 1MiB}\n  slow: {paused: true}\n  x:\n"
        "  quick: {durable_dispatch: false}\n"
    )
    assert config.queues == {
        "mail": QueueConfig(weight=20, bytes_max=1 << 20),
        "slow": QueueConfig(paused=True),
        "x": QueueConfig(),
        "quick": QueueConfig(durable_dispatch=False),
    }


def test_the_state_may_take_its_share_of_the_memory_unless_told_otherwise() -> None:
    assert load().state_bytes_bound == memory_bytes() * STATE_PERCENT // 100
    assert load({"state_size_max": "5MB"}).state_bytes_bound == 5_000_000
    assert memory_bytes() <= os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
