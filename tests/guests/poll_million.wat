;; expect: any stderr=""
;; Polls 10^6 clocks, 1 ms ahead. Either all at once (errno 0, and then 1 to f4240 events), or refused by a limit (nomem 30, inval 1c, or 2big 01); in any case soon and without the host's memory growing by more than the guest's. Prints errno, then events.
(module
  (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll_oneoff (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1300)
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
    (local $i i32) (local $p i32)
    (local.set $p (i32.const 65536))
    (loop $next
      (i64.store (local.get $p) (i64.extend_i32_u (local.get $i)))
      (i32.store offset=16 (local.get $p) (i32.const 1))
      (i64.store offset=24 (local.get $p) (i64.const 1000000))
      (local.set $p (i32.add (local.get $p) (i32.const 48)))
      (br_if $next (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 1000000))))
    (call $hex
      (i64.extend_i32_u (call $poll_oneoff (i32.const 65536) (i32.const 50000000) (i32.const 1000000) (i32.const 4096)))
      (i32.const 2))
    (call $hex (i64.load32_u (i32.const 4096)) (i32.const 8))))
