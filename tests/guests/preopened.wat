;; expect: exit=8
;; A server without any socket extension, out of what it is given: it listens at descriptor 3 and is connected at 4.
;; What a client sends goes to the connection, and what comes back to the client and to stdout; "E" and a letter
;; ("A" is 0) if the connection fails. A client that sends nothing ends it. Given no socket, it ends with EBADF.
(module
  (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_close" (func $fd_close (param i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_fdstat_set_flags" (func $fd_fdstat_set_flags (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll_oneoff (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "sock_accept" (func $sock_accept (param i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "sock_recv" (func $sock_recv (param i32 i32 i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "sock_send" (func $sock_send (param i32 i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "sock_shutdown" (func $sock_shutdown (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $proc_exit (param i32)))
  (memory (export "memory") 1)
  ;; 0: buffer to receive into; 8: what was received; 32: subscription to reading from 3
  (data (i32.const 0) "\00\04\00\00\00\02\00\00\00\04\00\00")
  (data (i32.const 40) "\01")
  (data (i32.const 48) "\03")
  (func $receive (param $fd i32) (result i32)
    (local $errno i32)
    (local.set $errno
      (call $sock_recv (local.get $fd) (i32.const 0) (i32.const 1) (i32.const 0) (i32.const 16) (i32.const 20)))
    (i32.store (i32.const 12) (i32.load (i32.const 16)))
    (local.get $errno))
  (func $forward (result i32)
    (local $errno i32)
    (local.set $errno
      (call $sock_send (i32.const 4) (i32.const 8) (i32.const 1) (i32.const 0) (i32.const 16)))
    (if (i32.eqz (local.get $errno)) (then (local.set $errno (call $receive (i32.const 4)))))
    (local.get $errno))
  (func (export "_start")
    (local $errno i32)
    (local $client i32)
    (drop (call $fd_fdstat_set_flags (i32.const 4) (i32.const 0)))
    (loop $next
      (drop (call $poll_oneoff (i32.const 32) (i32.const 96) (i32.const 1) (i32.const 128)))
      (local.set $errno (call $sock_accept (i32.const 3) (i32.const 0) (i32.const 24)))
      (if (local.get $errno) (then (call $proc_exit (local.get $errno))))
      (local.set $client (i32.load (i32.const 24)))
      (drop (call $receive (local.get $client)))
      (if (i32.eqz (i32.load (i32.const 12))) (then (call $proc_exit (i32.const 0))))
      (local.set $errno (call $forward))
      (if (local.get $errno)
        (then
          (i32.store8 (i32.const 1024) (i32.const 69))
          (i32.store8 (i32.const 1025) (i32.add (local.get $errno) (i32.const 65)))
          (i32.store (i32.const 12) (i32.const 2))))
      (drop (call $fd_write (local.get $client) (i32.const 8) (i32.const 1) (i32.const 16)))
      (drop (call $fd_write (i32.const 1) (i32.const 8) (i32.const 1) (i32.const 16)))
      (drop (call $sock_shutdown (local.get $client) (i32.const 2)))
      (drop (call $fd_close (local.get $client)))
      (br $next))))
