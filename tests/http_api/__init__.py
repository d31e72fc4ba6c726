"""The API over HTTP, asked from outside."""
