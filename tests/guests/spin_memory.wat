;; expect: forever
;; Writes to its memory without end: a kill that arrives at an instruction that may trap by itself is no trap.
(module
  (memory (export "memory") 2)
  (func (export "_start")
    (local $at i32)
    (loop $forever
      (i32.store offset=0 (local.get $at) (local.get $at))
      (i32.store offset=4 (local.get $at) (local.get $at))
      (i32.store offset=8 (local.get $at) (local.get $at))
      (i32.store offset=12 (local.get $at) (local.get $at))
      (i32.store offset=16 (local.get $at) (local.get $at))
      (i32.store offset=20 (local.get $at) (local.get $at))
      (i32.store offset=24 (local.get $at) (local.get $at))
      (i32.store offset=28 (local.get $at) (local.get $at))
      (local.set $at (i32.and (i32.add (local.get $at) (i32.const 32)) (i32.const 0xffe0)))
      (br $forever))))
