//! Host calls, driven as a guest would.
