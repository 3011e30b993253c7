// SPDX-License-Identifier: GPL-2.0-or-later
//
// long run(struct entry *table, long count): the syscall script runner; entry and control word as
// in script_x86_64.S.
//
// x19 = entry, x20 = entries left, x21 = table

    stp x19, x20, [sp, #-32]!
    str x21, [sp, #16]
    mov x19, x0
    mov x21, x0
    mov x20, x1
loop:
    cbz x20, done
    ldr x8, [x19]
    ldp x0, x1, [x19, #8]
    ldp x2, x3, [x19, #24]
    ldp x4, x5, [x19, #40]
    ldr w9, [x19, #68]
    cbz w9, call
    ldr x0, [x21, x9]
call:
    svc #0
    ldr w10, [x19, #64]
    tbz w10, #0, positive
    cbnz x0, done
positive:
    tbz w10, #3, store
    cmp x0, #0
    b.gt leave
store:
    str x0, [x19, #56]
    tbz w10, #2, negative
    cbz x0, exit
negative:
    tbz w10, #1, next
    tbz x0, #63, next
    neg x11, x0
    lsr w12, w10, #16
    cmp x11, x12
    b.eq next
exit:
    ubfx w0, w10, #8, #8
    b end
leave:
    mov x0, #0
end:
    mov x8, #94                 // exit_group
    svc #0
next:
    add x19, x19, #72
    sub x20, x20, #1
    b loop
done:
    ldr x21, [sp, #16]
    ldp x19, x20, [sp], #32
    ret
