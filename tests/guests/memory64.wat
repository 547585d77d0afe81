;; expect: error
;; Has a 64-bit memory: preview 1 has 32-bit pointers.
(module
  (memory (export "memory") i64 1)
  (func (export "_start")))
