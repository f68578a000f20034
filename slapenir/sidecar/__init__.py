"""A forwarder beside the sandbox: plain loopback in, mutual TLS to the gateway out."""
