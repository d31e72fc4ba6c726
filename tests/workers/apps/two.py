"""A module with two applications, none of which has the usual name, and one in a class."""

from beaver.context import JobContext
from beaver.messages import Options
from beaver.tasks import Registry, Task

shop = Registry()
office = Registry()
number = 7


def torn(one: JobContext, other: JobContext) -> None:
    """A function that cannot be a task."""


class Hidden:
    confused = Registry()


Hidden.confused.add(Task(torn, Options("torn")))
