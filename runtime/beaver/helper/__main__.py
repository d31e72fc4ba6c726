"""`python -m beaver.helper`: started by the server, never by people."""

from beaver.helper.main import main

main()
