;; SPDX-License-Identifier: GPL-2.0-or-later
;;
;; The Internet checksum (RFC 1071) of bytes in memory, alone or while they are copied.
;;
;; Theory of operation: as in lib/wire/checksum.ts, words are read in the machine's order and the two
;; bytes of the result are swapped at the end (RFC 1071, section 2(B)). Four 32-bit words are added at
;; a time: $words collects their sums modulo 2^32, $high those of their upper halves. Sums of lower
;; halves are what remains, $words - $high * 2^16, exact while they stay below 2^32 in each lane, that
;; is up to 1 MiB. Four blocks of 16 bytes per turn, on two pairs of sums, keep the processor busy.
;;
;; `scripts/wasm.ts` makes checksum_wasm.ts from this file.
(module
  (import "env" "memory" (memory 1))

  ;; Folds a 64-bit sum of little-endian 16-bit words to 16 bits, and swaps the bytes.
  (func $finish (param $sum i64) (result i32)
    (local $folded i32)
    (local.set $sum (i64.add
      (i64.and (local.get $sum) (i64.const 0xffffffff))
      (i64.shr_u (local.get $sum) (i64.const 32))))
    (local.set $sum (i64.add
      (i64.and (local.get $sum) (i64.const 0xffff))
      (i64.shr_u (local.get $sum) (i64.const 16))))
    (local.set $sum (i64.add
      (i64.and (local.get $sum) (i64.const 0xffff))
      (i64.shr_u (local.get $sum) (i64.const 16))))
    (local.set $folded (i32.wrap_i64 (i64.add
      (i64.and (local.get $sum) (i64.const 0xffff))
      (i64.shr_u (local.get $sum) (i64.const 16)))))
    (i32.or
      (i32.shl (i32.and (local.get $folded) (i32.const 0xff)) (i32.const 8))
      (i32.shr_u (local.get $folded) (i32.const 8))))

  ;; The sum of all 16-bit words that the lanes hold: upper halves and lower halves.
  (func $lanes (param $words v128) (param $high v128) (result i64)
    (local $low v128)
    (local.set $low (i32x4.sub
      (local.get $words)
      (i32x4.shl (local.get $high) (i32.const 16))))
    (local.set $low (i64x2.add
      (i64x2.add
        (i64x2.extend_low_i32x4_u (local.get $low))
        (i64x2.extend_high_i32x4_u (local.get $low)))
      (i64x2.add
        (i64x2.extend_low_i32x4_u (local.get $high))
        (i64x2.extend_high_i32x4_u (local.get $high)))))
    (i64.add
      (i64x2.extract_lane 0 (local.get $low))
      (i64x2.extract_lane 1 (local.get $low))))

  ;; sum(off, length): the folded sum, not inverted; length is at most 1 MiB.
  (func (export "sum") (param $at i32) (param $length i32) (result i32)
    (local $end i32) (local $sum i64)
    (local $a v128) (local $b v128) (local $c v128) (local $d v128)
    (local $words v128) (local $high v128) (local $words2 v128) (local $high2 v128)
    (local.set $end (i32.add (local.get $at) (i32.and (local.get $length) (i32.const -64))))
    (block $done (loop $next
      (br_if $done (i32.ge_u (local.get $at) (local.get $end)))
      (local.set $a (v128.load align=1 (local.get $at)))
      (local.set $b (v128.load offset=16 align=1 (local.get $at)))
      (local.set $c (v128.load offset=32 align=1 (local.get $at)))
      (local.set $d (v128.load offset=48 align=1 (local.get $at)))
      (local.set $words (i32x4.add (i32x4.add (local.get $words) (local.get $a)) (local.get $b)))
      (local.set $words2 (i32x4.add (i32x4.add (local.get $words2) (local.get $c)) (local.get $d)))
      (local.set $high (i32x4.add
        (i32x4.add (local.get $high) (i32x4.shr_u (local.get $a) (i32.const 16)))
        (i32x4.shr_u (local.get $b) (i32.const 16))))
      (local.set $high2 (i32x4.add
        (i32x4.add (local.get $high2) (i32x4.shr_u (local.get $c) (i32.const 16)))
        (i32x4.shr_u (local.get $d) (i32.const 16))))
      (local.set $at (i32.add (local.get $at) (i32.const 64)))
      (br $next)))
    (local.set $end (i32.add (local.get $end) (i32.and (local.get $length) (i32.const 48))))
    (block $done (loop $next
      (br_if $done (i32.ge_u (local.get $at) (local.get $end)))
      (local.set $a (v128.load align=1 (local.get $at)))
      (local.set $words (i32x4.add (local.get $words) (local.get $a)))
      (local.set $high (i32x4.add (local.get $high) (i32x4.shr_u (local.get $a) (i32.const 16))))
      (local.set $at (i32.add (local.get $at) (i32.const 16)))
      (br $next)))
    (local.set $sum (call $lanes
      (i32x4.add (local.get $words) (local.get $words2))
      (i32x4.add (local.get $high) (local.get $high2))))
    (if (i32.and (local.get $length) (i32.const 8)) (then
      (local.set $sum (i64.add (local.get $sum)
        (i64.add
          (i64.load32_u align=1 (local.get $at))
          (i64.load32_u offset=4 align=1 (local.get $at)))))
      (local.set $at (i32.add (local.get $at) (i32.const 8)))))
    (if (i32.and (local.get $length) (i32.const 4)) (then
      (local.set $sum (i64.add (local.get $sum) (i64.load32_u align=1 (local.get $at))))
      (local.set $at (i32.add (local.get $at) (i32.const 4)))))
    (if (i32.and (local.get $length) (i32.const 2)) (then
      (local.set $sum (i64.add (local.get $sum) (i64.load16_u align=1 (local.get $at))))
      (local.set $at (i32.add (local.get $at) (i32.const 2)))))
    (if (i32.and (local.get $length) (i32.const 1)) (then
      (local.set $sum (i64.add (local.get $sum) (i64.load8_u (local.get $at))))))
    (call $finish (local.get $sum)))

  ;; copySum(to, from, length): copies the bytes, and returns their sum as sum() does. The places must
  ;; not overlap.
  (func (export "copySum") (param $to i32) (param $at i32) (param $length i32) (result i32)
    (local $end i32) (local $sum i64) (local $part i64)
    (local $a v128) (local $b v128) (local $c v128) (local $d v128)
    (local $words v128) (local $high v128) (local $words2 v128) (local $high2 v128)
    (local.set $end (i32.add (local.get $at) (i32.and (local.get $length) (i32.const -64))))
    (block $done (loop $next
      (br_if $done (i32.ge_u (local.get $at) (local.get $end)))
      (local.set $a (v128.load align=1 (local.get $at)))
      (local.set $b (v128.load offset=16 align=1 (local.get $at)))
      (local.set $c (v128.load offset=32 align=1 (local.get $at)))
      (local.set $d (v128.load offset=48 align=1 (local.get $at)))
      (v128.store align=1 (local.get $to) (local.get $a))
      (v128.store offset=16 align=1 (local.get $to) (local.get $b))
      (v128.store offset=32 align=1 (local.get $to) (local.get $c))
      (v128.store offset=48 align=1 (local.get $to) (local.get $d))
      (local.set $words (i32x4.add (i32x4.add (local.get $words) (local.get $a)) (local.get $b)))
      (local.set $words2 (i32x4.add (i32x4.add (local.get $words2) (local.get $c)) (local.get $d)))
      (local.set $high (i32x4.add
        (i32x4.add (local.get $high) (i32x4.shr_u (local.get $a) (i32.const 16)))
        (i32x4.shr_u (local.get $b) (i32.const 16))))
      (local.set $high2 (i32x4.add
        (i32x4.add (local.get $high2) (i32x4.shr_u (local.get $c) (i32.const 16)))
        (i32x4.shr_u (local.get $d) (i32.const 16))))
      (local.set $at (i32.add (local.get $at) (i32.const 64)))
      (local.set $to (i32.add (local.get $to) (i32.const 64)))
      (br $next)))
    (local.set $end (i32.add (local.get $end) (i32.and (local.get $length) (i32.const 48))))
    (block $done (loop $next
      (br_if $done (i32.ge_u (local.get $at) (local.get $end)))
      (local.set $a (v128.load align=1 (local.get $at)))
      (v128.store align=1 (local.get $to) (local.get $a))
      (local.set $words (i32x4.add (local.get $words) (local.get $a)))
      (local.set $high (i32x4.add (local.get $high) (i32x4.shr_u (local.get $a) (i32.const 16))))
      (local.set $at (i32.add (local.get $at) (i32.const 16)))
      (local.set $to (i32.add (local.get $to) (i32.const 16)))
      (br $next)))
    (local.set $sum (call $lanes
      (i32x4.add (local.get $words) (local.get $words2))
      (i32x4.add (local.get $high) (local.get $high2))))
    (if (i32.and (local.get $length) (i32.const 8)) (then
      (local.set $part (i64.load align=1 (local.get $at)))
      (i64.store align=1 (local.get $to) (local.get $part))
      (local.set $sum (i64.add (local.get $sum)
        (i64.add
          (i64.and (local.get $part) (i64.const 0xffffffff))
          (i64.shr_u (local.get $part) (i64.const 32)))))
      (local.set $at (i32.add (local.get $at) (i32.const 8)))
      (local.set $to (i32.add (local.get $to) (i32.const 8)))))
    (if (i32.and (local.get $length) (i32.const 4)) (then
      (local.set $part (i64.load32_u align=1 (local.get $at)))
      (i64.store32 align=1 (local.get $to) (local.get $part))
      (local.set $sum (i64.add (local.get $sum) (local.get $part)))
      (local.set $at (i32.add (local.get $at) (i32.const 4)))
      (local.set $to (i32.add (local.get $to) (i32.const 4)))))
    (if (i32.and (local.get $length) (i32.const 2)) (then
      (local.set $part (i64.load16_u align=1 (local.get $at)))
      (i64.store16 align=1 (local.get $to) (local.get $part))
      (local.set $sum (i64.add (local.get $sum) (local.get $part)))
      (local.set $at (i32.add (local.get $at) (i32.const 2)))
      (local.set $to (i32.add (local.get $to) (i32.const 2)))))
    (if (i32.and (local.get $length) (i32.const 1)) (then
      (local.set $part (i64.load8_u (local.get $at)))
      (i64.store8 (local.get $to) (local.get $part))
      (local.set $sum (i64.add (local.get $sum) (local.get $part)))))
    (call $finish (local.get $sum)))
)
