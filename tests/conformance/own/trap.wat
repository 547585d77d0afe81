;; A trap ends the process as an abort would: 128 + SIGABRT.
(module
  (memory (export "memory") 1)
  (func $inner unreachable)
  (func (export "_start") (call $inner)))
