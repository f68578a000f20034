"""Sans-I/O session logic: inputs in, commands out, no sockets, clock, logger or reactor."""
