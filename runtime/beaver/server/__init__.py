"""How clients reach a running server."""
