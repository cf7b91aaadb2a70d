;; The two passes of resize.ts in vector instructions: the same whole numbers, several at a time.
;; A pixel is four bytes: red, green, blue, one that is ignored. Weights sum to 256 and are 16 bits wide; the sum of a
;; channel, with 128 added to round it, stays below 65536, so its result is its second byte.
;; Up to 16 bytes are read and written beyond the end of a pass: what is read there has no weight.
(module
  (memory (export "memory") 1)

  ;; Scales each of $height rows of $width pixels to $size pixels.
  ;; $first: for each result, where in a row its first pixel lies, in bytes (i32).
  ;; $weights: for each result, $pairs times two weights.
  (func (export "scaleRows")
    (param $source i32) (param $width i32) (param $height i32)
    (param $first i32) (param $weights i32) (param $pairs i32)
    (param $size i32) (param $to i32)
    (local $x i32) (local $at i32) (local $weight i32) (local $left i32) (local $sums v128)
    (loop $rows
      (local.set $x (i32.const 0))
      (local.set $weight (local.get $weights))
      (loop $results
        (local.set $at
          (i32.add
            (local.get $source)
            (i32.load (i32.add (local.get $first) (i32.shl (local.get $x) (i32.const 2))))))
        (local.set $sums (v128.const i32x4 128 128 128 128))
        (local.set $left (local.get $pairs))
        (loop $taps
          ;; Two pixels, red beside red and so on, each times its weight, summed in twos.
          (local.set $sums
            (i32x4.add
              (local.get $sums)
              (i32x4.dot_i16x8_s
                (i8x16.shuffle 0 16 4 16 1 16 5 16 2 16 6 16 3 16 7 16
                  (v128.load64_zero (local.get $at))
                  (v128.const i32x4 0 0 0 0))
                (v128.load32_splat (local.get $weight)))))
          (local.set $at (i32.add (local.get $at) (i32.const 8)))
          (local.set $weight (i32.add (local.get $weight) (i32.const 4)))
          (br_if $taps (local.tee $left (i32.sub (local.get $left) (i32.const 1)))))
        (v128.store32_lane 0
          (local.get $to)
          (i8x16.shuffle 1 5 9 13 0 0 0 0 0 0 0 0 0 0 0 0 (local.get $sums) (local.get $sums)))
        (local.set $to (i32.add (local.get $to) (i32.const 4)))
        (br_if $results
          (i32.lt_s (local.tee $x (i32.add (local.get $x) (i32.const 1))) (local.get $size))))
      (local.set $source (i32.add (local.get $source) (i32.shl (local.get $width) (i32.const 2))))
      (br_if $rows (local.tee $height (i32.sub (local.get $height) (i32.const 1))))))

  ;; Scales $size columns to $size rows and leaves the fourth byte of each pixel out.
  ;; $first: for each row of the result, where its first row of pixels begins, in bytes (i32).
  ;; $weights: for each row of the result, $count weights.
  (func (export "scaleColumns")
    (param $source i32) (param $first i32) (param $weights i32) (param $count i32)
    (param $size i32) (param $to i32)
    (local $y i32) (local $x i32) (local $at i32) (local $row i32) (local $weight i32) (local $left i32)
    (local $low v128) (local $high v128) (local $pixels v128) (local $factor v128)
    (loop $rows
      (local.set $row
        (i32.add
          (local.get $source)
          (i32.load (i32.add (local.get $first) (i32.shl (local.get $y) (i32.const 2))))))
      (local.set $x (i32.const 0))
      (loop $fours
        (local.set $at (i32.add (local.get $row) (i32.shl (local.get $x) (i32.const 2))))
        (local.set $weight (local.get $weights))
        (local.set $left (local.get $count))
        (local.set $low (v128.const i16x8 128 128 128 128 128 128 128 128))
        (local.set $high (local.get $low))
        (loop $taps
          (local.set $pixels (v128.load (local.get $at)))
          (local.set $factor (v128.load16_splat (local.get $weight)))
          (local.set $low
            (i16x8.add
              (local.get $low)
              (i16x8.mul (i16x8.extend_low_i8x16_u (local.get $pixels)) (local.get $factor))))
          (local.set $high
            (i16x8.add
              (local.get $high)
              (i16x8.mul (i16x8.extend_high_i8x16_u (local.get $pixels)) (local.get $factor))))
          (local.set $at (i32.add (local.get $at) (i32.shl (local.get $size) (i32.const 2))))
          (local.set $weight (i32.add (local.get $weight) (i32.const 2)))
          (br_if $taps (local.tee $left (i32.sub (local.get $left) (i32.const 1)))))
        (v128.store
          (i32.add (local.get $to) (i32.mul (local.get $x) (i32.const 3)))
          (i8x16.shuffle 1 3 5 9 11 13 17 19 21 25 27 29 0 0 0 0 (local.get $low) (local.get $high)))
        (br_if $fours
          (i32.lt_s (local.tee $x (i32.add (local.get $x) (i32.const 4))) (local.get $size))))
      (local.set $to (i32.add (local.get $to) (i32.mul (local.get $size) (i32.const 3))))
      (local.set $weights (i32.add (local.get $weights) (i32.shl (local.get $count) (i32.const 1))))
      (br_if $rows
        (i32.lt_s (local.tee $y (i32.add (local.get $y) (i32.const 1))) (local.get $size))))))
