"""Firebrick against redis-server and memcached: the parts of scripts/bench-peers."""
