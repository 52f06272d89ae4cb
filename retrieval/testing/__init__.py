"""Contract tests for those who add an index kind, an encoder, a layout of pairs or a filter operator.

Each file has functions that raise an AssertionError where the contract is broken; the project's own implementations
pass them too. They need no test framework: call them from any.
"""
