"""Reading a YAML file strictly: plain data only, no repeated keys, errors with a place.

Apart from `config`, since importing a YAML parser takes longer than all the rest.
"""

from __future__ import annotations

from typing import Any

import yaml

from beaver.errors import InvalidInput

_FILE_BYTES_MAX = 1 << 20


class _StrictLoader(yaml.SafeLoader):
    """Refuses aliases, and a key that stands twice, where others keep the last in silence."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        # A kilobyte of aliases to aliases takes all the memory there is, once it is shown.
        if self.check_event(yaml.AliasEvent):
            raise yaml.MarkedYAMLError(
                problem="aliases (*name) are not allowed",
                problem_mark=self.peek_event().start_mark,  # type: ignore[no-untyped-call]
            )
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, (dict, list)):
                raise yaml.MarkedYAMLError(
                    problem="a key must be a word", problem_mark=key_node.start_mark
                )
            if key in seen:
                raise yaml.MarkedYAMLError(
                    problem=f"{key!r}: repeated key", problem_mark=key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


def read_yaml(path: str) -> Any:
    """Returns the content of a YAML file.

    Raises:
        InvalidInput: It cannot be read or is not YAML; the message names line and column.
    """
    try:
        with open(path, encoding="utf-8") as file:  # noqa: PTH123 - a plain read
            text = file.read(_FILE_BYTES_MAX + 1)
    except OSError as error:
        raise InvalidInput(f"{path}: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{path}: not UTF-8: {error.reason} at byte {error.start}") from None
    if len(text) > _FILE_BYTES_MAX:
        raise InvalidInput(f"{path}: longer than {_FILE_BYTES_MAX} bytes")
    try:
        return yaml.load(text, Loader=_StrictLoader)  # noqa: S506 - a SafeLoader, made stricter
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f" at line {mark.line + 1} column {mark.column + 1}" if mark else ""
        raise InvalidInput(f"{path}: {error.problem}{place}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InvalidInput(f"{path}: not YAML: {error}") from None
