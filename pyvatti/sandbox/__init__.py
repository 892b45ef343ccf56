"""A stand-in world on loopback sockets: Kubernetes, Cloud Storage, Seqera and the backend.

Shared by the demonstration and the tests. It speaks HTTP only and imports no other room, so it
cannot share a mistake with the code it stands in for.
"""
