"""The caller's side: handles of a system, its pools and leases, blocking and asyncio.

A handle is a name and an address, never a connection: it is cheap, picklable, and right after a fork.
"""
