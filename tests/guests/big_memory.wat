;; expect: any
;; Declares at least 2 GiB of memory, and touches the last byte: refused if the limit is lower, else exit 0.
(module
  (memory (export "memory") 32768)
  (func (export "_start") (i32.store8 (i32.const 0x7fffffff) (i32.const 1))))
