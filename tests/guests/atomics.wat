;; expect: error
;; Uses an atomic instruction, on memory that is not shared: belongs to the threads proposal, refused.
(module
  (memory (export "memory") 1)
  (func (export "_start") (drop (i32.atomic.rmw.add (i32.const 0) (i32.const 1)))))
