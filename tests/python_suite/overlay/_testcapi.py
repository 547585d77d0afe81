"""What test modules import of CPython's extension for testing, which isn't built: the limits of C's types."""

SHRT_MIN, SHRT_MAX, USHRT_MAX = -(2**15), 2**15 - 1, 2**16 - 1
INT_MIN, INT_MAX, UINT_MAX = -(2**31), 2**31 - 1, 2**32 - 1
LONG_MIN, LONG_MAX, ULONG_MAX = INT_MIN, INT_MAX, UINT_MAX
LLONG_MIN, LLONG_MAX, ULLONG_MAX = -(2**63), 2**63 - 1, 2**64 - 1
PY_SSIZE_T_MIN, PY_SSIZE_T_MAX = INT_MIN, INT_MAX
