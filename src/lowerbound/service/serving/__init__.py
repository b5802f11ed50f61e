"""A server for registered versions: a chain of links of one shape, `async (Request) -> Response`."""
