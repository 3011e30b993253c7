// SPDX-License-Identifier: GPL-2.0-or-later
//
// Does what stub_x86_64.S does. At the entry point sp -> argc.., x0 is the linker's function for exit.

    .text
    .globl _start
_start:
    adr   x9, table
    mov   x1, sp
    ldr   x2, [x1]              // argc
    cbz   x2, go
    add   x3, x1, x2, lsl #3
    add   x3, x3, #16           // envp
1:  ldr   x4, [x3], #8
    cbnz  x4, 1b
2:  ldr   x4, [x3], #16
    cbnz  x4, 2b                // x3 = end of auxv
    ldp   x5, x6, [x9]          // K, E
    sub   x4, x3, x1
    add   x7, x5, x6
    add   x4, x4, x7, lsl #3
    sub   x4, x1, x4
    and   x4, x4, #-16
    mov   sp, x4
    mov   x7, x4
    add   x4, x2, x5
    str   x4, [x7], #8          // argc + K
    ldr   x4, [x1, #8]!
    add   x1, x1, #8
    str   x4, [x7], #8          // argv[0]
    add   x8, x9, #32
3:  cbz   x5, 4f
    ldr   x4, [x8], #8
    add   x4, x4, x9
    str   x4, [x7], #8
    sub   x5, x5, #1
    b     3b
4:  ldr   x4, [x1], #8          // argv[1..] and its NULL
    str   x4, [x7], #8
    cbnz  x4, 4b
    mov   x10, x7               // new envp
    ldr   w11, =0x4f4e4544      // "DENO"
    ldr   w15, =0x45444f4e      // "NODE"
    ldr   x13, =0x4554454c504d4f43 // "COMPLETE"
    ldr   x14, =0x4e45445f4c45544f // "OTEL_DEN"
5:  ldr   x4, [x1], #8
    cbz   x4, 7f
    ldr   w12, [x4]
    cmp   w12, w11
    ccmp  w12, w15, #4, ne      // equal to either
    b.ne  6f
    ldrb  w12, [x4, #4]
    cmp   w12, #'_'
    b.eq  5b
6:  ldr   x12, [x4]
    cmp   x12, x14
    b.eq  5b
    cmp   x12, x13
    b.ne  8f
    ldrb  w12, [x4, #8]
    cmp   w12, #'='
    b.eq  5b
8:  str   x4, [x7], #8
    b     5b
7:  cbz   x6, 9f
    ldr   x4, [x8], #8
    add   x4, x4, x9
    str   x4, [x7], #8
    sub   x6, x6, #1
    b     7b
9:  str   xzr, [x7], #8
10: cmp   x1, x3
    b.eq  11f
    ldr   x4, [x1], #8          // auxv
    str   x4, [x7], #8
    b     10b
11: ldr   x4, [x9, #24]         // GOT slot of environ
    cbz   x4, go
    ldr   x4, [x9, x4]
    str   x10, [x4]
go: ldr   x16, [x9, #16]        // the real entry
    add   x16, x16, x9
    br    x16
    .balign 8
    .ltorg
    .balign 8
table:
