"""A module with two applications, and none that has the usual name."""

from beaver.tasks import Registry

shop = Registry()
office = Registry()
number = 7
