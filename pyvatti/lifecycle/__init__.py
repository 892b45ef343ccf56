"""The shell around the policy: observe, decide, act; the only room that reads the wall clock.

Decisions are made in pyvatti.policy; calls are made through the doors.
"""
