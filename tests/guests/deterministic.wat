;; expect: exit=0 stdout="e84c05418f87cdcf\n"
;; Hashes its whole fresh memory, the results of 10^6 mixed integer and float operations, and of memory.grow: the same on every machine.
(module
  (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 2 4)
  (func $print (param $at i32) (param $n i32)
    (i32.store (i32.const 0) (local.get $at))
    (i32.store (i32.const 4) (local.get $n))
    (drop (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8))))
  ;; Prints the low $digits hexadecimal digits of $v and a newline.
  (func $hex (param $v i64) (param $digits i32)
    (local $i i32) (local $d i32)
    (local.set $i (local.get $digits))
    (i32.store8 offset=32 (local.get $i) (i32.const 10))
    (loop $next
      (local.set $i (i32.sub (local.get $i) (i32.const 1)))
      (local.set $d (i32.and (i32.wrap_i64 (local.get $v)) (i32.const 15)))
      (i32.store8 offset=32 (local.get $i)
        (i32.add (local.get $d) (select (i32.const 87) (i32.const 48) (i32.gt_u (local.get $d) (i32.const 9)))))
      (local.set $v (i64.shr_u (local.get $v) (i64.const 4)))
      (br_if $next (local.get $i)))
    (call $print (i32.const 32) (i32.add (local.get $digits) (i32.const 1))))
  (func (export "_start")
    (local $h i64) (local $i i32) (local $x f64)
    (local.set $h (i64.const 0xcbf29ce484222325))
    (local.set $x (f64.const 0.5))
    (loop $bytes
      (local.set $h (i64.mul (i64.xor (local.get $h) (i64.load8_u (local.get $i))) (i64.const 0x100000001b3)))
      (br_if $bytes (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 131072))))
    (local.set $i (i32.const 0))
    (loop $mix
      ;; The logistic map: chaotic, so that one wrong rounding shows at the end.
      (local.set $x
        (f64.mul (f64.mul (f64.const 3.99) (local.get $x)) (f64.sub (f64.const 1) (local.get $x))))
      (if (f64.le (local.get $x) (f64.const 0.001)) (then (local.set $x (f64.const 0.3))))
      (local.set $h
        (i64.add
          (i64.mul (i64.rotl (i64.xor (local.get $h) (i64.reinterpret_f64 (f64.sqrt (local.get $x)))) (i64.const 13)) (i64.const 5))
          (i64.popcnt (local.get $h))))
      (br_if $mix (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 1000000))))
    (local.set $h (i64.xor (local.get $h) (i64.extend_i32_u (memory.grow (i32.const 2)))))
    (local.set $h (i64.xor (local.get $h) (i64.shl (i64.extend_i32_s (memory.grow (i32.const 1))) (i64.const 32))))
    (call $hex (local.get $h) (i32.const 16))))
