;; expect: forever
;; Loops without any host call: must be interruptible.
(module
  (memory (export "memory") 1)
  (func (export "_start") (loop $forever (br $forever))))
