"""A module with two applications, none of which has the usual name, and one in a class."""

from beaver.structs.messages import Options
from beaver.task.context import JobContext
from beaver.task.registry import Registry, Task

shop = Registry()
office = Registry()
number = 7


def torn(one: JobContext, other: JobContext) -> None:
    """A function that cannot be a task."""


class Hidden:
    confused = Registry()


Hidden.confused.add(Task(torn, Options("torn")))
