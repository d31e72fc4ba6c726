"""The bugs that are sown, by what they are sown in."""
