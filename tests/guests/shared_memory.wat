;; expect: error
;; Declares a shared memory: refused, since threads cannot be replayed.
(module
  (memory (export "memory") 1 1 shared)
  (func (export "_start")))
