"""What speaks HTTP: requests, sockets, event streams, and the limits on each."""
