"""An outbox: jobs as rows of the application's own transaction, handed over by a relay.

What lives here: writing such a row through whatever the application has open (`rows`), the
databases in which a relay finds them (`databases`), and the relay.  What may not: anything that a
server does, and ORMs: they are recognised, and never imported.

It is what applications import, so the names that they need stand here.
"""

from beaver.outbox.relay import Relay
from beaver.outbox.rows import add, create, schema

__all__ = ["Relay", "add", "create", "schema"]
